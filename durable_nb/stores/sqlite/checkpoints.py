"""When the file of a database is made whole: at the end of a run, in a pause, when it is closed, at exit."""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from contextlib import suppress
from typing import ClassVar

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.concurrency.loop_thread import is_running, submit
from durable_nb.concurrency.pending import drain_pending
from durable_nb.stores.sqlite.connection import Work
from durable_nb.stores.sqlite.database import CHECKPOINT, Database

__all__ = ["Checkpoints"]


class Checkpoints:
    """Copies the commits of one journal from the write-ahead log to the file, which is then whole by itself.

    A copy of the file alone is then a copy of the database. Other processes that read are not waited for.

    Args:
        database: The journal's database.
        run: Runs ``Work`` in the thread of the connection.
    """

    _open: ClassVar[weakref.WeakSet[Checkpoints]] = weakref.WeakSet()

    def __init__(self, database: Database, run: Callable[[str, list[Work]], Awaitable[None]]) -> None:
        self._database = database
        self._run = run
        self._made = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Make a checkpoint at the exit of Python, unless ``stop`` is called before."""
        self._open.add(self)

    async def stop(self) -> None:
        """Make the last checkpoint."""
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        await self.make()

    def expect(self) -> None:
        """Note that a commit is about to be made: make a checkpoint in the next pause."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(settings.IDLE, self._look, -1)

    async def make(self) -> None:
        """Make a checkpoint; if it cannot be made, the commits stay in the write-ahead log."""
        self._made = self._database.commits
        await self._run(CHECKPOINT, [Work(())])

    @classmethod
    def make_all(cls) -> None:
        """Make a checkpoint of every open journal, and wait for ``settings.EXIT_GRACE`` seconds at most."""
        drain_pending()
        if not is_running():  # the journals are of event loops of the user's
            return
        with suppress(RuntimeError):
            wait([submit(each.make()) for each in cls._open], settings.EXIT_GRACE)

    def _look(self, commits: int) -> None:
        self._timer = None
        if self._database.commits == self._made:
            return
        loop = asyncio.get_running_loop()
        if commits == self._database.commits:
            self._task = loop.create_task(self.make())
        else:
            self._timer = loop.call_later(settings.IDLE, self._look, self._database.commits)


in_forked_child(Checkpoints._open.clear)  # noqa: SLF001
atexit.register(Checkpoints.make_all)
