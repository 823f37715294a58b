"""Synchronous SQLite: open a database file, and commit batches of work.

All of it but ``ChangeObserver`` runs in aiosqlite's worker thread: opening as its connection factory, and
each batch as one call of ``executemany``, the one public method of aiosqlite that takes a list and costs a
single hop between threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from durable_nb import settings
from durable_nb.errors import DurableNotice, StoreUnavailable
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.errors import error_for_code, result_code
from durable_nb.stores.sqlite.lockfile import LockFile

__all__ = [
    "HOUSEKEEPING",
    "READ",
    "WRITE",
    "ChangeObserver",
    "Connection",
    "Database",
    "Outcome",
    "Work",
    "set_journal_mode",
]

READ = "BEGIN"
"""Begins a transaction that reads one consistent state and takes no lock."""

WRITE = "BEGIN IMMEDIATE"
"""Begins a transaction that holds the write lock from its start: a deferred one may fail half-way."""

HOUSEKEEPING = "BEGIN IMMEDIATE TRANSACTION"
"""Begins a write transaction on session rows, which ``Database.commits`` does not count."""

_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gpfs", "lustre", "ncpfs"),
        *("nfs", "nfs4", "smb3", "smbfs", "vboxsf"),
    )
)


_SMALLEST_DATABASE = 512
"""Bytes of the smallest possible database: one page of the smallest size."""

_DATA_VERSION = "PRAGMA data_version"


class Outcome(NamedTuple):
    """The result of a statement: its rows, and how many rows it changed."""

    rows: list[Any]
    changed: int


@dataclass(eq=False, slots=True)
class Work:
    """Statements that are committed together or not at all, and their results.

    Attributes:
        statements: SQL and its values, in order.
        outcomes: The result of each statement, once they are committed.
        error: The reason that none of them was committed, if so.
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
        commits: Number of committed write transactions.
        lock: Its lock file, while it is open.
        open_error: The error that kept it from being opened.
        id: The id that is recorded in it; empty until it is open.
    """

    path: Path
    synchronous: Literal["full", "normal"]
    timeout: float
    commits: int = 0
    lock: LockFile | None = None
    open_error: Exception | None = None
    id: str = ""
    _inode: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._name = str(self.path)

    @property
    def uri(self) -> str:
        """The file as a URI that opens it without creating it."""
        return f"{self.path.as_uri()}?mode=rw"

    def open(self, uri: str, /, **options: Any) -> Connection:
        """Open the file, and create or migrate it if necessary: a factory for ``sqlite3.connect``.

        On failure the file is left unchanged, ``open_error`` is set, and a connection to an empty database in
        memory is returned: aiosqlite would leave a thread behind if its factory raised.

        Args:
            uri: The file as a URI.
            **options: Further arguments of ``sqlite3.Connection``.
        """
        self.open_error = None
        try:
            return self._open(uri, options)
        except Exception as error:
            self.release()
            self.open_error = error
            return Connection(":memory:")

    def release(self) -> None:
        """Release the lock file, if it is held."""
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()

    def moved(self) -> bool:
        """Return whether the file was deleted or replaced since it was opened.

        SQLite would go on writing into the old one, where those writes are lost.
        """
        return self._inode is not None and self._inode != self._current_inode()

    def _open(self, uri: str, options: dict[str, Any]) -> Connection:
        _check_path(self.path)
        self.lock = LockFile.shared(Path(f"{self.path}.lock"))
        self._check_existing()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = Connection(uri, **options)
        try:
            connection.database = self
            connection.lock = self.lock
            self._prepare(connection)
            self._inode = self._current_inode()
        except BaseException:
            connection.close()
            raise
        return connection

    def _current_inode(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._name)  # noqa: PTH116 - three times as fast, and called before each commit
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check_existing(self) -> None:
        # Never open the file ourselves: closing any descriptor of it drops the locks SQLite holds on it.
        if not self.path.exists():
            return
        if (
            0 < self.path.stat().st_size < _SMALLEST_DATABASE
        ):  # SQLite accepts a single byte as an empty database
            raise error_for_code(sqlite3.SQLITE_NOTADB, self.path, "too short")
        reader = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=self.timeout)
        try:
            schema.check(reader, str(self.path))
        except sqlite3.OperationalError as error:
            if result_code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise  # these two: a crashed writer left a journal, which only a writer may roll back
        finally:
            reader.close()

    def _prepare(self, connection: Connection) -> None:
        schema.check(connection, str(self.path))
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        wanted_mode = "delete" if _on_network(self.path) else "wal"
        if mode != wanted_mode or schema.check(connection, str(self.path)) != schema.VERSION:
            with connection.lock.mutex(self.timeout):
                set_journal_mode(connection, wanted_mode, str(self.path))
                schema.migrate(connection, str(self.path))
        self.id = schema.database_id(connection)
        connection.execute(f"PRAGMA journal_size_limit = {settings.JOURNAL_SIZE_LIMIT}")


class ChangeObserver:
    """Detects commits by other connections, on the loop thread: a hop to a worker takes ten times as long.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None

    def version(self) -> Hashable:
        """Return SQLite's data version; a new object each time while the file is locked or was replaced."""
        try:
            if self._connection is None:
                uri = f"{self._database.path.as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, timeout=0)
            (version,) = self._connection.execute(_DATA_VERSION).fetchone()
        except sqlite3.Error:
            return object()
        return object() if self._database.moved() else int(version)

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Connection(sqlite3.Connection):
    """A connection that runs ``Work`` in batches, each batch in one transaction."""

    database: Database
    lock: LockFile

    def executemany(self, begin: str, batch: Iterable[Any], /) -> sqlite3.Cursor:
        """Run several ``Work`` in one transaction; each receives its own outcomes or error.

        Args:
            begin: ``READ``, ``WRITE`` or ``HOUSEKEEPING``.
            batch: The ``Work`` to run.
        """
        works: list[Work] = list(batch)
        try:
            if self.database.moved():
                raise _moved_error(self.database.path)
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
        """Commit all of them; on failure halve the batch until the work that cannot be written is alone."""
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
        """Execute one statement, and read all its rows."""
        cursor = self.execute(sql, values)
        return Outcome(
            cursor.fetchall(), cursor.rowcount
        )  # an unread cursor would let the write-ahead log grow


def set_journal_mode(connection: sqlite3.Connection, wanted: str, path: str) -> None:
    """Set the journal mode, and warn if it is not the write-ahead log.

    Args:
        connection: A connection to the database, outside a transaction.
        wanted: ``wal`` or ``delete``.
        path: The database's file, for the warning.
    """
    try:
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        connection.execute(
            "SELECT count(*) FROM sqlite_master"
        ).fetchone()  # needs the write-ahead log's shared memory
    except sqlite3.OperationalError as error:
        if wanted != "wal" or result_code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
            raise
        mode = "delete"
    if mode != "wal":
        connection.execute("PRAGMA journal_mode = delete").fetchone()
        warnings.warn(
            f"{path!r} is on a network file system, or one without shared memory: SQLite's write-ahead "
            "log is off, and steps commit more slowly. Put the database on a local disk to avoid this.",
            DurableNotice,
            stacklevel=2,
        )


def _check_path(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise StoreUnavailable(
            f"{str(path)!r} is {kind}, not a database",
            remedy=f"Name a file, such as {str(path / settings.DB)!r}.",
        )
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"cannot create {path.name!r}: its folder {str(path.parent)!r} does not exist",
            remedy="Create the folder, or choose another path with db=.",
        )


def _moved_error(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{str(path)!r} was deleted or replaced while it was in use",
        remedy="Put the file back, or open the run again, which creates a new database.",
    )


def _on_network(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Return whether a file is on a network file system, where a write-ahead log is unsafe."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False  # not Linux: rely on the errors that SQLite raises
    mount = ("", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted_at = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4])
        if path.is_relative_to(mounted_at) and len(mounted_at) >= len(mount[0]):
            mount = (mounted_at, after.split(" ")[0])
    return mount[1] in _NETWORK
