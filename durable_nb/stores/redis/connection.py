"""The way to a Redis server: one connection, on which all that waits goes out together."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import hiredis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from durable_nb import settings
from durable_nb.stores.redis.errors import is_passing, translated
from durable_nb.stores.redis.scripts import Script

__all__ = ["Link", "Pipe", "Spread", "run_script"]

T = TypeVar("T")
Word: TypeAlias = bytes | str | int | float
Sent: TypeAlias = tuple[tuple[Word, ...], "asyncio.Future[Any]"]


class Link(Protocol):
    """A way to send commands, every one of which may arrive twice."""

    async def call(self, *command: Word) -> Any:
        """What the server answers to a command."""

    async def close(self) -> None:
        """Hang up."""


async def run_script(link: Link, script: Script, keys: tuple[str, ...], *words: Word) -> Any:
    """Run a script; its source is sent only where the server does not know it.

    Args:
        link: The way to the server.
        script: The script.
        keys: The keys that it touches.
        *words: Its further arguments.
    """
    try:
        return await link.call("EVALSHA", script.sha, len(keys), *keys, *words)
    except NoScriptError:
        return await link.call("EVAL", script.source, len(keys), *keys, *words)


async def patiently(action: Callable[[], Awaitable[T]], location: str, patience: float) -> T:
    """Try until it succeeds or time is up, through restarts, failovers and lost connections.

    Args:
        action: What to try.
        location: Where, for the message.
        patience: Seconds until no further try is made.

    Raises:
        StoreUnavailable: Nobody answered all the time.
    """
    until, pause = time.monotonic() + patience, settings.REDIS_FIRST_PAUSE
    while True:
        try:
            return await action()
        except Exception as error:
            if not is_passing(error):
                raise
            if time.monotonic() > until:
                raise translated(error, location) from error
        # Half of it at random: many kernels must not come back in step.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        pause = min(2 * pause, settings.REDIS_LONGEST_PAUSE)


class Pipe:
    """One connection to one server; while a batch is under way, the next one gathers.

    Args:
        url: The server.
        location: The same for people.

    Attributes:
        batches: How often commands were sent together.
    """

    def __init__(self, url: str, location: str) -> None:
        self.batches = 0
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # one clock for all of a batch costs less
            socket_connect_timeout=settings.REDIS_TIMEOUT,
        )
        self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._location = location
        self._patience = settings.REDIS_LONGEST_PAUSE  # who mistyped the URL must not wait for a minute
        self._waiting: deque[Sent] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._busy = False

    async def call(self, *command: Word) -> Any:
        """What the server answers to a command: sent at once if it is free, else with whatever else waits."""
        sent = command, asyncio.get_running_loop().create_future()
        self._waiting.append(sent)
        if not self._busy:
            await self._send_first()
        try:
            return await sent[1]
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise translated(error, self._location) from error

    async def close(self) -> None:
        """Send what is waiting, then hang up."""
        if self._pump is not None and not self._pump.done():
            await asyncio.wait([self._pump], timeout=settings.REDIS_TIMEOUT)
            self._pump.cancel()
        await self._connection.disconnect(nowait=True)

    async def _send_first(self) -> None:
        # Without a task of its own, which costs as much as the sending.
        self._busy = True
        try:
            await self._send(self._next_batch())
        finally:
            self._busy = False
            if self._waiting:
                self._send_the_rest()

    def _send_the_rest(self) -> None:
        self._busy = True
        self._pump = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        # A task of its own: a caller that is cancelled takes nobody else's command along.
        try:
            while self._waiting:
                await self._send(self._next_batch())
        finally:
            self._busy = False
            for _, answer in self._waiting:  # something is left only when the loop is shut down
                answer.cancel()

    async def _send(self, batch: list[Sent]) -> None:
        self.batches += 1
        try:
            await patiently(functools.partial(self._exchange, batch), self._location, self._patience)
        except Exception as error:
            for _, answer in batch:
                _settle(answer, error)
        finally:
            for _, answer in batch:
                answer.cancel()

    def _next_batch(self) -> list[Sent]:
        batch: list[Sent] = []
        size = 0
        while self._waiting and len(batch) < settings.REDIS_BATCH and size < settings.REDIS_CHUNK:
            sent = self._waiting.popleft()
            size += sum(len(word) for word in sent[0] if isinstance(word, bytes))
            batch.append(sent)
        return batch

    async def _exchange(self, batch: list[Sent]) -> None:
        """Send what is unanswered of a batch, and settle it; what fails on the way is sent again later."""
        connection = self._connection
        try:
            if not connection.is_connected:
                await connection.connect()
            unanswered = [sent for sent in batch if not sent[1].done()]
            packed = [hiredis.pack_command(words) for words, _ in unanswered]  # type: ignore[arg-type]
            async with asyncio.timeout(settings.REDIS_TIMEOUT) as silence:
                await connection.send_packed_command(packed)
                for number, (_, answer) in enumerate(unanswered):
                    if number:  # a reply has come: the clock starts anew
                        silence.reschedule(asyncio.get_running_loop().time() + settings.REDIS_TIMEOUT)
                    _settle(answer, await self._reply())
            self._patience = settings.REDIS_PATIENCE
        except BaseException:
            await connection.disconnect(nowait=True)  # whatever is on its way belongs to nobody now
            raise

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            if is_passing(error):
                raise
            return error


def _settle(answer: asyncio.Future[Any], reply: Any) -> None:
    if answer.done():  # whoever asked was cancelled
        return
    if isinstance(reply, Exception):
        answer.set_exception(reply)
    else:
        answer.set_result(reply)


class Spread:
    """The servers of a cluster, each command sent to the one that has its key.

    Args:
        url: One of the servers.
        location: The same for people.
    """

    def __init__(self, url: str, location: str) -> None:
        self._client = RedisCluster.from_url(
            url,
            protocol=2,
            socket_timeout=settings.REDIS_TIMEOUT,
            socket_connect_timeout=settings.REDIS_TIMEOUT,
        )
        self._location = location
        self._at_once = asyncio.Semaphore(settings.REDIS_CONNECTIONS)

    async def call(self, *command: Word) -> Any:
        """What the server of the command's key answers."""
        async with self._at_once:
            try:
                reply = await patiently(
                    lambda: self._client.execute_command(*command), self._location, settings.REDIS_PATIENCE
                )
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                raise translated(error, self._location) from error
        # This client makes a dict of a hash.
        return [word for pair in reply.items() for word in pair] if isinstance(reply, dict) else reply

    async def close(self) -> None:
        """Hang up on all of them."""
        await self._client.aclose()
