"""Sessions: the processes that use a Redis server, and whether the owner of a run is alive.

A session is a key that names a process, with a counter that increases while the process owns a run. On the
owner's machine the process itself is looked up; elsewhere only the counter shows whether it is alive.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from durable_nb import settings
from durable_nb.errors import DurableError
from durable_nb.records import Run, RunStatus
from durable_nb.stores.host import Process, process
from durable_nb.stores.ownership import Owner, Ownership
from durable_nb.stores.redis.connection import Connection
from durable_nb.stores.redis.encoding import CONTROL, read_run
from durable_nb.stores.redis.keys import Keys

__all__ = ["RedisOwner", "RedisSessions", "read_fields"]

_own_tokens: set[str] = set()
_OWNED = (RunStatus.RUNNING, RunStatus.WAITING)


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
    connection: Connection, keys: Keys, run_ids: Sequence[str]
) -> list[dict[bytes, bytes | None]]:
    """Return the fields of runs without their steps and signals, read in one batch."""
    rows = await asyncio.gather(*(connection.call("HMGET", keys.run(run_id), *CONTROL) for run_id in run_ids))
    names = [name.encode() for name in CONTROL]
    return [dict(zip(names, row, strict=True)) for row in rows]


class RedisSessions(Ownership[RedisOwner]):
    """The session of one journal on a Redis server.

    Args:
        keys: The names of the keys.
        connection: The connection to the server.
    """

    def __init__(self, keys: Keys, connection: Connection) -> None:
        super().__init__()
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
        """Return the owner of a run; None if the run does not exist."""
        return (await self.find_owners([run_id])).get(run_id)

    async def find_owners(self, run_ids: Sequence[str]) -> dict[str, RedisOwner]:
        """Return the owners of those of the runs that exist."""
        rows = await read_fields(self._connection, self._keys, run_ids)
        tokens = [(row[b"session"] or b"").decode() for row in rows]
        values = await asyncio.gather(
            *(self._connection.call("GET", self._keys.session(token)) for token in tokens)
        )
        owners = {}
        for run_id, row, token, value in zip(run_ids, rows, tokens, values, strict=True):
            run = read_run(run_id, row)
            if run is not None:
                owners[run_id] = _owner(run, token, value)
        return owners

    def is_alive(self, owner: RedisOwner) -> bool | None:
        """Return whether an owner is alive; None if only its heartbeats can tell."""
        if not owner.owned or owner.process is None:
            return False
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
        runs = [read_run(run_id, row) for run_id, row in zip(run_ids, rows, strict=True)]
        return {run.run_id: run for run in runs if run is not None}


def _owner(run: Run, token: str, value: bytes | None) -> RedisOwner:
    owner_process = None
    beat_number = 0
    if value is not None:
        *words, beat_number = json.loads(value)
        owner_process = Process(*words)
    owned = run.status in _OWNED
    return RedisOwner(
        run.run_id, run.epoch, owned, run.owner, run.updated_at, token or None, owner_process, beat_number
    )
