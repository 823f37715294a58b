"""Checkpoints that would run code and that nobody known has signed: finding them in a database, signing them.

In plain synchronous code and past the journal: it is for a person in a terminal, and no part of a run.
"""

# ruff: noqa: S608 - what is put into SQL as text is names of ours

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from durable_nb import codec, settings
from durable_nb.codec import signing
from durable_nb.errors import StoreUnavailable
from durable_nb.records import Payload, signal_step
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.errors import translated

__all__ = ["Untrusted", "find_untrusted", "trust"]

_TABLES: Final = {
    "runs": ("run_id, ''", "result"),
    "steps": ("run_id, step_id", "payload"),
    "signals": ("run_id, name", "payload"),
}
"""Where payloads are: what names one in its table, and what its columns begin with."""


class Untrusted(NamedTuple):
    """A payload that no known key has signed.

    Attributes:
        table: The table that it is in.
        run_id: The run it belongs to.
        name: The step or the signal; empty for what a run returned.
        payload: The payload as it is stored.
    """

    table: str
    run_id: str
    name: str
    payload: Payload

    @property
    def step(self) -> str:
        """The step that it is signed for."""
        return signal_step(self.name) if self.table == "signals" else self.name


def find_untrusted(path: Path) -> list[Untrusted]:
    """The payloads of a database that would run code when loaded and that no known key has signed.

    Args:
        path: The database.

    Raises:
        StoreError: It is not there, or no database of ours.
    """
    found = []
    try:
        with closing(_open(path)) as connection:
            for table, (names, column) in _TABLES.items():
                columns = ", ".join(f"{column}_{part}" for part in ("format", "data", "blob", "signature"))
                for run_id, name, *payload in connection.execute(f"SELECT {names}, {columns} FROM {table}"):
                    if payload[0] in codec.RUNS_CODE:
                        found.append(Untrusted(table, run_id, name, Payload(*payload)))
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return [one for one in found if not signing.is_trusted(one.payload, one.run_id, one.step)]


def trust(path: Path, untrusted: Sequence[Untrusted]) -> int:
    """Sign payloads anew, all or none; those that have changed meanwhile are left. Gives how many it signed.

    Args:
        path: The database.
        untrusted: What ``find_untrusted`` gave.

    Raises:
        StoreError: It cannot be written, or there is no key.
    """
    signed = 0
    try:
        with closing(_open(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for one in untrusted:
                signed += connection.execute(*_signing(one)).rowcount
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return signed


def _signing(one: Untrusted) -> tuple[str, tuple[object, ...]]:
    _, column = _TABLES[one.table]
    key = {"runs": "? = ''", "steps": "step_id = ?", "signals": "name = ?"}[one.table]
    payload = signing.sign(one.payload, one.run_id, one.step)
    unchanged = f"{column}_format = ? AND {column}_data IS ? AND {column}_blob IS ?"
    return (
        f"UPDATE {one.table} SET {column}_signature = ? WHERE run_id = ? AND {key} AND {unchanged}",
        (payload.signature, one.run_id, one.name, payload.format, payload.data, payload.blob),
    )


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreUnavailable(f"there is no database {str(path)!r}", remedy="Give the path of one.")
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=settings.BUSY_TIMEOUT, isolation_level=None
    )
    schema.check(connection, str(path))
    return connection
