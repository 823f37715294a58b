"""A time limit for synchronous code: it ends the body, so that no second attempt begins while one runs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from durable_nb.errors import StepTimeout

__all__ = ["can_interrupt", "deadline", "timed_out"]


def timed_out(seconds: float) -> StepTimeout:
    """Return the error of an attempt that took longer than ``seconds``."""
    return StepTimeout(
        f"an attempt took longer than its timeout of {seconds:g} s",
        remedy="Set a longer timeout=…, or make the body do less.",
    )


def can_interrupt() -> bool:
    """Return whether ``deadline`` can end a body in this thread: Python runs signal handlers in one alone."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


@contextmanager
def deadline(seconds: float, applies: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Raise ``StepTimeout`` in the body after that many seconds, where ``can_interrupt()``.

    An alarm interrupts every wait, also one in C code.

    Args:
        seconds: How long the body may take, in seconds.
        applies: Called when the time is up: whether the code that the alarm interrupts is the body's.

    Raises:
        ValueError: This is not the main thread.
    """

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
