"""Ctrl-C while code awaits, or blocks an event loop: it ends at once, and finished steps stay.

Python alone raises KeyboardInterrupt only in code without a loop. Under ``asyncio.run`` the first one cancels
the main task, which does not hear of it before its code awaits again.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final

__all__ = [
    "Guard",
    "Relay",
    "guarded",
    "guarded_pass",
    "is_loop_ending",
    "running_task",
    "was_interrupted",
]

_END_OF_LOOP: Final = "_cancel_all_tasks"
"""The function that cancels them, in asyncio and in servers that have their own ``asyncio.run``."""


class Guard:
    """The SIGINT handler of a block: it raises KeyboardInterrupt at once, whether its task awaits or not.

    Args:
        task: The task that runs the block; an interrupt of other code cancels it.
        previous: The handler that was set before the block, and is set again after it.

    Attributes:
        active: Whether its block has not ended.
        interrupted: Whether there was an interrupt.
        replaceable: Whether another guard may replace it in a block inside.
    """

    replaceable = False

    def __init__(self, task: asyncio.Task[Any], previous: Any) -> None:
        self.active = True
        self.interrupted = False
        self.previous = previous
        self._task = task
        self._loop = task.get_loop()
        self._cancelled = False
        self._users = 0

    def interrupt(self, signum: int, frame: Any) -> None:
        """Handle SIGINT; called in the main thread, in the context of the code that is interrupted."""
        # Before anything raises: how the run ended is decided by this flag while the exception propagates.
        self.interrupted = True
        current = asyncio.current_task(self._loop)
        if current is self._task and self._may_raise(frame):
            signal.default_int_handler(signum, frame)
        # Other code runs: the loop itself, or another task. The guarded task awaits, and is cancelled; held
        # makes a KeyboardInterrupt of that.
        self._cancel_from_handler(signum, frame)
        if _guarded.get() is self and current is not None and current is not self._task:
            # A task that the block created is busy. A KeyboardInterrupt out of any task ends the loop, so
            # that it gets the CancelledError which it would get at its next await. This comes last: a raise
            # before would leave the guarded task uncancelled.
            raise asyncio.CancelledError

    def enter(self) -> None:
        """Guard the code of this context from now on, without being set as the handler."""
        _guarded.set(self)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Be the handler in a block; of several blocks that share it the last sets the previous one again.

        Raises:
            KeyboardInterrupt: The user interrupted, in place of the CancelledError it caused.
        """
        # The context variable is set before the handler, and reset after it: while the handler is set, code
        # of the block is known as such.
        token = _guarded.set(self)
        if not self._users:
            signal.signal(signal.SIGINT, self.interrupt)
        self._users += 1
        try:
            yield
        except asyncio.CancelledError as cancelled:
            if not self._cancelled:
                raise  # another cancellation, not the interrupt's
            # Or the task would count as being cancelled for the rest of its life, to asyncio.timeout and
            # TaskGroup: it goes on if the user's code catches the KeyboardInterrupt.
            self._task.uncancel()
            raise KeyboardInterrupt().with_traceback(cancelled.__traceback__) from None
        finally:
            self._users -= 1
            # A coroutine that is thrown away with its event loop may end in another thread, where neither the
            # handler can be set nor the variable be reset.
            with suppress(ValueError):
                self._end()
                _guarded.reset(token)

    def _end(self) -> None:
        if not self._users:
            # First: a cancellation that is scheduled already must not hit what the task does after the block.
            self.active = False
            # Only if it is still this one: the user's code may have set a handler of its own meanwhile.
            if signal.getsignal(signal.SIGINT) == self.interrupt:
                signal.signal(signal.SIGINT, signal.SIG_DFL if self.previous is None else self.previous)

    def _may_raise(self, _frame: Any) -> bool:
        return True

    def _cancel_from_handler(self, _signum: int, _frame: Any) -> None:
        # Not task.cancel() here: a handler may run in the middle of the loop's own code.
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.active:
            self._cancelled = self._task.cancel()


class _RunnerGuard(Guard):
    """Set over the handler of ``asyncio.run``, which it calls to have the main task cancelled.

    All passes of a runner share one guard: they may begin and end in any order.
    """

    def __init__(self, previous: Any, task: asyncio.Task[Any]) -> None:
        super().__init__(previous.keywords.get("main_task", task), previous)

    def _may_raise(self, _frame: Any) -> bool:
        return _guarded.get() is self  # code of the main task outside every pass is left to asyncio

    def _cancel_from_handler(self, signum: int, frame: Any) -> None:
        self.previous(signum, frame)


class Relay:
    """A guard's stand-in for code in another thread, where no signal arrives.

    The thread that waits for that code gets the signals, and notes them here.

    Attributes:
        interrupted: Whether there was an interrupt.
    """

    active = replaceable = True
    interrupted = False

    def enter(self) -> None:
        """Have ``was_interrupted`` ask this one in the code of this context from now on."""
        _guarded.set(self)


_guarded: ContextVar[Guard | Relay | None] = ContextVar("durable_nb_guarded", default=None)


@contextmanager
def guarded() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt at once in the block, whether its code awaits or not.

    Enter it in the task that runs a notebook's cell: a KeyboardInterrupt that leaves any other task stops
    the loop, and with it the kernel. It has no effect outside the main thread, without a loop, and inside
    another such block.

    Raises:
        KeyboardInterrupt: The user interrupted, in place of the CancelledError it caused.
    """
    task, outer = running_task(), _enclosing()
    if task is None or (outer is not None and not outer.replaceable):
        yield
        return
    with Guard(task, signal.getsignal(signal.SIGINT)).installed():
        yield


@contextmanager
def guarded_pass() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt at once in a pass through a run's code.

    It has no effect in a guarded block, and where the user's code has set a handler for SIGINT.
    """
    guard = None if _enclosing() is not None else _guard_for_pass()
    with nullcontext() if guard is None else guard.installed():
        yield


def is_loop_ending() -> bool:
    """Return whether the event loop ends and cancels the tasks that are left, as ``asyncio.run`` does."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - of CPython, as signal handlers get one
    while frame is not None and frame.f_code.co_name != _END_OF_LOOP:
        frame = frame.f_back
    return frame is not None


def was_interrupted() -> bool:
    """Return whether the guarded block that this code is part of was interrupted."""
    outer = _enclosing()
    return outer is not None and outer.interrupted


def running_task() -> asyncio.Task[Any] | None:
    """Return the task that this code is part of; None outside the main thread, where no signal arrives."""
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _enclosing() -> Guard | Relay | None:
    guard = _guarded.get()
    return guard if guard is not None and guard.active else None


def _guard_for_pass() -> Guard | None:
    """Return a guard that fits the handler which Python has set; None if the user's code has set another."""
    task = running_task()
    handler = None if task is None else signal.getsignal(signal.SIGINT)
    if task is None or handler is None:
        return None
    if handler is signal.default_int_handler:
        return Guard(task, handler)
    # Another pass may have set its guard over the runner's handler: it is shared, since guards on top of each
    # other could be removed in an order in which the last one sets a handler that has ended.
    owner = getattr(handler, "__self__", None)
    if isinstance(owner, _RunnerGuard):
        return owner
    if isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner):
        return _RunnerGuard(handler, task)
    return None
