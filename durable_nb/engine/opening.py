"""Opening a run: a new one, or one that goes on where it stopped."""

from __future__ import annotations

import asyncio
import platform
import time
import warnings
from typing import TYPE_CHECKING, Any

from durable_nb import fingerprint
from durable_nb.concurrency import interrupts
from durable_nb.concurrency.pending import wait_for_pending
from durable_nb.engine.failpoints import hit
from durable_nb.engine.run import RunHandle
from durable_nb.errors import DurableNotice, RunChanged, StartOver, error_context
from durable_nb.records import Run, RunStatus, set_aside_id
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.stores.base import Journal

__all__ = ["check_same", "open_run", "status_after"]


async def open_run(
    journal: Journal, opening: Run, mode: CallMode, *, fresh: bool = False, take_over: bool = False
) -> RunHandle:
    """Create a run, or take it up again where it stopped.

    Args:
        journal: Where it is kept.
        opening: The run as its caller sees it: id, workflow, arguments.
        mode: How the caller waits.
        fresh: Set an old history aside under another id, and start over.
        take_over: Open it even if another living process owns it, which can then write no more.

    Raises:
        RunHeld: Another living process owns it.
        RunChanged: The id is on record with other arguments, or for another workflow.
        StoreError: The store cannot be opened.
    """
    with error_context(run_id=opening.run_id):
        await wait_for_pending(mode)  # with what a pass before this one has left to be committed
        # Waiting for another host's sign of life can be given up; from the first write on nothing can.
        known = await mode.store(_examined(journal, opening, fresh=fresh, take_over=take_over))
        aside = known if fresh else None
        run = await mode.commit(_open_run(journal, opening, aside, take_over=take_over), undo=_left)
    before = None if known is None or fresh else known.python
    if before not in (None, run.run.python):
        message = f"run {run.run_id!r} was begun on Python {before}, and goes on on {run.run.python}"
        warnings.warn(message, DurableNotice, stacklevel=2)
    return run


async def _examined(journal: Journal, opening: Run, *, fresh: bool, take_over: bool) -> Run | None:
    """The run as it is on record, if it may be opened."""
    await journal.setup()
    known = await journal.get_run(opening.run_id)
    if known is not None and not fresh:
        check_same(known, opening)
    if known is not None and not take_over:
        await journal.check_owner(known.run_id)
    return known


async def _open_run(journal: Journal, opening: Run, aside: Run | None, *, take_over: bool) -> RunHandle:
    if aside is not None:
        await journal.rename_run(aside.run_id, set_aside_id(aside.run_id, aside.epoch))
    now = time.time()
    opening = opening._replace(
        owner=this_process(),
        python=".".join(platform.python_version_tuple()[:2]),
        created_at=now,
        updated_at=now,
    )
    snapshot = await journal.open_run(opening, take_over=take_over)
    run = RunHandle(journal, snapshot.run, snapshot.steps)
    journal.watch(run.run, run.lose)
    hit("run.opened")
    return run


def _left(opened: Future[RunHandle], reason: BaseException) -> Coroutine[Any, Any, None]:
    status = status_after(reason)  # asked now: whether it was an interrupt is forgotten with the pass

    async def mark() -> None:
        run = await asyncio.wrap_future(opened)
        await run.marked(status)

    return mark()


def status_after(reason: BaseException) -> RunStatus:
    """How a run stands whose pass was ended by an exception."""
    if isinstance(reason, asyncio.CancelledError):
        return RunStatus.INTERRUPTED if interrupts.was_interrupted() else RunStatus.CANCELLED
    return RunStatus.FAILED if isinstance(reason, Exception) else RunStatus.INTERRUPTED


def check_same(known: Run, opening: Run) -> None:
    """Refuse a run id that is on record for another workflow, or with other arguments.

    Raises:
        RunChanged: With the difference.
    """
    remedy = ("Use another run id, or start this one over: ", StartOver())
    if known.workflow not in ("", opening.workflow):  # empty: somebody filled its store beforehand
        raise RunChanged(
            f"it belongs to the workflow {known.workflow!r}, not to {opening.workflow!r}",
            run_id=known.run_id,
            remedy=remedy,
        )
    if fingerprint.differ(known.arguments, opening.arguments):
        difference = fingerprint.explain(known.arguments_repr, opening.arguments_repr)
        raise RunChanged(
            f"it was started with other arguments ({difference})",
            run_id=known.run_id,
            remedy=remedy,
        )
