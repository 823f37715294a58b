"""Translation of SQLite's failures into the errors of this package; no other module decides that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from durable_nb import settings
from durable_nb.errors import DurableError, StoreError, StoreUnavailable, StoreUnreadable

__all__ = ["error_for_code", "result_code", "translated"]


def translated(error: Exception, path: Path) -> DurableError:
    """Return the ``StoreError`` for a failure of the database, in one line and with a remedy.

    Args:
        error: The exception of sqlite3, aiosqlite or the system; a ``DurableError`` is returned as it is.
        path: The database's file.

    Example:
        >>> translated(sqlite3.OperationalError("?"), Path("durable.db"))
        StoreError("'durable.db' rejected the write: ?", None, None, 'Nothing was written.')
    """
    if isinstance(error, DurableError):
        return error
    detail = " ".join(str(error).split())
    if isinstance(error, OSError):
        return StoreUnavailable(
            f"cannot access {str(path)!r} ({detail})",
            remedy="Check the permissions and the free space of its folder, or choose another path with db=.",
        )
    return error_for_code(result_code(error), path, detail)


_UNWRITABLE = "Give yourself permission to write the file and its folder, or choose another path with db=."
_DAMAGED = (
    "Restore a backup, or try: sqlite3 FILE .recover; to continue without it, choose another path with db=."
)
_LOCKED = "End the process that holds the lock, or wait, and run again."
_MEANINGS: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, "is locked by another process", _LOCKED),
    sqlite3.SQLITE_READONLY: (StoreUnavailable, "is read-only", _UNWRITABLE),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "is read-only", _UNWRITABLE),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "cannot be opened", _UNWRITABLE),
    sqlite3.SQLITE_FULL: (
        StoreUnavailable,
        "cannot be written: the disk is full",
        "Free some space and run again; finished steps are kept.",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "cannot be read or written",
        "Check the disk and its free space, then run again; finished steps are kept.",
    ),
    sqlite3.SQLITE_INTERRUPT: (
        StoreUnavailable,
        f"was not read within {settings.READ_LIMIT:g} s",
        "Wait until the disk is less busy, and run again.",
    ),
    sqlite3.SQLITE_CORRUPT: (StoreUnreadable, "is damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: (
        StoreUnreadable,
        "is not an SQLite database",
        "The file was not changed; choose another path with db=.",
    ),
}


def error_for_code(code: int, path: Path, detail: str) -> StoreError:
    """Return the error for one of SQLite's primary result codes.

    Args:
        code: The code, such as ``sqlite3.SQLITE_FULL``.
        path: The database's file.
        detail: The failure's own message, in one line.
    """
    kind, what, remedy = _MEANINGS.get(code, (StoreError, "rejected the write", "Nothing was written."))
    return kind(f"{str(path)!r} {what}: {detail}", remedy=remedy)


def result_code(error: BaseException) -> int:
    """Return SQLite's primary result code, or -1 if the error has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
