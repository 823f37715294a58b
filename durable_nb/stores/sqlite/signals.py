"""Signals in a SQLite database, and the requests for them."""

# ruff: noqa: S608 - what is put into SQL as text is column names of ours

from __future__ import annotations

import json
import sqlite3
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb.stores.base import Journal
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.schema import REQUEST, SIGNAL, excluded, marks

if TYPE_CHECKING:
    from durable_nb.records import Signal, SignalRequest
    from durable_nb.stores.sqlite.connection import Database, Outcome

__all__ = ["Observer", "SignalTables"]

_GET_SIGNAL = f"SELECT {SIGNAL} FROM signals WHERE run_id = ? AND name = ?"
_FIND_SIGNALS = f"""
    SELECT {SIGNAL} FROM signals WHERE (run_id, name) IN
        (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
_PUT_SIGNAL = f"""
    INSERT INTO signals ({SIGNAL}) VALUES ({marks(SIGNAL)}) ON CONFLICT (run_id, name) DO NOTHING"""
_SET_ASIDE = """
    UPDATE signals SET name = ? WHERE run_id = ? AND name = ? AND delivered_by = ? AND delivered_at = ?"""
_VERSION = "PRAGMA data_version"
_REQUEST_SIGNAL = f"""
    INSERT INTO requests ({REQUEST}) VALUES ({marks(REQUEST)}) ON CONFLICT (run_id, name) DO UPDATE
    SET {excluded(REQUEST, "run_id", "name", "asked_at")}"""
_GET_REQUEST = f"SELECT {REQUEST} FROM requests WHERE run_id = ? AND name = ?"
_WITHDRAW = "DELETE FROM requests WHERE run_id = ? AND name = ?"
_OPEN_SIGNALS = f"""
    SELECT {REQUEST} FROM requests WHERE NOT EXISTS
        (SELECT 1 FROM signals WHERE signals.run_id = requests.run_id AND signals.name = requests.name)
    ORDER BY asked_at, run_id, name"""


class Observer:
    """Sees whether a database has changed, on the loop thread: a hop to another one costs ten times as much.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None

    def version(self) -> Hashable:
        """A number of SQLite's; something new each time while the file is locked, or is another one now."""
        try:
            if self._connection is None:
                uri = f"{self._database.path.as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, timeout=0)
            (version,) = self._connection.execute(_VERSION).fetchone()
        except sqlite3.Error:
            return object()
        return object() if self._database.moved() else int(version)

    def close(self) -> None:
        """Give the file back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class SignalTables(Journal):
    """The part of a journal that keeps signals, over statements that are read or committed."""

    _observed: Observer

    @abstractmethod
    async def _read(self, *statements: tuple[str, Sequence[Any]]) -> list[Outcome]: ...

    @abstractmethod
    async def _write(self, *statements: tuple[str, Sequence[Any]]) -> list[Outcome]: ...

    async def put_signal(self, signal: Signal) -> bool:
        """Deliver a signal; the run need not exist. True if it was the first of its name."""
        (put,) = await self._write((_PUT_SIGNAL, schema.signal_row(signal)))
        return put.changed == 1

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """What was delivered under that name, or None."""
        (signal,) = await self._read((_GET_SIGNAL, (run_id, name)))
        return schema.read_signal(signal.rows[0]) if signal.rows else None

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Those of the signals that were delivered."""
        (signals,) = await self._read((_FIND_SIGNALS, (json.dumps(wanted),)))
        return [schema.read_signal(row) for row in signals.rows]

    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Keep a delivered signal under another name, so that its own is free."""
        known = signal.run_id, signal.name, signal.delivered_by, signal.delivered_at
        await self._write((_SET_ASIDE, (name, *known)))

    async def version(self) -> Hashable:
        """Differs after a commit, ours or another process's."""
        return self._observed.version()

    async def request_signal(self, request: SignalRequest) -> SignalRequest:
        """Record what a run waits for; gives it as it is recorded now."""
        _, known = await self._write(
            (_REQUEST_SIGNAL, schema.request_row(request)),
            (_GET_REQUEST, (request.run_id, request.name)),
        )
        return schema.read_request(known.rows[0])

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Forget a request."""
        await self._write((_WITHDRAW, (run_id, name)))

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """What a run waits for under that name, or None."""
        (request,) = await self._read((_GET_REQUEST, (run_id, name)))
        return schema.read_request(request.rows[0]) if request.rows else None

    async def open_signals(self) -> Sequence[SignalRequest]:
        """All requests under whose names nothing was delivered yet, the oldest first."""
        (requests,) = await self._read((_OPEN_SIGNALS, ()))
        return [schema.read_request(row) for row in requests.rows]
