"""Backoff strategies: functions from the 0-based number of the attempt that failed to seconds to wait.

Each takes ``jitter``, the fraction by which a wait is randomly longer or shorter, so that many clients that
failed at one time do not all retry at one time.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

__all__ = ["BackoffStrategy", "constant", "exponential", "linear"]

BackoffStrategy = Callable[[int], float]
"""A function from the 0-based number of the attempt that failed to the seconds before the next one."""


class _Strategy:
    """A strategy that a checkpoint can hold: pickled, it names the public function that made it.

    Args:
        wait: The strategy.
        again: Returns an equal strategy.
    """

    def __init__(self, wait: BackoffStrategy, again: Callable[[], BackoffStrategy]) -> None:
        self._wait, self._again = wait, again

    def __call__(self, attempt: int) -> float:
        return self._wait(attempt)

    def __reduce__(self) -> tuple[object, ...]:
        return self._again, ()


_random = random.Random()  # noqa: S311 - our own, so that the user's random stream is never drawn from


def exponential(base: float = 2, max: float = 60, *, jitter: float = 0) -> BackoffStrategy:
    """Return a strategy that waits ``base`` seconds, then its square, its cube, never more than ``max``.

    Args:
        base: The first wait, in seconds, and the factor between waits.
        max: The longest wait, in seconds.
        jitter: The fraction by which a wait varies, from 0 to 1.

    Example:
        >>> [exponential(base=2, max=10)(attempt) for attempt in range(4)]
        [2, 4, 8, 10]
    """

    def wait(attempt: int) -> float:
        try:
            return min(_varied(base ** (attempt + 1), jitter), max)
        except OverflowError:
            return max

    return _Strategy(wait, functools.partial(exponential, base, max, jitter=jitter))


def linear(start: float = 2, step: float = 3, *, jitter: float = 0) -> BackoffStrategy:
    """Return a strategy that waits ``start`` seconds, then ``step`` seconds longer each time.

    Args:
        start: The first wait, in seconds.
        step: How much longer each later wait is, in seconds.
        jitter: The fraction by which a wait varies, from 0 to 1.

    Example:
        >>> [linear(start=2, step=3)(attempt) for attempt in range(3)]
        [2, 5, 8]
    """
    again = functools.partial(linear, start, step, jitter=jitter)
    return _Strategy(lambda attempt: _varied(start + step * attempt, jitter), again)


def constant(seconds: float = 5, *, jitter: float = 0) -> BackoffStrategy:
    """Return a strategy that waits ``seconds`` before each attempt.

    Args:
        seconds: The wait, in seconds.
        jitter: The fraction by which a wait varies, from 0 to 1.

    Example:
        >>> [constant(5)(attempt) for attempt in range(3)]
        [5, 5, 5]
    """
    return _Strategy(
        lambda _attempt: _varied(seconds, jitter), functools.partial(constant, seconds, jitter=jitter)
    )


def _varied(seconds: float, jitter: float) -> float:
    return seconds * _random.uniform(1 - jitter, 1 + jitter) if jitter else seconds
