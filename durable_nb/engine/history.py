"""The recorded steps of an open run, in memory."""

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
    def last_seq(self) -> int:
        """The highest sequence number of the run's steps; 0 if there are none."""
        return max((max(step.called_seq, step.recorded_seq) for step in self.values()), default=0)

    def record_of(self, call: Call) -> Step | None:
        """Return the record of a call, also if it is under the name that its step had before."""
        return self.get(call.step_id) or self.get(call.renamed)

    def inside(self, step_id: str) -> list[Step]:
        """Return the steps inside a step, at any depth."""
        return [step for known, step in self.items() if known.startswith(f"{step_id}/")]

    def continued_after(self, recorded: Step) -> bool:
        """Return whether the run continued after a step: called another in its scope or one that joined it.

        Calls from other threads, which their arguments name, do not count: they may have been made without
        regard to how the recorded step ended.
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
