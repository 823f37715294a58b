"""The one daemon thread on which every store lives, with an event loop of its own, and the way to it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeAlias, TypeVar

from durable_nb.errors import ForkedProcess

__all__ = ["Mailbox", "check_process", "submit"]

T = TypeVar("T")

Order: TypeAlias = tuple[Coroutine[Any, Any, T], Future[T], contextvars.Context]


class Mailbox(Generic[T]):
    """Hands things over to an event loop from other threads; wakes it once for all that are there by then.

    Args:
        receive: What the loop does with each of them.
    """

    def __init__(self, receive: Callable[[T], object]) -> None:
        self._receive = receive
        self._things: deque[T] = deque()
        self._woken = False

    def put(self, thing: T, loop: asyncio.AbstractEventLoop) -> None:
        """Hand one over, from any thread; to the same loop each time."""
        self._things.append(thing)
        if self._woken:
            return
        try:
            self._woken = True
            loop.call_soon_threadsafe(self._empty)
        except BaseException:  # a closed loop; or an interrupt, after which the next one has to wake it
            self._woken = False
            raise

    def _empty(self) -> None:
        self._woken = False  # before it looks: what comes after the last look wakes the loop again
        while self._things:
            self._receive(self._things.popleft())


class _LoopThread:
    """A daemon thread with an event loop, started when first used; a script that never closes still exits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.orders: Mailbox[Order[Any]] = Mailbox(_carry_out)
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


def _carry_out(order: Order[T]) -> None:
    work, future, context = order
    task = asyncio.get_running_loop().create_task(work, context=context)
    task.add_done_callback(functools.partial(_report, future))
    future.add_done_callback(functools.partial(_call_off, task))


def _report(future: Future[T], task: asyncio.Task[T]) -> None:
    """Tell whoever submitted it how some work has ended."""
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


def _call_off(task: asyncio.Task[T], future: Future[T]) -> None:
    """End some work that whoever submitted it has cancelled."""
    if future.cancelled() and not task.done():
        task.get_loop().call_soon_threadsafe(task.cancel)


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
    """Start a coroutine on the loop thread; cancelling what it gives cancels the work."""
    if _thread.forked:
        work.close()
        check_process()
    future: Future[T] = Future()
    _thread.orders.put((work, future, contextvars.copy_context()), _thread.loop())
    return future
