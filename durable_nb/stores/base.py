"""What the engine asks of a store: a small, asynchronous contract about bytes."""

from __future__ import annotations

import asyncio
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

from durable_nb.blobs import Blobs
from durable_nb.errors import RunHeld, RunNotFound, StoreError
from durable_nb.records import Progress, Run, RunSnapshot, RunStatus, Signal, SignalRequest, Step

__all__ = ["ENDED", "Journal", "Store", "held_run", "id_taken", "lost_run", "reopened", "unknown_run"]

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


def lost_run(run_id: str, present: Run | None, *, step: str | None = None) -> RunHeld:
    """The error for a write under an epoch that is no longer the run's.

    Args:
        run_id: The run.
        present: The run as it stands now; None where nothing is left under its id.
        step: The step that was to be written, if it was one.
    """
    if present is None:
        what = "this kernel no longer owns the run: nothing is recorded under its id any more"
    else:
        became = "cancelled" if present.status is RunStatus.CANCELLED else "opened again elsewhere"
        by = present.owner or "somebody unnamed"
        what = f"this kernel no longer owns the run: it was {became} (by {by})"
    where = "look for it in the list of runs" if present is None else "go on there"
    remedy = f"Nothing was written; {where}, or {_taking_over(run_id)}"
    return RunHeld(what, run_id=run_id, step=step, remedy=remedy)


def _taking_over(run_id: str) -> str:
    return (
        f"take it over: %durable_workflow {shlex.quote(run_id)} --take-over; "
        "in code: .run(…, take_over=True)."
    )


def held_run(run_id: str, owner: str | None, since: float) -> RunHeld:
    """The error for a run that cannot be opened, since somebody else owns it and lives.

    Args:
        run_id: The run.
        owner: Who owns it, for people.
        since: When it was opened there or last marked, in seconds since 1970.
    """
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    what = f"{owner or 'somebody unnamed'} owns it since {clock} ({max(0.0, time.time() - since):.0f} s ago)"
    return RunHeld(what, run_id=run_id, remedy=f"Go on there, or {_taking_over(run_id)}")


def unknown_run(run_id: str, address: str | None = None) -> RunNotFound:
    """The error for a run that is not there.

    Args:
        run_id: The run.
        address: What opens the database elsewhere, if it is known.
    """
    db = shlex.quote(address) if address else "PATH"
    remedy = f"Which there are: durable-nb runs --db {db}, in a notebook %durable_runs."
    return RunNotFound("there is no such run", run_id=run_id, remedy=remedy)


def id_taken(run_id: str, new_id: str, doing: str = "renamed to") -> StoreError:
    """The error for a run that cannot be renamed or forked, since something has the other id already."""
    return StoreError(
        f"it cannot be {doing} {new_id!r}, that id is taken",
        run_id=run_id,
        remedy=f"Choose another id; to go on with that run: %durable_workflow {shlex.quote(new_id)}",
    )
