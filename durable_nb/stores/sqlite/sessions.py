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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_nb.records import Run, RunStatus
from durable_nb.stores.host import machine
from durable_nb.stores.ownership import Owner, Ownership
from durable_nb.stores.sqlite.connection import APART, Connection, Database, Outcome, Work
from durable_nb.stores.sqlite.errors import translated

if TYPE_CHECKING:
    from durable_nb.stores.sqlite.lockfile import LockFile

__all__ = ["FileOwner", "Sessions"]

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
class FileOwner(Owner):
    """Who owns a run.

    Attributes:
        sid: The owner's session; None in a database from before there were sessions.
        host: Where the owner runs; None if its session is gone.
        boot_id: Since which boot.
        beat_number: The counter that goes up while the owner lives.
    """

    sid: int | None
    host: str | None
    boot_id: str | None
    beat_number: int | None

    @property
    def last_heartbeat(self) -> object:
        """Its session and the counter."""
        return self.sid, self.beat_number

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


class Sessions(Ownership[FileOwner]):
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
        super().__init__()
        self._database = database
        self._read = read
        self._run = run
        self._sid: int | None = None
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

    async def abandoned(self) -> frozenset[str]:
        """The runs that are recorded as running or waiting, and whose owners are known to be dead."""
        (found,) = await self._read((_OWNERS, ()))
        owners = (FileOwner(*row) for row in found.rows)
        return frozenset(owner.run_id for owner in owners if self.is_abandoned(owner))

    def end(self) -> None:
        """End this journal's session; what it still owns may be taken by anybody."""
        self.stop()
        if self._sid is not None and self._database.lock is not None:
            self._database.lock.unclaim(self._sid)
        self._sid = None

    async def find_owner(self, run_id: str) -> FileOwner | None:
        """Who owns a run; None if there is no such run."""
        (found,) = await self._read((_OWNER, (run_id,)))
        rows: Sequence[Any] = found.rows
        return FileOwner(*rows[0]) if rows else None

    def is_ours(self, owner: FileOwner) -> bool:
        """Whether it is this process."""
        return owner.sid in self._lock.claimed and owner.host == machine().host

    def lives(self, owner: FileOwner) -> bool | None:
        """Whether it lives; None where only its heartbeat can tell."""
        try:
            return owner.lives(self._lock)
        except OSError as error:  # the lock file cannot be reached
            raise translated(error, self._lock.path) from error

    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Give a sign of life; gives those runs as they stand, or None where it failed."""
        if self._sid is None:
            return None
        if self._database.lock is not None:
            # Whoever reads the lock file in this process, to copy it, drops our locks on it: take it again.
            self._database.lock.take(self._sid)
        work = Work(((_BEAT, (time.time(), self._sid)), (_STANDING, (json.dumps(list(run_ids)),))))
        await self._run(APART, [work])
        if work.error is not None:
            return None
        rows: Sequence[Any] = work.outcomes[1].rows
        return {
            run_id: Run(run_id, "", RunStatus(status), epoch=epoch, owner=owner)
            for run_id, epoch, status, owner in rows
        }

    @property
    def _lock(self) -> LockFile:
        assert self._database.lock is not None
        return self._database.lock
