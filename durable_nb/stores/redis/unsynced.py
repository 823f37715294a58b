"""The passes of this process, and what it wrote in each: a server may lose what it has acknowledged.

One that syncs its log every second, or whose replica takes over, comes back without the last writes. What is
missing is seen by the count that the server keeps, and written again: the values are still here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durable_nb.records import Run, Step

__all__ = ["UnsyncedWrites"]


@dataclass(slots=True)
class _Pass:
    epoch: int
    opening: str
    steps: dict[str, Step] = field(default_factory=dict)
    acknowledged: int = 0
    counted: int = 0


class UnsyncedWrites:
    """What each run that this process has opened was opened as, and has written since."""

    def __init__(self) -> None:
        self._passes: dict[str, _Pass] = {}

    def begin(self, run: Run, opening: str) -> None:
        """Note that a run was opened."""
        self._passes[run.run_id] = _Pass(run.epoch, opening)

    def end(self, run: Run) -> None:
        """Note that a run is over: what it has written is held no longer, and its fence stays."""
        if (known := self._of(run.run_id, run.epoch)) is not None:
            self.begin(run, known.opening)

    def leave(self, run_id: str) -> None:
        """Note that an id is another run's from now on."""
        self._passes.pop(run_id, None)

    def fence(self, run_id: str, epoch: int) -> tuple[int, str]:
        """The epoch, and the opening if it was ours."""
        known = self._of(run_id, epoch)
        return epoch, known.opening if known else ""

    def send(self, step: Step) -> bool:
        """Note a write that is about to be sent; gives whether it is another one than the step's last."""
        known = self._of(step.run_id, step.epoch)
        if known is None:
            return True
        before, known.steps[step.step_id] = known.steps.get(step.step_id), step
        return step != before

    def is_newest(self, step: Step) -> bool:
        """Whether no later write of a step was sent."""
        known = self._of(step.run_id, step.epoch)
        return known is not None and known.steps.get(step.step_id) is step

    def wrote(self, step: Step, written: int, *, counted: bool) -> None:
        """Note a write that was acknowledged.

        Args:
            step: The step.
            written: How many the server has counted then.
            counted: Whether this one is among them, be it that it arrived twice.
        """
        if (known := self._of(step.run_id, step.epoch)) is not None:
            known.acknowledged += counted
            known.counted = max(known.counted, written)

    def reset(self, run: Run, step_ids: set[str]) -> None:
        """Note that steps are to run again."""
        if (known := self._of(run.run_id, run.epoch)) is not None:
            for step_id in step_ids:
                known.steps.pop(step_id, None)

    def missing(
        self, run_id: str, epoch: int, written: int, *, settled: bool = False
    ) -> tuple[int, list[Step]]:
        """How many writes the server has lost, and all the steps that may be among them; told once.

        Args:
            run_id: The run.
            epoch: Its epoch.
            written: How many the server has counted.
            settled: Whether nothing is on its way: answers may come in another order on a cluster.
        """
        known = self._of(run_id, epoch)
        if known is None or known.acknowledged <= (written if settled else known.counted):
            return 0, []
        lost = known.acknowledged - written
        known.acknowledged = known.counted = written
        return lost, list(known.steps.values())

    def _of(self, run_id: str, epoch: int) -> _Pass | None:
        known = self._passes.get(run_id)
        return known if known is not None and known.epoch == epoch else None
