"""A database file as one journal of this process uses it: batches of work on files that stay in place.

All of it but ``ChangeObserver`` runs in aiosqlite's worker thread: opening as its connection factory, and
each batch as one call of ``executemany``, the one public method of aiosqlite that takes a list and costs a
single hop between threads.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import warnings
from collections.abc import Hashable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from durable_nb import settings
from durable_nb.errors import AcceptDatabase, DurableNotice, StoreError, StoreUnavailable
from durable_nb.stores.host import machine
from durable_nb.stores.sqlite.acknowledged import Acknowledged
from durable_nb.stores.sqlite.connection import READ, WRITE, Connection, Work
from durable_nb.stores.sqlite.errors import error_for_code
from durable_nb.stores.sqlite.files import Files
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.sqlite.mark import PUT_WHOLE, Mark, check_identity
from durable_nb.stores.sqlite.opening import base_identity, check_files, check_path, connect
from durable_nb.stores.sqlite.rowcheck import find_stray

__all__ = ["CHECKPOINT", "Batches", "ChangeObserver", "Database"]

CHECKPOINT: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
"""Instead of a transaction: copies all commits from the write-ahead log to the database's file."""

_DATA_VERSION: Final = "PRAGMA data_version"
_PUT_SESSION: Final = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, 0, ?)"
_RAISE_COUNT: Final = "UPDATE meta SET value = max(value, ?) + 1 WHERE key = 'commits' RETURNING value"

_ATTEMPTS: Final = 3
"""How often a batch is tried while files are replaced: each time they are opened again."""


@dataclass(eq=False)
class Database:
    """A database file, as one journal of this process uses it.

    Attributes:
        path: The file, resolved.
        synchronous: ``full`` survives power loss, ``normal`` only the death of the process.
        timeout: Seconds to wait for a lock.
        commits: Number of committed write transactions.
        lock: Its lock file, while it is open.
        open_error: The error that kept it from being opened.
        batches: Its connection, while it is open.
        acknowledged: What was written through it.
        session: The row of its session, once there is one.
        stray: A run id that steps had when it was opened, and no run had; None if there was none.
    """

    path: Path
    synchronous: Literal["full", "normal"]
    timeout: float
    commits: int = 0
    lock: LockFile | None = None
    open_error: Exception | None = None
    batches: Batches | None = None
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    session: tuple[Any, ...] | None = None
    stray: str | None = None

    def __post_init__(self) -> None:
        self.observer = ChangeObserver(self)

    @property
    def uri(self) -> str:
        """The file as a URI that opens it without creating it."""
        return f"{self.path.as_uri()}?mode=rw"

    def open(self, uri: str, /, **options: Any) -> Any:
        """Open the file, and create or migrate it if necessary: a factory for ``sqlite3.connect``.

        On failure the file is left unchanged, ``open_error`` is set, and a connection to an empty database in
        memory is returned: aiosqlite would leave a thread behind if its factory raised.

        Args:
            uri: The file as a URI.
            **options: Further arguments of ``sqlite3.Connection``.
        """
        self.open_error = None
        try:
            check_path(self.path)
            self.lock = LockFile.shared(Path(f"{self.path}.lock"))
            mark = check_files(self.path, self.lock, self.timeout)
            self.batches = Batches(self, uri, options, mark)
            self.stray = find_stray(self.batches.connection)
        except Exception as error:
            self.release()
            self.open_error = error
            return sqlite3.connect(":memory:")
        return self.batches

    @property
    def id(self) -> str:
        """The id that is recorded in it; empty until it is open."""
        return "" if self.batches is None else self.batches.connection.identity.database

    def release(self) -> None:
        """Release the lock file, if it is held."""
        self.batches = None
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()

    def moved(self) -> bool:
        """Return whether the file was deleted or replaced since it was opened."""
        files = None if self.batches is None else self.batches.connection.files
        return files is not None and not files.is_database_in_place

    def is_session_alive(self, sid: int) -> bool:
        """Return whether a living process of this machine has a session, this process included."""
        assert self.lock is not None
        if self.lock.is_locked(sid):
            return True
        files = None if self.batches is None else self.batches.connection.files
        return files is not None and files.is_claimed(sid)


class Batches:
    """The connection to a database as aiosqlite uses it: runs batches, and opens replaced files again.

    Args:
        database: The database.
        uri: The file as a URI.
        options: Further arguments of ``sqlite3.Connection``.
        mark: The high-water mark, as it was read before the database was.

    Attributes:
        connection: The connection, another one after files were replaced.
    """

    def __init__(self, database: Database, uri: str, options: dict[str, Any], mark: Mark | None) -> None:
        assert database.lock is not None
        self._database, self._uri, self._options = database, uri, options
        self._lock = database.lock
        self._broken: str | None = None
        self._checked = self._looked = 0.0
        self.connection = self._connect(self._lock.mutex(database.timeout))
        self._mark = self._new_mark(mark)
        self._commits_looked = self._mark.commits

    def executemany(self, begin: str, batch: Iterable[Any], /) -> None:
        """Run several ``Work`` in one transaction; each receives its own outcomes or error.

        Args:
            begin: ``READ``, ``WRITE``, ``HOUSEKEEPING`` or ``CHECKPOINT``.
            batch: The ``Work`` to run.
        """
        works: list[Work] = list(batch)
        try:
            self._run(begin, works)
        except Exception as error:
            for work in works:
                work.error = error

    def close(self) -> None:
        """Close the files."""
        self.connection.close()

    def _run(self, begin: str, works: list[Work]) -> None:
        for _ in range(_ATTEMPTS):
            problem = self._attempt(begin, works)
            if problem is None:
                return
            self._restore(problem)
            for work in works:
                work.error = None
        raise _gone(self._database.path, problem or "its files were replaced")

    def _attempt(self, begin: str, works: list[Work]) -> str | None:
        """Run a batch; return what has happened to the files, if they were or are no longer in place."""
        if self._broken is not None:
            return self._broken
        files = self.connection.files
        assert files is not None
        if begin == READ:
            problem = files.problem(thorough=True)
            if problem is None:
                self.connection.run_batch(begin, works)
            return problem
        self._lock.acquire_mutex(self._database.timeout)  # without a context manager: it takes 2 µs
        try:
            return self._write(begin, works, files)
        finally:
            self._lock.release_mutex()

    def _write(self, begin: str, works: list[Work], files: Files) -> str | None:
        if begin == CHECKPOINT or not self._checked_just_now() or files.is_log_changed():
            problem = files.problem(thorough=True)
            if problem is not None:
                return problem
            self._note_restart(files)
        if begin == CHECKPOINT:
            self._checkpoint()
        else:
            if begin == WRITE and files.has_log and not self.connection.in_use:
                self._lock.write_mark(self._mark.encode())  # first: a note without a mark is that of a copy
                self.connection.note_use()
            self.connection.run_batch(begin, works)
        problem = files.problem()
        if problem is None:
            self._acknowledge(begin, works)
        return problem

    def _checked_just_now(self) -> bool:
        """Return whether the check after the last commit can be the check before this one."""
        now = time.monotonic()
        return now - self._checked < settings.CHECKED and now - self._looked < settings.LOOKED

    def _note_restart(self, files: Files) -> None:
        if files.restarts:  # SQLite copies all of the write-ahead log to the file before it begins it anew
            self._mark.base = self.connection.base = self._commits_looked
            files.restarts = 0
        self._looked, self._commits_looked = time.monotonic(), self._mark.commits

    def _acknowledge(self, begin: str, works: list[Work]) -> None:
        self._checked = time.monotonic()
        for work in works:
            if work.error is None and work.acknowledged is not None:
                work.acknowledged(work.outcomes)
        connection, mark = self.connection, self._mark
        if begin == WRITE:
            self._database.commits, connection.commits = self._database.commits + connection.commits, 0
            mark.commits = connection.counted
            self._lock.write_mark(mark.encode())

    def _checkpoint(self) -> None:
        """Copy all commits to the database's file, as far as other processes that read permit."""
        connection = self.connection
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute(PUT_WHOLE)
            connection.in_use = 0
            busy, *_ = connection.execute(CHECKPOINT).fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._database.timeout * 1000)}")
        if not busy:
            self._mark.commits = self._mark.base = connection.base = connection.count_commits()
            self._lock.write_mark(self._mark.encode())
            self._database.acknowledged.checkpointed()

    def _restore(self, problem: str) -> None:
        """Open the files that are at the path now, and write again what was acknowledged.

        Raises:
            StoreError: There is no database at the path, or another one.
        """
        if made_again := self._lock.is_deleted():
            self._lock.reopen()
        with self._lock.mutex(self._database.timeout):
            files = self.connection.files
            assert files is not None
            files.note_lock_file()
            if self._broken is None and files.problem(thorough=True) is None:
                self._lock.write_mark(self._mark.encode())
                message = f"{problem} while in use, and was made again"
            else:
                made_again = True
                self._check_same(problem)
                runs = self._reopen()
                message = f"{problem} while in use; what this process has recorded was written again"
                message += f" (run{'s' * (len(runs) > 1)} {', '.join(map(repr, runs))})" if runs else ""
        if made_again:
            warnings.warn(message, DurableNotice, stacklevel=2)

    def _check_same(self, problem: str) -> None:
        """Raise if the path does not lead to the database that was opened, or to a copy of it."""
        path, files = self._database.path, self.connection.files
        if files is not None and files.is_database_in_place:
            return
        check_path(path)
        found = base_identity(path) if path.exists() and path.stat().st_size else None
        if found is None or found.database != self._mark.database:
            raise _gone(path, problem)

    def _reopen(self) -> list[str]:
        database, files = self._database, self.connection.files
        assert files is not None
        self._broken = f"{str(database.path)!r} could not be opened again"
        database.observer.close()
        self.connection.abandon()
        if not files.is_renewed():
            # What is in shared memory describes a write-ahead log that is gone, or is not what it was.
            database.path.with_name(f"{database.path.name}-shm").unlink(missing_ok=True)
        self.connection = connection = self._connect(nullcontext())
        if connection.identity.database != self._mark.database:
            raise _gone(database.path, self._broken)
        runs = self._write_again(connection)
        assert connection.files is not None
        if (problem := connection.files.problem(thorough=True)) is not None:
            raise _gone(database.path, problem)
        connection.files.restarts = 0  # what was written just now is in the write-ahead log alone
        self._mark.commits, self._mark.base, self._commits_looked = connection.counted, 0, 0
        self._lock.write_mark(self._mark.encode())
        self._broken = None
        return runs

    def _write_again(self, connection: Connection) -> list[str]:
        database = self._database
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise error_for_code(sqlite3.SQLITE_CORRUPT, database.path, state)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if database.session is not None:
                connection.execute(_PUT_SESSION, (*database.session, time.time()))
            runs = database.acknowledged.write_again(connection)
            (connection.counted,) = connection.execute(_RAISE_COUNT, (self._mark.commits,)).fetchone()
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return runs

    def _connect(self, mutex: Any) -> Connection:
        database = self._database
        connection = connect(
            database.path,
            self._uri,
            self._options,
            lock=self._lock,
            synchronous=database.synchronous,
            mutex=mutex,
        )
        if database.session is not None and connection.files is not None:
            connection.files.claim(database.session[0])
        return connection

    def _new_mark(self, before: Mark | None) -> Mark:
        identity = self.connection.identity
        check_identity(self._database.path, before, identity)
        base = before.base if before is not None and before.database == identity.database else 0
        boot = machine().boot_id if self._database.synchronous == "normal" else ""
        return Mark(identity.database, identity.commits, base, boot)


class ChangeObserver:
    """Detects commits by other connections, on the loop thread: a hop to a worker takes ten times as long.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._guard = threading.Lock()

    def version(self) -> Hashable:
        """Return SQLite's data version; a new object each time while the file is locked or was replaced."""
        with self._guard:
            try:
                if self._connection is None:
                    uri = f"{self._database.path.as_uri()}?mode=ro"
                    self._connection = sqlite3.connect(uri, uri=True, timeout=0, check_same_thread=False)
                (version,) = self._connection.execute(_DATA_VERSION).fetchone()
            except sqlite3.Error:
                return object()
        return object() if self._database.moved() else (id(self._connection), int(version))

    def close(self) -> None:
        """Close the file; called in aiosqlite's thread too, before files are opened again."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def _gone(path: Path, problem: str) -> StoreError:
    return StoreUnavailable(
        f"{str(path)!r} was deleted or replaced while it was in use ({problem}), so that nothing more can be "
        "recorded",
        remedy=(
            "Put the file back, and run again; or go on without it: ",
            AcceptDatabase(db=str(path)),
        ),
    )
