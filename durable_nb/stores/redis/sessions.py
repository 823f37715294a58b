"""Sessions: the processes that use a Redis server, and whether the one that owns a run still lives.

A session is a key that names a process, with a counter that goes up while it owns a run. On the owner's own
machine the process itself tells the living from the dead at once; elsewhere only the counter does.
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
from durable_nb.stores.redis.connection import Link
from durable_nb.stores.redis.encoding import CONTROL, read_run
from durable_nb.stores.redis.keys import Keys

__all__ = ["RedisOwner", "RedisSessions", "read_fields"]

_ours: set[str] = set()
_OWNED = (RunStatus.RUNNING, RunStatus.WAITING)


@dataclass(frozen=True, slots=True)
class RedisOwner(Owner):
    """Who owns a run.

    Attributes:
        session: The owner's session; None if nobody opened it since it was renamed.
        process: The owner's process; None if its session has ended.
        beat: The counter that goes up while the owner lives.
    """

    session: str | None
    process: Process | None
    heartbeat: int

    @property
    def last_heartbeat(self) -> object:
        """Its session and the counter."""
        return self.session, self.heartbeat


async def read_fields(link: Link, keys: Keys, run_ids: Sequence[str]) -> list[dict[bytes, bytes | None]]:
    """The fields of runs without their steps and signals, in one batch."""
    rows = await asyncio.gather(*(link.call("HMGET", keys.run(run_id), *CONTROL) for run_id in run_ids))
    names = [name.encode() for name in CONTROL]
    return [dict(zip(names, row, strict=True)) for row in rows]


class RedisSessions(Ownership[RedisOwner]):
    """The session of one journal on a Redis server.

    Args:
        keys: How keys are called.
        link: The way to the server.
    """

    def __init__(self, keys: Keys, link: Link) -> None:
        super().__init__()
        self.token = uuid.uuid4().hex
        self._keys = keys
        self._link = link
        self._beat_number = 0

    async def enrol(self) -> None:
        """Make this process known, before it owns anything."""
        _ours.add(self.token)
        value = json.dumps([*process(), self._beat_number])
        await self._link.call("SET", self._keys.session(self.token), value, "EX", settings.SESSION_KEPT)

    async def end(self) -> None:
        """End this session; what it still owns may be taken by anybody."""
        self.stop()
        if self.token in _ours:
            _ours.discard(self.token)
            await self._link.call("DEL", self._keys.session(self.token))

    async def find_owner(self, run_id: str) -> RedisOwner | None:
        """Who owns a run; None if there is no such run."""
        return (await self.find_owners([run_id])).get(run_id)

    async def find_owners(self, run_ids: Sequence[str]) -> dict[str, RedisOwner]:
        """Who owns each of the runs that there are."""
        rows = await read_fields(self._link, self._keys, run_ids)
        tokens = [(row[b"session"] or b"").decode() for row in rows]
        values = await asyncio.gather(
            *(self._link.call("GET", self._keys.session(token)) for token in tokens)
        )
        owners = {}
        for run_id, row, token, value in zip(run_ids, rows, tokens, values, strict=True):
            run = read_run(run_id, row)
            if run is not None:
                owners[run_id] = _owner(run, token, value)
        return owners

    def lives(self, owner: RedisOwner) -> bool | None:
        """Whether it lives; None where only its heartbeat can tell."""
        if not owner.owned or owner.process is None:
            return False
        return owner.process.lives()

    def is_ours(self, owner: RedisOwner) -> bool:
        """Whether it is this process."""
        return owner.session in _ours

    async def heartbeat(self, run_ids: Collection[str]) -> Mapping[str, Run] | None:
        """Give a sign of life; gives those runs as they stand, or None where it failed."""
        self._beat_number += 1
        try:
            await self.enrol()
            rows = await read_fields(self._link, self._keys, list(run_ids))
        except DurableError:
            return None
        runs = [read_run(run_id, row) for run_id, row in zip(run_ids, rows, strict=True)]
        return {run.run_id: run for run in runs if run is not None}


def _owner(run: Run, token: str, value: bytes | None) -> RedisOwner:
    named = None
    heartbeat = 0
    if value is not None:
        *words, heartbeat = json.loads(value)
        named = Process(*words)
    owned = run.status in _OWNED
    return RedisOwner(
        run.run_id, run.epoch, owned, run.owner, run.updated_at, token or None, named, heartbeat
    )
