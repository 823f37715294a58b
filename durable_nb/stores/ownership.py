"""Who owns a run across processes: the owner's heart beats, and others judge by it where they see no more."""

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
    """Who owns a run.

    Attributes:
        run_id: The run.
        epoch: Its epoch.
        owned: Whether it is running or waiting; a run that has ended has no owner.
        name: Its owner, for people.
        since: When it was opened or last marked.
    """

    run_id: str
    epoch: int
    owned: bool
    name: str | None
    since: float

    @property
    @abstractmethod
    def last_heartbeat(self) -> object:
        """Its session and the counter that goes up while that lives."""


Who = TypeVar("Who", bound=Owner)


class Ownership(ABC, Generic[Who]):
    """The session of one journal, and its look at those of others."""

    def __init__(self) -> None:
        self._owned: dict[str, int] = {}
        self._listeners: dict[str, Callable[[RunHeld], None]] = {}
        self._silent: dict[str, tuple[object, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeats: asyncio.Task[None] | None = None

    @abstractmethod
    async def find_owner(self, run_id: str) -> Who | None:
        """Who owns a run; None if there is no such run."""

    @abstractmethod
    def lives(self, owner: Who) -> bool | None:
        """Whether it lives; None where only its heartbeat can tell."""

    @abstractmethod
    def is_ours(self, owner: Who) -> bool:
        """Whether it is this process."""

    @abstractmethod
    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Give a sign of life; gives those runs as they stand, or None where it failed."""

    async def free_epoch(self, run_id: str) -> int | None:
        """The epoch of a run that no living process but this one owns; None if there is no such run.

        Raises:
            RunHeld: Somebody else owns it, and lives.
        """
        first = owner = await self._looked(run_id)
        while owner is not None and not self.is_ours(owner):
            lives = self.lives(owner)
            if lives is False:
                break
            if lives or (first and owner.last_heartbeat != first.last_heartbeat):
                raise held_run(run_id, owner.name, owner.since)
            if time.monotonic() > self._silent_since(owner) + settings.OWNER_SILENT:
                break
            await _look_later(owner, noticed=owner is not first)
            owner = await self._looked(run_id)
        return None if owner is None else owner.epoch

    def is_abandoned(self, owner: Who) -> bool:
        """Whether a run is recorded as running or waiting, and its owner is known to be dead."""
        return owner.owned and not self.is_ours(owner) and self.lives(owner) is False

    def hold(self, run: Run) -> None:
        """Note that this session owns a run: its heart beats while it owns any."""
        self._owned[run.run_id] = run.epoch
        self._silent.pop(run.run_id, None)
        self._arm()

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Note whom to tell when a run is somebody else's."""
        if self._owned.get(run.run_id) == run.epoch:
            self._listeners[run.run_id] = lost

    def let_go(self, run: Run) -> None:
        """Note that a run has ended, or is somebody else's now."""
        if self._owned.get(run.run_id) == run.epoch:  # a later pass of ours may have it
            del self._owned[run.run_id]
            self._listeners.pop(run.run_id, None)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._timer = None
        self._owned.clear()
        self._listeners.clear()

    async def _looked(self, run_id: str) -> Who | None:
        began = time.monotonic()
        owner = await self.find_owner(run_id)
        if time.monotonic() - began > settings.HEARTBEAT:  # no sign of life could come through either
            self._silent.pop(run_id, None)
        return owner

    def _silent_since(self, owner: Owner) -> float:
        """When we first saw it with this beat, be it for a caller who gave up waiting for the next one."""
        last_heartbeat, since = self._silent.get(owner.run_id, (owner.last_heartbeat, time.monotonic()))
        if last_heartbeat != owner.last_heartbeat:
            since = time.monotonic()
        self._silent[owner.run_id] = owner.last_heartbeat, since
        return since

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:  # the loop of last time may be closed
            self._loop = loop
            self._timer = loop.call_later(settings.HEARTBEAT, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._owned:
            self._heartbeats = asyncio.get_running_loop().create_task(self._send_heartbeat())

    async def _send_heartbeat(self) -> None:
        owned = dict(self._owned)  # what is opened from now on is not among what is read
        try:
            standing = await self.heartbeat(owned)
            if standing is not None:
                self._tell_losers(owned, standing)
        finally:  # whatever went wrong: others would take an owner without a heart for dead
            if self._owned:
                self._arm()

    def _tell_losers(self, owned: Mapping[str, int], standing: Mapping[str, Run]) -> None:
        for run_id, epoch in owned.items():
            present = standing.get(run_id)
            if (present is not None and present.epoch == epoch) or self._owned.get(run_id) != epoch:
                continue  # still ours, or opened by us again while we looked
            lost = self._listeners.get(run_id)
            self.let_go(Run(run_id, "", epoch=epoch))
            if lost is not None:
                lost(lost_run(run_id, present))


async def _look_later(owner: Owner, *, noticed: bool) -> None:
    if not noticed:
        what = (
            f"run {owner.run_id!r} is owned by {owner.name}; whether that lives will be known in "
            f"{settings.OWNER_SILENT:g} s at most"
        )
        warnings.warn(what, DurableNotice, stacklevel=2)
    await asyncio.sleep(settings.HEARTBEAT / 5)
