"""What is on record of an open run, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_nb.records import KEY, Step, joining_scopes, scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from durable_nb.records import Call

__all__ = ["History"]


class History(dict[str, Step]):
    """The recorded steps of a run, by their ids.

    Args:
        steps: The steps.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        super().__init__((step.step_id, step) for step in steps)

    @property
    def latest(self) -> int:
        """The highest number of the run's own counter; 0 if there are no steps."""
        return max((max(step.called_seq, step.recorded_seq) for step in self.values()), default=0)

    def record_of(self, call: Call) -> Step | None:
        """The record of a call, also under the name that its step had before."""
        return self.get(call.step_id) or self.get(call.renamed)

    def inside(self, step_id: str) -> list[Step]:
        """The steps inside a step, at whatever depth."""
        return [step for known, step in self.items() if known.startswith(f"{step_id}/")]

    def moved_past(self, recorded: Step) -> bool:
        """Whether a later step was called in the scope of a recorded one, or in one that joined its branch.

        A call that its arguments name, in some thread, proves nothing: it may not have known of the failure.
        """
        scopes = set(joining_scopes(recorded.step_id))
        return any(
            step.called_seq > recorded.recorded_seq
            and scope_of(step.step_id) in scopes
            and not _is_keyed(step)
            for step in list(self.values())  # a copy: the loop thread adds to it meanwhile
        )


def _is_keyed(step: Step) -> bool:
    return KEY in step.step_id.rpartition("/")[2]
