"""The one seam between callers and the loop thread on which every store lives.

A durable call is written once, as a coroutine over a ``CallMode``. ``ASYNC`` suspends the caller's own event
loop. ``SYNC`` never suspends, so that ``run_blocking`` can run the same coroutine in synchronous code.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import nullcontext, suppress
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from durable_nb import settings
from durable_nb.concurrency.loop_thread import Mailbox, check_process, submit
from durable_nb.concurrency.timeouts import deadline, timed_out
from durable_nb.errors import DurableNotice

__all__ = [
    "ASYNC",
    "PENDING",
    "SYNC",
    "CallMode",
    "check_process",
    "run_blocking",
    "submit",
    "wait_for_pending",
    "wait_for_what_is_left",
]

T = TypeVar("T")

Undo: TypeAlias = "Callable[[Future[T], BaseException], Coroutine[Any, Any, None]]"
"""What is to be done on the loop thread with the outcome, once the caller has gone by an exception."""

PENDING: Final[set[Future[Any]]] = set()
"""What goes on without its caller, who was interrupted or cancelled and could not wait for its end."""


async def wait_for_pending(mode: CallMode) -> None:
    """Wait for what goes on without its caller: what is on record is not known before."""
    if PENDING:
        await mode.store(_ended(tuple(PENDING)))


async def _ended(futures: tuple[Future[Any], ...]) -> None:
    if futures:
        await asyncio.wait([_end_of(future) for future in futures])


async def _after(earlier: tuple[Future[Any], ...], work: Coroutine[Any, Any, T]) -> T:
    await _ended(earlier)
    return await work


def _leave(future: Future[Any]) -> float:
    """Note that something goes on without its caller; gives for how long to wait for it all the same."""
    patience = 0.0 if PENDING else settings.INTERRUPT_GRACE
    PENDING.add(future)
    future.add_done_callback(PENDING.discard)
    return patience


def _raise_failure(future: Future[Any]) -> None:
    """Raise what has failed; say it later of what still goes on."""
    if future.done():
        future.result()
    else:
        future.add_done_callback(_tell_failure)


def _tell_failure(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        message = f"what was left to be committed after an interrupt has failed: {error}"
        warnings.warn(message, DurableNotice, stacklevel=2)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PENDING.clear)


@atexit.register
def wait_for_what_is_left() -> None:
    """Block until what goes on without its caller has ended, before its store is closed or Python exits."""
    wait(tuple(PENDING), settings.EXIT_GRACE)


class CallMode(Protocol):
    """How a durable call waits: by suspending, or by blocking."""

    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop thread do it; what was begun there is finished even if the caller is cancelled."""

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        """The same for what must not be left half-way; a caller who is to go waits a little for it."""

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        """The same for a caller who is going: after what it has left behind, and waiting a little at most."""

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop thread wait for something, which ends with its caller."""

    async def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        """Execute a body of this colour, for so many seconds at most.

        Raises:
            StepTimeout: It took longer, and was ended.
        """


class _Async:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._result(submit(work))

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        future = submit(work)
        try:
            return await self._result(future)
        except asyncio.CancelledError as reason:
            await self._wait_a_little(submit(undo(future, reason)) if undo else future)
            raise

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        await self._wait_a_little(submit(_after(tuple(PENDING), work)))

    async def _result(self, future: Future[T]) -> T:
        await _end_of(future)
        return future.result()

    async def _wait_a_little(self, future: Future[Any]) -> None:
        await asyncio.wait([_end_of(future)], timeout=_leave(future))
        _raise_failure(future)

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(submit(work))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        if timeout is None:
            return await function()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await function()
        except TimeoutError:
            if not limit.expired():  # the body's own
                raise
        raise timed_out(timeout)


class _Sync:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return submit(work).result()

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        future = submit(work)
        try:
            return future.result()
        except KeyboardInterrupt as reason:
            self._wait_a_little(submit(undo(future, reason)) if undo else future)
            raise

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        future = submit(work)
        try:
            return future.result()
        except CancelledError:  # not asyncio's, which is what ends a pass
            raise asyncio.CancelledError from None
        finally:
            future.cancel()

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        self._wait_a_little(submit(_after(tuple(PENDING), work)))

    def _wait_a_little(self, future: Future[Any]) -> None:
        wait([future], _leave(future))
        _raise_failure(future)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this colour never suspends: it is how sync code waits

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        with nullcontext() if timeout is None else deadline(timeout):
            return function()


def _end_of(future: Future[Any]) -> asyncio.Future[None]:
    """What the running loop can wait for; cancelling that leaves the work alone, so does closing the loop."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()
    mailbox = _ends.setdefault(loop, Mailbox(_settle))

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed just now
            if not loop.is_closed():  # what nobody takes out would keep it alive
                mailbox.put(end, loop)

    future.add_done_callback(wake)
    return end


def _settle(end: asyncio.Future[None]) -> None:
    if not end.done():
        end.set_result(None)


_ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox[asyncio.Future[None]]] = (
    weakref.WeakKeyDictionary()
)


ASYNC: CallMode = _Async()
SYNC: CallMode = _Sync()


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over ``SYNC`` to its end, here and now."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a coroutine of the blocking colour suspended")
