"""The stores of this package as ``Store`` objects, as python-durable has them."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

from durable_nb import codec, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.records import Payload, Run, RunStatus, Signal, Step, StepKind, StepStatus, signal_step
from durable_nb.stores.base import Journal
from durable_nb.stores.blobs.remote import BlobPlace
from durable_nb.stores.memory import MemoryJournal
from durable_nb.stores.payloads import fetch, keep
from durable_nb.stores.registry import open_journal
from durable_nb.stores.values.base import Store

__all__ = ["InMemoryStore", "JournalStore", "RedisStore", "SQLiteStore"]


class JournalStore(Store):
    """A journal as a ``Store``; it can be used from any event loop.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self._journal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.journal.location!r}>"

    async def setup(self) -> None:
        """Create or migrate the store."""
        await ASYNC.store(self.journal.setup())

    async def close(self) -> None:
        """Release files, connections and locks."""
        await ASYNC.store(self.journal.close())

    async def get_step(self, run_id: str, step_id: str) -> tuple[bool, Any]:
        """Return whether a step is done, and its result."""
        return _value(await ASYNC.store(self._get_step(run_id, step_id)))

    async def set_step(self, run_id: str, step_id: str, result: Any, attempt: int = 1) -> None:
        """Record a result as if the step had been executed."""
        step = Step(run_id, step_id, StepKind.TASK, StepStatus.DONE, attempt, payload=codec.encode(result))
        await ASYNC.store(self._set_step(step))

    async def mark_run_done(self, run_id: str) -> None:
        """Record that a run is done."""
        await ASYNC.store(self._mark(run_id, RunStatus.DONE, None))

    async def mark_run_failed(self, run_id: str, error: str) -> None:
        """Record that a run has failed, and its error."""
        await ASYNC.store(self._mark(run_id, RunStatus.FAILED, error))

    async def get_signal(self, run_id: str, name: str) -> tuple[bool, Any]:
        """Return whether a signal was delivered, and its payload."""
        return _value(await ASYNC.store(self._get_signal(run_id, name)))

    async def set_signal(self, run_id: str, name: str, payload: Any) -> bool:
        """Deliver a signal; return True if it is the first of its name."""
        signal = Signal(run_id, name, codec.encode(payload), delivered_at=time.time())
        return await ASYNC.store(self._set_signal(signal))

    async def _get_step(self, run_id: str, step_id: str) -> Payload | None:
        await self.journal.setup()
        step = await self.journal.get_step(run_id, step_id)
        if step is None or step.status is not StepStatus.DONE or step.payload is None:
            return None
        return await fetch(self.journal, step.payload, run_id, step_id)

    async def _set_step(self, step: Step) -> None:
        run = await self._run(step.run_id)
        payload = step.payload
        if payload is not None:
            payload = await keep(self.journal, payload, step.run_id, step.step_id)
        now = time.time()
        await self.journal.put_step(
            step._replace(payload=payload, epoch=run.epoch, started_at=now, finished_at=now)
        )

    async def _mark(self, run_id: str, status: RunStatus, error: str | None) -> None:
        run = await self._run(run_id)
        result = None if error is None else codec.encode(error)
        await self.journal.finish_run(run._replace(status=status, result=result, updated_at=time.time()))

    async def _run(self, run_id: str) -> Run:
        await self.journal.setup()
        run = await self.journal.get_run(run_id)
        if run is None:  # interrupted: no process executes or owns it yet
            opening = Run(run_id, "", RunStatus.INTERRUPTED)
            run = (await self.journal.open_run(opening, take_over=True)).run
        return run

    async def _get_signal(self, run_id: str, name: str) -> Payload | None:
        await self.journal.setup()
        signal = await self.journal.get_signal(run_id, name)
        if signal is None:
            return None
        return await fetch(self.journal, signal.payload, run_id, signal_step(name))

    async def _set_signal(self, signal: Signal) -> bool:
        await self.journal.setup()
        payload = await keep(self.journal, signal.payload, signal.run_id, signal_step(signal.name))
        return await self.journal.put_signal(signal._replace(payload=payload))


def _value(payload: Payload | None) -> tuple[bool, Any]:
    return (False, None) if payload is None else (True, codec.decode(payload))


class SQLiteStore(JournalStore):
    """Keeps runs in a SQLite file.

    Args:
        path: The file; it is created on first use.

    Example:
        >>> SQLiteStore("runs.db")
        <SQLiteStore '…/runs.db'>
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(open_journal(path))
        self._path = self._journal.location

    def __reduce__(self) -> tuple[object, ...]:
        return SQLiteStore, (self._path,)

    @property
    def journal(self) -> Journal:
        """The journal of the file; a new one after it was closed."""
        return open_journal(self._path)


class RedisStore(JournalStore):
    """Keeps runs on a Redis server or cluster, shared by any number of machines.

    Args:
        url: ``redis://HOST:PORT/0``, or ``rediss://`` for TLS; the URL of any server of a cluster. It may
            contain the other options: ``redis://HOST:PORT/0?prefix=shop``.
        ttl: Seconds after which a run that has ended is deleted; None, or 0 as in python-durable, to keep it.
            Open runs are always kept.
        prefix: The text that all keys begin with; ``durable`` by default.
        blobs: The place of values above 256 KiB: a folder that all machines share, or a URL such as
            ``s3://bucket/path``. By default they are kept on the server, up to 64 MiB each.

    Raises:
        InvalidOption: An argument, or an option in the URL, is invalid.

    Example:
        >>> RedisStore("redis://:secret@localhost:6379/0", ttl=86400)
        <RedisStore 'redis://:\u2039hidden\u203a@localhost:6379/0'>
    """

    def __init__(
        self,
        url: str = settings.REDIS_URL,
        ttl: int | None = None,
        prefix: str | None = None,
        *,
        blobs: BlobPlace | None = None,
    ) -> None:
        from durable_nb.stores.redis import RedisJournal

        self._open = functools.partial(RedisJournal, url, ttl=ttl or None, prefix=prefix, blobs=blobs)
        self._redis = self._open()
        super().__init__(self._redis)

    @property
    def journal(self) -> Journal:
        """The journal of the server; a new one after it was closed."""
        if self._redis.closed:
            self._redis = self._open()
        return self._redis


class InMemoryStore(JournalStore):
    """Keeps runs in memory, for tests and experiments; they are lost when the process ends.

    Example:
        >>> wf = Workflow("etl", db=InMemoryStore())
    """

    def __init__(self) -> None:
        super().__init__(MemoryJournal())
