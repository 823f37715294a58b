"""The passes that run in this process: a second call of a run joins the first, and each can be cancelled.

Joiners get what the pass ends with, the same object. One that is cancelled leaves the pass alone; when the
pass is cancelled or interrupted, so is everybody who joined it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from durable_nb.concurrency.bridge import ASYNC, check_process
from durable_nb.engine import scopes
from durable_nb.engine.opening import check_same
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

__all__ = ["Pass", "cancel", "entered", "join", "open_here"]

_NOTHING = object()
_guard = threading.Lock()
_running: dict[tuple[Journal, str], Pass] = {}


class Pass:
    """One time through a run's code, from before it is opened until it is marked as ended.

    Args:
        journal: Where the run is kept.
        opening: The run as its caller sees it.
        mode: How the caller waits; an awaiting one is cancelled like any task.

    Attributes:
        outcome: What it ended with.
        value: What its code returned, once it has.
        run: The open run, once it is open.
        waits_for: The passes that its code has called or joined, and has nothing back from yet.
    """

    def __init__(self, journal: Journal, opening: Run, mode: CallMode) -> None:
        self.key = journal, opening.run_id
        self.opening = opening
        self.thread = threading.get_ident()
        self.outcome: Future[Any] = Future()
        self.outcome.set_running_or_notify_cancel()  # from now on no joiner can cancel it
        self.waits_for: list[Pass] = []
        self._task = asyncio.current_task() if mode is ASYNC else None
        self.run: RunHandle | None = None
        self.value: Any = _NOTHING
        self._asked = False
        self._over = False

    def opened(self, run: RunHandle) -> None:
        """Note the open run; a synchronous pass looks there whether to stop."""
        self.run = run
        run.on_lost = self.cancel
        run.stopped = self._asked and self._task is None

    def over(self) -> None:
        """Note that the code has ended: from now on it cannot be cancelled any more."""
        self._over = True
        if self._asked and self._task is not None:
            self._asked = False
            self._task.uncancel()  # the cancellation was the pass's; its caller's own task goes on

    def cancel(self) -> None:
        """Ask the pass to end, from any thread; a synchronous one does at its next durable call."""
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._cancel_task)
            return
        self._asked = True
        if self.run is not None:
            self.run.stopped = True

    def _cancel_task(self) -> None:
        if self._task is not None and not self._over and not self._asked:
            self._asked = self._task.cancel()

    def leads_to(self, other: Pass) -> bool:
        """Whether it is the other, or waits for it, by whatever way."""
        return other is self or any(each.leads_to(other) for each in self.waits_for)


@contextmanager
def entered(journal: Journal, opening: Run, mode: CallMode, *, fresh: bool) -> Iterator[tuple[Pass, bool]]:
    """The pass of a run that is under way in this process, or a new one; with whether it is new.

    A new one is the block, whose result is to be put into ``value``: at its end joiners get that.

    Raises:
        RunChanged: It is under way with other arguments, or for another workflow.
        RunHeld: It cannot be joined: the call is part of it, or asks to start over.
    """
    check_process()
    caller = _caller()
    mine = Pass(journal, opening, mode)
    with _guard:
        known = _running.setdefault(mine.key, mine)
        if known is not mine:
            _check_joining(known, opening, caller, blocking=mode is not ASYNC, fresh=fresh)
        if caller is not None:
            caller.waits_for.append(known)
    try:
        with _ending(mine) if known is mine else nullcontext():
            yield known, known is mine
    finally:
        if caller is not None:
            with _guard:
                caller.waits_for.remove(known)


@contextmanager
def _ending(mine: Pass) -> Iterator[None]:
    """Tell joiners how the block ended, in whatever way."""
    failure: Exception = _Stopped()
    try:
        yield
    except Exception as error:
        failure = error
        raise
    finally:
        with _guard:
            del _running[mine.key]
        if mine.value is _NOTHING:
            mine.outcome.set_exception(failure)
        else:
            mine.outcome.set_result(mine.value)


def _caller() -> Pass | None:
    """The pass that this code is part of."""
    scope = scopes.current()
    found = None if scope is None else _running.get((scope.run.journal, scope.run.run_id))
    return found if found is not None and scope is not None and found.run is scope.run else None


def _check_joining(known: Pass, opening: Run, caller: Pass | None, *, blocking: bool, fresh: bool) -> None:
    check_same(known.opening, opening)
    inside = caller is not None and known.leads_to(caller)
    if inside or (blocking and known.thread == threading.get_ident()):
        raise RunHeld(
            "this call is part of the run itself, and would wait for its own end",
            run_id=opening.run_id,
            remedy="Call it under another run id: .run('…', …).",
        )
    if fresh:
        raise RunHeld(
            "it is running in this process, and cannot be started over",
            run_id=opening.run_id,
            remedy=f"Wait for its end, or cancel it first: await wf.cancel({opening.run_id!r}).",
        )


class _Stopped(Exception):
    """What joiners find of a pass that was cancelled or interrupted: a KeyboardInterrupt is not theirs."""


async def join(known: Pass, mode: CallMode) -> Any:
    """Wait for the end of a pass, and give or raise what it gave or raised.

    Raises:
        CancelledError: The pass was cancelled or interrupted.
    """
    try:
        if mode is ASYNC:
            return await asyncio.wrap_future(known.outcome)
        return known.outcome.result()
    except _Stopped:
        raise asyncio.CancelledError(f"run {known.opening.run_id!r} was cancelled") from None


def open_here(journal: Journal, run_id: str) -> RunHandle | None:
    """The run of that id if a pass of it is under way in this process."""
    with _guard:
        known = _running.get((journal, run_id))
    return None if known is None else known.run


async def cancel(journal: Journal, run_id: str, mode: CallMode) -> bool:
    """Cancel a run, wherever it is: ask its pass in this process to end, or mark it cancelled.

    Raises:
        RunNotFound: There is no such run.
    """
    check_process()
    with _guard:
        known = _running.get((journal, run_id))
    if known is None:
        return await mode.store(_mark_cancelled(journal, run_id))
    known.cancel()
    return True


async def _mark_cancelled(journal: Journal, run_id: str) -> bool:
    """Mark a run that is not under way here. Runs on the loop thread."""
    await journal.setup()
    known = await journal.get_run(run_id)
    if known is None:
        raise unknown_run(run_id, journal.address)
    if known.status in ENDED:
        return False
    # Under the next epoch, so that another process which has it open is fenced off.
    opening = known._replace(status=RunStatus.CANCELLED, owner=this_process())
    opened = await journal.open_run(opening, take_over=True)
    await journal.finish_run(opened.run)
    return True
