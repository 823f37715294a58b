"""The one seam between the caller's colour and the loop thread on which every store lives.

Everything that a durable call does is written once, as a coroutine over a ``Colour``. ``Awaiting`` suspends
the caller's own event loop; ``Blocking`` never suspends, so that ``drive`` can run the same coroutine to its
end in plain synchronous code.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

from durable_nb.deadline import deadline, timed_out
from durable_nb.errors import ForkedProcess

__all__ = ["AWAITING", "BLOCKING", "Colour", "check_process", "drive", "submit"]

T = TypeVar("T")


class _LoopThread:
    """A daemon thread with an event loop, started when first used; a script that never closes still exits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.forked = False

    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    self._loop = self._start()
        return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="durable_nb", daemon=True).start()
        return loop

    def mark_forked(self) -> None:
        # Only a child of a process that already had the thread lost something.
        self.forked = self._loop is not None


_thread = _LoopThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.mark_forked)


def check_process() -> None:
    """Raise ``ForkedProcess`` in a forked child of a process that had stores open."""
    if _thread.forked:
        raise ForkedProcess(
            f"process {os.getpid()} was forked from the one that owns the run",
            remedy="Call durable functions in the parent, or start workers with the 'spawn' method.",
        )


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the loop thread."""
    if _thread.forked:
        work.close()
        check_process()
    return asyncio.run_coroutine_threadsafe(work, _thread.loop())


class Colour(Protocol):
    """How a durable call waits: by suspending, or by blocking."""

    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop thread do it; what was begun there is finished even if the caller is cancelled."""

    async def settled(self, work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
        """The same, waiting for it to the end; with whether the caller was cancelled meanwhile."""

    async def until(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop thread wait for something, which ends with its caller."""

    async def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        """Execute a body of this colour, for so many seconds at most.

        Raises:
            StepTimeout: It took longer, and was ended.
        """


class _Awaiting:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(asyncio.wrap_future(submit(work)))

    async def settled(self, work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
        future = asyncio.wrap_future(submit(work))
        try:
            return await asyncio.shield(future), False
        except asyncio.CancelledError:
            return await asyncio.shield(future), True

    async def until(self, work: Coroutine[Any, Any, T]) -> T:
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


class _Blocking:
    async def store(self, work: Coroutine[Any, Any, T]) -> T:
        return submit(work).result()

    async def settled(self, work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
        future = submit(work)
        try:
            return future.result(), False
        except KeyboardInterrupt:
            future.result()  # to the end, for one interrupt; a second one does not wait
            raise

    async def until(self, work: Coroutine[Any, Any, T]) -> T:
        future = submit(work)
        try:
            return future.result()
        except CancelledError:  # not asyncio's, which is what ends a pass
            raise asyncio.CancelledError from None
        finally:
            future.cancel()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this colour never suspends: it is how sync code waits

    async def body(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        with nullcontext() if timeout is None else deadline(timeout):
            return function()


AWAITING: Colour = _Awaiting()
BLOCKING: Colour = _Blocking()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over ``BLOCKING`` to its end, here and now."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a coroutine of the blocking colour suspended")
