"""A time limit for synchronous code: it ends the body, so that no second attempt begins while one runs."""

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
    """Return the error of an attempt that took longer than ``seconds``."""
    return StepTimeout(
        f"an attempt took longer than its timeout of {seconds:g} s",
        remedy="Set a longer timeout=…, or make the body do less.",
    )


@contextmanager
def deadline(seconds: float, applies: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Raise ``StepTimeout`` in the body after that many seconds.

    In the main thread an alarm interrupts every wait, also one in C code. In another thread only Python code
    can be interrupted: a wait in C code, such as ``time.sleep``, ends first.

    Args:
        seconds: How long the body may take, in seconds.
        applies: Called when the time is up: whether the code that the alarm interrupts is the body's.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and hasattr(signal, "setitimer"):
        limit = _alarm(seconds, applies)
    else:
        limit = _raise_from_timer(seconds)
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
        if left:  # an alarm of the user's, put off while the body ran
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-6), interval)


@contextmanager
def _raise_from_timer(seconds: float) -> Iterator[None]:
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
        # Under the lock: either the timer sees that the body has ended, or it has raised by now.
        with guard:
            running = False
        timer.cancel()
        if expired:
            _raise_in(thread, None)  # take it back in case it has not arrived yet


class _Expired(BaseException):
    """Raised in the thread of a body whose time is up; no Exception, so that the body does not catch it."""


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    raised = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
