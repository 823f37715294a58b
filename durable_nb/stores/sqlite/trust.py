"""Find and sign the checkpoints of a database that would run code and have no trusted signature.

Synchronous, and without a journal: it serves a command, and is no part of a run.
"""

# ruff: noqa: S608 - only constants of this module are formatted into SQL

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from durable_nb import codec, settings
from durable_nb.codec import signing
from durable_nb.errors import StoreUnavailable
from durable_nb.records import GIVEN, Payload, message_step, signal_step
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.guard import check_schema, harden

__all__ = ["Untrusted", "find_untrusted", "trust"]

_TABLES: Final = {
    "runs": ("runs", "run_id, ''", "result"),
    "given": ("runs", "run_id, ''", "given"),
    "steps": ("steps", "run_id, step_id", "payload"),
    "versions": ("versions", "run_id, attempt || ':' || step_id", "payload"),
    "signals": ("signals", "run_id, name", "payload"),
    "messages": ("messages", "run_id, number || ':' || topic", "payload"),
}
"""The kinds of payloads: the table, the columns that name one, and the prefix of the payload's columns."""


class Untrusted(NamedTuple):
    """A payload without a trusted signature.

    Attributes:
        table: The table with the payload: ``runs``, ``steps``, ``versions``, ``signals`` or ``messages``;
            ``given`` for the arguments of a run.
        run_id: The run it belongs to.
        name: The step or the signal; ``ATTEMPT:STEP`` in ``versions``, ``NUMBER:TOPIC`` in ``messages``;
            empty for the result of a run, and for its arguments.
        payload: The payload as it is stored.
    """

    table: str
    run_id: str
    name: str
    payload: Payload

    @property
    def step(self) -> str:
        """The step id that its signature covers."""
        if self.table == "given":
            return GIVEN
        if self.table in ("versions", "messages"):
            name = self.name.partition(":")[2]
            return message_step(name) if self.table == "messages" else name
        return signal_step(self.name) if self.table == "signals" else self.name


def find_untrusted(path: Path) -> list[Untrusted]:
    """Return the payloads of a database that would run code when loaded and have no trusted signature.

    Args:
        path: The database file.

    Raises:
        StoreError: The file does not exist, or is not a database of durable_nb.
    """
    found = []
    try:
        with closing(_open(path)) as connection:
            database = schema.database_id(connection)
            for kind, (table, names, column) in _TABLES.items():
                columns = ", ".join(f"{column}_{part}" for part in ("format", "data", "blob", "signature"))
                for run_id, name, *payload in connection.execute(f"SELECT {names}, {columns} FROM {table}"):
                    if _can_be_signed(run_id, name, *payload):
                        found.append(Untrusted(kind, run_id, name, Payload(*payload)))
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return [
        one for one in found if not signing.is_trusted(one.payload, one.run_id, one.step, database=database)
    ]


def trust(path: Path, untrusted: Sequence[Untrusted]) -> int:
    """Sign payloads, all or none, and return how many were signed; those that have changed since are skipped.

    Args:
        path: The database file.
        untrusted: The payloads that ``find_untrusted`` returned.

    Raises:
        StoreError: The database cannot be written, or there is no signing key.
    """
    signed = 0
    try:
        with closing(_open(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            database = schema.database_id(connection)
            for one in untrusted:
                signed += connection.execute(*_signing(one, database)).rowcount
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return signed


def _can_be_signed(*values: Any) -> bool:
    """Return whether a payload would run code when it is loaded, and its row has no value of a wrong type."""
    run_id, name, form, data, blob, signature = values
    texts = all(isinstance(text, str) for text in (run_id, name, form))
    parts = isinstance(data, bytes) and isinstance(signature, bytes | None) and isinstance(blob, str | None)
    return texts and parts and form in codec.RUNS_CODE


def _signing(one: Untrusted, database: str) -> tuple[str, tuple[object, ...]]:
    table, names, column = _TABLES[one.table]
    key = "? = ''" if table == "runs" else f"{names.partition(', ')[2]} = ?"
    payload = signing.sign(one.payload, one.run_id, one.step, database=database)
    unchanged = f"{column}_format = ? AND {column}_data IS ? AND {column}_blob IS ?"
    return (
        f"UPDATE {table} SET {column}_signature = ? WHERE run_id = ? AND {key} AND {unchanged}",
        (payload.signature, one.run_id, one.name, payload.format, payload.data, payload.blob),
    )


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreUnavailable(f"no database {str(path)!r}", remedy="Give the path of an existing database.")
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=settings.BUSY_TIMEOUT, isolation_level=None
    )
    try:
        harden(connection)
        schema.check(connection, str(path))
        check_schema(connection, str(path))
        schema.migrate(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection
