"""What the engine asks of a store: a small, asynchronous contract about bytes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from durable_nb.errors import RunHeld
from durable_nb.records import Progress, Run, RunSnapshot, RunStatus, Signal, SignalRequest, Step
from durable_nb.stores.blobs.folder import Blobs

__all__ = ["ENDED", "Journal", "reopened"]

ENDED: Final = (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)
"""The statuses of runs that have come to their end."""


class Journal(ABC):
    """Keeps runs, steps and signals; never looks into a payload.

    Every coroutine runs on the one loop thread of the process, and returns only when what it wrote is
    committed. Whatever goes wrong is raised as a ``StoreError``, or as ``RunHeld`` where a write came under
    an epoch that is no longer the run's. Writes are idempotent: the same write again changes nothing.
    Before ``setup`` and after ``close`` every other coroutine raises ``StoreUnavailable``.
    """

    whole_runs = True
    """Whether ``open_run`` gives all steps of a run; where it does not, they are read one by one."""

    has_leases = False
    """Whether a run that another living process owns is refused by ``open_run``."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the data is, for people: a resolved path or a URL without its password."""

    @property
    def address(self) -> str | None:
        """What another process gives as ``db`` to open the same store; None where it cannot."""
        return None

    @property
    def is_there(self) -> bool:
        """Whether there is something to look at before ``setup`` creates it."""
        return True

    @property
    @abstractmethod
    def blobs(self) -> Blobs | None:
        """Where payloads too large for a row are kept; None where any size fits a row."""

    @abstractmethod
    async def setup(self) -> None:
        """Create or migrate the store. Called before anything else, and harmless when called again."""

    @abstractmethod
    async def close(self) -> None:
        """Release what the store holds. Harmless when called again."""

    @abstractmethod
    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or take it over for another pass, under the next epoch.

        Where ``has_leases``: a run that is running or waiting, and whose owner lives in another process, is
        refused with ``RunHeld``, and nothing is changed; ``take_over`` takes it all the same.

        Of an existing run, ``status``, ``owner``, ``python`` and ``updated_at`` are taken from ``opening``,
        ``epoch`` and ``passes`` go up by one, ``result`` is emptied; all else stays as recorded, so that the
        caller can compare. The epoch of a new run is above that of every run in the store: who owned a run
        that was renamed stays fenced off from the one that starts over under its id. Its ``passes`` is 1.
        Returns the run as it now stands and all its steps, in the order of ``recorded``, read at once.
        """

    async def check_owner(self, run_id: str) -> None:  # noqa: B027 - without leases every run is free
        """Raise ``RunHeld`` as ``open_run`` would; changes nothing."""

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:  # noqa: B027 - the same
        """Have an owner told, on the loop thread and once, that somebody else has opened its run meanwhile.

        Where ``has_leases``: with the next sign of life, at the latest. Until the run is marked as ended.

        Args:
            run: The run, as ``open_run`` gave it.
            lost: What to call with the error that its next write would raise.
        """

    async def abandoned(self) -> frozenset[str]:
        """The runs that are recorded as running or waiting, and whose owners are known to be dead."""
        return frozenset()

    @abstractmethod
    async def get_run(self, run_id: str) -> Run | None:
        """The run alone, or None; takes no ownership."""

    @abstractmethod
    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """The run and its steps, or None; takes no ownership."""

    @abstractmethod
    async def list_runs(self) -> Sequence[Run]:
        """All runs, the one with the latest ``updated_at`` first."""

    @abstractmethod
    async def progress(self) -> Mapping[str, Progress]:
        """How far each run has come; runs without steps may be left out."""

    @abstractmethod
    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Set a run, its steps, its signals and its requests aside under another id.

        Raises:
            RunNotFound: There is no such run.
            StoreError: A run of the other id, or a signal of the same name for one, is there already;
                nothing was changed.
        """

    @abstractmethod
    async def put_step(self, step: Step) -> None:
        """Record a step, over what was recorded under its id; fenced by ``step.epoch``."""

    @abstractmethod
    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """One step as it was last recorded, or None."""

    @abstractmethod
    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""

    @abstractmethod
    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps ``reset``, all else as recorded; gives how many there were; fenced by ``run.epoch``."""

    @abstractmethod
    async def put_signal(self, signal: Signal) -> bool:
        """Deliver a signal; the run need not exist. True if it was the first of its name."""

    @abstractmethod
    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """What was delivered under that name, or None."""

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Those of the signals, each a run id and a name, that were delivered."""
        found = [await self.get_signal(*each) for each in wanted]
        return [signal for signal in found if signal is not None]

    @abstractmethod
    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Keep a delivered signal under another name, so that its own is free for the next delivery.

        Nothing changes where something else was delivered under its name, or nothing.
        """

    async def version(self) -> Hashable:
        """Something cheap to ask for, which differs once a signal was delivered, by whatever process.

        None where the store cannot tell: it is looked through every so often then.
        """
        return None

    async def until_changed(self, pause: float) -> None:
        """Wait until ``version`` is worth asking for again: so many seconds, or until something is heard."""
        await asyncio.sleep(pause)

    @abstractmethod
    async def request_signal(self, request: SignalRequest) -> SignalRequest:
        """Record what a run waits for; gives it as it is recorded now.

        A request of that name is replaced but for its ``asked_at``: asking again is no later question.
        """

    @abstractmethod
    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Forget a request; harmless where there is none."""

    @abstractmethod
    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """What a run waits for under that name, answered or not, or None."""

    @abstractmethod
    async def open_signals(self) -> Sequence[SignalRequest]:
        """All requests under whose names nothing was delivered yet, the oldest first."""


def reopened(known: Run, opening: Run) -> Run:
    """A known run as the next pass finds it: what ``opening`` says, under the next epoch."""
    return known._replace(
        status=opening.status,
        owner=opening.owner,
        python=opening.python,
        updated_at=opening.updated_at,
        epoch=known.epoch + 1,
        passes=known.passes + 1,
        result=None,
    )
