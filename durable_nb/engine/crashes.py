"""Counting the passes in a row that died while a body ran, so that a run that kills its process is stopped.

A pass that ends records how; one that died, as by SIGKILL or a fault in native code, leaves its run as
running, with a dead owner. The first such pass counts if it was not waiting, wherever it died: a task does
not commit its start. Each pass after it commits, before its first body, that a body begins. If that one dies
too, and nothing else was committed since it was opened, it counts. So a run without crashes has no commit
more, and one that is resumed after a crash has one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from durable_nb import settings
from durable_nb.errors import CrashLoop, ResetStep
from durable_nb.records import Run, RunSnapshot, RunStatus, StepKind, StepStatus
from durable_nb.stores.rows import EPOCH, FINISHED_AT, KIND, STATUS, Row, StepRows

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["crash_loop", "crashes_before"]

_AWAITED = (StepKind.SIGNAL, StepKind.MESSAGE)


def crashes_before(journal: Journal, known: Run | None, opened: RunSnapshot, *, take_over: bool) -> int:
    """Return how many passes in a row before this one died while a body ran.

    Args:
        journal: The journal of the run. Without leases it does not tell whether an owner died.
        known: The run as it was recorded before this pass; None if it is new.
        opened: The run and its steps as this pass has opened them.
        take_over: Whether the run was taken from its owner, who may live.
    """
    if known is None or not journal.has_leases:
        return 0
    if known.status not in (RunStatus.RUNNING, RunStatus.WAITING):
        return known.crashes if known.crashes >= settings.CRASHES else 0
    rows = StepRows.of(opened.steps).rows
    if take_over or any(map(_waits, rows)):
        return 0
    committed = any(row[EPOCH] == known.epoch and row[STATUS] != StepStatus.STARTED for row in rows)
    return 1 if committed else max(1, known.crashes)


def _waits(row: Row) -> bool:
    if row[KIND] == StepKind.SLEEP:
        return isinstance(row[FINISHED_AT], float) and row[FINISHED_AT] > time.time()
    return row[KIND] in _AWAITED and row[STATUS] == StepStatus.STARTED


def crash_loop(run: Run, step_id: str) -> CrashLoop:
    """Return the error for a run that is stopped before the body of a step."""
    return CrashLoop(
        f"the process died in {run.crashes} passes in a row while the step, or one beside it, was executing, "
        "and no step was finished in between; it is not executed again",
        run_id=run.run_id,
        step=step_id,
        remedy=("Mend what ends the process, have the step executed again: ", ResetStep(), ", and resume."),
    )
