"""The identity of a database, its count of commits, and the high-water mark that is compared with them.

The table ``meta`` holds a random id and the number of commits that durable_nb has made. The high-water mark,
in the lock file, repeats both outside the database and its write-ahead log. It is written after each commit
and may lag behind, but is never ahead: a database with fewer commits than its mark has lost some.
"""

# ruff: noqa: S608 - only constants are formatted into SQL

from __future__ import annotations

import re
import sqlite3
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from durable_nb.errors import AcceptDatabase, StoreUnreadable
from durable_nb.stores.host import machine

__all__ = [
    "COUNT_COMMIT",
    "PUT_BASE",
    "PUT_IN_USE",
    "PUT_WHOLE",
    "Identity",
    "Mark",
    "check_identity",
    "identify",
    "is_mixed",
    "lost",
    "remains",
]

_IN_USE: Final = "EXISTS (SELECT 1 FROM meta WHERE key = 'in use')"

COUNT_COMMIT: Final = f"UPDATE meta SET value = value + 1 WHERE key = 'commits' RETURNING value, {_IN_USE}"
"""Counts a commit, as part of it; returns how many there are, and whether the database is noted as in use."""

PUT_IN_USE: Final = "INSERT OR IGNORE INTO meta VALUES ('in use', 1)"
"""Notes that there are, or will be, commits in a write-ahead log beside the file."""

PUT_WHOLE: Final = "DELETE FROM meta WHERE key = 'in use'"
"""Notes that the file, once all commits are copied to it, is whole by itself."""

PUT_BASE: Final = "INSERT OR REPLACE INTO meta VALUES ('base', ?)"
"""Notes, in the write-ahead log, how many commits the file below it must have."""

_PUT_BACK: Final = (
    "Nothing was changed. Put the files back as they were, all of one moment; or go on with what is there, "
    "so that the missing steps run again: "
)
_IDENTITY: Final = f"""
    SELECT (SELECT value FROM meta WHERE key = 'id'), value,
        coalesce((SELECT value FROM meta WHERE key = 'base'), 0), {_IN_USE}
    FROM meta WHERE key = 'commits'"""


_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_MOST: Final = 2**53


class Identity(NamedTuple):
    """The identity of a database.

    Attributes:
        database: Its random id.
        commits: The number of its commits.
        base: The number of them that its own file holds at least, without its write-ahead log.
        in_use: Whether a write-ahead log is to be expected beside it.
    """

    database: str
    commits: int
    base: int = 0
    in_use: int = 0

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Self | None:
        """Return the identity of a database; None if it has none yet, or a damaged one."""
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return None
        row = connection.execute(_IDENTITY).fetchone()
        return cls(*row) if row is not None and _is_valid(*row) else None


def _is_valid(database: object, *counts: object) -> bool:
    """Return whether the values of an identity are such as durable_nb writes."""
    counted = all(isinstance(each, int) and 0 <= each < _MOST for each in counts)
    return isinstance(database, str) and _ID.fullmatch(database) is not None and counted


def identify(connection: sqlite3.Connection) -> Identity:
    """Begin to count the commits of a migrated database, if they are not counted yet; return its identity.

    Args:
        connection: A connection to it, outside a transaction.
    """
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('commits', 0)")
    identity = Identity.of(connection)
    if identity is None:
        raise StoreUnreadable(
            "the database has lost its identity: its table `meta` is damaged",
            remedy="The file was not changed; restore a backup of it.",
        )
    return identity


@dataclass(slots=True)
class Mark:
    """The high-water mark of a database: the id and the commits that it is known to have had.

    Attributes:
        database: The id of the database.
        commits: The number of commits that were acknowledged.
        base: The number of them that the database's own file holds, without its write-ahead log.
        boot: The boot of the machine, if the commits were not synced and may be lost with power; else empty.
    """

    database: str
    commits: int
    base: int = 0
    boot: str = ""

    def encode(self) -> bytes:
        """Return the mark as a line with a checksum."""
        line = f"durable_nb {self.database} {self.commits} {self.base} {self.boot or '-'}".encode()
        return b"%b %08x\n" % (line, zlib.crc32(line))

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return the mark in the contents of a lock file; None if there is none, or a damaged one."""
        line, _, checksum = data.partition(b"\n")[0].decode("ascii", "replace").rpartition(" ")
        if checksum != f"{zlib.crc32(line.encode()):08x}":
            return None
        _, database, commits, base, boot = line.split(" ")
        return cls(database, int(commits), int(base), boot.strip("-") and boot)


def check_identity(
    path: Path,
    mark: Mark | None,
    found: Identity | None,
    base: Identity | None = None,
    later: Identity | None = None,
) -> str | None:
    """Compare a database with its high-water mark.

    Args:
        path: The file.
        mark: The mark, read before the database was.
        found: The identity of the database.
        base: The identity in the database's file alone, read after ``found``; None if unknown.
        later: The identity of the database, read after ``base``.

    Returns:
        A notice for the user, if the commits that are missing may have been lost with power, as the user
        has permitted; else None.

    Raises:
        StoreUnreadable: Commits that were acknowledged are missing.
    """
    if found is not None and is_mixed(mark, found, base, later):
        raise lost(path, f"does not fit the write-ahead log beside it, which has {found.commits:,} commits")
    if mark is None or not mark.commits:
        return None
    if found is None or found.database != mark.database:
        raise lost(path, f"is not the database with {mark.commits:,} commits that was here")
    missing = mark.commits - found.commits
    if missing <= 0:
        return None
    what = f"has lost the last {missing:,} of its {mark.commits:,} commits"
    if mark.boot and mark.boot != machine().boot_id:
        return f"{str(path)!r} {what} with the power of the machine, as synchronous='normal' permits"
    raise lost(path, what)


def is_mixed(
    mark: Mark | None, found: Identity, base: Identity | None, later: Identity | None = None
) -> bool:
    """Return whether a database's file is not the one that its write-ahead log belongs to.

    Args:
        mark: Its high-water mark.
        found: Its identity.
        base: The identity in its file alone, read after ``found``; None if unknown.
        later: Its identity, read after ``base``: a process that uses it may have committed meanwhile.
    """
    if base is None or base == found:
        return False
    known = mark.base if mark is not None and mark.database == found.database else 0
    is_older = base.commits < max(found.base, known)
    is_newer = base.commits > (later or found).commits
    return is_older or is_newer or base.database not in ("", found.database)


def lost(path: Path, what: str) -> StoreUnreadable:
    """Return the error for a database that has lost what it held.

    Args:
        path: The file.
        what: The loss, as a predicate of the file.
    """
    there = remains(path)
    return StoreUnreadable(
        f"{str(path)!r} {what}; still there: {', '.join(there) if there else 'nothing'}",
        remedy=(
            _PUT_BACK,
            AcceptDatabase(db=str(path)),
        ),
    )


def remains(path: Path) -> list[str]:
    """Return the names of what is left of a database: its files that are not empty, each with its size."""
    found = []
    for ending in ("", "-wal", ".blobs"):
        file = path.with_name(path.name + ending)
        if file.is_dir():
            blobs = sum(1 for blob in file.glob("??/*"))
            found += [f"{file.name} ({blobs:,} files)"] if blobs else []
        elif file.is_file() and file.stat().st_size:
            found.append(f"{file.name} ({file.stat().st_size:,} bytes)")
    return found
