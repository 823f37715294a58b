"""Errors that every store raises: for runs that are held, lost or unknown, and for ids that are taken."""

from __future__ import annotations

import time
from typing import Final

from durable_nb.errors import (
    ListRuns,
    OpenRun,
    ResetStep,
    RunHeld,
    RunNotFound,
    StoreError,
    StoreUnreadable,
    TakeOver,
)
from durable_nb.records import Run, RunStatus, Step

__all__ = ["check_found", "damaged_lineage", "held_run", "id_taken", "lost_run", "unknown_run"]


_UNKNOWN: Final = "an unknown process"


def lost_run(run_id: str, present: Run | None, *, step: str | None = None) -> RunHeld:
    """Return the error for a write under an epoch that is no longer the run's.

    Args:
        run_id: The run.
        present: The run as recorded now; None if there is no run of that id any more.
        step: The step that was to be written, if any.
    """
    if present is None:
        what = "this process no longer owns the run, which is no longer recorded under this id"
    else:
        change = "cancelled" if present.status is RunStatus.CANCELLED else "opened again"
        what = f"this process no longer owns the run: it was {change} by {present.owner or _UNKNOWN}"
    advice = "look for it in the list of runs" if present is None else "continue there"
    remedy = (f"Nothing was written; {advice}, or take it over: ", TakeOver())
    return RunHeld(what, run_id=run_id, step=step, remedy=remedy)


def check_found(opening: Run, epoch: int | None) -> None:
    """Raise ``RunHeld`` if a run that was found interrupted was opened since: its epoch is another one.

    Args:
        opening: The opening; its epoch is that of the run as it was found, or 0 if that does not matter.
        epoch: The epoch of the run now; None if it does not exist.
    """
    if opening.epoch and epoch is not None and epoch != opening.epoch:
        raise RunHeld(
            "the run was opened again since it was found interrupted",
            run_id=opening.run_id,
            remedy=f"Nothing was changed; look at it: wf.sync.status({opening.run_id!r}).",
        )


def held_run(run_id: str, owner: str | None, since: float) -> RunHeld:
    """Return the error for a run that cannot be opened, since another living process owns it.

    Args:
        run_id: The run.
        owner: A description of the owner, for people.
        since: Time at which the run was opened there or last changed, in seconds since 1970.
    """
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    age = max(0.0, time.time() - since)
    what = f"the run has been owned by {owner or _UNKNOWN} since {clock} ({age:.0f} s ago)"
    return RunHeld(what, run_id=run_id, remedy=("Continue there, or take it over: ", TakeOver()))


def damaged_lineage(step: Step) -> StoreUnreadable:
    """Return the error for a step whose lineage has another shape than durable_nb writes.

    Args:
        step: The step as recorded.
    """
    return StoreUnreadable(
        "the record of the step is damaged: its lineage has another shape than durable_nb writes",
        run_id=step.run_id,
        step=step.step_id,
        remedy=("Restore a backup of the database, or, to run the step again: ", ResetStep()),
    )


def unknown_run(run_id: str, address: str | None = None) -> RunNotFound:
    """Return the error for a run that does not exist.

    Args:
        run_id: The run.
        address: The database's path or URL, if known.
    """
    remedy = ("To list the runs: ", ListRuns(db=address))
    where = "the database" if address is None else repr(address)
    return RunNotFound(f"not found in {where}", run_id=run_id, remedy=remedy)


def id_taken(run_id: str, new_id: str, action: str = "renamed to") -> StoreError:
    """Return the error for a run that cannot be renamed or forked, since the new id is taken.

    Args:
        run_id: The run.
        new_id: The id that is taken.
        action: The participle of the refused action.
    """
    return StoreError(
        f"the run cannot be {action} {new_id!r}: that id is taken",
        run_id=run_id,
        remedy=("Choose another id, or continue that run: ", OpenRun(new_id)),
    )
