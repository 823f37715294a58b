"""A time limit for synchronous code, which ends the body: a second one never begins while the first lives."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from durable_nb.errors import StepTimeout

__all__ = ["deadline", "timed_out"]


def timed_out(seconds: float) -> StepTimeout:
    """The error of an attempt that took too long."""
    return StepTimeout(
        f"an attempt took longer than its timeout of {seconds:g} s",
        remedy="Give it more time, timeout=…, or make the body do less.",
    )


@contextmanager
def deadline(seconds: float, applies: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Raise ``StepTimeout`` in the body after that many seconds.

    In the main thread an alarm interrupts whatever waits; in another thread Python code is interrupted, and a
    wait in C is left when it ends.

    Args:
        seconds: How long the body may take.
        applies: Whether the code that the alarm interrupts is the body's, asked when the time is up.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and hasattr(signal, "setitimer"):
        limit = _alarm(seconds, applies)
    else:
        limit = _raised_from_outside(seconds)
    with limit:
        yield


@contextmanager
def _alarm(seconds: float, applies: Callable[[], bool]) -> Iterator[None]:
    def expire(_signum: int, _frame: FrameType | None) -> None:
        if applies():
            raise timed_out(seconds)

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, expire)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm, put off while the body ran
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-6), interval)


@contextmanager
def _raised_from_outside(seconds: float) -> Iterator[None]:
    thread, guard = threading.get_ident(), threading.Lock()
    running, expired = True, False

    def expire() -> None:
        nonlocal expired
        with guard:
            if running:
                expired = True
                _raise_in(thread, _Expired)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except _Expired:
        raise timed_out(seconds) from None
    finally:
        with guard:
            running = False
        timer.cancel()
        if expired:
            _raise_in(thread, None)  # in case it has not arrived yet


class _Expired(BaseException):
    """Arrives in the thread of a body whose time is up; a body's own ``except Exception`` lets it pass."""


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    raised = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
