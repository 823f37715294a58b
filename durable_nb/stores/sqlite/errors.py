"""Whatever goes wrong with a SQLite file, as one of our errors: the one place where that is decided."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from durable_nb.errors import DurableError, StoreError, StoreUnavailable, StoreUnreadable

__all__ = ["meaning", "result_code", "translated"]


def translated(error: Exception, path: Path) -> DurableError:
    """Any failure of the database, as one of our errors, in one line and with a remedy.

    Args:
        error: What sqlite3, aiosqlite or the system raised; one of ours is handed through.
        path: The database's file.

    Example:
        >>> translated(sqlite3.OperationalError("?"), Path("durable.db"))
        StoreError("'durable.db' did not take it: ?", None, None, 'Nothing was written.')
    """
    if isinstance(error, DurableError):
        return error
    said = " ".join(str(error).split())
    if isinstance(error, OSError):
        return StoreUnavailable(
            f"the system did not let us use {str(path)!r} ({said})",
            remedy="Check the permissions and the free space of its folder, or choose another path with db=.",
        )
    return meaning(result_code(error), path, said)


_UNWRITABLE = "Give yourself permission to write the file and its folder, or choose another path with db=."
_DAMAGED = "Restore a copy of it, or try: sqlite3 FILE .recover; to go on without it, choose another path."
_LOCKED = "End the process that holds it, or wait and run it again."
_MEANINGS: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_READONLY: (StoreUnavailable, "is read-only", _UNWRITABLE),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "is read-only", _UNWRITABLE),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "cannot be opened", _UNWRITABLE),
    sqlite3.SQLITE_FULL: (
        StoreUnavailable,
        "was not written, the disk is full",
        "Free some space and run it again; what was finished before is kept.",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "could not be read or written",
        "Check the disk and its free space, then run it again; what was finished before is kept.",
    ),
    sqlite3.SQLITE_CORRUPT: (StoreUnreadable, "is damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: (
        StoreUnreadable,
        "is not an SQLite database",
        "It was left as it is; choose another path with db=.",
    ),
}


def meaning(code: int, path: Path, said: str) -> StoreError:
    """The error for one of SQLite's primary result codes.

    Args:
        code: The code, such as ``sqlite3.SQLITE_FULL``.
        path: The database's file.
        said: What the failure says of itself, in one line.
    """
    kind, what, remedy = _MEANINGS.get(code, (StoreError, "did not take it", "Nothing was written."))
    return kind(f"{str(path)!r} {what}: {said}", remedy=remedy)


def result_code(error: BaseException) -> int:
    """SQLite's primary result code, or -1."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
