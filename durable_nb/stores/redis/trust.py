"""Find and sign the checkpoints on a Redis server that would run code and have no trusted signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durable_nb import codec
from durable_nb.codec import signing
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.chunks import Chunks
from durable_nb.stores.redis.connection import Connection, run_script
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.redis.run_index import RunIndex
from durable_nb.stores.sqlite.trust import Untrusted

__all__ = ["TrustSigner"]


@dataclass(frozen=True, slots=True)
class TrustSigner:
    """Finds such checkpoints, and signs them with the key of this user.

    Args:
        keys: The names of the keys.
        connection: The connection to the server.
        chunks: The chunks of large values.
        runs: The list of runs.
        identity: The prefix of the keys, which signatures cover.
    """

    keys: Keys
    connection: Connection
    chunks: Chunks
    runs: RunIndex
    identity: str

    async def find(self) -> list[Untrusted]:
        """Return those of all runs."""
        return [one for run_id in await self.runs.run_ids() for one in await self._find_in_run(run_id)]

    async def sign(self, untrusted: Sequence[Untrusted]) -> int:
        """Sign payloads, and return how many were signed; those that have changed since are skipped."""
        return sum([await self._sign(one) for one in untrusted])

    async def _find_in_run(self, run_id: str) -> list[Untrusted]:
        words = await self.connection.call("HGETALL", self.keys.run(run_id))
        found = []
        for field, value in zip(words[::2], words[1::2], strict=True):
            owner = encoding.payload_owner(field)
            payload = encoding.payload_of(value) if owner else None
            if owner and payload is not None and payload.format in codec.RUNS_CODE:
                whole = await self.chunks.get(run_id, payload) or payload
                found.append(Untrusted(owner[0], run_id, owner[1], whole))
        return [one for one in found if not self._is_trusted(one)]

    def _is_trusted(self, one: Untrusted) -> bool:
        return signing.is_trusted(one.payload, one.run_id, one.step, database=self.identity)

    async def _sign(self, one: Untrusted) -> bool:
        key, field = self.keys.run(one.run_id), encoding.payload_field(one.table, one.name)
        value = await self.connection.call("HGET", key, field)
        payload = None if value is None else await self.chunks.get(one.run_id, encoding.payload_of(value))
        if payload is None or payload._replace(signature=one.payload.signature) != one.payload:
            return False
        signature = signing.sign(one.payload, one.run_id, one.step, database=self.identity).signature or b""
        signed = encoding.with_signature(value, signature)
        return bool(await run_script(self.connection, scripts.REPLACE, (key,), field, value, signed))
