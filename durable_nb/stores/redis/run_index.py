"""Lists of run ids on a Redis server. An expired run sends no event: its id is removed when next noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from durable_nb import settings
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.connection import Connection, run_script

__all__ = ["RunIndex"]


class RunIndex:
    """A list of run ids, each with the time at which it was last added.

    Args:
        key: The key of the sorted set.
        connection: The connection to the server.
    """

    def __init__(self, key: str, connection: Connection) -> None:
        self._key = key
        self._connection = connection

    async def add(self, run_id: str) -> None:
        """Add a run id; called before the run is written, so that no run is missing from the list."""
        await self._connection.call("ZADD", self._key, time.time(), encoding.encode_id(run_id))

    async def run_ids(self) -> list[str]:
        """Return all run ids."""
        return [encoding.decode_id(name) for name in await self._connection.call("ZRANGE", self._key, 0, -1)]

    async def remove(self, run_ids: Iterable[str]) -> None:
        """Remove ids of runs that are gone, unless they were added recently and are about to be written."""
        old = time.time() - settings.SESSION_KEPT
        names = map(encoding.encode_id, run_ids)
        await asyncio.gather(
            *(run_script(self._connection, scripts.REMOVE_OLD, (self._key,), name, old) for name in names)
        )
