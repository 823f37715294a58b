"""Signals on a Redis server, and the requests for them."""

from __future__ import annotations

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.stores.base import Journal
from durable_nb.stores.redis import encoding, scripts
from durable_nb.stores.redis.run_index import RunIndex

if TYPE_CHECKING:
    from durable_nb.records import Signal, SignalRequest
    from durable_nb.stores.redis.chunks import Chunks
    from durable_nb.stores.redis.connection import Link
    from durable_nb.stores.redis.keys import Keys
    from durable_nb.stores.redis.notifications import DeliveryListener

__all__ = ["RedisSignals"]


class RedisSignals(Journal):
    """The part of a journal that keeps signals, over commands and scripts."""

    _keys: Keys
    _bell: DeliveryListener

    @property
    @abstractmethod
    def _link(self) -> Link: ...

    @property
    @abstractmethod
    def _chunks(self) -> Chunks: ...

    @property
    def _asking(self) -> RunIndex:
        return RunIndex(self._keys.asking, self._link)

    @abstractmethod
    def _check_open(self) -> None: ...

    @abstractmethod
    async def _script(self, script: scripts.Script, run_id: str, *words: Any) -> Any: ...

    async def put_signal(self, signal: Signal) -> bool:
        """Deliver a signal; the run need not exist. True if it was the first of its name."""
        delivery = uuid.uuid4().hex
        payload = await self._chunks.put(signal.run_id, signal.payload)
        assert payload is not None
        value = encoding.packed_signal(signal, payload, delivery)
        words = (encoding.signal_field(signal.name), value, delivery, self._keys.channel)
        first = bool(await self._script(scripts.PUT_SIGNAL, signal.run_id, *words))
        if not first:
            await self._chunks.drop(signal.run_id, payload)
        self._bell.notify()
        return first

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """What was delivered under that name, or None."""
        value = await self._link.call("HGET", self._keys.run(run_id), encoding.signal_field(name))
        return None if value is None else await self._whole_signal(encoding.read_signal(run_id, name, value))

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Those of the signals that were delivered, asked for together."""
        found = await asyncio.gather(*(self.get_signal(*each) for each in wanted))
        return [signal for signal in found if signal is not None]

    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Keep a delivered signal under another name, so that its own is free."""
        fields = encoding.signal_field(signal.name), encoding.signal_field(name)
        await self._script(scripts.SET_ASIDE, signal.run_id, *fields, encoding.origin(signal))

    async def version(self) -> Hashable:
        """How many deliveries were heard of; it goes up every few seconds in any case."""
        self._check_open()
        self._bell.listen()
        return self._bell.count_heard()

    async def until_changed(self, pause: float) -> None:
        """Wait until the bell rings, or a while; looking as often as a store without one is needless."""
        await self._bell.wait(max(pause, settings.SIGNAL_CHECK))

    async def request_signal(self, request: SignalRequest) -> SignalRequest:
        """Record what a run waits for; gives it as it is recorded now."""
        await self._asking.note(request.run_id)
        field = encoding.request_field(request.name)
        value = await self._script(scripts.ASK, request.run_id, field, *encoding.packed_request(request))
        return encoding.read_request(request.run_id, field, value)

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Forget a request."""
        await self._link.call("HDEL", self._keys.run(run_id), encoding.request_field(name))

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """What a run waits for under that name, or None."""
        field = encoding.request_field(name)
        value = await self._link.call("HGET", self._keys.run(run_id), field)
        return None if value is None else encoding.read_request(run_id, field, value)

    async def open_signals(self) -> Sequence[SignalRequest]:
        """All requests under whose names nothing was delivered yet, the oldest first."""
        run_ids = await self._asking.run_ids()
        found = await asyncio.gather(*(self._script(scripts.UNANSWERED, run_id) for run_id in run_ids))
        await self._asking.forget(run_id for run_id, words in zip(run_ids, found, strict=True) if not words)
        requests = [
            encoding.read_request(run_id, field, value)
            for run_id, words in zip(run_ids, found, strict=True)
            for field, value in zip(words[::2], words[1::2], strict=True)
        ]
        return sorted(requests, key=lambda request: (request.asked_at, request.run_id, request.name))

    async def _whole_signal(self, signal: Signal) -> Signal:
        payload = await self._chunks.get(signal.run_id, signal.payload)
        return signal._replace(payload=payload or signal.payload)
