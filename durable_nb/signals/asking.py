"""Ask the user from another thread, while the waiting call blocks the main thread."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["asking"]

Asking = Callable[[], Awaitable[None]]


@contextmanager
def asking(ways: Sequence[Asking]) -> Iterator[None]:
    """Ask in every way while the block waits; a way that fails or is interrupted interrupts the main thread.

    Args:
        ways: Functions that ask, and return once the answer is in the store.
    """
    threads = [_Thread(way) for way in ways]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.end()


class _Thread(threading.Thread):
    """Asks in an event loop of its own, with the context variables of the caller.

    Args:
        way: The function that asks.
    """

    def __init__(self, way: Asking) -> None:
        super().__init__(name="durable_nb asks", daemon=True)
        self._way = way
        self._context = contextvars.copy_context()
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Ask, in the caller's context."""
        self._context.run(asyncio.run, self._ask())

    def end(self) -> None:
        """Cancel the question, and wait until its prompt is gone."""
        self._begun.wait()
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self.join()

    async def _ask(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        try:
            await self._way()
        except asyncio.CancelledError:
            return
        except BaseException:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
