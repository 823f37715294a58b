"""Sessions: the processes that use a SQLite database, and whether the one that owns a run still lives.

A session is a row, and a lock on the byte of its number in the lock file. On the owner's own machine that
lock tells the living from the dead at once, whatever became of process ids. On another one only the row does:
its counter goes up while the owner lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.errors import DurableNotice, RunHeld
from durable_nb.records import Run, RunStatus
from durable_nb.stores.base import held_run, lost_run
from durable_nb.stores.connection import APART, Connection, Database, Outcome, Work
from durable_nb.stores.failures import translated
from durable_nb.stores.machine import machine

if TYPE_CHECKING:
    from durable_nb.stores.lockfile import LockFile

__all__ = ["Owner", "Sessions"]

_ENROL = "INSERT INTO sessions (host, boot_id, pid, beat, seen) VALUES (?, ?, ?, 0, ?)"
_ON_THIS_HOST = "SELECT sid FROM sessions WHERE host = ?"
_FORGET = "DELETE FROM sessions WHERE sid = ?"
_STANDING = """
    SELECT run_id, epoch, status, owner FROM runs WHERE run_id IN (SELECT value FROM json_each(?))"""
_BEAT = "UPDATE sessions SET beat = beat + 1, seen = ? WHERE sid = ?"
_OWNERS = """
    SELECT run_id, epoch, status IN ('running', 'waiting'), owner, updated_at, runs.sid, host, boot_id, beat
    FROM runs LEFT JOIN sessions ON sessions.sid = runs.sid"""
_OWNER = f"{_OWNERS} WHERE run_id = ?"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a run.

    Attributes:
        run_id: The run.
        epoch: Its epoch.
        owned: Whether it is running or waiting; a run that has ended has no owner.
        name: Its owner, for people.
        since: When it was opened or last marked.
        sid: The owner's session; None in a database from before there were sessions.
        host: Where the owner runs; None if its session is gone.
        boot_id: Since which boot.
        beat: The counter that goes up while the owner lives.
    """

    run_id: str
    epoch: int
    owned: int
    name: str | None
    since: float
    sid: int | None
    host: str | None
    boot_id: str | None
    beat: int | None

    def lives(self, lock: LockFile) -> bool | None:
        """Whether it lives; None where only its heartbeat can tell."""
        here = machine()
        if not self.owned or self.sid is None or self.host is None:
            return False
        if self.host != here.host:
            return None
        if self.boot_id and here.boot_id and self.boot_id != here.boot_id:
            return False
        return lock.is_taken(self.sid)


class Enrolment(Work):
    """Enters a session, its byte locked before anybody can see it, and forgets the dead of this host."""

    sid = 0

    def run(self, connection: Connection) -> None:
        """Do it, inside a transaction."""
        here, lock = machine(), connection.lock
        for (other,) in connection.execute(_ON_THIS_HOST, (here.host,)).fetchall():
            if not lock.is_taken(other):
                connection.execute(_FORGET, (other,))
        while True:  # the byte of a database that was deleted may still be taken
            cursor = connection.execute(_ENROL, (*here, os.getpid(), time.time()))
            self.sid = int(cursor.lastrowid or 0)
            if lock.claim(self.sid):
                return
            connection.execute(_FORGET, (self.sid,))


class Sessions:
    """The session of one journal, and its look at those of others.

    Args:
        database: The journal's database.
        read: Runs statements that only read.
        run: Runs pieces of work in a transaction of the given kind.
    """

    def __init__(
        self,
        database: Database,
        read: Callable[..., Awaitable[list[Outcome]]],
        run: Callable[[str, list[Work]], Awaitable[None]],
    ) -> None:
        self._database = database
        self._read = read
        self._run = run
        self._sid: int | None = None
        self._owned: dict[str, int] = {}
        self._listeners: dict[str, Callable[[RunHeld], None]] = {}
        self._silent: dict[str, tuple[Owner, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._enrolling = asyncio.Lock()

    async def enrol(self) -> int:
        """The number of this journal's session, which begins with the first call."""
        async with self._enrolling:
            if self._sid is None:
                work = Enrolment(())
                await self._run(APART, [work])
                if work.error is not None:
                    raise translated(work.error, self._database.path) from work.error
                self._sid = work.sid
        return self._sid

    async def free_epoch(self, run_id: str) -> int | None:
        """The epoch of a run that no living process but this one owns; None if there is no such run.

        Raises:
            RunHeld: Somebody else owns it, and lives.
        """
        first = owner = await self._owner(run_id)
        while owner is not None and not self._is_ours(owner):
            lives = self._lives(owner)
            if lives is False:
                break
            if lives or (first and (owner.sid, owner.beat) != (first.sid, first.beat)):
                raise held_run(run_id, owner.name, owner.since)
            if time.monotonic() > self._silent_since(owner) + settings.OWNER_SILENT:
                break
            await self._look_later(owner, told=owner is not first)
            owner = await self._owner(run_id)
        return None if owner is None else owner.epoch

    def _silent_since(self, owner: Owner) -> float:
        """When we first saw it with this beat, be it for a caller who gave up waiting for the next one."""
        seen, since = self._silent.get(owner.run_id, (owner, time.monotonic()))
        if (seen.sid, seen.beat) != (owner.sid, owner.beat):
            since = time.monotonic()
        self._silent[owner.run_id] = owner, since
        return since

    async def abandoned(self) -> frozenset[str]:
        """The runs that are recorded as running or waiting, and whose owners are known to be dead."""
        (found,) = await self._read((_OWNERS, ()))
        owners = [Owner(*row) for row in found.rows]
        return frozenset(
            owner.run_id
            for owner in owners
            if owner.owned and not self._is_ours(owner) and self._lives(owner) is False
        )

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

    def end(self) -> None:
        """End this journal's session; what it still owns may be taken by anybody."""
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._timer = None
        self._owned.clear()
        self._listeners.clear()
        if self._sid is not None and self._database.lock is not None:
            self._database.lock.unclaim(self._sid)
        self._sid = None

    @property
    def _lock(self) -> LockFile:
        assert self._database.lock is not None
        return self._database.lock

    def _is_ours(self, owner: Owner) -> bool:
        return owner.sid in self._lock.claimed and owner.host == machine().host

    def _lives(self, owner: Owner) -> bool | None:
        try:
            return owner.lives(self._lock)
        except OSError as error:  # the lock file cannot be reached
            raise translated(error, self._lock.path) from error

    async def _owner(self, run_id: str) -> Owner | None:
        (found,) = await self._read((_OWNER, (run_id,)))
        rows: Sequence[Any] = found.rows
        return Owner(*rows[0]) if rows else None

    async def _look_later(self, owner: Owner, *, told: bool) -> None:
        if not told:
            what = (
                f"run {owner.run_id!r} is owned by {owner.name}; whether that lives will be known in "
                f"{settings.OWNER_SILENT:g} s at most"
            )
            warnings.warn(what, DurableNotice, stacklevel=2)
        await asyncio.sleep(settings.HEARTBEAT / 5)

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:  # the loop of last time may be closed
            self._loop = loop
            self._timer = loop.call_later(settings.HEARTBEAT, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._owned and self._sid is not None:
            self._beating = asyncio.get_running_loop().create_task(self._beat(self._sid))

    async def _beat(self, sid: int) -> None:
        if self._database.lock is not None:
            # Whoever reads the lock file in this process, to copy it, drops our locks on it: take it again.
            self._database.lock.take(sid)
        owned = dict(self._owned)
        work = Work(((_BEAT, (time.time(), sid)), (_STANDING, (json.dumps(list(owned)),))))
        await self._run(APART, [work])
        if work.error is None:
            self._tell_losers(owned, work.outcomes[1].rows)
        if self._owned:
            self._arm()

    def _tell_losers(self, owned: dict[str, int], rows: Sequence[Any]) -> None:
        standing = {row[0]: row[1:] for row in rows}
        for run_id, epoch in owned.items():
            present_epoch, *rest = standing.get(run_id, (None,))
            if epoch == present_epoch or self._owned.get(run_id) != epoch:
                continue  # still ours, or opened by us again while we looked
            lost = self._listeners.get(run_id)
            self.let_go(Run(run_id, "", epoch=epoch))
            if lost is not None:
                present = Run(run_id, "", RunStatus(rest[0]), owner=rest[1]) if rest else None
                lost(lost_run(run_id, present))
