"""Protection from what another program has put into a database: triggers, views, altered tables."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing

from durable_nb.errors import StoreUnreadable
from durable_nb.stores.sqlite import schema

__all__ = ["check_schema", "harden"]

_DEFENSIVE = getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE", 0)
# One statement, so that it reads one state: another process may create the tables between two statements.
_SCHEMA = """
    SELECT user_version, type, name, sql FROM pragma_user_version
    LEFT JOIN sqlite_master ON name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"""
_REMEDY = "Nothing was changed. Drop what was added (sqlite3 FILE 'DROP TRIGGER NAME'), or restore a backup."


def harden(connection: sqlite3.Connection) -> None:
    """Keep the schema of a database from calling functions, and SQL from writing to its internals."""
    connection.execute("PRAGMA trusted_schema = OFF")
    if (setconfig := getattr(connection, "setconfig", None)) is not None:  # Python 3.12 and later
        setconfig(_DEFENSIVE, True)


def check_schema(connection: sqlite3.Connection, path: str) -> None:
    """Compare the tables of a database with those that its migrations made; further tables are left alone.

    Args:
        connection: A connection to it.
        path: Its file, for the message.

    Raises:
        StoreUnreadable: It has triggers, views or indexes of another program, or its tables were altered.
    """
    version, found = _schema_of(connection)
    made = _made_by(schema.MIGRATIONS[:version])
    foreign = [f"the {kind} {name!r}" for kind, name in found.keys() - made.keys() if kind != "table"]
    foreign += [f"the missing {kind} {name!r}" for kind, name in made.keys() - found.keys()]
    both = made.keys() & found.keys()
    foreign += [f"the altered {key[0]} {key[1]!r}" for key in both if made[key] != found[key]]
    if foreign:
        raise StoreUnreadable(
            f"{path!r} is not as durable_nb made it: {', '.join(sorted(foreign))}",
            remedy=_REMEDY,
        )


@functools.lru_cache(8)
def _made_by(migrations: tuple[tuple[str, ...], ...]) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in migrations:
            for statement in script:
                connection.execute(statement)
        return _schema_of(connection)[1]


def _schema_of(connection: sqlite3.Connection) -> tuple[int, dict[tuple[str, str], str]]:
    """Return the version that is recorded, and the SQL of each table, index, trigger and view."""
    rows = connection.execute(_SCHEMA).fetchall()
    made = [
        (kind, name, " ".join((sql or "").replace('"', "").split())) for _, kind, name, sql in rows if kind
    ]
    return rows[0][0], {(kind, name): sql for kind, name, sql in made}
