"""Opening a run: creating it, or resuming it where it stopped."""

from __future__ import annotations

import asyncio
import platform
import time
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from durable_nb import fingerprint
from durable_nb.concurrency import interrupts
from durable_nb.concurrency.bridge import wait_for_pending
from durable_nb.engine.caller import Caller
from durable_nb.engine.crashes import crashes_before
from durable_nb.engine.failpoints import hit
from durable_nb.engine.given import stored
from durable_nb.engine.passes import NOTHING
from durable_nb.engine.run import RunHandle
from durable_nb.errors import DurableNotice, RunChanged, RunHeld, StartOver, TakeOver, error_context
from durable_nb.records import Run, RunStatus, original_id, set_aside_id
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.passes import Pass
    from durable_nb.records import Payload
    from durable_nb.stores.base import Journal

__all__ = ["check_same_run", "find_run", "open_run", "status_after"]


async def open_run(current: Pass, mode: CallMode, *, fresh: bool = False, take_over: bool = False) -> Caller:
    """Create the run of a pass, or resume it where it stopped.

    Args:
        current: The pass: the journal, and the run as its caller sees it.
        mode: How the caller waits.
        fresh: Set an old history aside under another id, and start over.
        take_over: Open the run even if another living process owns it, which can then write no more.

    Raises:
        RunHeld: Another living process owns the run.
        RunChanged: The id is recorded with other arguments, or for another workflow.
        StoreError: The store cannot be opened.
    """
    # Two submissions: a caller may leave while the owner's heartbeat is awaited, which takes seconds. Once
    # the run is being written, the commit is completed, and undone if the caller has left.
    known = await find_run(current, mode, fresh=fresh, take_over=take_over)
    with error_context(run_id=current.opening.run_id):
        aside = known if fresh else None
        # On the caller's thread, and before its code can change them in place.
        given = None
        if current.given is not None and (known is None or fresh):
            given = current.given.encoded(current.journal, current.opening)
        work = _open_run(current, aside, given, take_over=take_over, before=None if fresh else known)
        current.run = await mode.commit(work, undo=_undo_open)
    run = current.run.run
    before = None if known is None or fresh else known.python
    if before not in (None, run.python):
        message = f"run {run.run_id!r} was started on Python {before}, and continues on {run.python}"
        warnings.warn(message, DurableNotice, stacklevel=2)
    return Caller(current, mode)


async def find_run(
    current: Pass, mode: CallMode, *, fresh: bool = False, take_over: bool = False
) -> Run | None:
    """Return the run as recorded before the pass, if there is one, and raise if it may not be opened.

    The arguments and errors are those of ``open_run``.
    """
    if current.known is NOTHING:
        with error_context(run_id=current.opening.run_id):
            # First: the pass before this one may have been interrupted with a commit under way.
            await wait_for_pending(mode)
            work = _check_known(current.journal, current.opening, fresh=fresh, take_over=take_over)
            current.known = await mode.store(work)
    known: Run | None = current.known
    return known


async def _check_known(journal: Journal, opening: Run, *, fresh: bool, take_over: bool) -> Run | None:
    await journal.setup()
    known = await journal.get_run(opening.run_id)
    if known is not None and not fresh:
        check_same_run(known, opening)
    if known is not None and not take_over:
        await journal.check_owner(known.run_id)
    return known


async def _open_run(
    current: Pass, aside: Run | None, given: Payload | None, *, take_over: bool, before: Run | None
) -> RunHandle:
    journal = current.journal
    if aside is not None:
        for each in await _with_children(journal, aside, take_over=take_over):
            await journal.rename_run(each.run_id, set_aside_id(each.run_id, each.epoch))
    now = time.time()
    opening = current.opening._replace(
        owner=this_process(),
        python=".".join(platform.python_version_tuple()[:2]),
        created_at=now,
        updated_at=now,
    )
    opening = await stored(journal, opening, given)
    snapshot = await journal.open_run(opening, take_over=take_over)
    crashes = crashes_before(journal, before, snapshot, take_over=take_over)
    if crashes < snapshot.run.crashes:
        await journal.finish_run(snapshot.run._replace(crashes=crashes))
    run = RunHandle(journal, snapshot.run._replace(crashes=crashes), snapshot.steps)
    journal.watch(run.run, current.lose)
    hit("run.opened")
    return run


async def _with_children(journal: Journal, run: Run, *, take_over: bool) -> list[Run]:
    """Return a run after the runs that it has called, and these after those that they have called.

    Raises:
        RunHeld: One of them is under way.
    """
    if not journal.whole_runs:
        return [run]
    called = defaultdict(list)
    for each in await journal.list_runs():
        if each.parent and original_id(each.run_id) == each.run_id and each.status is not RunStatus.DAMAGED:
            called[each.parent].append(each)
    abandoned = await journal.abandoned()
    found, left = [run], [run]
    while left:
        children = [each for each in called.pop(left.pop().run_id, ()) if each.run_id != run.run_id]
        for child in children:
            if child.status in (RunStatus.RUNNING, RunStatus.WAITING) and child.run_id not in abandoned:
                _check_free(child, take_over=take_over)
        found += children
        left += children
    return found[::-1]


def _check_free(child: Run, *, take_over: bool) -> None:
    if take_over:
        return
    raise RunHeld(
        f"it has called run {child.run_id!r}, which is under way, and is set aside with it",
        run_id=child.parent,
        remedy=("Wait until that ends, or take both over: ", TakeOver(), "."),
    )


def _undo_open(opened: Future[RunHandle], reason: BaseException) -> Coroutine[Any, Any, None]:
    # Asked here, in the caller's thread: the coroutine may run when the guard that was interrupted has gone.
    status = status_after(reason)

    async def mark() -> None:
        run = await asyncio.wrap_future(opened)
        await run.write_status(status)

    return mark()


def status_after(reason: BaseException) -> RunStatus:
    """Return the status of a run whose pass was ended by an exception."""
    if isinstance(reason, asyncio.CancelledError):
        ended = interrupts.was_interrupted() or interrupts.is_loop_ending()
        return RunStatus.INTERRUPTED if ended else RunStatus.CANCELLED
    return RunStatus.FAILED if isinstance(reason, Exception) else RunStatus.INTERRUPTED


def check_same_run(known: Run, opening: Run) -> None:
    """Raise if a run id is recorded for another workflow, or with other arguments.

    Args:
        known: The run as recorded.
        opening: The run as its caller sees it.

    Raises:
        RunChanged: They differ; the message says how.
    """
    remedy = ("Use another run id, or start the run over: ", StartOver())
    if known.workflow not in ("", opening.workflow):  # empty: its store was filled before its first pass
        raise RunChanged(
            f"the run belongs to workflow {known.workflow!r}, not to {opening.workflow!r}",
            run_id=known.run_id,
            remedy=remedy,
        )
    if fingerprint.differ(known.arguments, opening.arguments):
        shown = known.arguments_repr, opening.arguments_repr
        difference = fingerprint.explain(*shown, known.arguments, opening.arguments)
        raise RunChanged(
            f"the run was started with other arguments ({difference})",
            run_id=known.run_id,
            remedy=remedy,
        )
