"""Errors that every store raises alike: a run that is held, lost, unknown, or an id that is taken."""

from __future__ import annotations

import time

from durable_nb.errors import ListRuns, OpenRun, RunHeld, RunNotFound, StoreError, TakeOver
from durable_nb.records import Run, RunStatus

__all__ = ["held_run", "id_taken", "lost_run", "unknown_run"]


def lost_run(run_id: str, present: Run | None, *, step: str | None = None) -> RunHeld:
    """The error for a write under an epoch that is no longer the run's.

    Args:
        run_id: The run.
        present: The run as it stands now; None where nothing is left under its id.
        step: The step that was to be written, if it was one.
    """
    if present is None:
        what = "this kernel no longer owns the run: nothing is recorded under its id any more"
    else:
        became = "cancelled" if present.status is RunStatus.CANCELLED else "opened again elsewhere"
        by = present.owner or "somebody unnamed"
        what = f"this kernel no longer owns the run: it was {became} (by {by})"
    where = "look for it in the list of runs" if present is None else "go on there"
    remedy = (f"Nothing was written; {where}, or take it over: ", TakeOver())
    return RunHeld(what, run_id=run_id, step=step, remedy=remedy)


def held_run(run_id: str, owner: str | None, since: float) -> RunHeld:
    """The error for a run that cannot be opened, since somebody else owns it and lives.

    Args:
        run_id: The run.
        owner: Who owns it, for people.
        since: When it was opened there or last marked, in seconds since 1970.
    """
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    what = f"{owner or 'somebody unnamed'} owns it since {clock} ({max(0.0, time.time() - since):.0f} s ago)"
    return RunHeld(what, run_id=run_id, remedy=("Go on there, or take it over: ", TakeOver()))


def unknown_run(run_id: str, address: str | None = None) -> RunNotFound:
    """The error for a run that is not there.

    Args:
        run_id: The run.
        address: What opens the database elsewhere, if it is known.
    """
    remedy = ("The runs of that database are listed by: ", ListRuns(db=address))
    return RunNotFound("there is no such run", run_id=run_id, remedy=remedy)


def id_taken(run_id: str, new_id: str, doing: str = "renamed to") -> StoreError:
    """The error for a run that cannot be renamed or forked, since something has the other id already."""
    return StoreError(
        f"it cannot be {doing} {new_id!r}, that id is taken",
        run_id=run_id,
        remedy=("Choose another id; to go on with that run: ", OpenRun(new_id)),
    )
