"""How long to wait before the next attempt: functions from the attempt that failed (0-based) to seconds."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BackoffStrategy", "constant", "exponential", "linear"]

BackoffStrategy = Callable[[int], float]
"""Takes the 0-based number of the attempt that failed, gives the seconds to wait before the next."""


def exponential(base: float = 2, max: float = 60) -> BackoffStrategy:
    """Wait ``base`` seconds, then its square, its cube, never more than ``max``.

    Args:
        base: The first wait, in seconds, and the factor between waits.
        max: The longest wait, in seconds.

    Example:
        >>> [exponential(base=2, max=10)(attempt) for attempt in range(4)]
        [2, 4, 8, 10]
    """

    def wait(attempt: int) -> float:
        try:
            return min(base ** (attempt + 1), max)
        except OverflowError:
            return max

    return wait


def linear(start: float = 2, step: float = 3) -> BackoffStrategy:
    """Wait ``start`` seconds, then ``step`` seconds longer each time.

    Args:
        start: The first wait, in seconds.
        step: How much longer each later wait is, in seconds.

    Example:
        >>> [linear(start=2, step=3)(attempt) for attempt in range(3)]
        [2, 5, 8]
    """
    return lambda attempt: start + step * attempt


def constant(seconds: float = 5) -> BackoffStrategy:
    """Wait the same time before each attempt.

    Args:
        seconds: The wait, in seconds.

    Example:
        >>> [constant(5)(attempt) for attempt in range(3)]
        [5, 5, 5]
    """
    return lambda _attempt: seconds
