"""Values too large for a run's hash, in pieces beside it: written first, named last."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final, TypeGuard

from durable_nb import settings
from durable_nb.errors import ResetStep, StepNotRestored, StepNotSaved
from durable_nb.records import Payload
from durable_nb.stores.redis.connection import Link
from durable_nb.stores.redis.keys import Keys

__all__ = ["Chunks"]

_MARK: Final = "chunks/"


class Chunks:
    """Takes payloads apart, and puts them together again.

    Args:
        keys: How keys are called.
        link: The way to the server.
    """

    def __init__(self, keys: Keys, link: Link) -> None:
        self._keys = keys
        self._link = link

    def has(self, payload: Payload | None) -> TypeGuard[Payload]:
        """Whether a payload as stored is in pieces."""
        return payload is not None and payload.blob is not None and payload.blob.startswith(_MARK)

    async def put(self, run_id: str, payload: Payload | None, *, step: str | None = None) -> Payload | None:
        """A payload as it is to be stored, its pieces written if it is large.

        Raises:
            StepNotSaved: It is larger than Redis should hold.
        """
        if payload is None or len(payload.data) <= settings.BLOB_THRESHOLD:
            return payload
        if len(payload.data) > settings.REDIS_LARGEST:
            raise _too_large(run_id, step, len(payload.data))
        data, size = memoryview(payload.data), settings.REDIS_CHUNK
        pieces = [bytes(data[start : start + size]) for start in range(0, len(data), size)]
        blob = f"{_MARK}{uuid.uuid4().hex}/{len(pieces)}"
        key = self._keys.chunks(run_id)
        for name, piece in zip(_names(blob), pieces, strict=True):
            await self._link.call("HSET", key, name, piece)
        return payload._replace(data=b"", blob=blob)

    async def get(self, run_id: str, payload: Payload | None) -> Payload | None:
        """A payload as it was before it was taken apart.

        Raises:
            StepNotRestored: A piece is missing.
        """
        if not self.has(payload):
            return payload
        key, names = self._keys.chunks(run_id), _names(payload.blob or "")
        pieces = await asyncio.gather(*(self._link.call("HGET", key, name) for name in names))
        if None in pieces:
            raise StepNotRestored(
                "a piece of a large value is missing on the Redis server",
                run_id=run_id,
                remedy=("Restore the server from a copy, or run the step again: ", ResetStep()),
            )
        return payload._replace(data=b"".join(pieces), blob=None)

    async def drop(self, run_id: str, payload: Payload | None) -> None:
        """Remove pieces that will not be named after all."""
        if self.has(payload):
            await self._link.call("HDEL", self._keys.chunks(run_id), *_names(payload.blob or ""))


def _names(blob: str) -> list[str]:
    _, name, count = blob.split("/")
    return [f"{name}/{number}" for number in range(int(count))]


def _too_large(run_id: str, step: str | None, size: int) -> StepNotSaved:
    largest = settings.REDIS_LARGEST // 2**20
    return StepNotSaved(
        f"its value of {size / 2**20:.0f} MiB is more than the {largest} MiB that are kept on a Redis server",
        run_id=run_id,
        step=step,
        remedy="Name a place for large values: RedisStore(…, blobs='s3://BUCKET/PATH'), or a shared folder.",
    )
