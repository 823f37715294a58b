"""Values too large for the hash of a run, in chunks beside it, which are written before the step is."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Final, TypeGuard

from durable_nb import settings
from durable_nb.errors import StepNotSaved
from durable_nb.records import Payload
from durable_nb.stores.redis.connection import Connection
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.rows import GIVEN, RESULT, Row, payload_row, read_payload
from durable_nb.stores.valid import CHUNKS

__all__ = ["Chunks"]

_PREFIX: Final = CHUNKS
_BLOB: Final = re.compile(_PREFIX + r"[0-9a-f]+/[0-9]{1,9}")


class Chunks:
    """Splits payloads into chunks, and joins them.

    Args:
        keys: The names of the keys.
        connection: The connection to the server.
    """

    def __init__(self, keys: Keys, connection: Connection) -> None:
        self._keys = keys
        self._connection = connection

    def has(self, blob: str | None) -> TypeGuard[str]:
        """Return whether a stored payload is split into chunks, which its ``blob`` then names."""
        return isinstance(blob, str) and _BLOB.fullmatch(blob) is not None

    async def put(self, run_id: str, payload: Payload | None, *, step: str | None = None) -> Payload | None:
        """Return a payload as it is to be stored; the chunks of a large one are written first.

        Raises:
            StepNotSaved: The payload is larger than ``REDIS_LARGEST``.
        """
        if payload is None or len(payload.data) <= settings.BLOB_THRESHOLD:
            return payload
        if len(payload.data) > settings.REDIS_LARGEST:
            raise _too_large(run_id, step, len(payload.data))
        data, size = memoryview(payload.data), settings.REDIS_CHUNK
        chunks = [bytes(data[start : start + size]) for start in range(0, len(data), size)]
        blob = f"{_PREFIX}{uuid.uuid4().hex}/{len(chunks)}"
        key = self._keys.chunks(run_id)
        for name, chunk in zip(_names(blob), chunks, strict=True):
            await self._connection.call("HSET", key, name, chunk)
        return payload._replace(data=b"", blob=blob)

    async def get(self, run_id: str, payload: Payload | None) -> Payload | None:
        """Return a stored payload with its chunks joined; None if it is None, or a chunk is missing."""
        if payload is None or not self.has(payload.blob):
            return payload
        key, names = self._keys.chunks(run_id), _names(payload.blob)
        chunks = await asyncio.gather(*(self._connection.call("HGET", key, name) for name in names))
        return None if None in chunks else payload._replace(data=b"".join(chunks), blob=None)

    async def joined(self, row: Row, at: int) -> Row:
        """Return a row with the chunks of its payload joined; it stays damaged if one of them is missing.

        Args:
            row: The row.
            at: The place of the payload's columns.
        """
        if not self.has(row[at + 2]):
            return row
        payload = await self.get(row[0], read_payload(row[at : at + 4]))
        return row if payload is None else (*row[:at], *payload_row(payload), *row[at + 4 :])

    async def whole_run(self, row: Row) -> Row:
        """Return a run's row with the chunks of its result and of its arguments joined: see ``joined``."""
        return await self.joined(await self.joined(row, RESULT), GIVEN)

    async def all_joined(self, rows: list[Row], at: int) -> list[Row]:
        """Return rows with the chunks of their payloads joined: see ``joined``."""
        in_chunks = [number for number, row in enumerate(rows) if self.has(row[at + 2])]
        whole = await asyncio.gather(*(self.joined(rows[number], at) for number in in_chunks))
        for number, row in zip(in_chunks, whole, strict=True):
            rows[number] = row
        return rows

    async def drop(self, run_id: str, payload: Payload | None) -> None:
        """Delete the chunks of a payload that was not recorded after all."""
        if payload is not None and self.has(payload.blob):
            await self._connection.call("HDEL", self._keys.chunks(run_id), *_names(payload.blob))


def _names(blob: str) -> list[str]:
    _, name, count = blob.split("/")
    return [f"{name}/{number}" for number in range(int(count))]


def _too_large(run_id: str, step: str | None, size: int) -> StepNotSaved:
    largest = settings.REDIS_LARGEST // 2**20
    return StepNotSaved(
        f"its value of {size / 2**20:.0f} MiB exceeds the {largest} MiB that a Redis server stores",
        run_id=run_id,
        step=step,
        remedy="Store large values elsewhere: RedisStore(…, blobs='s3://BUCKET/PATH'), or a shared folder.",
    )
