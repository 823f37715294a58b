"""Hears of signals at once: whoever delivers one publishes that on a channel."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import redis.asyncio
from redis.exceptions import RedisError

from durable_nb import settings

__all__ = ["DeliveryListener"]


class DeliveryListener:
    """Listens on a connection of its own, and rings for each delivery; now and then unasked as well.

    Args:
        url: The server, or one of a cluster's.
        channel: The channel.

    Attributes:
        rings: How often it rang.
    """

    def __init__(self, url: str, channel: str) -> None:
        self.notifications = 0
        self._url = url
        self._channel = channel
        self._subscription: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()

    def listen(self) -> None:
        """Listen from now on, if nobody did: what was delivered before is heard as one ring."""
        if self._subscription is None or self._subscription.done():
            self._subscription = asyncio.get_running_loop().create_task(self._listen())

    def silence(self) -> None:
        """Listen no more."""
        if self._subscription is not None and not self._subscription.get_loop().is_closed():
            self._subscription.cancel()
        self._subscription = None

    def count_heard(self) -> int:
        """How often it rang until now; who waits from now on waits for the next ring."""
        self._rung.clear()
        return self.notifications

    def notify(self) -> None:
        """Wake who waits."""
        self.notifications += 1
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it has rung since it was last heard, and no longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(
            self._url, protocol=2, socket_connect_timeout=settings.REDIS_TIMEOUT
        )
        async with client:
            while True:
                try:
                    await self._hear(client)
                except (OSError, RedisError):  # the other connection says what is wrong, to whoever asks
                    await asyncio.sleep(settings.REDIS_LONGEST_PAUSE)
                    self.notify()  # who may not subscribe looks now and then

    async def _hear(self, client: redis.asyncio.Redis) -> None:
        async with client.pubsub() as ear:
            await ear.subscribe(self._channel)
            while True:
                # Also when nothing came: a message can be lost, and a look costs little.
                await ear.get_message(timeout=settings.SIGNAL_BACKSTOP)
                self.notify()
