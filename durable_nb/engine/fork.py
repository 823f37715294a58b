"""Another run with the history of one up to a step, to go on from there; the first stays as it is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from durable_nb.errors import StepNotFound, StoreError
from durable_nb.records import Run, RunStatus, Step, scope_of, set_aside_id
from durable_nb.stores.errors import id_taken, unknown_run
from durable_nb.stores.host import this_process
from durable_nb.stores.payloads import moved

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["fork"]

_UNFINISHED = 0
"""The number under which a fork is set aside until it is whole: no epoch is 0."""


async def fork(journal: Journal, run_id: str, new_id: str, before: str | None = None) -> int:
    """Give a run's history to a new run. Runs on the loop thread.

    Args:
        journal: Where both are kept.
        run_id: The run.
        new_id: What is to name the new one.
        before: The step at which the new one is to go on: it, all that was called later, and the steps that
            it stands inside are left out. None for the whole history.

    Returns:
        How many steps it has.

    Raises:
        RunNotFound: There is no such run.
        StepNotFound: It has no such step.
        StoreError: There is a run of the new id.
        UntrustedCheckpoint: A step would run code when it is loaded, and no known key has signed it.
    """
    if not journal.whole_runs:
        raise StoreError(
            "it cannot be forked: its store gives no list of steps",
            run_id=run_id,
            remedy="Keep runs in SQLite: db='runs.db'.",
        )
    await journal.setup()
    snapshot = await journal.read_run(run_id)
    if snapshot is None:
        raise unknown_run(run_id, journal.address)
    if await journal.get_run(new_id) is not None:
        raise id_taken(run_id, new_id, "forked under")
    steps = [_signed_for(journal, step, new_id) for step in _until(snapshot.steps, run_id, before)]
    new = await _begun(journal, snapshot.run, new_id)
    for step in steps:
        await journal.put_step(step._replace(run_id=new.run_id, epoch=new.epoch))
    await journal.finish_run(new._replace(status=RunStatus.INTERRUPTED))
    await journal.rename_run(new.run_id, new_id)
    return len(steps)


async def _begun(journal: Journal, run: Run, new_id: str) -> Run:
    """A new run, under another id until it is whole, so that nobody goes on with half a history."""
    hidden = set_aside_id(new_id, _UNFINISHED)
    left = await journal.get_run(hidden)
    if left is not None:  # by a process that was killed in the middle
        await journal.rename_run(hidden, set_aside_id(hidden, left.epoch))
    now = time.time()
    opening = run._replace(run_id=hidden, owner=this_process(), created_at=now, updated_at=now)
    return (await journal.open_run(opening)).run


def _until(steps: Iterable[Step], run_id: str, before: str | None) -> list[Step]:
    """Those called before a step and all inside it, without those that it stands inside."""
    if before is None:
        return list(steps)
    steps = list(steps)
    began = [
        step.called_seq for step in steps if step.step_id == before or step.step_id.startswith(f"{before}/")
    ]
    if not began:
        known = ", ".join(step.step_id for step in steps if not scope_of(step.step_id)) or "none yet"
        raise StepNotFound("no such step", run_id=run_id, step=before, remedy=f"Steps: {known}.")
    around = [step.step_id for step in steps if before.startswith(f"{step.step_id}/")]
    return [step for step in steps if step.called_seq < min(began) and step.step_id not in around]


def _signed_for(journal: Journal, step: Step, new_id: str) -> Step:
    if step.payload is None:
        return step
    payload = moved(journal, step.payload, (step.run_id, step.step_id), (new_id, step.step_id))
    return step._replace(payload=payload)
