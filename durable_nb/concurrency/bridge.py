"""The one seam between callers and the loop thread on which every store lives.

A durable call is written once, as a coroutine over a ``CallMode``. ``ASYNC`` suspends the caller's own event
loop. ``SYNC`` never suspends, so that ``run_blocking`` can run the same coroutine in synchronous code.

Which thread executes what: bodies, pickling and hashing on the caller's thread; stores, heartbeats and signal
watchers on the one loop thread (``loop_thread.py``); SQL on the thread of its SQLite connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import nullcontext
from typing import Any, Protocol, TypeAlias, TypeVar

from durable_nb.concurrency.loop_thread import check_loop, end_of, submit
from durable_nb.concurrency.pending import PENDING, add_pending, after_pending, pending_done, raise_or_warn
from durable_nb.concurrency.timeouts import deadline, timed_out

__all__ = [
    "ASYNC",
    "SYNC",
    "CallMode",
    "check_loop",
    "run_blocking",
    "submit",
    "wait_for_pending",
]

T = TypeVar("T")

Undo: TypeAlias = "Callable[[Future[T], BaseException], Coroutine[Any, Any, None]]"
"""Makes the coroutine that undoes some work, from its future and from the exception that ended the caller."""


class CallMode(Protocol):
    """A way for a durable call to wait: by suspending, or by blocking."""

    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop thread and return its result.

        If the caller is cancelled meanwhile, the work goes on to its end, and the caller does not wait.
        """

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        """Run ``work`` on the loop thread to completion, and return its result.

        If the caller is cancelled meanwhile, it waits up to ``settings.INTERRUPT_GRACE`` seconds for the
        work, or for its ``undo`` where one is given, and then re-raises.
        """

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Submit a last commit for a caller that is being cancelled.

        The commit runs after those that are pending; the caller waits up to ``settings.INTERRUPT_GRACE``
        seconds for it.
        """

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop thread and return its result. If the caller is cancelled, the work is."""

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        """Execute a user's function, for at most ``timeout`` seconds.

        Raises:
            StepTimeout: It took longer, and was ended.
        """


async def wait_for_pending(mode: CallMode) -> None:
    """Wait until no work goes on without its caller: only then the store holds all that was committed.

    Args:
        mode: How the caller waits.
    """
    if PENDING:
        await mode.store(pending_done())


class _Async:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._result(self._submit(work))

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        future = self._submit(work)
        try:
            return await self._result(future)
        except asyncio.CancelledError as reason:
            # The undo is submitted before anything is awaited: a second cancellation cannot prevent it.
            await self._wait_for_grace(submit(undo(future, reason)) if undo else future)
            raise

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        await self._wait_for_grace(submit(after_pending(work)))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            check_loop()  # before the work starts: its caller could not wait for it
        except BaseException:
            work.close()
            raise
        return submit(work)

    async def _result(self, future: Future[T]) -> T:
        # end_of instead of wrap_future, which would cancel the work with its caller: a commit that was begun
        # is finished, or history in memory and store would differ.
        await end_of(future)
        return future.result()

    async def _wait_for_grace(self, future: Future[Any]) -> None:
        # add_pending comes first: whatever ends this wait, the next step and the exit of Python know of it.
        grace = add_pending(future)
        await asyncio.wait([end_of(future)], timeout=grace)
        raise_or_warn(future)

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._submit(work))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        check_loop()  # before the body: its result could not be committed
        if timeout is None:
            return await function()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await function()
        except TimeoutError:
            if not limit.expired():  # the body's own
                raise
        # Outside the handler, so that the error has no TimeoutError as its context.
        raise timed_out(timeout)


class _Sync:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return submit(work).result()

    async def commit(self, work: Coroutine[Any, Any, T], undo: Undo[T] | None = None) -> T:
        future = submit(work)
        try:
            return future.result()
        except KeyboardInterrupt as reason:
            self._wait_for_grace(submit(undo(future, reason)) if undo else future)
            raise

    async def submit_and_leave(self, work: Coroutine[Any, Any, None]) -> None:
        self._wait_for_grace(submit(after_pending(work)))

    def _wait_for_grace(self, future: Future[Any]) -> None:
        wait([future], add_pending(future))
        raise_or_warn(future)

    async def wait_cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        future = submit(work)
        try:
            return future.result()
        except CancelledError:
            # That of concurrent.futures is no asyncio.CancelledError, which alone ends a pass as cancelled.
            raise asyncio.CancelledError from None
        finally:
            future.cancel()  # after a KeyboardInterrupt; a future that is done is left alone

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - SYNC never suspends: this is how sync code waits

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        with nullcontext() if timeout is None else deadline(timeout):
            return function()


ASYNC: CallMode = _Async()
"""Suspends the caller's own event loop."""

SYNC: CallMode = _Sync()
"""Blocks the caller's thread."""


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over ``SYNC`` to its end and return its result.

    Args:
        work: The coroutine, which never suspends.

    Raises:
        RuntimeError: It suspended: some code in it awaits an event loop.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a coroutine over SYNC suspended: it must wait through its call mode alone")
