"""Steps that failed or were cancelled in this pass, and after which the run has not continued yet.

Such a step is settled when the next step of its scope starts: from then on the run rests on how it ended, and
a replay repeats that. A failure after which no step has started may have ended the run: its step runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_nb.records import StepKind, is_keyed, joining_scopes, scope_of

if TYPE_CHECKING:
    from durable_nb.records import Call, Step

__all__ = ["Unsettled"]


class Unsettled:
    """The steps of a pass that ended without a result, until the run continues after them."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}
        self._joined_by: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, step: Step) -> None:
        """Add a step, if its calls have an order and it is no cell, which runs again in any case."""
        if step.called_seq and step.kind is not StepKind.CELL:
            self._joined_by[step.step_id] = set(joining_scopes(step.step_id))
            self._steps[step.step_id] = step

    def discard(self, step_id: str) -> None:
        """Forget a step, which runs again or is settled."""
        self._steps.pop(step_id, None)

    def discard_inside(self, step_id: str) -> None:
        """Forget the steps inside a step whose attempt has ended."""
        for each in [each for each in list(self._steps) if each.startswith(f"{step_id}/")]:
            self.discard(each)

    def join(self, path: str) -> None:
        """Have the scope around an agent's run follow its steps: the agent run has ended, and is no step."""
        for scopes in list(self._joined_by.values()):
            if path in scopes:
                scopes.update(joining_scopes(path[:-1]))

    def before(self, call: Call) -> list[Step]:
        """Return the steps that a call follows: in its scope, or in one that joins or leads to its branch.

        A call from another thread follows none: it may have been made without regard to how they ended.
        """
        if is_keyed(call.step_id):
            return []
        followed = ((scope_of(call.step_id), call.called_seq), *call.branched)
        return [step for step in list(self._steps.values()) if self._is_before(step, followed)]

    def _is_before(self, step: Step, followed: tuple[tuple[str, int], ...]) -> bool:
        scopes = self._joined_by[step.step_id]
        return any(path in scopes and seq > step.recorded_seq for path, seq in followed)
