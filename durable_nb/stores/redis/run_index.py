"""Lists of run ids on a Redis server: a hash that expires tells nobody, so what is gone is dropped later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from durable_nb import settings
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.connection import Link, run_script

__all__ = ["RunIndex"]


class RunIndex:
    """One list of run ids, each with when it was last noted.

    Args:
        key: The sorted set.
        link: The way to the server.
    """

    def __init__(self, key: str, link: Link) -> None:
        self._key = key
        self._link = link

    async def note(self, run_id: str) -> None:
        """Put a run on the list, before what makes it belong there."""
        await self._link.call("ZADD", self._key, time.time(), encoding.name(run_id))

    async def run_ids(self) -> list[str]:
        """All that are on it."""
        return [encoding.text(name) for name in await self._link.call("ZRANGE", self._key, 0, -1)]

    async def forget(self, run_ids: Iterable[str]) -> None:
        """Take runs off the list that are gone; not one that is about to be created."""
        old = time.time() - settings.SESSION_KEPT
        names = map(encoding.name, run_ids)
        await asyncio.gather(
            *(run_script(self._link, scripts.STRIKE, (self._key,), name, old) for name in names)
        )
