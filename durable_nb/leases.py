"""Who owns a run, for people who look: a run whose owner is dead is interrupted, whatever its record says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_nb.records import Run, RunSnapshot, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from durable_nb.stores.base import Journal

__all__ = ["list_runs", "read_run"]


async def list_runs(journal: Journal) -> Sequence[Run]:
    """All runs as they stand, the latest first. Runs on the loop thread.

    Args:
        journal: Where they are kept.
    """
    runs = await journal.list_runs()
    abandoned = await journal.abandoned()  # last: a run that is taken up meanwhile must not show as left
    return [_standing(run, abandoned) for run in runs]


async def read_run(journal: Journal, run_id: str) -> RunSnapshot | None:
    """A run as it stands, and its steps; takes no ownership. Runs on the loop thread.

    Args:
        journal: Where it is kept.
        run_id: The run.
    """
    snapshot = await journal.read_run(run_id)
    if snapshot is None:
        return None
    return snapshot._replace(run=_standing(snapshot.run, await journal.abandoned()))


def _standing(run: Run, abandoned: frozenset[str]) -> Run:
    if run.run_id in abandoned and run.status in (RunStatus.RUNNING, RunStatus.WAITING):
        return run._replace(status=RunStatus.INTERRUPTED)
    return run
