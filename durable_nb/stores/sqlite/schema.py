"""The tables of a SQLite database, their migrations, and the conversion of records to rows and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from durable_nb.errors import StoreTooNew, StoreUnreadable
from durable_nb.records import (
    Payload,
    Progress,
    Run,
    RunStatus,
    Signal,
    SignalRequest,
)
from durable_nb.rows import payload_row, read_payload

__all__ = [
    "APPLICATION_ID",
    "MIGRATIONS",
    "PROGRESS",
    "REQUEST",
    "RUN",
    "SIGNAL",
    "STEP",
    "VERSION",
    "check",
    "excluded",
    "marks",
    "migrate",
    "read_progress",
    "read_request",
    "read_run",
    "read_signal",
    "request_row",
    "run_row",
    "signal_row",
]

APPLICATION_ID: Final = 0x444E4231
"""``DNB1`` in the header of a database, which marks it as one of durable_nb."""

RUN: Final = (
    "run_id, workflow, status, epoch, passes, code, arguments, shown, python, parent, owner, "
    "result_format, result_data, result_blob, result_signature, created_at, updated_at"
)
"""The columns of ``runs``, in the order of the record's fields."""

STEP: Final = (
    "run_id, step_id, kind, status, attempt, epoch, began, recorded, code, arguments, shown, reads, once, "
    "payload_format, payload_data, payload_blob, payload_signature, started_at, finished_at, delivered_by, "
    "used"
)
"""The columns of ``steps``, in the order of the record's fields."""

SIGNAL: Final = (
    "run_id, name, payload_format, payload_data, payload_blob, payload_signature, delivered_by, delivered_at"
)
"""The columns of ``signals``, in the order of the record's fields."""

REQUEST: Final = "run_id, name, prompt, schema, choices, refused, asked_by, asked_at"
"""The columns of ``requests``, in the order of the record's fields."""

PROGRESS: Final = (
    "SELECT run_id, sum(status = 'done') FROM steps GROUP BY run_id",
    """SELECT run_id, step_id FROM steps WHERE kind = 'signal' AND status = 'started'
        OR kind = 'sleep' AND finished_at > unixepoch() ORDER BY run_id, step_id""",
)
"""Count the finished steps of each run, and list those it waits for."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE runs (
            run_id TEXT NOT NULL PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL,
            epoch INTEGER NOT NULL, passes INTEGER NOT NULL, code TEXT, arguments TEXT, shown TEXT,
            python TEXT, parent TEXT, owner TEXT, result_format TEXT, result_data BLOB, result_blob TEXT,
            result_signature BLOB, created_at REAL NOT NULL, updated_at REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE steps (
            run_id TEXT NOT NULL, step_id TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL,
            attempt INTEGER NOT NULL, epoch INTEGER NOT NULL, began INTEGER NOT NULL,
            recorded INTEGER NOT NULL, code TEXT, arguments TEXT, shown TEXT, reads TEXT,
            once INTEGER NOT NULL, payload_format TEXT, payload_data BLOB, payload_blob TEXT,
            payload_signature BLOB, started_at REAL NOT NULL, finished_at REAL, delivered_by TEXT,
            PRIMARY KEY (run_id, step_id)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE signals (
            run_id TEXT NOT NULL, name TEXT NOT NULL, payload_format TEXT NOT NULL,
            payload_data BLOB NOT NULL, payload_blob TEXT, payload_signature BLOB,
            delivered_by TEXT NOT NULL, delivered_at REAL NOT NULL, PRIMARY KEY (run_id, name)
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE sessions (
            sid INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, boot_id TEXT NOT NULL,
            pid INTEGER NOT NULL, beat INTEGER NOT NULL, seen REAL NOT NULL
        ) STRICT""",
        "ALTER TABLE runs ADD COLUMN sid INTEGER",
    ),
    (
        """CREATE TABLE requests (
            run_id TEXT NOT NULL, name TEXT NOT NULL, prompt TEXT, schema TEXT, choices TEXT, refused TEXT,
            asked_by TEXT NOT NULL, asked_at REAL NOT NULL, PRIMARY KEY (run_id, name)
        ) STRICT, WITHOUT ROWID""",
    ),
    ("ALTER TABLE steps ADD COLUMN used TEXT",),
)
"""The statements that lead from each version to the next. Append only: users' files were made by these."""

VERSION: Final = len(MIGRATIONS)
"""The version of the tables that this durable_nb writes, stored in ``PRAGMA user_version``."""

# One statement, so that it reads one state: another process may create the tables between two statements.
_HEADER = """
    SELECT (SELECT count(*) FROM sqlite_master), application_id, user_version
    FROM pragma_application_id, pragma_user_version"""


def marks(columns: str) -> str:
    """Return a question mark for each column."""
    return ", ".join("?" * len(columns.split(", ")))


def excluded(columns: str, *keys: str) -> str:
    """Return the assignments of an upsert: each column but the keys, to the new row's value."""
    return ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ") if name not in keys)


_RUN_STATUSES = {str(status): status for status in RunStatus}


def check(connection: sqlite3.Connection, path: str) -> int:
    """Check that a database belongs to durable_nb or is empty; only reads.

    Args:
        connection: A connection to it.
        path: Its file, for messages.

    Returns:
        The version of its tables; 0 for an empty database.

    Raises:
        StoreTooNew: It was written by a newer durable_nb.
        StoreUnreadable: It belongs to another application.
    """
    tables, ours, version = connection.execute(_HEADER).fetchone()
    if ours != APPLICATION_ID and (ours or version or tables):
        raise StoreUnreadable(
            f"{path!r} is an SQLite database of another application",
            remedy="The file was not changed; choose another path with db=.",
        )
    if version > VERSION:
        raise StoreTooNew(
            f"{path!r} was written by a newer durable_nb (format {version}; ours is {VERSION})",
            remedy="The file was not changed; upgrade with pip install -U durable_nb, or choose another path "
            "with db=.",
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Migrate a database, which may be empty, to ``VERSION`` in one transaction.

    Args:
        connection: A connection to it, outside a transaction.
        path: Its file, for messages.

    Raises:
        StoreTooNew: Another process has migrated it to a newer version.
        StoreUnreadable: It belongs to another application.
    """
    if check(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[check(connection, path) :]:
            for statement in script:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def run_row(run: Run) -> tuple[Any, ...]:
    """Return a run as the values of ``RUN``."""
    return (
        run.run_id,
        run.workflow,
        run.status.value,
        run.epoch,
        run.passes,
        run.code,
        run.arguments,
        run.arguments_repr,
        run.python,
        run.parent,
        run.owner,
        *payload_row(run.result),
        run.created_at,
        run.updated_at,
    )


def signal_row(signal: Signal) -> tuple[Any, ...]:
    """Return a signal as the values of ``SIGNAL``."""
    return (
        signal.run_id,
        signal.name,
        *payload_row(signal.payload),
        signal.delivered_by,
        signal.delivered_at,
    )


def read_run(row: Sequence[Any]) -> Run:
    """Return the run in a row of ``runs``."""
    values = *row[:2], _RUN_STATUSES[row[2]], *row[3:11], read_payload(row[11:15]), *row[15:]
    return Run(*values)


def read_signal(row: Sequence[Any]) -> Signal:
    """Return the signal in a row of ``signals``."""
    values = *row[:2], Payload(*row[2:6]), *row[6:]
    return Signal(*values)


def request_row(request: SignalRequest) -> tuple[Any, ...]:
    """Return a request as the values of ``REQUEST``."""
    return tuple(request)


def read_request(row: Sequence[Any]) -> SignalRequest:
    """Return the request in a row of ``requests``."""
    return SignalRequest(*row)


def read_progress(done: Sequence[Any], awaited: Sequence[Any]) -> dict[str, Progress]:
    """Return the progress of each run, from the rows of the two ``PROGRESS`` statements."""
    waits_for: dict[str, list[str]] = {}
    for run_id, step_id in awaited:
        waits_for.setdefault(run_id, []).append(step_id)
    return {run_id: Progress(count, tuple(waits_for.get(run_id, ()))) for run_id, count in done}
