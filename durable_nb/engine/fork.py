"""Forking: a new run with the history of another run up to a step, which continues from there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from durable_nb.errors import StepNotFound, StoreError
from durable_nb.records import GIVEN, Run, RunStatus, Step, scope_of, set_aside_id
from durable_nb.stores.errors import id_taken, unknown_run
from durable_nb.stores.host import this_process
from durable_nb.stores.payloads import moved

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["fork"]

_UNFINISHED = 0
"""The epoch under which a fork is hidden until it is complete: no run has epoch 0."""


async def fork(journal: Journal, run_id: str, new_id: str, before: str | None = None) -> int:
    """Copy a run's history to a new run; the first run is not changed. Runs on the loop thread.

    Args:
        journal: The journal of both runs.
        run_id: The run to copy.
        new_id: The id of the new run.
        before: The step from which the new run continues. That step, the steps called after it, and the steps
            that contain it are not copied. None copies the whole history.

    Returns:
        The number of steps copied.

    Raises:
        RunNotFound: The journal has no run ``run_id``.
        StepNotFound: The run has no step ``before``.
        StoreError: A run ``new_id`` exists, or the store cannot list the steps of a run.
        UntrustedCheckpoint: A step would run code when it is loaded, and no known key has signed it.
    """
    if not journal.whole_runs:
        raise StoreError(
            "the run cannot be forked: its store cannot list the steps of a run",
            run_id=run_id,
            remedy="Keep runs in SQLite: db='runs.db'.",
        )
    await journal.setup()
    snapshot = await journal.read_run(run_id)
    if snapshot is None:
        raise unknown_run(run_id, journal.address)
    if await journal.get_run(new_id) is not None:
        raise id_taken(run_id, new_id, "forked under")
    steps = [_signed_for(journal, step, new_id) for step in _steps_before(snapshot.steps, run_id, before)]
    new = await _open_hidden(journal, snapshot.run, new_id)
    for step in steps:
        await journal.put_step(step._replace(run_id=new.run_id, epoch=new.epoch))
    await journal.finish_run(new._replace(status=RunStatus.INTERRUPTED))
    await journal.rename_run(new.run_id, new_id)
    return len(steps)


async def _open_hidden(journal: Journal, run: Run, new_id: str) -> Run:
    """Create the new run under a hidden id, which it has until it is complete."""
    hidden = set_aside_id(new_id, _UNFINISHED)
    left = await journal.get_run(hidden)
    if left is not None:  # a process was killed while it forked
        await journal.rename_run(hidden, set_aside_id(hidden, left.epoch))
    now = time.time()
    given = run.given and moved(journal, run.given, (run.run_id, GIVEN), (new_id, GIVEN))
    opening = run._replace(
        run_id=hidden, owner=this_process(), created_at=now, updated_at=now, given=given, crashes=0
    )
    return (await journal.open_run(opening)).run


def _steps_before(steps: Iterable[Step], run_id: str, before: str | None) -> list[Step]:
    """Return the steps called before a step and before all inside it, without those that contain it."""
    if before is None:
        return list(steps)
    steps = list(steps)
    began = [
        step.called_seq for step in steps if step.step_id == before or step.step_id.startswith(f"{before}/")
    ]
    if not began:
        known = ", ".join(step.step_id for step in steps if not scope_of(step.step_id)) or "none yet"
        raise StepNotFound("no step of that name", run_id=run_id, step=before, remedy=f"Steps: {known}.")
    around = [step.step_id for step in steps if before.startswith(f"{step.step_id}/")]
    return [step for step in steps if step.called_seq < min(began) and step.step_id not in around]


def _signed_for(journal: Journal, step: Step, new_id: str) -> Step:
    if step.payload is None:
        return step
    payload = moved(journal, step.payload, (step.run_id, step.step_id), (new_id, step.step_id))
    return step._replace(payload=payload)
