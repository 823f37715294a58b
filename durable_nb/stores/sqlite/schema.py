"""The tables of a SQLite database, and their migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from durable_nb.errors import StoreTooNew, StoreUnreadable
from durable_nb.records import Progress

__all__ = [
    "APPLICATION_ID",
    "MESSAGE",
    "MIGRATIONS",
    "PROGRESS",
    "REQUEST",
    "RUN",
    "SIGNAL",
    "STEP",
    "VERSION",
    "check",
    "database_id",
    "excluded",
    "marks",
    "migrate",
    "read_progress",
]

APPLICATION_ID: Final = 0x444E4231
"""``DNB1`` in the header of a database, which marks it as one of durable_nb."""

RUN: Final = (
    "run_id, workflow, status, epoch, passes, code, arguments, shown, python, parent, owner, "
    "result_format, result_data, result_blob, result_signature, created_at, updated_at, "
    "given_format, given_data, given_blob, given_signature, crashes, checksum, standing"
)
"""The columns of ``runs``, in the order of ``RUN_COLUMNS``."""

STEP: Final = (
    "run_id, step_id, kind, status, attempt, epoch, began, recorded, code, arguments, shown, reads, once, "
    "payload_format, payload_data, payload_blob, payload_signature, started_at, finished_at, delivered_by, "
    "used, checksum"
)
"""The columns of ``steps`` and of ``versions``, in the order of ``STEP_COLUMNS``."""

SIGNAL: Final = (
    "run_id, name, payload_format, payload_data, payload_blob, payload_signature, delivered_by, "
    "delivered_at, checksum"
)
"""The columns of ``signals``, in the order of ``SIGNAL_COLUMNS``."""

MESSAGE: Final = (
    "run_id, topic, payload_format, payload_data, payload_blob, payload_signature, delivery, sent_by, "
    "sent_at, number, checksum"
)
"""The columns of ``messages``, in the order of ``MESSAGE_COLUMNS``."""

REQUEST: Final = "run_id, name, prompt, schema, choices, refused, asked_by, asked_at, checksum"
"""The columns of ``requests``, in the order of ``REQUEST_COLUMNS``."""

PROGRESS: Final = (
    "SELECT run_id, sum(status = 'done') FROM steps GROUP BY run_id",
    """SELECT run_id, step_id FROM steps WHERE kind IN ('signal', 'message') AND status = 'started'
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
    (
        "CREATE TABLE IF NOT EXISTS meta (key TEXT NOT NULL PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
        "INSERT OR IGNORE INTO meta (key, value) VALUES ('id', lower(hex(randomblob(16))))",
        "ALTER TABLE runs ADD COLUMN checksum INTEGER",
        "ALTER TABLE runs ADD COLUMN standing INTEGER",
        "ALTER TABLE runs ADD COLUMN given_format TEXT",
        "ALTER TABLE runs ADD COLUMN given_data BLOB",
        "ALTER TABLE runs ADD COLUMN given_blob TEXT",
        "ALTER TABLE runs ADD COLUMN given_signature BLOB",
        "ALTER TABLE runs ADD COLUMN notebook TEXT",
        "ALTER TABLE runs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE steps ADD COLUMN checksum INTEGER",
        "ALTER TABLE signals ADD COLUMN checksum INTEGER",
        "ALTER TABLE signals ADD COLUMN expires_at REAL",
        "ALTER TABLE requests ADD COLUMN checksum INTEGER",
        """CREATE TABLE versions (
            run_id TEXT NOT NULL, step_id TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL,
            attempt INTEGER NOT NULL, epoch INTEGER NOT NULL, began INTEGER NOT NULL,
            recorded INTEGER NOT NULL, code TEXT, arguments TEXT, shown TEXT, reads TEXT,
            once INTEGER NOT NULL, payload_format TEXT, payload_data BLOB, payload_blob TEXT,
            payload_signature BLOB, started_at REAL NOT NULL, finished_at REAL, delivered_by TEXT, used TEXT,
            checksum INTEGER, PRIMARY KEY (run_id, step_id, attempt)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE messages (
            run_id TEXT NOT NULL, topic TEXT NOT NULL, number INTEGER NOT NULL,
            payload_format TEXT NOT NULL, payload_data BLOB NOT NULL, payload_blob TEXT,
            payload_signature BLOB, delivery TEXT NOT NULL, sent_by TEXT NOT NULL, sent_at REAL NOT NULL,
            received_at REAL, expires_at REAL, checksum INTEGER, PRIMARY KEY (run_id, topic, number),
            UNIQUE (run_id, topic, delivery)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX unread ON messages (run_id, topic, number) WHERE received_at IS NULL",
        "CREATE INDEX expiring_messages ON messages (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE INDEX expiring_signals ON signals (expires_at) WHERE expires_at IS NOT NULL",
    ),
)
"""The statements that lead from each version to the next. Append only: users' files were made by these."""

VERSION: Final = len(MIGRATIONS)
"""The version of the tables that this durable_nb writes, stored in ``PRAGMA user_version``."""

_DATABASE_ID = "SELECT value FROM meta WHERE key = 'id'"

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


def database_id(connection: sqlite3.Connection) -> str:
    """Return the id of a migrated database; empty if it has lost it."""
    found = connection.execute(_DATABASE_ID).fetchone()
    return str(found[0]) if found else ""


def read_progress(done: Sequence[Any], awaited: Sequence[Any]) -> dict[str, Progress]:
    """Return the progress of each run, from the rows of the two ``PROGRESS`` statements."""
    waits_for: dict[str, list[str]] = {}
    for run_id, step_id in awaited:
        waits_for.setdefault(run_id, []).append(step_id)
    return {run_id: Progress(count, tuple(waits_for.get(run_id, ()))) for run_id, count in done}
