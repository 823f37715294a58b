"""What the engine asks of a store: a small, asynchronous contract about bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from durable_nb.records import Run, RunSnapshot, Signal, Step

__all__ = ["Journal"]


class Journal(ABC):
    """Keeps runs, steps and signals; never looks into a payload.

    Every coroutine runs on the one loop thread of the process, and returns only when what it wrote is
    committed. Whatever goes wrong is raised as a ``StoreError``, or as ``RunHeld`` where a write came under
    an epoch that is no longer the run's. Writes are idempotent: the same write again changes nothing.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the data is, for people: a resolved path or a URL without its password."""

    @abstractmethod
    async def setup(self) -> None:
        """Create or migrate the store. Called before anything else, and harmless when called again."""

    @abstractmethod
    async def close(self) -> None:
        """Release what the store holds. Harmless when called again."""

    @abstractmethod
    async def open_run(self, opening: Run) -> RunSnapshot:
        """Create the run, or take it over for another pass, under the next epoch.

        Of an existing run, ``status``, ``owner``, ``python`` and ``updated_at`` are taken from ``opening``,
        ``epoch`` and ``passes`` go up by one, ``result`` is emptied; all else stays as recorded, so that the
        caller can compare. Returns the run as it now stands and all its steps, read at once.
        """

    @abstractmethod
    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """The run and its steps, or None; takes no ownership."""

    @abstractmethod
    async def list_runs(self) -> Sequence[Run]:
        """All runs, the one touched last first."""

    @abstractmethod
    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Set a run, its steps and its signals aside under another id."""

    @abstractmethod
    async def put_step(self, step: Step) -> None:
        """Record a step, over what was recorded under its id; fenced by ``step.epoch``."""

    @abstractmethod
    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""

    @abstractmethod
    async def reset_steps(self, run_id: str, step_ids: Sequence[str]) -> int:
        """Mark steps ``reset``; gives how many there were."""

    @abstractmethod
    async def put_signal(self, signal: Signal) -> bool:
        """Deliver a signal; the run need not exist. True if it was the first of its name."""

    @abstractmethod
    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """What was delivered under that name, or None."""
