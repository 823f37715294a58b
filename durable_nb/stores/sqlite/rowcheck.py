"""Compare every row of a database with its checksum, and find steps that have lost their run."""

# ruff: noqa: S608 - only constants of this package are formatted into SQL

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from durable_nb.errors import AcceptDatabase, StoreUnreadable
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.rows import Row
from durable_nb.stores.sqlite import schema

__all__ = ["damaged_rows", "drop_strays", "find_stray", "stray_step"]

_STRAY: Final = """
    SELECT run_id, count(*) FROM {table} WHERE run_id NOT IN (SELECT run_id FROM runs)
    GROUP BY run_id ORDER BY run_id"""

# Steps from one run to the next in the primary key, so that the rows of a run are not read: 2 µs a run.
_FIRST_STRAY: Final = """
    WITH RECURSIVE found(run_id) AS (
        SELECT min(run_id) FROM steps UNION ALL
        SELECT (SELECT min(run_id) FROM steps WHERE run_id > found.run_id) FROM found
        WHERE found.run_id IS NOT NULL)
    SELECT CAST(run_id AS BLOB) FROM found
    WHERE run_id IS NOT NULL AND run_id NOT IN (SELECT run_id FROM runs) LIMIT 1"""
_DROP_STRAYS: Final = "DELETE FROM steps WHERE run_id NOT IN (SELECT run_id FROM runs)"


def find_stray(connection: sqlite3.Connection) -> str | None:
    """Return a run id that steps have and no run has, or None: the id of such a step is damaged."""
    row = connection.execute(_FIRST_STRAY).fetchone()
    return None if row is None else row[0].decode("utf-8", "replace")


def stray_step(stray: str, path: str, run_id: str) -> StoreUnreadable:
    """Return the error for a run that may have lost a step, since one names a run that does not exist.

    Args:
        stray: The id that the step has.
        path: The database's file.
        run_id: The run that is to be opened.
    """
    return StoreUnreadable(
        f"{path!r} has steps of run {stray!r}, which does not exist: their run ids are damaged, and they may "
        "be steps of this run",
        run_id=run_id,
        remedy=("Restore a backup of the database, or delete these steps: ", AcceptDatabase(db=path)),
    )


def drop_strays(connection: sqlite3.Connection) -> int:
    """Delete steps whose run does not exist, and return how many there were."""
    return connection.execute(_DROP_STRAYS).rowcount


def damaged_rows(reader: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong with each damaged row, and with each run of which only steps are left.

    Args:
        reader: A connection to the database, which replaces what is no text.
    """
    if schema.check(reader, "") < schema.VERSION:
        return  # from before there were checksums
    checked = CheckedRows(schema.database_id(reader))
    for table, (columns, check) in _checks(checked).items():
        for row in reader.execute(f"SELECT {columns} FROM {table}"):
            try:
                check(row)
            except StoreUnreadable as error:
                yield str(error)
    for table in ("steps", "versions", "requests"):
        for run_id, count in reader.execute(_STRAY.format(table=table)):
            yield f"run {run_id!r} is missing, and {count:,} rows of its {table} are there"


def _checks(checked: CheckedRows) -> dict[str, tuple[str, Callable[[Row], Any]]]:
    return {
        "runs": (schema.RUN, checked.run),
        "steps": (schema.STEP, checked.checked_step),
        "versions": (schema.STEP, checked.checked_step),
        "signals": (schema.SIGNAL, checked.signal),
        "messages": (schema.MESSAGE, checked.message),
        "requests": (schema.REQUEST, checked.request),
    }
