"""The signals and messages of a Redis journal."""

from __future__ import annotations

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from durable_nb.errors import StoreUnreadable
from durable_nb.records import Message, Signal
from durable_nb.stores.base import Journal
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.chunks import Chunks
from durable_nb.stores.redis.connection import Connection, run_script
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.redis.lifetimes import lifetime
from durable_nb.stores.redis.notifications import DeliveryListener
from durable_nb.stores.rows import SIGNAL_PAYLOAD

__all__ = ["Deliveries"]


class Deliveries(Journal):
    """The methods of a Redis journal that deliver signals and messages, and read them."""

    _keys: Keys
    _listener: DeliveryListener
    _rows: CheckedRows
    _ttl: int | None

    @property
    @abstractmethod
    def _connection(self) -> Connection: ...

    @property
    @abstractmethod
    def _chunks(self) -> Chunks: ...

    @abstractmethod
    async def _script(self, script: scripts.Script, run_id: str, *words: Any) -> Any: ...

    async def put_signal(self, signal: Signal, *, ttl: float | None = None) -> bool:
        """Deliver a signal; return True if it is the first of its name. The run need not exist."""
        delivery = uuid.uuid4().hex
        payload = await self._chunks.put(signal.run_id, signal.payload)
        assert payload is not None
        value = encoding.packed_signal(self._rows.signal_row(signal), payload, delivery)
        words = (
            encoding.signal_field(signal.name),
            value,
            delivery,
            self._keys.channel,
            lifetime(ttl, self._ttl),
        )
        first = bool(await self._script(scripts.PUT_SIGNAL, signal.run_id, *words))
        first = first or await self._replaced_damaged(signal, value)
        if not first:
            await self._chunks.drop(signal.run_id, payload)
        self._listener.notify()
        return first

    async def _replaced_damaged(self, signal: Signal, value: bytes) -> bool:
        """Deliver a signal in place of one that cannot be read; return whether that was done."""
        key, field = self._keys.run(signal.run_id), encoding.signal_field(signal.name)
        there = await self._connection.call("HGET", key, field)
        if there is None:  # it has expired meanwhile
            return False
        try:
            self._rows.signal(encoding.signal_row(signal.run_id, signal.name, there))
        except StoreUnreadable:
            return bool(await run_script(self._connection, scripts.REPLACE, (key,), field, there, value))
        return False

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """Return the signal delivered under a name, or None."""
        value = await self._connection.call("HGET", self._keys.run(run_id), encoding.signal_field(name))
        if value is None:
            return None
        row = encoding.signal_row(run_id, name, value)
        return self._rows.signal(await self._chunks.joined(row, SIGNAL_PAYLOAD))

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Return those of the wanted signals that were delivered, read in one batch."""
        found = await asyncio.gather(*(self.get_signal(*each) for each in wanted))
        return [signal for signal in found if signal is not None]

    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Rename a delivered signal, so that its name is free for another delivery."""
        fields = encoding.signal_field(signal.name), encoding.signal_field(name)
        change = self._rows.renamed_signal(signal.name, name)
        delivery = encoding.delivery_columns(signal)
        await self._script(scripts.SET_ASIDE, signal.run_id, *fields, delivery, change)

    async def put_message(self, message: Message, *, ttl: float | None = None) -> None:
        """Append a message to its topic, unless one of its ``delivery`` is there."""
        payload = await self._chunks.put(message.run_id, message.payload)
        assert payload is not None
        value = encoding.packed_message(self._rows.message_row(message._replace(number=0)), payload)
        words = encoding.encode_id(message.topic), value, message.delivery
        where = self._keys.channel, lifetime(ttl, self._ttl)
        if not await self._script(scripts.PUT_MESSAGE, message.run_id, *words, *where):
            await self._chunks.drop(message.run_id, payload)
        self._listener.notify()

    async def unread(self, run_id: str, topic: str, limit: int) -> Sequence[Message]:
        """Return the first messages of a topic that were not received yet."""
        words = await self._script(scripts.UNREAD, run_id, encoding.encode_id(topic), limit)
        found = zip(words[::2], words[1::2], strict=True)
        rows = [encoding.message_row(run_id, topic, number, value) for number, value in found]
        return [self._rows.message(row) for row in await self._chunks.all_joined(rows, SIGNAL_PAYLOAD)]
