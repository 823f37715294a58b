"""A synchronous connection to SQLite, which commits batches of work. It is used in aiosqlite's thread."""

from __future__ import annotations

import math
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from durable_nb import settings
from durable_nb.errors import DurableNotice
from durable_nb.stores.sqlite.errors import result_code
from durable_nb.stores.sqlite.files import Files
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.sqlite.mark import COUNT_COMMIT, PUT_BASE, PUT_IN_USE, Identity

__all__ = [
    "HOUSEKEEPING",
    "READ",
    "WRITE",
    "Connection",
    "Outcome",
    "Statement",
    "Work",
    "decoded",
    "on_network",
    "set_journal_mode",
    "warn_of_network",
]

READ = "BEGIN"
"""Begins a transaction that reads one consistent state and takes no lock."""

WRITE = "BEGIN IMMEDIATE"
"""Begins a transaction that holds the write lock from its start: a deferred one may fail half-way."""

HOUSEKEEPING = "BEGIN IMMEDIATE TRANSACTION"
"""Begins a write transaction on session rows, which ``Database.commits`` does not count."""

_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("orangefs", "panfs", "prl_fs", "smb3", "smbfs", "vboxsf", "wekafs"),
        *("fuse.davfs", "fuse.drive", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs"),
        *("fuse.mfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse"),
    )
)

Statement: TypeAlias = tuple[str, Sequence[Any]]
"""SQL and its values."""


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
        acknowledged: Called with the outcomes once they are committed and the files are in place.
    """

    statements: Sequence[Statement]
    acknowledged: Callable[[list[Outcome]], None] | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    error: Exception | None = None

    def run(self, connection: Connection) -> None:
        """Execute the statements, inside a transaction."""
        self.outcomes = [connection.outcome(*statement) for statement in self.statements]


class Connection(sqlite3.Connection):
    """A connection that runs ``Work`` in batches, each batch in one transaction.

    Attributes:
        lock: The lock file of the database.
        files: The files that its commits rest on; None until they are open.
        identity: The identity that the database had when it was opened.
        commits: The number of transactions that it has committed with ``WRITE``.
        counted: The number of commits of the database, after the last one.
        in_use: Whether the database was noted as in use at the last commit.
        base: The number of them that its file is known to hold; the next commit notes it.
    """

    lock: LockFile
    files: Files | None = None
    identity: Identity
    commits = 0
    counted = 0
    base = noted_base = 0
    in_use = 0
    deadline = math.inf

    def limit_reads(self) -> None:
        """End a batch that reads for more than ``settings.READ_LIMIT`` seconds, with an error."""
        self.set_progress_handler(lambda: time.monotonic() > self.deadline, 100_000)

    def close(self) -> None:
        """Close the files; the last connection to a database removes its write-ahead log."""
        if self.files is not None:
            self.files.let_go()
        self.abandon()

    def abandon(self) -> None:
        """Close the files, and leave the write-ahead log as it is: it may be that of another database now."""
        super().close()
        if self.files is not None:
            self.files.close()

    def note_use(self) -> None:
        """Note in the file itself that it is in use: from now on a copy of it alone lacks commits.

        If that fails, the next commit tries again.
        """
        with suppress(sqlite3.Error):
            self.execute(PUT_IN_USE)
            self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.in_use = 1

    def count_commits(self) -> int:
        """Return the number of commits of the database now."""
        identity = Identity.of(self)
        return 0 if identity is None else identity.commits

    def run_batch(self, begin: str, works: list[Work]) -> None:
        """Commit all of them; on failure halve the batch until the work that cannot be written is alone.

        Args:
            begin: ``READ``, ``WRITE`` or ``HOUSEKEEPING``.
            works: The ``Work`` to run; each receives its own outcomes or error.
        """
        try:
            self._transact(begin, works)
        except Exception as error:
            if len(works) == 1 or result_code(error) == sqlite3.SQLITE_BUSY:
                for work in works:
                    work.error = error
                return
            middle = len(works) // 2
            self.run_batch(begin, works[:middle])
            self.run_batch(begin, works[middle:])

    def _transact(self, begin: str, works: list[Work]) -> None:
        counted, in_use = self.counted, self.in_use
        self.deadline = time.monotonic() + settings.READ_LIMIT if begin == READ else math.inf
        try:
            self.execute(begin)
            for work in works:
                work.run(self)
            if begin == WRITE:
                counted, in_use = self.execute(COUNT_COMMIT).fetchone()
                if self.base > self.noted_base:
                    self.execute(PUT_BASE, (self.base,))
            self.execute("COMMIT")
        finally:
            self.deadline = math.inf
            if self.in_transaction:
                self.execute("ROLLBACK")
        if begin == WRITE:
            self.counted, self.in_use, self.noted_base = counted, in_use, self.base
            self.commits += 1

    def outcome(self, sql: str, values: Sequence[Any]) -> Outcome:
        """Execute one statement, and read all its rows."""
        # The first releases of Python 3.12 take ?1 for a name, and warn of values without names.
        named = {str(place): value for place, value in enumerate(values, 1)} if "?1" in sql else values
        cursor = self.execute(sql, named)
        try:
            rows = cursor.fetchall()  # an unread cursor would let the write-ahead log grow
        except sqlite3.OperationalError as error:
            if not _is_no_text(error):
                raise
            rows = self._fetch_damaged(sql, values)
        return Outcome(rows, cursor.rowcount)

    def _fetch_damaged(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Read rows of which one holds a damaged text, so that only that one is damaged.

        Texts are decoded by Python then, which takes longer.
        """
        self.text_factory = decoded
        try:
            return self.execute(sql, values).fetchall()
        finally:
            self.text_factory = str


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
        warn_of_network(path)


def warn_of_network(path: str) -> None:
    """Warn that a database is where locks and the write-ahead log cannot be relied on."""
    warnings.warn(
        f"{path!r} is on a network file system, or one without shared memory: SQLite's write-ahead log is "
        "off, steps commit more slowly, and locks may not hold between machines. Put the database on a local "
        "disk; for runs of several machines use a server: db='redis://…'.",
        DurableNotice,
        stacklevel=2,
    )


def _is_no_text(error: sqlite3.OperationalError) -> bool:
    return str(error).startswith("Could not decode to UTF-8")


def decoded(text: bytes) -> str:
    """Return a text of a row; what is no UTF-8 becomes surrogates, which no checksum fits."""
    return text.decode("utf-8", "surrogateescape")


def on_network(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
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
