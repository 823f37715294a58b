"""Look for what is missing or damaged in a database, and for what is left over; accept it as it is.

Synchronous, and without a journal: it serves commands, also on files that a journal refuses to open.
"""

# ruff: noqa: S608 - only constants of this module are formatted into SQL

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from durable_nb import codec, settings
from durable_nb.codec import bundle
from durable_nb.errors import DurableError, StepNotRestored, StoreError, StoreUnavailable
from durable_nb.records import GIVEN, Payload, RunStatus
from durable_nb.stores.blobs.folder import DIGEST, BlobFolder
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.connection import decoded
from durable_nb.stores.sqlite.errors import error_for_code, translated
from durable_nb.stores.sqlite.guard import check_schema, harden
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.sqlite.mark import PUT_WHOLE, Identity, Mark, is_mixed
from durable_nb.stores.sqlite.opening import base_identity, check_files, check_path, connect
from durable_nb.stores.sqlite.rowcheck import damaged_rows, drop_strays

__all__ = ["Report", "accept", "blob_folder", "inspect", "read_only", "referenced_blobs", "remove_leftovers"]

_PAYLOADS: Final = (
    ("runs", "run_id, ''", "result"),
    ("runs", f"run_id, '{GIVEN}'", "given"),
    ("steps", "run_id, step_id", "payload"),
    ("versions", "run_id, step_id", "payload"),
    ("signals", "run_id, name", "payload"),
    ("messages", "run_id, topic", "payload"),
)
"""The tables with payloads: the columns that name one, and the prefix of the payload's columns."""

_COLUMNS: Final = (
    "SELECT tables.name, columns.name FROM sqlite_master tables, pragma_table_info(tables.name) columns"
)

_RUNS: Final = """
    SELECT runs.run_id, runs.status, count(steps.step_id), sum(steps.status IN ('done', 'failed'))
    FROM runs LEFT JOIN steps ON steps.run_id = runs.run_id GROUP BY runs.run_id ORDER BY runs.run_id"""


_NO_DATABASE: Final = "file is not a database"
"""What SQLite says of a file that has another beginning than its databases."""


class Place(NamedTuple):
    """A payload in a database.

    Attributes:
        run_id: The run it belongs to.
        name: The step or the signal; empty for the result of a run, ``GIVEN`` for its arguments.
    """

    run_id: str
    name: str

    def __str__(self) -> str:
        what = {"": "its result", GIVEN: "its arguments"}.get(self.name, f"step {self.name!r}")
        return f"run {self.run_id!r}, {what}"


@dataclass
class Report:
    """The findings about a database.

    Attributes:
        problems: The losses and damages, one line each.
        runs: The effect of resuming each run that has not ended, one line each.
        leftovers: Files that no row needs.
    """

    problems: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)


def read_only(path: Path) -> sqlite3.Connection:
    """Open a database for reading; closing it leaves its files as they are.

    Args:
        path: The file.

    Raises:
        StoreUnavailable: There is no file.
        StoreError: It is no database of durable_nb, or its schema has what another program put there.
    """
    if not path.is_file():
        raise StoreUnavailable(f"no database {str(path)!r}", remedy="Give the path of an existing database.")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=settings.BUSY_TIMEOUT, isolation_level=None)
    try:
        harden(connection)
        schema.check(connection, str(path))
        check_schema(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def blob_folder(path: Path) -> BlobFolder:
    """Return the blobs of a database."""
    return BlobFolder(Path(f"{path.resolve()}.blobs"))


def inspect(path: Path) -> Report:
    """Look at every row and blob of a database; change nothing.

    Args:
        path: The file.

    Raises:
        StoreError: It cannot be read at all.
    """
    path, report = path.resolve(), Report()
    check_path(path)
    try:
        _inspect_files(path, report)
        with closing(read_only(path)) as reader:
            _inspect_rows(path, reader, report)
    except (sqlite3.Error, OSError) as error:
        report.problems.append(str(translated(error, path)))
    except StoreError as error:
        if str(error) not in report.problems:
            raise
    return report


def _inspect_files(path: Path, report: Report) -> None:
    lock = LockFile.shared(Path(f"{path}.lock"))
    try:
        check_files(path, lock, settings.BUSY_TIMEOUT)
    except StoreError as error:
        report.problems.append(str(error))
    finally:
        lock.release()


def _inspect_rows(path: Path, reader: sqlite3.Connection, report: Report) -> None:
    reader.text_factory = decoded
    lines = [line for (line,) in reader.execute("PRAGMA integrity_check(20)") if line != "ok"]
    report.problems += [f"damaged pages: {line}" for line in lines]
    report.problems += damaged_rows(reader)
    blobs, lost, needed = blob_folder(path), Counter[str](), set[str]()
    for place, payload in _payloads(reader):
        digests, problems = _blobs_of(blobs, place, payload)
        needed |= digests
        lost[place.run_id] += bool(problems)
        report.problems += problems
    for run_id, status, steps, finished in reader.execute(_RUNS):
        if status != RunStatus.DONE:
            report.runs.append(_resumption(run_id, status, steps, finished or 0, lost[run_id]))
    report.leftovers += _leftovers(blobs, needed)


def _payloads(reader: sqlite3.Connection) -> Iterator[tuple[Place, Payload]]:
    there = set(reader.execute(_COLUMNS))
    for table, names, column in _PAYLOADS:
        if (table, f"{column}_format") not in there:  # in a database of an older version
            continue
        columns = ", ".join(f"{column}_{part}" for part in ("format", "data", "blob", "signature"))
        for run_id, name, *payload in reader.execute(f"SELECT {names}, {columns} FROM {table}"):
            if isinstance(payload[1], bytes) and isinstance(payload[2], str | None):
                yield Place(run_id, name), Payload(*payload)


def _blobs_of(blobs: BlobFolder, place: Place, payload: Payload) -> tuple[set[str], list[str]]:
    """Return the digests of a payload's blobs, and what is wrong with them."""
    digests, problems, data = set[str](), [], payload.data
    try:
        if payload.blob is not None:
            digests.add(payload.blob)
            data = blobs.get(payload.blob, set_aside=False)
        parts = bundle.unpack(data)[1] if payload.format in codec.PARTED else []
    except DurableError as error:
        return digests, [f"{place}: {error.what}"]
    for part in parts:
        if isinstance(part, bundle.Reference):
            digests.add(part.digest)
            try:
                blobs.verify(part.digest)
            except StepNotRestored as error:
                problems.append(f"{place}: {error.what}")
    return digests, problems


def referenced_blobs(path: Path, reader: sqlite3.Connection) -> set[str]:
    """Return the digests of all blobs that a database needs.

    Args:
        path: The file.
        reader: A connection to it.
    """
    blobs = blob_folder(path)
    return set().union(*(_blobs_of(blobs, *found)[0] for found in _payloads(reader)))


def _resumption(run_id: str, status: str, steps: int, finished: int, lost: int) -> str:
    parts = [f"{finished - lost:,} steps replay"]
    parts += [f"{lost:,} cannot be restored"] if lost else []
    unfinished = steps - finished
    parts += [f"{unfinished:,} run again"] if unfinished else []
    return f"run {run_id!r} ({status}): resumed, {', '.join(parts)}"


def _leftovers(blobs: BlobFolder, needed: set[str]) -> list[Path]:
    found = []
    oldest = time.time() - settings.ABANDONED  # a younger one may belong to a row that is being written
    for path in blobs.folder.rglob("*"):
        known = DIGEST.fullmatch(path.name) and path.name in needed
        with suppress(OSError):
            if path.is_file() and not known and path.stat().st_mtime < oldest:
                found.append(path)
    return sorted(found)


def remove_leftovers(report: Report) -> int:
    """Delete the files that no row needs, and return how many there were."""
    for path in report.leftovers:
        path.unlink(missing_ok=True)
    return len(report.leftovers)


def accept(path: Path) -> list[str]:
    """Take a database as it is, although its high-water mark says that it has lost something.

    Args:
        path: The file; if it is missing or empty, a new database is made.

    Returns:
        What was done, one line each.

    Raises:
        StoreUnavailable: A process uses it.
        StoreUnreadable: It is damaged.
    """
    path = path.resolve()
    check_path(path)
    lock = LockFile.shared(Path(f"{path}.lock"))
    try:
        with lock.mutex(settings.BUSY_TIMEOUT):
            return [*_set_aside(path, lock), *_accept(path, lock)]
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path) from error
    finally:
        lock.release()


def _set_aside(path: Path, lock: LockFile) -> list[str]:
    """Rename a write-ahead log that does not fit its database, and a database that is none any more."""
    mark = Mark.decode(lock.read_mark())
    if _is_filled(path) and _state(f"{path.as_uri()}?mode=ro") == "ok" and not _is_mixed(path, mark):
        return []
    said = _renamed(path.with_name(f"{path.name}-wal"), "does not fit the database")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    state = _state(f"{path.as_uri()}?immutable=1") if _is_filled(path) else "ok"
    if state == _NO_DATABASE and mark is not None and mark.commits:
        said += _renamed(path, "is no longer a database")
    elif state != "ok":
        raise error_for_code(sqlite3.SQLITE_CORRUPT, path, state)
    return said


def _is_mixed(path: Path, mark: Mark | None) -> bool:
    with closing(read_only(path)) as reader:
        found = Identity.of(reader)
    return found is not None and is_mixed(mark, found, base_identity(path))


def _is_filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _renamed(path: Path, reason: str) -> list[str]:
    if not _is_filled(path):
        return []
    aside = path.with_name(f"{path.name}.{time.time_ns()}")
    path.replace(aside)
    return [f"set aside {aside.name!r}, which {reason}"]


def _state(uri: str) -> str:
    with closing(sqlite3.connect(uri, uri=True, timeout=settings.BUSY_TIMEOUT)) as reader:
        try:
            (state,) = reader.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return str(error)
    return str(state)


def _accept(path: Path, lock: LockFile) -> list[str]:
    options = {"uri": True, "timeout": settings.BUSY_TIMEOUT, "isolation_level": None}
    uri = f"{path.as_uri()}?mode=rw"
    mutex = nullcontext()
    connection = connect(path, uri, options, lock=lock, synchronous="full", mutex=mutex)
    with closing(connection):
        _check_unused(path, connection, lock)
        strays = drop_strays(connection)
        connection.execute(PUT_WHOLE)
        identity = Identity.of(connection)
        assert identity is not None
        lock.write_mark(Mark(identity.database, identity.commits).encode())
    said = [f"deleted {strays:,} steps of runs that do not exist"] if strays else []
    return [*said, f"accepted {str(path)!r} with {identity.commits:,} commits"]


def _check_unused(path: Path, connection: sqlite3.Connection, lock: LockFile) -> None:
    for sid, pid in connection.execute("SELECT sid, pid FROM sessions").fetchall():
        if pid != os.getpid() and lock.is_locked(sid):
            raise StoreUnavailable(
                f"{str(path)!r} is in use by process {pid}",
                remedy="End that process, and run the command again.",
            )
