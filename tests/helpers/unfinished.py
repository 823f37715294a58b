"""Runs that are done, made unfinished: the next call enters them and replays their steps."""

from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.records import RunStatus


def leave_unfinished(wf, run_id="r"):
    """Make a run that is done unfinished; gives the workflow."""
    run_blocking(SYNC.store(_mark(wf.journal, run_id)))
    return wf


async def _mark(journal, run_id):
    await journal.setup()
    run = await journal.get_run(run_id)
    assert run.status is RunStatus.DONE
    await journal.finish_run(run._replace(status=RunStatus.INTERRUPTED))
