"""``Store``, the contract of python-durable for stores of values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Store"]


class Store(ABC):
    """Base class of stores that keep results and signals as values.

    Values are plain JSON data: dicts, lists, strings, numbers. A ``Journal`` keeps bytes, and can do more.

    Example:
        >>> class RowStore(Store): ...
        >>> wf = Workflow("etl", db=RowStore())
    """

    @abstractmethod
    async def setup(self) -> None:
        """Create the tables or files of the store; calling it again is harmless."""

    @abstractmethod
    async def get_step(self, run_id: str, step_id: str) -> tuple[bool, Any]:
        """Return whether a step has a result, and the result."""

    @abstractmethod
    async def set_step(self, run_id: str, step_id: str, result: Any, attempt: int = 1) -> None:
        """Keep the result of a step, and the number of the attempt that returned it."""

    @abstractmethod
    async def mark_run_done(self, run_id: str) -> None:
        """Record that a run is done."""

    @abstractmethod
    async def mark_run_failed(self, run_id: str, error: str) -> None:
        """Record that a run has failed, and its error."""

    @abstractmethod
    async def get_signal(self, run_id: str, name: str) -> tuple[bool, Any]:
        """Return whether a signal was delivered, and its payload."""

    @abstractmethod
    async def set_signal(self, run_id: str, name: str, payload: Any) -> bool:
        """Deliver a signal; return True if it is the first of its name, otherwise change nothing."""
