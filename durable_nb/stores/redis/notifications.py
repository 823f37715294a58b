"""Notifications of delivered signals, which are published on a Redis channel."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import redis.asyncio
from redis.exceptions import RedisError

from durable_nb import settings

__all__ = ["DeliveryListener"]


class DeliveryListener:
    """Subscribes to deliveries on a connection of its own, and wakes the waits for each one.

    It wakes them every few seconds in any case, since a message may be lost.

    Args:
        url: The URL of the server, or of one server of a cluster.
        channel: The channel.

    Attributes:
        notifications: Number of notifications so far.
    """

    def __init__(self, url: str, channel: str) -> None:
        self.notifications = 0
        self._url = url
        self._channel = channel
        self._listening: asyncio.Task[None] | None = None
        self._notified = asyncio.Event()

    def listen(self) -> None:
        """Start to listen, if it does not yet; deliveries before that count as one notification."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    def stop(self) -> None:
        """Stop listening."""
        if self._listening is not None and not self._listening.get_loop().is_closed():
            self._listening.cancel()
        self._listening = None

    def count(self) -> int:
        """Return the number of notifications so far; ``wait`` then waits for the next one."""
        self._notified.clear()
        return self.notifications

    def notify(self) -> None:
        """Wake all waits."""
        self.notifications += 1
        self._notified.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a notification since the last ``count``, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._notified.wait()

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(
            self._url, protocol=2, socket_connect_timeout=settings.REDIS_TIMEOUT
        )
        async with client:
            while True:
                try:
                    await self._receive(client)
                except (OSError, RedisError):  # the next command on the journal's own connection raises it
                    await asyncio.sleep(settings.REDIS_LONGEST_PAUSE)
                    self.notify()  # without permission to subscribe, waits poll

    async def _receive(self, client: redis.asyncio.Redis) -> None:
        async with client.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            while True:
                # Notify also after a timeout: a message can be lost, and checking costs little.
                await subscription.get_message(timeout=settings.SIGNAL_BACKSTOP)
                self.notify()
