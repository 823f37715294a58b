"""Connections to a Redis server or cluster; commands that wait are sent together."""

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
from durable_nb.stores.redis.errors import is_transient, translated
from durable_nb.stores.redis.scripts import Script

__all__ = ["ClusterConnection", "Connection", "PipelinedConnection", "run_script"]

T = TypeVar("T")
Word: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[tuple[Word, ...], "asyncio.Future[Any]"]


class Connection(Protocol):
    """Sends commands, each of which may reach the server more than once."""

    async def call(self, *command: Word) -> Any:
        """Return the reply to a command."""

    async def close(self) -> None:
        """Close the connection."""


async def run_script(connection: Connection, script: Script, keys: tuple[str, ...], *words: Word) -> Any:
    """Run a script, and return its reply; its source is sent only if the server does not have it.

    Args:
        connection: The connection to the server.
        script: The script.
        keys: The keys it accesses.
        *words: Its other arguments.
    """
    try:
        return await connection.call("EVALSHA", script.sha, len(keys), *keys, *words)
    except NoScriptError:
        return await connection.call("EVAL", script.source, len(keys), *keys, *words)


async def retry(action: Callable[[], Awaitable[T]], location: str, time_limit: float) -> T:
    """Call ``action`` until it succeeds, through restarts, failovers and lost connections.

    Args:
        action: The coroutine function to call.
        location: The server's URL, for messages.
        time_limit: Seconds after which it is not tried again.

    Raises:
        StoreUnavailable: The server could not be reached within the time limit.
    """
    deadline, pause = time.monotonic() + time_limit, settings.REDIS_FIRST_PAUSE
    while True:
        try:
            return await action()
        except Exception as error:
            if not is_transient(error):
                raise
            if time.monotonic() > deadline:
                raise translated(error, location) from error
        # Half of the pause is random, so that many kernels do not reconnect at the same moment.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
        pause = min(2 * pause, settings.REDIS_LONGEST_PAUSE)


class PipelinedConnection:
    """One connection to one server; commands issued while a batch is under way form the next batch.

    Args:
        url: The server's URL.
        location: The URL without its password, for messages.

    Attributes:
        batches: Number of batches sent.
    """

    def __init__(self, url: str, location: str) -> None:
        self.batches = 0
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # one time limit for a whole batch costs less
            socket_connect_timeout=settings.REDIS_TIMEOUT,
        )
        self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._location = location
        self._time_limit = settings.REDIS_LONGEST_PAUSE  # short at first: the URL may be mistyped
        self._waiting: deque[Command] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._busy = False

    async def call(self, *command: Word) -> Any:
        """Return the reply to a command, which is sent at once or with the next batch."""
        queued = command, asyncio.get_running_loop().create_future()
        self._waiting.append(queued)
        if not self._busy:
            await self._send_first()
        try:
            return await queued[1]
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise translated(error, self._location) from error

    async def close(self) -> None:
        """Send the waiting commands, then close the connection."""
        if self._sender is not None and not self._sender.done():
            await asyncio.wait([self._sender], timeout=settings.REDIS_TIMEOUT)
            self._sender.cancel()
        await self._connection.disconnect(nowait=True)

    async def _send_first(self) -> None:
        # Without a task: creating one costs as much as sending.
        self._busy = True
        try:
            await self._send(self._next_batch())
        finally:
            self._busy = False
            if self._waiting:
                self._send_the_rest()

    def _send_the_rest(self) -> None:
        self._busy = True
        self._sender = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        # In a task of its own: cancelling one caller must not cancel the commands of others.
        try:
            while self._waiting:
                await self._send(self._next_batch())
        finally:
            self._busy = False
            for _, reply in self._waiting:  # not empty only while the loop is shutting down
                reply.cancel()

    async def _send(self, batch: list[Command]) -> None:
        self.batches += 1
        try:
            await retry(functools.partial(self._exchange, batch), self._location, self._time_limit)
        except Exception as error:
            for _, reply in batch:
                _resolve(reply, error)
        finally:
            for _, reply in batch:
                reply.cancel()

    def _next_batch(self) -> list[Command]:
        batch: list[Command] = []
        size = 0
        while self._waiting and len(batch) < settings.REDIS_BATCH and size < settings.REDIS_CHUNK:
            command = self._waiting.popleft()
            size += sum(len(word) for word in command[0] if isinstance(word, bytes))
            batch.append(command)
        return batch

    async def _exchange(self, batch: list[Command]) -> None:
        """Send the commands of a batch that have no reply yet, and read their replies."""
        connection = self._connection
        try:
            if not connection.is_connected:
                await connection.connect()
            unanswered = [command for command in batch if not command[1].done()]
            packed = [hiredis.pack_command(words) for words, _ in unanswered]  # type: ignore[arg-type]
            async with asyncio.timeout(settings.REDIS_TIMEOUT) as timeout:
                await connection.send_packed_command(packed)
                for number, (_, reply) in enumerate(unanswered):
                    if number:  # each reply extends the time limit
                        timeout.reschedule(asyncio.get_running_loop().time() + settings.REDIS_TIMEOUT)
                    _resolve(reply, await self._read_reply())
            self._time_limit = settings.REDIS_PATIENCE
        except BaseException:
            await connection.disconnect(nowait=True)  # replies under way no longer belong to a command
            raise

    async def _read_reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            if is_transient(error):
                raise
            return error


def _resolve(reply: asyncio.Future[Any], outcome: Any) -> None:
    if reply.done():  # the caller was cancelled
        return
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)


class ClusterConnection:
    """Connections to the servers of a cluster; each command goes to the server of its key.

    Args:
        url: The URL of one of the servers.
        location: The URL without its password, for messages.
    """

    def __init__(self, url: str, location: str) -> None:
        self._client = RedisCluster.from_url(
            url,
            protocol=2,
            socket_timeout=settings.REDIS_TIMEOUT,
            socket_connect_timeout=settings.REDIS_TIMEOUT,
        )
        self._location = location
        self._limit = asyncio.Semaphore(settings.REDIS_CONNECTIONS)

    async def call(self, *command: Word) -> Any:
        """Return the reply of the server that has the command's key."""
        async with self._limit:
            try:
                reply = await retry(
                    lambda: self._client.execute_command(*command), self._location, settings.REDIS_PATIENCE
                )
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                raise translated(error, self._location) from error
        # This client turns a hash into a dict.
        return [word for pair in reply.items() for word in pair] if isinstance(reply, dict) else reply

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
