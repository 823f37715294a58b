"""Sessions: the processes that use a Redis server, and whether the owner of a run is alive.

A session is a key that names a process, with a counter that increases while the process owns a run. On the
owner's machine the process itself is looked up; elsewhere only the counter shows whether it is alive.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.errors import DurableError, StoreUnreadable
from durable_nb.records import Run, RunStatus
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.host import Process, process
from durable_nb.stores.ownership import Owner, Ownership
from durable_nb.stores.redis.connection import Connection
from durable_nb.stores.redis.encoding import CONTROL, run_row, without_values
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.rows import Row
from durable_nb.stores.valid import is_count

__all__ = ["RedisOwner", "RedisSessions", "read_fields"]

_own_tokens: set[str] = set()
in_forked_child(_own_tokens.clear)
_OWNED = (RunStatus.RUNNING, RunStatus.WAITING)
_UNKNOWN = -1
"""The counter of a session that is damaged: its owner writes it anew with the next heartbeat."""


@dataclass(frozen=True, slots=True)
class RedisOwner(Owner):
    """The owner of a run on a Redis server.

    Attributes:
        session: The owner's session; None if the run was renamed and not opened since.
        process: The owner's process; None if its session has ended.
        beat_number: The counter of its heartbeats.
    """

    session: str | None
    process: Process | None
    beat_number: int

    @property
    def last_heartbeat(self) -> object:
        """The session and its counter."""
        return self.session, self.beat_number


async def read_fields(
    connection: Connection, keys: Keys, run_ids: Sequence[str], *, strict: bool = True
) -> list[dict[bytes, bytes | None]]:
    """Return the fields of runs without their steps and signals, read in one batch.

    Args:
        connection: The connection to the server.
        keys: The names of the keys.
        run_ids: The runs.
        strict: Raise if another application has written one of the keys; otherwise that run is damaged.
    """
    reading = (connection.call("HMGET", keys.run(run_id), *CONTROL) for run_id in run_ids)
    rows = await asyncio.gather(*reading, return_exceptions=True)
    names = [name.encode() for name in CONTROL]
    damaged = [b"", *[None] * (len(CONTROL) - 1)]
    for row in rows:
        if isinstance(row, BaseException) and (strict or not isinstance(row, StoreUnreadable)):
            raise row
    return [dict(zip(names, damaged if isinstance(row, BaseException) else row, strict=True)) for row in rows]


class RedisSessions(Ownership[RedisOwner]):
    """The session of one journal on a Redis server.

    Args:
        keys: The names of the keys.
        connection: The connection to the server.
        rows: Makes records of the rows there.
    """

    def __init__(self, keys: Keys, connection: Connection, rows: CheckedRows) -> None:
        super().__init__()
        self._rows = rows
        self.token = uuid.uuid4().hex
        self._keys = keys
        self._connection = connection
        self._beat_number = 0

    async def start(self) -> None:
        """Write the session; called before this process opens a run."""
        _own_tokens.add(self.token)
        value = json.dumps([*process(), self._beat_number])
        await self._connection.call("SET", self._keys.session(self.token), value, "EX", settings.SESSION_KEPT)

    async def end(self) -> None:
        """End this session; other processes may open the runs it still owns."""
        self.stop()
        if self.token in _own_tokens:
            _own_tokens.discard(self.token)
            await self._connection.call("DEL", self._keys.session(self.token))

    async def find_owner(self, run_id: str) -> RedisOwner | None:
        """Return the owner of a run; None if the run does not exist.

        Raises:
            StoreUnreadable: The record of the run is damaged.
        """
        fields = await read_fields(self._connection, self._keys, [run_id])
        return (await self._owners([run_id], fields, self._rows.run)).get(run_id)

    async def find_owners(self, run_ids: Sequence[str]) -> dict[str, RedisOwner]:
        """Return the owners of those of the runs that exist; a damaged run has none."""
        fields = await read_fields(self._connection, self._keys, run_ids, strict=False)
        return await self._owners(run_ids, fields, self._rows.run_or_damaged)

    async def _owners(
        self,
        run_ids: Sequence[str],
        found: Sequence[Mapping[bytes, bytes | None]],
        read: Callable[[Row], Run],
    ) -> dict[str, RedisOwner]:
        rows = [run_row(*each) for each in zip(run_ids, found, strict=True)]
        runs = [None if row is None else read(without_values(row)) for row in rows]
        known = [
            (run, (fields[b"session"] or b"").decode("utf-8", "replace"))
            for run, fields in zip(runs, found, strict=True)
            if run is not None
        ]
        tokens = list({token for run, token in known if run.status in _OWNED})
        reading = (self._connection.call("GET", self._keys.session(token)) for token in tokens)
        sessions = dict(zip(tokens, await asyncio.gather(*reading), strict=True))
        return {run.run_id: _owner(run, token, sessions.get(token)) for run, token in known}

    def is_alive(self, owner: RedisOwner) -> bool | None:
        """Return whether an owner is alive; None if only its heartbeats can tell."""
        if not owner.owned:
            return False
        if owner.process is None:
            return None if owner.beat_number == _UNKNOWN else False
        return owner.process.is_alive()

    def is_ours(self, owner: RedisOwner) -> bool:
        """Return whether the owner is this process."""
        return owner.session in _own_tokens

    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Send a heartbeat; return the current state of those runs, or None if it failed."""
        self._beat_number += 1
        try:
            await self.start()
            rows = await read_fields(self._connection, self._keys, list(run_ids))
        except DurableError:
            return None
        found = [run_row(*each) for each in zip(run_ids, rows, strict=True)]
        return {row[0]: self._rows.run_or_damaged(without_values(row)) for row in found if row is not None}


def _owner(run: Run, token: str, value: bytes | None) -> RedisOwner:
    owned = run.status in _OWNED
    session = _session(value)
    return RedisOwner(run.run_id, run.epoch, owned, run.owner, run.updated_at, token or None, *session)


def _session(value: bytes | None) -> tuple[Process | None, int]:
    """Return the process of a session and its counter, which is unknown if the session is damaged."""
    if value is None:
        return None, 0
    try:
        host, boot_id, pid_namespace, pid, started, beat_number = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return None, _UNKNOWN
    texts = host, boot_id, pid_namespace, started
    if not all(isinstance(text, str) for text in texts) or not (is_count(pid) and is_count(beat_number)):
        return None, _UNKNOWN
    return Process(host, boot_id, pid_namespace, pid, started), beat_number
