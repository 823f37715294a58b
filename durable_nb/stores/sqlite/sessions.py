"""Sessions: the processes that use a SQLite database, and whether the owner of a run is alive.

A session is a row, and a lock on the byte of its number in the lock file. On the owner's machine that lock
shows at once whether the owner is alive, even if its process id was reused. On another machine only the row
does: its counter increases while the owner lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable_nb.records import Run, RunStatus
from durable_nb.stores.host import machine
from durable_nb.stores.ownership import Owner, Ownership
from durable_nb.stores.rows import RUN_STATUSES
from durable_nb.stores.sqlite.connection import HOUSEKEEPING, Connection, Outcome, Work
from durable_nb.stores.sqlite.database import Database
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.lockfile import LockFile

__all__ = ["FileOwner", "Sessions"]

_CREATE = "INSERT INTO sessions (host, boot_id, pid, beat, seen) VALUES (?, ?, ?, 0, ?)"
_ON_THIS_HOST = "SELECT sid FROM sessions WHERE host = ?"
_DELETE = "DELETE FROM sessions WHERE sid = ?"
_GET_OWNED = """
    SELECT run_id, epoch, status, owner FROM runs WHERE run_id IN (SELECT value FROM json_each(?))"""
_BEAT = "UPDATE sessions SET beat = beat + 1, seen = ? WHERE sid = ?"
_OWNERS = """
    SELECT run_id, epoch, status IN ('running', 'waiting'), owner, updated_at, runs.sid, host, boot_id, beat
    FROM runs LEFT JOIN sessions ON sessions.sid = runs.sid"""
_OWNER = f"{_OWNERS} WHERE run_id = ?"


@dataclass(frozen=True, slots=True)
class FileOwner(Owner):
    """The owner of a run in a SQLite database.

    Attributes:
        sid: The owner's session; None in a database from before there were sessions.
        host: The owner's machine; None if its session has ended.
        boot_id: The boot of that machine.
        beat_number: The counter of its heartbeats.
    """

    sid: int | None
    host: str | None
    boot_id: str | None
    beat_number: int | None

    @property
    def last_heartbeat(self) -> object:
        """The session and its counter."""
        return self.sid, self.beat_number

    def is_alive(self, database: Database) -> bool | None:
        """Return whether the owner is alive; None if only its heartbeats can tell."""
        here = machine()
        if not self.owned or self.sid is None or self.host is None:
            return False
        if self.host != here.host:
            return None
        if self.boot_id and here.boot_id and self.boot_id != here.boot_id:
            return False
        return database.is_session_alive(self.sid)


class StartSession(Work):
    """Creates a session, and deletes the dead ones of this host.

    Its byte is locked before the row is committed: until then no other process can find the session, and take
    it for dead. It is locked in the database too: a lock file that is deleted must not end the session.
    """

    sid = 0

    def run(self, connection: Connection) -> None:
        """Execute it, inside a transaction."""
        here, lock, files = machine(), connection.lock, connection.files
        assert files is not None
        for (other,) in connection.execute(_ON_THIS_HOST, (here.host,)).fetchall():
            if not lock.is_locked(other) and not files.is_claimed(other):
                connection.execute(_DELETE, (other,))
        while True:  # a process may still hold this byte for a database that was deleted
            cursor = connection.execute(_CREATE, (*here, os.getpid(), time.time()))
            self.sid = int(cursor.lastrowid or 0)
            if lock.claim(self.sid):
                if files.claim(self.sid):
                    return
                lock.unclaim(self.sid)
            connection.execute(_DELETE, (self.sid,))


class Sessions(Ownership[FileOwner]):
    """The session of one journal, and its view of the sessions of others.

    Args:
        database: The journal's database.
        read: Runs statements that only read.
        run: Runs ``Work`` in a transaction that begins with the given statement.
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
        self._starting = asyncio.Lock()

    async def start(self) -> int:
        """Return the number of this journal's session, which begins with the first call."""
        async with self._starting:
            if self._sid is None:
                work = StartSession(())
                await self._run(HOUSEKEEPING, [work])
                if work.error is not None:
                    raise translated(work.error, self._database.path) from work.error
                self._sid = work.sid
                self._database.session = (work.sid, *machine(), os.getpid())
        return self._sid

    async def abandoned(self) -> frozenset[str]:
        """Return the ids of runs recorded as running or waiting whose owners are known to be dead."""
        (found,) = await self._read((_OWNERS, ()))
        owners = (FileOwner(*row) for row in found.rows)
        return frozenset(owner.run_id for owner in owners if self.is_abandoned(owner))

    def end(self) -> None:
        """End this journal's session; other processes may open the runs it still owns."""
        self.stop()
        if self._sid is not None and self._database.lock is not None:
            self._database.lock.unclaim(self._sid)
        self._sid = self._database.session = None

    async def find_owner(self, run_id: str) -> FileOwner | None:
        """Return the owner of a run; None if the run does not exist."""
        (found,) = await self._read((_OWNER, (run_id,)))
        rows: Sequence[Any] = found.rows
        return FileOwner(*rows[0]) if rows else None

    def is_ours(self, owner: FileOwner) -> bool:
        """Return whether the owner is this process."""
        return owner.sid in self._lock.claimed and owner.host == machine().host

    def is_alive(self, owner: FileOwner) -> bool | None:
        """Return whether an owner is alive; None if only its heartbeats can tell."""
        try:
            return owner.is_alive(self._database)
        except OSError as error:  # the lock file cannot be reached
            raise translated(error, self._lock.path) from error

    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Send a heartbeat; return the current state of those runs, or None if it failed."""
        if self._sid is None:
            return None
        if self._database.lock is not None:
            # Code of the user that reads the lock file, to copy it, drops our locks when it closes the file.
            self._database.lock.try_lock(self._sid)
        work = Work(((_BEAT, (time.time(), self._sid)), (_GET_OWNED, (json.dumps(list(run_ids)),))))
        await self._run(HOUSEKEEPING, [work])
        if work.error is not None:
            return None
        rows: Sequence[Any] = work.outcomes[1].rows
        return {
            run_id: Run(run_id, "", RUN_STATUSES.get(status, RunStatus.DAMAGED), epoch=epoch, owner=owner)
            for run_id, epoch, status, owner in rows
        }

    @property
    def _lock(self) -> LockFile:
        assert self._database.lock is not None
        return self._database.lock
