"""One watch for each journal serves all calls that wait for its signals and messages."""

from __future__ import annotations

import asyncio
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from durable_nb import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from durable_nb.records import Signal
    from durable_nb.stores.base import Journal

__all__ = ["wait_for", "wait_for_delivery"]

T = TypeVar("T")

_watches: weakref.WeakKeyDictionary[Journal, _Watch] = weakref.WeakKeyDictionary()


@dataclass(eq=False, slots=True)
class _Waiter:
    key: tuple[str, str] | None
    look: Callable[[], Awaitable[Any]] | None
    poll: float
    check: Callable[[], None]
    found: asyncio.Future[Any]


async def wait_for_delivery(
    journal: Journal, run_id: str, name: str, *, poll: float, seconds: float | None, check: Callable[[], None]
) -> Signal | None:
    """Wait until a signal is delivered, by any process. Runs on the loop thread.

    Args:
        journal: The journal of the run.
        run_id: The run.
        name: The name of the signal.
        poll: Seconds between two reads of a store that cannot report changes.
        seconds: How long to wait, in seconds; None waits without end.
        check: Called at intervals; an exception that it raises ends the wait.

    Returns:
        The signal; None if none was delivered in time.
    """
    waiter = _Waiter((run_id, name), None, poll, check, asyncio.get_running_loop().create_future())
    found: Signal | None = await _wait(journal, waiter, seconds)
    return found


async def wait_for(
    journal: Journal,
    look: Callable[[], Awaitable[T | None]],
    *,
    poll: float,
    seconds: float | None,
    check: Callable[[], None],
) -> T | None:
    """Wait until a function finds something: it is asked again whenever the journal has changed.

    Args:
        journal: The journal.
        look: A coroutine function that returns what it finds in the journal, or None.
        poll: As in ``wait_for_delivery``, as are the others.
        seconds: How long to wait, in seconds; None waits without end.
        check: Called at intervals; an exception that it raises ends the wait.
    """
    waiter = _Waiter(None, look, poll, check, asyncio.get_running_loop().create_future())
    found: T | None = await _wait(journal, waiter, seconds)
    return found


async def _wait(journal: Journal, waiter: _Waiter, seconds: float | None) -> Any:
    watch = _watches.get(journal)
    if watch is None:
        watch = _watches[journal] = _Watch()
    watch.add(journal, waiter)
    try:
        await asyncio.wait({waiter.found}, timeout=seconds)
        return waiter.found.result() if waiter.found.done() else None
    finally:
        watch.waiters.pop(waiter, None)
        waiter.found.cancel()


class _Watch:
    """Checks a journal for changes while calls wait, and reads the signals of all of them at once."""

    def __init__(self) -> None:
        self.waiters: dict[_Waiter, None] = {}
        self._version: Hashable = None
        self._is_new = True
        self._read_at = self._added_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def add(self, journal: Journal, waiter: _Waiter) -> None:
        self.waiters[waiter] = None
        self._added_at = time.monotonic()
        self._is_new = True  # read at once: the signal may have been delivered before
        if self._task is None:
            self._task = asyncio.create_task(self._watch(journal))

    async def _watch(self, journal: Journal) -> None:
        try:
            while self.waiters:
                self._check()
                await self._read_signals(journal)
                await journal.until_changed(self._pause())
        except Exception as error:
            for waiter in self.waiters:
                _fail(waiter, error)
        finally:
            self._task = None

    def _check(self) -> None:
        for waiter in list(self.waiters):
            try:
                waiter.check()
            except asyncio.CancelledError:
                waiter.found.cancel()
            except Exception as error:  # the run of this waiter is lost; the others wait on
                _fail(waiter, error)

    async def _read_signals(self, journal: Journal) -> None:
        version = await journal.version()
        if not self._is_new and not self._may_differ(version):
            return
        self._version, self._read_at, self._is_new = version, time.monotonic(), False
        keys = {waiter.key for waiter in self.waiters if waiter.key}
        found = await journal.find_signals(sorted(keys)) if keys else ()
        signals = {(signal.run_id, signal.name): signal for signal in found}
        for waiter in list(self.waiters):
            if waiter.key in signals and not waiter.found.done():
                waiter.found.set_result(signals[waiter.key])
            elif waiter.look is not None:
                await _look(waiter)

    def _may_differ(self, version: Hashable) -> bool:
        if version is None:
            return time.monotonic() - self._read_at >= self._poll()
        return version != self._version

    def _pause(self) -> float:
        if self._version is None:
            return min(self._poll(), settings.SIGNAL_POLL)
        idle = time.monotonic() - self._added_at > settings.WATCH_ALERT
        return settings.WATCH_IDLE if idle else settings.WATCH

    def _poll(self) -> float:
        return min((waiter.poll for waiter in self.waiters), default=settings.SIGNAL_POLL)


def _fail(waiter: _Waiter, error: Exception) -> None:
    if not waiter.found.done():
        waiter.found.set_exception(error)


async def _look(waiter: _Waiter) -> None:
    assert waiter.look is not None
    try:
        found = None if waiter.found.done() else await waiter.look()
    except Exception as error:  # of this waiter alone, such as a damaged message; the others wait on
        _fail(waiter, error)
    else:
        if found is not None and not waiter.found.done():
            waiter.found.set_result(found)
