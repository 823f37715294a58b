"""SQLite in plain synchronous code: opening a file of ours with care, and committing batches of work.

All of it runs in aiosqlite's worker thread: opening as its connection factory, and each batch as one call of
``executemany``, the one public method of aiosqlite that takes a list and costs a single hop.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from durable_nb import settings
from durable_nb.errors import DurableNotice, StoreUnavailable
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.errors import meaning, result_code
from durable_nb.stores.sqlite.lockfile import LockFile

__all__ = ["APART", "READ", "WRITE", "Connection", "Database", "Outcome", "Work", "set_journal_mode"]

READ = "BEGIN"
"""Opens a transaction that sees one moment and takes no lock."""

WRITE = "BEGIN IMMEDIATE"
"""Opens a transaction that holds the write lock from its start: a deferred one may fail half-way."""

APART = "BEGIN IMMEDIATE TRANSACTION"
"""The same, for the housekeeping of sessions: not counted among the commits."""

_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gpfs", "lustre", "ncpfs"),
        *("nfs", "nfs4", "smb3", "smbfs", "vboxsf"),
    )
)


_SMALLEST = 512
"""Bytes of the smallest database there is: one page of the smallest size."""


class Outcome(NamedTuple):
    """What a statement gave: its rows, and how many rows it changed."""

    rows: list[Any]
    changed: int


@dataclass(eq=False, slots=True)
class Work:
    """Statements that are committed together or not at all, and what became of them.

    Attributes:
        statements: SQL and its values, in order.
        outcomes: What each statement gave, once it is committed.
        error: Why nothing of it was committed, if it was not.
    """

    statements: Sequence[tuple[str, Sequence[Any]]]
    outcomes: list[Outcome] = field(default_factory=list)
    error: Exception | None = None

    def run(self, connection: Connection) -> None:
        """Execute the statements, inside a transaction."""
        self.outcomes = [connection.outcome(*statement) for statement in self.statements]


@dataclass(eq=False)
class Database:
    """A database file, as one journal of this process uses it.

    Attributes:
        path: The file, resolved.
        synchronous: ``full`` survives power loss, ``normal`` only the death of the process.
        timeout: Seconds to wait for a lock.
        commits: How many write transactions were committed.
        lock: Its lock file, while it is open.
        refusal: Why it could not be opened.
    """

    path: Path
    synchronous: Literal["full", "normal"]
    timeout: float
    commits: int = 0
    lock: LockFile | None = None
    refusal: Exception | None = None
    _inode: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._name = str(self.path)

    @property
    def uri(self) -> str:
        """The file as a URI that opens it and never creates it."""
        return f"{self.path.as_uri()}?mode=rw"

    def open(self, uri: str, /, **options: Any) -> Connection:
        """Open the file, created or migrated as need be: a factory for ``sqlite3.connect``.

        Where that fails the file is left as it was, ``refusal`` says why, and what is returned is a
        connection to nothing: aiosqlite would leave a thread behind if its factory raised.

        Args:
            uri: The file as a URI.
            **options: What else ``sqlite3.Connection`` takes.
        """
        self.refusal = None
        try:
            return self._open(uri, options)
        except Exception as error:
            self.release()
            self.refusal = error
            return Connection(":memory:")

    def release(self) -> None:
        """Give the lock file back, if it was taken."""
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()

    def moved(self) -> bool:
        """Whether the file was deleted or replaced meanwhile: SQLite would go on writing into it."""
        return self._inode is not None and self._inode != self._found()

    def _open(self, uri: str, options: dict[str, Any]) -> Connection:
        _check_place(self.path)
        self.lock = LockFile.shared(Path(f"{self.path}.lock"))
        self._check_untouched()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = Connection(uri, **options)
        try:
            connection.database = self
            connection.lock = self.lock
            self._prepare(connection)
            self._inode = self._found()
        except BaseException:
            connection.close()
            raise
        return connection

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._name)  # noqa: PTH116 - three times as fast, and asked before each commit
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check_untouched(self) -> None:
        # Never by opening the file ourselves: closing it would drop the locks SQLite has on it.
        if not self.path.exists():
            return
        if 0 < self.path.stat().st_size < _SMALLEST:  # SQLite takes a single byte for an empty database
            raise meaning(sqlite3.SQLITE_NOTADB, self.path, "too short")
        reader = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=self.timeout)
        try:
            schema.check(reader, str(self.path))
        except sqlite3.OperationalError as error:
            if result_code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise  # those two: a crashed writer left a log, which only a writer may roll back
        finally:
            reader.close()

    def _prepare(self, connection: Connection) -> None:
        schema.check(connection, str(self.path))
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        wanted = "delete" if _on_network(self.path) else "wal"
        if mode != wanted or schema.check(connection, str(self.path)) != schema.VERSION:
            with connection.lock.mutex(self.timeout):
                set_journal_mode(connection, wanted, str(self.path))
                schema.migrate(connection, str(self.path))
        connection.execute(f"PRAGMA journal_size_limit = {settings.JOURNAL_SIZE_LIMIT}")


class Connection(sqlite3.Connection):
    """A connection that runs pieces of ``Work`` in batches, each batch in one transaction."""

    database: Database
    lock: LockFile

    def executemany(self, begin: str, batch: Iterable[Any], /) -> sqlite3.Cursor:
        """Run pieces of work in one transaction; each keeps its own outcomes or error.

        Args:
            begin: ``READ`` or ``WRITE``.
            batch: Pieces of ``Work``.
        """
        works: list[Work] = list(batch)
        try:
            if self.database.moved():
                raise _moved(self.database.path)
            if begin == READ:
                self._commit(begin, works)
            else:
                with self.lock.mutex(self.database.timeout):
                    self._commit(begin, works)
        except Exception as error:
            for work in works:
                work.error = error
        return self.cursor()

    def _commit(self, begin: str, works: list[Work]) -> None:
        """Commit all of them, or halve until what cannot be written stands alone."""
        try:
            self._transact(begin, works)
        except Exception as error:
            if len(works) == 1 or result_code(error) == sqlite3.SQLITE_BUSY:
                for work in works:
                    work.error = error
                return
            middle = len(works) // 2
            self._commit(begin, works[:middle])
            self._commit(begin, works[middle:])

    def _transact(self, begin: str, works: list[Work]) -> None:
        try:
            self.execute(begin)
            for work in works:
                work.run(self)
            self.execute("COMMIT")
        finally:
            if self.in_transaction:
                self.execute("ROLLBACK")
        self.database.commits += begin == WRITE

    def outcome(self, sql: str, values: Sequence[Any]) -> Outcome:
        """Execute one statement, and read all that it gives."""
        cursor = self.execute(sql, values)
        return Outcome(cursor.fetchall(), cursor.rowcount)  # an unread cursor would let the log grow


def set_journal_mode(connection: sqlite3.Connection, wanted: str, path: str) -> None:
    """Choose the journal mode, and warn where it is not to be the write-ahead log.

    Args:
        connection: A connection to the database, outside a transaction.
        wanted: ``wal`` or ``delete``.
        path: The database's file, for the warning.
    """
    try:
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # needs the log's shared memory
    except sqlite3.OperationalError as error:
        if wanted != "wal" or result_code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
            raise
        mode = "delete"
    if mode != "wal":
        connection.execute("PRAGMA journal_mode = delete").fetchone()
        warnings.warn(
            f"{path!r} is on a network file system, or one without shared memory: SQLite's write-ahead "
            "log is off, and steps commit more slowly. A database on a local disk has neither trouble.",
            DurableNotice,
            stacklevel=2,
        )


def _check_place(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise StoreUnavailable(
            f"{str(path)!r} is {kind}, not a database",
            remedy=f"Name a file, such as {str(path / settings.DB)!r}.",
        )
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"there is no folder {str(path.parent)!r} to keep {path.name!r} in",
            remedy="Create it, or choose another path with db=.",
        )


def _moved(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{str(path)!r} was deleted or replaced while it was in use",
        remedy="Put it back, or open the run again, which starts a new database.",
    )


def _on_network(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether a file is on a network file system, where SQLite allows a write-ahead log that is unsafe."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False  # no Linux: what SQLite says has to do
    found = ("", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4])
        if path.is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, after.split(" ")[0])
    return found[1] in _NETWORK
