"""The contract between engine and store: ``Journal`` keeps runs, steps, signals and messages as bytes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from durable_nb.errors import RunHeld
from durable_nb.records import Message, Progress, Run, RunSnapshot, RunStatus, Signal, SignalRequest, Step
from durable_nb.stores.blobs.folder import Blobs

__all__ = ["ENDED", "Journal", "reopened"]

ENDED: Final = (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)
"""The statuses of runs that have ended."""


class Journal(ABC):
    """Base class of stores: keeps runs, steps, signals and messages, and treats payloads as opaque bytes.

    Every coroutine runs on the one loop thread of the process, and returns after its writes are committed.
    Failures are raised as ``StoreError``; a write under an epoch that is no longer the run's is raised as
    ``RunHeld``. Writes are idempotent: repeating one changes nothing. Before ``setup`` and after ``close``
    every other coroutine raises ``StoreUnavailable``.
    """

    whole_runs = True
    """True if ``open_run`` returns all steps of a run; otherwise they are read one by one."""

    has_leases = False
    """True if ``open_run`` refuses a run that another living process owns."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The place of the data, for people: a resolved path, or a URL without its password."""

    @property
    def address(self) -> str | None:
        """The ``db`` with which another process opens this store; None if it cannot."""
        return None

    @property
    def identity(self) -> str:
        """The id of the database, which the signatures in it cover; empty if it has none."""
        return ""

    @property
    def is_there(self) -> bool:
        """True if the store exists already, without a call of ``setup``."""
        return True

    @property
    @abstractmethod
    def blobs(self) -> Blobs | None:
        """The place of payloads too large for a row; None if a row can hold any size."""

    @abstractmethod
    async def setup(self) -> None:
        """Create or migrate the store. Called before all other coroutines; calling it again is harmless."""

    @abstractmethod
    async def close(self) -> None:
        """Release files, connections and locks. Calling it again is harmless."""

    @abstractmethod
    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or open it for another pass, under the next epoch.

        Of an existing run, ``status``, ``owner``, ``python`` and ``updated_at`` are taken from ``opening``,
        ``epoch`` and ``passes`` increase by one, and ``result`` becomes None; the other fields stay as
        recorded, ``given`` and ``crashes`` too, so that the caller can compare them. The epoch of a new run
        is higher than that of every run in the store, so that the owner of a renamed run cannot write to a
        new run of its id; its ``passes`` is 1.

        Args:
            opening: The run to create, or the changes of an existing one.
            take_over: Open the run even if another living process owns it.

        Returns:
            The run as recorded now, and all its steps in the order of ``recorded_seq``, read at once.

        Raises:
            RunHeld: With ``has_leases``: the run is running or waiting, and its owner lives in another
                process. Nothing was changed.
        """

    async def check_owner(self, run_id: str) -> None:  # noqa: B027 - without leases every run is free
        """Raise ``RunHeld`` if ``open_run`` would, and change nothing."""

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:  # noqa: B027 - without leases no run is lost
        """Call ``lost`` once, on the loop thread, after another process has opened the run.

        With ``has_leases``, that is at the next heartbeat at the latest, until the run is recorded as ended.

        Args:
            run: The run that ``open_run`` returned.
            lost: A function that takes the error which the run's next write would raise.
        """

    async def abandoned(self) -> frozenset[str]:
        """Return the ids of runs recorded as running or waiting whose owners are known to be dead."""
        return frozenset()

    @abstractmethod
    async def get_run(self, run_id: str) -> Run | None:
        """Return the run without its steps, or None; does not open it."""

    @abstractmethod
    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """Return the run and its steps, or None; does not open it."""

    @abstractmethod
    async def list_runs(self) -> Sequence[Run]:
        """Return all runs, the one with the latest ``updated_at`` first."""

    @abstractmethod
    async def progress(self) -> Mapping[str, Progress]:
        """Return the progress of each run; runs without steps may be left out."""

    @abstractmethod
    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Rename a run with its steps, its signals, its messages and its requests.

        Raises:
            RunNotFound: The run does not exist.
            StoreError: A run of the new id, or a signal or message of the same name for it, exists already.
                Nothing was changed.
        """

    @abstractmethod
    async def put_step(self, step: Step) -> None:
        """Record a step in place of its previous record; fenced by ``step.epoch``."""

    @abstractmethod
    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """Return a step as it was last recorded, or None."""

    async def versions(self, run_id: str, step_id: str) -> Sequence[Step]:  # noqa: ARG002 - of the contract
        """Return the earlier results of a step, the oldest first; ``()`` if the store keeps none.

        ``put_step`` keeps the result that a record of a later attempt replaces.
        """
        return ()

    async def drop_versions(self, run_id: str) -> int:  # noqa: ARG002 - of the contract
        """Delete the earlier results of a run's steps, and return how many there were."""
        return 0

    @abstractmethod
    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result``, ``updated_at`` and ``crashes`` of a run; fenced by ``run.epoch``."""

    @abstractmethod
    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps as ``reset``, and return how many of them exist; fenced by ``run.epoch``."""

    @abstractmethod
    async def put_signal(self, signal: Signal, *, ttl: float | None = None) -> bool:
        """Deliver a signal; return True if it is the first of its name. The run need not exist.

        Args:
            signal: The signal.
            ttl: Seconds after which it is deleted if the run does not exist by then; a store may keep it
                longer while other signals or messages wait for that run. None keeps it.
        """

    @abstractmethod
    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """Return the signal delivered under a name, or None."""

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Return those of the wanted signals, each a run id and a name, that were delivered."""
        found = [await self.get_signal(*each) for each in wanted]
        return [signal for signal in found if signal is not None]

    @abstractmethod
    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Rename a delivered signal, so that its name is free for another delivery.

        Nothing changes if the signal recorded under its name is a different one, or missing.
        """

    async def version(self) -> Hashable:
        """Return a value that differs after a signal or a message was delivered; must be cheap.

        None means that the store cannot tell: waits then look for signals every ``SIGNAL_POLL`` seconds.
        """
        return None

    async def until_changed(self, pause: float) -> None:
        """Wait until ``version`` should be asked for again: ``pause`` seconds, or a notification."""
        await asyncio.sleep(pause)

    @abstractmethod
    async def put_message(self, message: Message, *, ttl: float | None = None) -> None:
        """Append a message to its topic, unless one of its ``delivery`` is there. The run need not exist.

        Args:
            message: The message; its ``number`` is the store's to give: one more than the topic's last.
            ttl: As for ``put_signal``.
        """

    @abstractmethod
    async def unread(self, run_id: str, topic: str, limit: int) -> Sequence[Message]:
        """Return the first messages of a topic, ``limit`` at most, that were not received yet."""

    @abstractmethod
    async def receive(self, message: Message, step: Step) -> None:
        """Record a step as by ``put_step``, and that it has received a message, in one transaction.

        The store need not keep the message's value any longer.
        """

    @abstractmethod
    async def request_signal(self, request: SignalRequest, step: Step | None = None) -> SignalRequest:
        """Record a request for a signal, and the step that waits for it, in one transaction.

        The request replaces an earlier one of that name, and keeps the earlier ``asked_at``.

        Args:
            request: The request.
            step: The step, if there is one; it is recorded as by ``put_step``.

        Returns:
            The request as recorded.

        Raises:
            RunHeld: The epoch of the step is no longer the run's. Nothing was changed.
        """

    @abstractmethod
    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Delete a request; harmless if there is none."""

    @abstractmethod
    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """Return a run's request for a signal of that name, answered or not, or None."""

    @abstractmethod
    async def open_signals(self) -> Sequence[SignalRequest]:
        """Return the requests for signals that were not delivered yet, the oldest first."""


def reopened(known: Run, opening: Run) -> Run:
    """Return a recorded run as its next opening records it: the changes of ``opening``, the next epoch."""
    return known._replace(
        status=opening.status,
        owner=opening.owner,
        python=opening.python,
        updated_at=opening.updated_at,
        epoch=known.epoch + 1,
        passes=known.passes + 1,
        result=None,
    )
