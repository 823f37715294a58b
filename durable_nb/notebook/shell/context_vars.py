"""What a durable cell sets in its context outlives it, as what an ordinary cell sets there does.

numpy's print options and a first decimal context live in ContextVars; a cell that is awaited has a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

__all__ = ["ContextVarCarrier"]


class ContextVarCarrier:
    """Takes what was set in one context over into another.

    Example:
        >>> carrier = Carrier()
        >>> with carrier.taken():  # in the task of a cell
        ...     numpy.set_printoptions(precision=3)
        >>> carrier.hand_over()  # outside of it
    """

    def __init__(self) -> None:
        self._changed: dict[ContextVar[Any], Any] = {}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take what the block sets, if it succeeds or not."""
        before = dict(copy_context().items())
        try:
            yield
        finally:
            after = copy_context().items()
            self._changed = {
                var: value for var, value in after if var not in before or before[var] is not value
            }

    def hand_over(self, *_: object) -> None:
        """Set it in the current context, once."""
        for var, value in self._changed.items():
            var.set(value)
        self._changed = {}
