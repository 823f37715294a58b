"""Opening a database file: what is refused, what is created, and what is compared before it is used."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import warnings
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Final, Literal

from durable_nb import settings
from durable_nb.errors import DurableNotice, StoreError, StoreUnavailable
from durable_nb.stores.sqlite import mark, schema
from durable_nb.stores.sqlite.connection import Connection, on_network, set_journal_mode, warn_of_network
from durable_nb.stores.sqlite.errors import error_for_code, result_code
from durable_nb.stores.sqlite.files import Files
from durable_nb.stores.sqlite.guard import check_schema, harden
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.sqlite.mark import Identity, Mark

__all__ = ["base_identity", "check_files", "check_path", "connect"]

_SMALLEST_DATABASE: Final = 512
"""Bytes of the smallest possible database: one page of the smallest size."""


def check_path(path: Path) -> None:
    """Refuse a path that cannot be that of a database: a folder, a special file, one of two names of a file.

    Args:
        path: The file, which need not exist.

    Raises:
        StoreUnavailable: It cannot be used.
    """
    for ending in ("", "-wal", "-shm", "-journal"):
        _check_regular(path.with_name(path.name + ending))
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"cannot create {path.name!r}: its folder {str(path.parent)!r} does not exist",
            remedy="Create the folder, or choose another path with db=.",
        )


def _check_regular(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        name = f"Name a file, such as {str(path / settings.DB)!r}."
        raise StoreUnavailable(
            f"{str(path)!r} is {'a folder' if folder else 'a special file'}, not a database",
            remedy=name if folder else "Find out what made it, or choose another path with db=.",
        )
    if status.st_nlink > 1:
        raise StoreUnavailable(
            f"{str(path)!r} is a file with {status.st_nlink} names (hard links): SQLite would keep a log for "
            "each name, and its users would not see each other",
            remedy="Make it a file of its own: cp FILE COPY && mv COPY FILE.",
        )


def check_files(path: Path, lock: LockFile, timeout: float) -> Mark | None:
    """Check that the files at a path are those of one database of durable_nb, and whole; change nothing.

    Args:
        path: The file.
        lock: Its lock file.
        timeout: Seconds to wait for a lock.

    Returns:
        The high-water mark, as it was before.

    Raises:
        StoreUnreadable: It has lost commits, is damaged, or belongs to another application.
        StoreTooNew: It was written by a newer durable_nb.
    """
    before = Mark.decode(lock.read_mark())  # read first: it may lag behind the database, and is never ahead
    size = _size(path)
    if not size:
        if not (before and before.commits) and not mark.remains(path):
            return before
        size = _size(path)  # read again: another process may have created it meanwhile
    if not size:
        raise mark.lost(path, "is empty" if path.exists() else "is missing")
    if size < _SMALLEST_DATABASE:  # SQLite accepts a single byte as an empty database
        raise _no_database(path, before, "too short")
    notice = _check_contents(path, before, lock, timeout)
    if notice is not None:
        warnings.warn(notice, DurableNotice, stacklevel=2)
    return before


def _check_contents(path: Path, before: Mark | None, lock: LockFile, timeout: float) -> str | None:
    # Never open the file ourselves: outside Linux closing any descriptor of it drops the locks of SQLite.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=timeout)) as reader:
        try:
            harden(reader)
            schema.check(reader, str(path))
            check_schema(reader, str(path))
            _check_pages(path, reader)
            found, base = Identity.of(reader), base_identity(path)
            # The mark is read again: the process that makes the database may have written it meanwhile.
            if found is not None and found.in_use and found == base and Mark.decode(lock.read_mark()) is None:
                raise mark.lost(path, "was copied while it was in use, without its write-ahead log")
            return mark.check_identity(path, before, found, base, Identity.of(reader))
        except sqlite3.DatabaseError as error:
            if result_code(error) == sqlite3.SQLITE_NOTADB:
                raise _no_database(path, before, str(error)) from error
            if result_code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
            return None  # a crashed writer left a journal, which only a writer may roll back


def _check_pages(path: Path, reader: sqlite3.Connection) -> None:
    """Refuse a small database in which SQLite finds no rows that are there: pages or keys are damaged."""
    if _size(path) <= settings.SMALL_DATABASE:
        found = [str(text) for (text,) in reader.execute("PRAGMA integrity_check")]
        pages = [text for text in found if " value in " not in text and text != "ok"]  # rows have a check
        if pages:
            raise error_for_code(sqlite3.SQLITE_CORRUPT, path, pages[0])


def _no_database(path: Path, before: Mark | None, detail: str) -> StoreError:
    if before is not None and before.commits:
        return mark.lost(
            path, f"is no longer an SQLite database ({detail}), and had {before.commits:,} commits"
        )
    return error_for_code(sqlite3.SQLITE_NOTADB, path, detail)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def base_identity(path: Path) -> Identity | None:
    """Return the identity in a database's file without its write-ahead log; None if it is unreadable."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as reader:
        try:
            harden(reader)
            return Identity.of(reader) or Identity("", 0)
        except sqlite3.Error:
            return None


def connect(
    path: Path,
    uri: str,
    options: dict[str, Any],
    *,
    lock: LockFile,
    synchronous: Literal["full", "normal"],
    mutex: AbstractContextManager[object],
) -> Connection:
    """Open a file, and create or migrate it if necessary.

    Args:
        path: The file.
        uri: The file as a URI.
        options: Further arguments of ``sqlite3.Connection``.
        lock: Its lock file.
        synchronous: The setting of SQLite.
        mutex: Held while the file is created or migrated.

    Raises:
        StoreError: The file cannot be used.
        OSError: It cannot be accessed.
        sqlite3.Error: SQLite cannot use it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = Connection(uri, **options)
    try:
        connection.lock = lock
        harden(connection)
        connection.limit_reads()
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        mode = _prepare(connection, path, mutex)
        connection.files = Files(path, mode)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: Connection, path: Path, mutex: AbstractContextManager[object]) -> str:
    """Create or migrate a database if necessary; return its journal mode."""
    version = schema.check(connection, str(path))
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    wanted = "delete" if on_network(path) else "wal"
    found = Identity.of(connection)
    if mode != wanted or version != schema.VERSION or found is None:
        with mutex:
            set_journal_mode(connection, wanted, str(path))
            schema.migrate(connection, str(path))
            found = mark.identify(connection)
            # From here on the file alone shows that it is a database of ours, and which one.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    elif wanted == "delete":
        warn_of_network(str(path))
    connection.identity = found
    connection.counted = found.commits
    connection.execute(f"PRAGMA journal_size_limit = {settings.JOURNAL_SIZE_LIMIT}")
    return str(mode)
