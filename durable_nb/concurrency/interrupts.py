"""Ctrl-C while code awaits, or blocks an event loop: it ends at once, and finished steps stay.

Python alone raises KeyboardInterrupt only in code without a loop. Under ``asyncio.run`` the first one cancels
the main task, which does not hear of it before its code awaits again.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

__all__ = ["Guard", "Relay", "guarded", "guarded_pass", "noted", "running_task"]


class Guard:
    """The SIGINT handler of a block: KeyboardInterrupt at once in whatever its task does, awaiting or not.

    Args:
        task: The task; an interrupt elsewhere cancels it.
        previous: The handler that this one stands before.

    Attributes:
        active: Whether its block has not ended.
        noted: Whether there was an interrupt.
        gives_way: Whether another guard may take its place in a block inside.
    """

    gives_way = False

    def __init__(self, task: asyncio.Task[Any], previous: Any) -> None:
        self.active = True
        self.noted = False
        self.previous = previous
        self._task = task
        self._loop = task.get_loop()
        self._cancelled = False
        self._users = 0

    def interrupt(self, signum: int, frame: Any) -> None:
        """Handle SIGINT. Python does so in the context of the code that it interrupts."""
        self.noted = True
        current = asyncio.current_task(self._loop)
        if current is self._task and self._may_raise(frame):
            signal.default_int_handler(signum, frame)
        self._hand_on(signum, frame)
        if _guarded.get() is self and current is not None and current is not self._task:
            # A task of the block's, busy: a KeyboardInterrupt out of it would end the loop.
            raise asyncio.CancelledError

    def enter(self) -> None:
        """Guard the code of this context from now on."""
        _guarded.set(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the handler in a block; the last of several that share it puts the previous one back."""
        token = _guarded.set(self)
        if not self._users:
            signal.signal(signal.SIGINT, self.interrupt)
        self._users += 1
        try:
            yield
        except asyncio.CancelledError as cancelled:
            if not self._cancelled:
                raise
            self._task.uncancel()
            raise KeyboardInterrupt().with_traceback(cancelled.__traceback__) from None
        finally:
            self._users -= 1
            with suppress(ValueError):  # thrown away in another thread, with its event loop
                self._end()
                _guarded.reset(token)

    def _end(self) -> None:
        if not self._users:
            self.active = False
            if signal.getsignal(signal.SIGINT) == self.interrupt:
                signal.signal(signal.SIGINT, signal.SIG_DFL if self.previous is None else self.previous)

    def _may_raise(self, _frame: Any) -> bool:
        return True

    def _hand_on(self, _signum: int, _frame: Any) -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.active:
            self._cancelled = self._task.cancel()


class _RunnerGuard(Guard):
    """Stands before the handler of ``asyncio.run``, which cancels the main task and makes the best of it.

    All passes of a runner share one: they may begin and end in any order.
    """

    def __init__(self, previous: Any, task: asyncio.Task[Any]) -> None:
        super().__init__(previous.keywords.get("main_task", task), previous)

    def _may_raise(self, _frame: Any) -> bool:
        return _guarded.get() is self  # the main task's code outside every pass is not ours

    def _hand_on(self, signum: int, frame: Any) -> None:
        self.previous(signum, frame)


class Relay:
    """Stands for a guard in another thread, where no signal arrives: who waits for its work hands them on.

    Attributes:
        noted: Whether there was an interrupt.
    """

    active = gives_way = True
    noted = False

    def enter(self) -> None:
        """Be asked by the code of this context from now on."""
        _guarded.set(self)


_guarded: ContextVar[Guard | Relay | None] = ContextVar("durable_nb_guarded", default=None)


@contextmanager
def guarded() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt at once in whatever the block does, awaiting or not.

    Enter it in the task that runs a notebook's cell: a KeyboardInterrupt that leaves any other task stops
    the loop, and with it the kernel. Outside the main thread, or without a loop, it does nothing, and so
    does an inner one.

    Raises:
        KeyboardInterrupt: The user interrupted, in place of the CancelledError it caused.
    """
    task, outer = running_task(), _outer()
    if task is None or (outer is not None and not outer.gives_way):
        yield
        return
    with Guard(task, signal.getsignal(signal.SIGINT)).held():
        yield


@contextmanager
def guarded_pass() -> Iterator[None]:
    """The same for a pass through a run's code, where nobody but Python has set a handler for SIGINT."""
    guard = None if _outer() is not None else _fitting()
    with nullcontext() if guard is None else guard.held():
        yield


def noted() -> bool:
    """Whether the block that this code is part of was interrupted."""
    outer = _outer()
    return outer is not None and outer.noted


def running_task() -> asyncio.Task[Any] | None:
    """The task that this code is part of; None outside the main thread, where no signal arrives."""
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _outer() -> Guard | Relay | None:
    guard = _guarded.get()
    return guard if guard is not None and guard.active else None


def _fitting() -> Guard | None:
    task = running_task()
    handler = None if task is None else signal.getsignal(signal.SIGINT)
    if task is None or handler is None:
        return None
    if handler is signal.default_int_handler:
        return Guard(task, handler)
    owner = getattr(handler, "__self__", None)
    if isinstance(owner, _RunnerGuard):
        return owner
    if isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner):
        return _RunnerGuard(handler, task)
    return None
