"""The passes that are under way in this process: a second call of a run joins the first.

All calls get the outcome of the pass, which is one object. Cancelling a call that joined leaves the pass
alone; if the pass is cancelled or interrupted, so are the calls that joined it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from durable_nb.concurrency.bridge import ASYNC, check_loop, check_process
from durable_nb.engine import scopes
from durable_nb.engine.opening import check_same_run
from durable_nb.errors import RunHeld
from durable_nb.records import RunStatus
from durable_nb.stores.base import ENDED
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle
    from durable_nb.records import Run
    from durable_nb.stores.base import Journal

__all__ = ["Pass", "active_run", "begin_or_find", "cancel_run", "join"]

_NOTHING = object()
_lock = threading.Lock()
_running: dict[tuple[Journal, str], Pass] = {}


class Pass:
    """One pass through a run's code, from before the run is opened until its end is recorded.

    Args:
        journal: The journal of the run.
        opening: The run as its caller sees it.
        mode: How the caller waits; in ``ASYNC`` its task is cancelled like any other.

    Attributes:
        outcome: The future of its result or exception, for the calls that join.
        value: What its code returned, once it has.
        run: The open run, once it is open.
        waits_for: The passes that its code has called or joined, and that have not ended.
    """

    def __init__(self, journal: Journal, opening: Run, mode: CallMode) -> None:
        if mode is ASYNC:
            check_loop()
        self.key = journal, opening.run_id
        self.opening = opening
        self.thread = threading.get_ident()
        self.outcome: Future[Any] = Future()
        # Or a call that joined could cancel the future, since wrap_future links its own to it both ways.
        self.outcome.set_running_or_notify_cancel()
        self.waits_for: list[Pass] = []
        self._task = asyncio.current_task() if mode is ASYNC else None
        self.run: RunHandle | None = None
        self.value: Any = _NOTHING
        self._cancel_requested = False
        self._ended = False

    def set_run(self, run: RunHandle) -> None:
        """Note the open run, whose ``stop_requested`` ends a synchronous pass."""
        # The run is set before the request is read: a cancel() in another thread that finds no run here yet
        # has made its request before.
        self.run = run
        run.on_lost = self.cancel
        run.stop_requested = self._cancel_requested and self._task is None

    def end(self) -> None:
        """Note that the code has ended: from now on the pass cannot be cancelled."""
        self._ended = True
        if self._cancel_requested and self._task is not None:
            self._cancel_requested = False
            # The cancellation was meant for the pass. Its task may be the caller's own, which continues.
            self._task.uncancel()

    def cancel(self) -> None:
        """Ask the pass to end, from any thread; a synchronous pass ends at its next durable call."""
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._cancel_task)
            return
        self._cancel_requested = True
        if self.run is not None:
            self.run.stop_requested = True

    def _cancel_task(self) -> None:
        # Checked here, on the task's own loop: between the request and now the code may have ended.
        if self._task is not None and not self._ended and not self._cancel_requested:
            self._cancel_requested = self._task.cancel()

    def leads_to(self, other: Pass) -> bool:
        """Return whether this pass is the other one, or waits for it, directly or through others."""
        return other is self or any(each.leads_to(other) for each in self.waits_for)


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
    check_process()
    caller = _calling_pass()
    new = Pass(journal, opening, mode)
    with _lock:
        # One lock for all three: otherwise two calls that wait for each other's passes could both pass the
        # check, each before the other is noted in waits_for, and wait for ever.
        known = _running.setdefault(new.key, new)
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
            del _running[new.key]
        if new.value is _NOTHING:
            new.outcome.set_exception(failure)
        else:
            new.outcome.set_result(new.value)


def _calling_pass() -> Pass | None:
    """Return the pass that this code is part of, or None."""
    scope = scopes.current_scope()
    found = None if scope is None else _running.get((scope.run.journal, scope.run.run_id))
    return found if found is not None and scope is not None and found.run is scope.run else None


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


def active_run(journal: Journal, run_id: str) -> RunHandle | None:
    """Return the open run of that id if a pass of it is under way in this process, else None."""
    with _lock:
        known = _running.get((journal, run_id))
    return None if known is None else known.run


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
    check_process()
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
