"""The steps that this process has written: a server may lose writes it has acknowledged.

A server that syncs its log once a second, or whose replica takes over, comes back without the last writes.
The server's counter shows that some are missing; they are written again from the copies kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durable_nb.records import Run, Step

__all__ = ["UnsyncedWrites"]


@dataclass(slots=True)
class _OpenedRun:
    epoch: int
    opening: str
    steps: dict[str, Step] = field(default_factory=dict)
    acknowledged: int = 0
    counted: int = 0


class UnsyncedWrites:
    """The opening of each run that this process has opened, and the steps written since."""

    def __init__(self) -> None:
        self._opened: dict[str, _OpenedRun] = {}

    def begin(self, run: Run, opening: str) -> None:
        """Note that a run was opened."""
        self._opened[run.run_id] = _OpenedRun(run.epoch, opening)

    def end(self, run: Run) -> None:
        """Note that a run has ended: drop the copies of its steps, and keep its fence."""
        if (opened_run := self._find(run.run_id, run.epoch)) is not None:
            self.begin(run, opened_run.opening)

    def forget(self, run_id: str) -> None:
        """Forget a run that was renamed: its id may become that of another run."""
        self._opened.pop(run_id, None)

    def fence(self, run_id: str, epoch: int) -> tuple[int, str]:
        """Return the epoch, and the id of the opening if this process made it, else an empty text."""
        opened_run = self._find(run_id, epoch)
        return epoch, opened_run.opening if opened_run else ""

    def note_sent(self, step: Step) -> bool:
        """Note a write that is about to be sent; return whether it differs from the step's last write."""
        opened_run = self._find(step.run_id, step.epoch)
        if opened_run is None:
            return True
        before, opened_run.steps[step.step_id] = opened_run.steps.get(step.step_id), step
        return step != before

    def is_newest(self, step: Step) -> bool:
        """Return whether no later write of the step was sent."""
        opened_run = self._find(step.run_id, step.epoch)
        return opened_run is not None and opened_run.steps.get(step.step_id) is step

    def note_acknowledged(self, step: Step, written: int, *, counted: bool) -> None:
        """Note a write that the server has acknowledged.

        Args:
            step: The step.
            written: The number of writes that the server has counted.
            counted: Whether this write is among them; it may have arrived twice.
        """
        if (opened_run := self._find(step.run_id, step.epoch)) is not None:
            opened_run.acknowledged += counted
            opened_run.counted = max(opened_run.counted, written)

    def reset(self, run: Run, step_ids: set[str]) -> None:
        """Note that steps were reset."""
        if (opened_run := self._find(run.run_id, run.epoch)) is not None:
            for step_id in step_ids:
                opened_run.steps.pop(step_id, None)

    def missing(
        self, run_id: str, epoch: int, written: int, *, settled: bool = False
    ) -> tuple[int, list[Step]]:
        """Return how many writes the server has lost, and the steps that may be among them; each loss once.

        Args:
            run_id: The run.
            epoch: Its epoch.
            written: The number of writes that the server has counted.
            settled: Whether no write is under way; replies of a cluster may arrive in another order.
        """
        opened_run = self._find(run_id, epoch)
        if opened_run is None or opened_run.acknowledged <= (written if settled else opened_run.counted):
            return 0, []
        lost = opened_run.acknowledged - written
        opened_run.acknowledged = opened_run.counted = written
        return lost, list(opened_run.steps.values())

    def _find(self, run_id: str, epoch: int) -> _OpenedRun | None:
        opened_run = self._opened.get(run_id)
        return opened_run if opened_run is not None and opened_run.epoch == epoch else None
