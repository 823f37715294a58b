"""The store contract of python-durable: values, not bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Store"]


class Store(ABC):
    """Keeps results and signals as values. Subclass it, and give an instance as ``Workflow(db=…)``.

    What a run keeps through a subclass is plain JSON data: dicts, lists, strings, numbers.
    """

    @abstractmethod
    async def setup(self) -> None:
        """Create what the store needs; harmless when called again."""

    @abstractmethod
    async def get_step(self, run_id: str, step_id: str) -> tuple[bool, Any]:
        """Whether there is a result of a step, and the result."""

    @abstractmethod
    async def set_step(self, run_id: str, step_id: str, result: Any, attempt: int = 1) -> None:
        """Keep the result of a step, made by the attempt of that number."""

    @abstractmethod
    async def mark_run_done(self, run_id: str) -> None:
        """Note that a run is done."""

    @abstractmethod
    async def mark_run_failed(self, run_id: str, error: str) -> None:
        """Note that a run has failed, and how."""

    @abstractmethod
    async def get_signal(self, run_id: str, name: str) -> tuple[bool, Any]:
        """Whether a signal was delivered, and its payload."""

    @abstractmethod
    async def set_signal(self, run_id: str, name: str, payload: Any) -> bool:
        """Deliver a signal; True if it was the first of its name, else nothing is changed."""
