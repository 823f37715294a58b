"""Ownership of runs across processes: the owner sends heartbeats, which show other machines that it lives."""

from __future__ import annotations

import asyncio
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from durable_nb import settings
from durable_nb.errors import DurableNotice, RunHeld
from durable_nb.records import Run
from durable_nb.stores.errors import held_run, lost_run

__all__ = ["Owner", "Ownership"]


@dataclass(frozen=True, slots=True)
class Owner(ABC):
    """The owner of a run.

    Attributes:
        run_id: The run.
        epoch: The run's epoch.
        owned: True while the run is running or waiting; a run that has ended has no owner.
        name: A description of the owner, for people.
        since: Time at which the run was opened or last changed, in seconds since 1970.
    """

    run_id: str
    epoch: int
    owned: bool
    name: str | None
    since: float

    @property
    @abstractmethod
    def last_heartbeat(self) -> object:
        """The session, and its counter, which increases while the session lives."""


AnyOwner = TypeVar("AnyOwner", bound=Owner)


class Ownership(ABC, Generic[AnyOwner]):
    """The session of one journal: the runs it owns, and its view of the owners of others."""

    def __init__(self) -> None:
        self._owned: dict[str, int] = {}
        self._listeners: dict[str, Callable[[RunHeld], None]] = {}
        self._last_seen: dict[str, tuple[object, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeats: asyncio.Task[None] | None = None

    @abstractmethod
    async def find_owner(self, run_id: str) -> AnyOwner | None:
        """Return the owner of a run; None if the run does not exist."""

    @abstractmethod
    def is_alive(self, owner: AnyOwner) -> bool | None:
        """Return whether an owner is alive; None if only its heartbeats can tell."""

    @abstractmethod
    def is_ours(self, owner: AnyOwner) -> bool:
        """Return whether the owner is this process."""

    @abstractmethod
    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Send a heartbeat; return the current state of those runs, or None if it failed."""

    async def free_epoch(self, run_id: str) -> int | None:
        """Return the epoch of a run that no other living process owns; None if the run does not exist.

        Where only heartbeats can tell, this waits up to ``OWNER_SILENT`` for the next one.

        Args:
            run_id: The run.

        Raises:
            RunHeld: Another living process owns it.
        """
        first = owner = await self._find_owner_timed(run_id)
        while owner is not None and not self.is_ours(owner):
            alive = self.is_alive(owner)
            if alive is False:
                break
            if alive or (first and owner.last_heartbeat != first.last_heartbeat):
                raise held_run(run_id, owner.name, owner.since)
            if time.monotonic() > self._unchanged_since(owner) + settings.OWNER_SILENT:
                break
            await _wait_for_heartbeat(owner, announced=owner is not first)
            owner = await self._find_owner_timed(run_id)
        return None if owner is None else owner.epoch

    def is_abandoned(self, owner: AnyOwner) -> bool:
        """Return whether a run is recorded as running or waiting and its owner is known to be dead."""
        return owner.owned and not self.is_ours(owner) and self.is_alive(owner) is False

    @property
    def owns_runs(self) -> bool:
        """True while this session owns a run."""
        return bool(self._owned)

    def hold(self, run: Run) -> None:
        """Note that this session owns a run; it sends heartbeats while it owns any."""
        self._owned[run.run_id] = run.epoch
        self._last_seen.pop(run.run_id, None)
        self._schedule_heartbeat()

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Call ``lost`` once another process has opened a run that this session owns."""
        if self._owned.get(run.run_id) == run.epoch:
            self._listeners[run.run_id] = lost

    def let_go(self, run: Run) -> None:
        """Note that this session no longer owns a run."""
        if self._owned.get(run.run_id) == run.epoch:  # this process may have opened it again
            del self._owned[run.run_id]
            self._listeners.pop(run.run_id, None)

    def stop(self) -> None:
        """Send no more heartbeats."""
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._timer = None
        self._owned.clear()
        self._listeners.clear()

    async def _find_owner_timed(self, run_id: str) -> AnyOwner | None:
        started = time.monotonic()
        owner = await self.find_owner(run_id)
        if time.monotonic() - started > settings.HEARTBEAT:  # the owner's heartbeats may have been as slow
            self._last_seen.pop(run_id, None)
        return owner

    def _unchanged_since(self, owner: Owner) -> float:
        """Return when its last heartbeat was first seen, also by an earlier call that gave up waiting."""
        last_heartbeat, since = self._last_seen.get(owner.run_id, (owner.last_heartbeat, time.monotonic()))
        if last_heartbeat != owner.last_heartbeat:
            since = time.monotonic()
        self._last_seen[owner.run_id] = owner.last_heartbeat, since
        return since

    def _schedule_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:  # the previous loop may be closed
            self._loop = loop
            self._timer = loop.call_later(settings.HEARTBEAT, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._owned:
            self._heartbeats = asyncio.get_running_loop().create_task(self._send_heartbeat())

    async def _send_heartbeat(self) -> None:
        owned = dict(self._owned)  # runs opened from here on are missing from what is read below
        try:
            current = await self.heartbeat(owned)
            if current is not None:
                self._report_lost(owned, current)
        finally:  # after any error: other machines take an owner without heartbeats for dead
            if self._owned:
                self._schedule_heartbeat()

    def _report_lost(self, owned: Mapping[str, int], current: Mapping[str, Run]) -> None:
        for run_id, epoch in owned.items():
            present = current.get(run_id)
            if (present is not None and present.epoch == epoch) or self._owned.get(run_id) != epoch:
                continue  # still ours, or opened again by this process meanwhile
            lost = self._listeners.get(run_id)
            self.let_go(Run(run_id, "", epoch=epoch))
            if lost is not None:
                lost(lost_run(run_id, present))


async def _wait_for_heartbeat(owner: Owner, *, announced: bool) -> None:
    if not announced:
        message = (
            f"run {owner.run_id!r} is owned by {owner.name}: waiting up to {settings.OWNER_SILENT:g} s for a "
            "heartbeat, to see whether the owner is alive"
        )
        warnings.warn(message, DurableNotice, stacklevel=2)
    await asyncio.sleep(settings.HEARTBEAT / 5)
