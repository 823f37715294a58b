"""The passes that are under way in this process: a second call of a run joins the first.

All calls get the outcome of the pass, which is one object. Cancelling a call that joined leaves the pass
alone; if the pass is cancelled or interrupted, so are the calls that joined it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from durable_nb.concurrency.bridge import ASYNC, check_loop
from durable_nb.concurrency.forking import check_process, in_forked_child
from durable_nb.engine import scopes
from durable_nb.engine.opening import check_same_run
from durable_nb.engine.passes import NOTHING, Pass
from durable_nb.errors import RunHeld
from durable_nb.records import RunStatus
from durable_nb.stores.base import ENDED
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.records import Run
    from durable_nb.stores.base import Journal

__all__ = ["begin_or_find", "cancel_run", "find_active", "join"]

_lock = threading.Lock()
_running: dict[tuple[Journal, str], Pass] = {}


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _running.clear()


in_forked_child(_forget)


@contextmanager
def begin_or_find(
    journal: Journal, opening: Run, mode: CallMode, *, fresh: bool
) -> Iterator[tuple[Pass, bool]]:
    """Yield the pass of a run that is under way in this process, or a new one, and whether it is new.

    The block is the new pass: it sets ``value`` to its result, which the calls that joined get at its end.

    Args:
        journal: The journal of the run.
        opening: The run as its caller sees it.
        mode: How the caller waits.
        fresh: Whether the run is to start over.

    Raises:
        RunChanged: The pass has other arguments, or is of another workflow.
        RunHeld: The pass cannot be joined: the call is part of it, or asks to start over.
    """
    if mode is ASYNC:
        check_loop()
    caller = _calling_pass()
    new = Pass(journal, opening, asyncio.current_task() if mode is ASYNC else None)
    with _lock:
        # One lock for all three: otherwise two calls that wait for each other's passes could both pass the
        # check, each before the other is noted in waits_for, and wait for ever.
        known = _running.setdefault((journal, opening.run_id), new)
        if known is not new:
            _check_joining(known, opening, caller, blocking=mode is not ASYNC, fresh=fresh)
        if caller is not None:
            caller.waits_for.append(known)
    try:
        with _settling(new) if known is new else nullcontext():
            yield known, known is new
    finally:
        if caller is not None:
            with _lock:
                caller.waits_for.remove(known)


@contextmanager
def _settling(new: Pass) -> Iterator[None]:
    """Give the outcome of the block to the calls that joined, however it ends."""
    failure: Exception = _Stopped()
    try:
        yield
    except Exception as error:
        failure = error
        raise
    finally:
        # Removed first: a call that comes now starts a new pass, instead of joining one that has ended.
        with _lock:
            del _running[new.journal, new.opening.run_id]
        if new.value is NOTHING:
            new.outcome.set_exception(failure)
        else:
            new.outcome.set_result(new.value)


def _calling_pass() -> Pass | None:
    """Return the pass that this code is part of, if calls can join it, or None."""
    scope = scopes.current_scope()
    if scope is None:
        return None
    current = scope.current
    check_process(current.forks)
    return current if _running.get((current.journal, current.opening.run_id)) is current else None


def _check_joining(known: Pass, opening: Run, caller: Pass | None, *, blocking: bool, fresh: bool) -> None:
    check_same_run(known.opening, opening)
    inside = caller is not None and known.leads_to(caller)
    if inside or (blocking and known.thread == threading.get_ident()):
        raise RunHeld(
            "this call is part of the run itself, and would wait for its own end",
            run_id=opening.run_id,
            remedy="Call it under another run id: .run('…', …).",
        )
    if fresh:
        raise RunHeld(
            "the run is running in this process, and cannot be started over",
            run_id=opening.run_id,
            remedy=f"Wait until it ends, or cancel it first: await wf.cancel({opening.run_id!r}).",
        )


class _Stopped(Exception):
    """The outcome of a pass that was cancelled or interrupted; ``join`` turns it into a CancelledError."""


async def join(known: Pass, mode: CallMode) -> Any:
    """Wait for the end of a pass, and return its result or raise its exception.

    Args:
        known: The pass.
        mode: How the caller waits.

    Raises:
        CancelledError: The pass was cancelled or interrupted.
    """
    try:
        if mode is ASYNC:
            return await asyncio.wrap_future(known.outcome)
        return known.outcome.result()
    except _Stopped:
        raise asyncio.CancelledError(f"run {known.opening.run_id!r} was cancelled") from None


def find_active(journal: Journal, run_id: str) -> Pass | None:
    """Return the pass of that run that is under way in this process, and has opened it, else None."""
    with _lock:
        known = _running.get((journal, run_id))
    return None if known is None or known.run is None else known


async def cancel_run(journal: Journal, run_id: str, mode: CallMode) -> bool:
    """Cancel a run: ask its pass in this process to end, or mark the run as cancelled.

    Args:
        journal: The journal of the run.
        run_id: The run.
        mode: How the caller waits.

    Returns:
        Whether there was something to cancel.

    Raises:
        RunNotFound: The journal has no run of that id.
    """
    with _lock:
        known = _running.get((journal, run_id))
    if known is None:
        return await mode.store(_mark_cancelled(journal, run_id))
    known.cancel()
    return True


async def _mark_cancelled(journal: Journal, run_id: str) -> bool:
    """Mark a run as cancelled that is not under way in this process. Runs on the loop thread."""
    await journal.setup()
    known = await journal.get_run(run_id)
    if known is None:
        raise unknown_run(run_id, journal.address)
    if known.status in ENDED:
        return False
    # Under the next epoch: another process that has the run open can then write no more.
    opening = known._replace(status=RunStatus.CANCELLED, owner=this_process())
    opened = await journal.open_run(opening, take_over=True)
    await journal.finish_run(opened.run)
    return True
