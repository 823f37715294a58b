"""The one daemon thread on which every store lives, with an event loop of its own, and the way to it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from durable_nb.concurrency.forking import in_forked_child
from durable_nb.errors import DurableError

__all__ = ["Mailbox", "check_loop", "end_of", "is_running", "submit"]

T = TypeVar("T")

Order: TypeAlias = tuple[Coroutine[Any, Any, T], Future[T], contextvars.Context]
"""Work for the loop thread, the future of its outcome, and the context to run it in."""


class Mailbox(Generic[T]):
    """Passes items from other threads to an event loop, which it wakes once for a batch of them.

    Waking a loop costs a system call: a thousand concurrent steps would pay for it a thousand times.

    Args:
        receive: Called on the loop with each item.
    """

    def __init__(self, receive: Callable[[T], object]) -> None:
        self._receive = receive
        self._items: deque[T] = deque()
        self._woken = False

    def put(self, item: T, loop: asyncio.AbstractEventLoop) -> None:
        """Pass an item, from any thread; to the same loop each time."""
        # There is no lock: append, popleft and the flag are atomic. The item has to be in the deque before
        # the flag is read. If the flag is set then, _empty has not cleared it yet, so it has not yet looked
        # for the last time, and finds the item. Two threads that both find it unset wake the loop twice,
        # which does no harm.
        self._items.append(item)
        if self._woken:
            return
        try:
            self._woken = True
            loop.call_soon_threadsafe(self._empty)
        except BaseException:
            # The loop is closed, or a KeyboardInterrupt came in the middle: the next item has to wake it.
            self._woken = False
            raise

    def _empty(self) -> None:
        # The flag is cleared before the deque is read: an item that arrives after the last read wakes the
        # loop again. In the other order it would lie here until the next one came.
        self._woken = False
        while self._items:
            self._receive(self._items.popleft())


class _LoopThread:
    """A daemon thread with an event loop, started when first used; a script that never closes still exits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.orders: Mailbox[Order[Any]] = Mailbox(_start_task)

    def loop(self) -> asyncio.AbstractEventLoop:
        # Read without the lock, which every submit would pay for; read again under it, since another thread
        # may have started the loop between the first read and the lock.
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    self._loop = self._start()
        return self._loop

    @property
    def is_running(self) -> bool:
        """True once it has been started."""
        return self._loop is not None

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        # submit need not wait until the thread runs: what is scheduled earlier is done once it does.
        threading.Thread(target=loop.run_forever, name="durable_nb", daemon=True).start()
        return loop

    def start_over(self) -> None:
        # A forked child has none of its parent's threads: it starts its own.
        self.__init__()  # type: ignore[misc]


def _start_task(order: Order[T]) -> None:
    work, future, context = order
    task = asyncio.get_running_loop().create_task(work, context=context)
    task.add_done_callback(functools.partial(_report_end, future))
    # The caller may have cancelled the future before this loop came to the order: the callback is then called
    # at once, and the task ends before its first step.
    future.add_done_callback(functools.partial(_cancel_task, task))


def _report_end(future: Future[T], task: asyncio.Task[T]) -> None:
    """Copy the outcome of a task to the future that its caller waits for."""
    if task.cancelled():
        future.cancel()
    # From here on the caller can cancel no more: set_result on a cancelled future would raise.
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


def _cancel_task(task: asyncio.Task[T], future: Future[T]) -> None:
    """End a task whose caller has cancelled its future. Called in any thread."""
    if future.cancelled() and not task.done():
        task.get_loop().call_soon_threadsafe(task.cancel)


_thread = _LoopThread()
in_forked_child(_thread.start_over)


def is_running() -> bool:
    """Return whether the loop thread has been started: from Python 3.12 on, none can be started at exit."""
    return _thread.is_running


def check_loop() -> None:
    """Raise if the caller, a coroutine, is run by something else than asyncio.

    Raises:
        DurableError: It is run by trio.
        RuntimeError: No event loop is running.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if not _is_under_trio():
            raise
        raise DurableError(
            "an async durable call was made under trio, which is not supported: expected asyncio",
            remedy="Start it with asyncio.run(…) or anyio.run(…, backend='asyncio'), or call sync functions.",
        ) from None


def _is_under_trio() -> bool:
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the loop thread, in the caller's context.

    Returns:
        The future of its outcome; cancelling the future cancels the work.
    """
    future: Future[T] = Future()
    _thread.orders.put((work, future, contextvars.copy_context()), _thread.loop())
    return future


def end_of(future: Future[Any]) -> asyncio.Future[None]:
    """Return an asyncio future of the running loop that is done when ``future`` is, with no result.

    Unlike ``asyncio.wrap_future`` it is one way: neither cancelling it nor closing its loop cancels the work.
    """
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()
    mailbox = _mailboxes.setdefault(loop, Mailbox(_set_done))

    def wake(_: object) -> None:
        # The loop may be closed between the check and the call. The check is there all the same: put
        # appends before it finds the loop closed, and an item that is never received keeps the loop alive.
        with suppress(RuntimeError):
            if not loop.is_closed():
                mailbox.put(end, loop)

    future.add_done_callback(wake)
    return end


def _set_done(end: asyncio.Future[None]) -> None:
    if not end.done():  # its waiter may have been cancelled meanwhile
        end.set_result(None)


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox[asyncio.Future[None]]] = (
    weakref.WeakKeyDictionary()
)
