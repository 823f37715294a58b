"""The order in which concurrent branches of a pass get their results: that in which they were recorded.

Without it, branches that replay would finish in the order of the event loop, and what depends on that order,
such as ``as_completed``, a queue or a list to which branches append, would be another than before.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Awaitable, Sized
from typing import Final, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")

_ROUNDS: Final = 100
"""Rounds of the event loop after which the next result is returned although other code is never idle."""

_ROUNDS_UNSEEN: Final = 10
"""Rounds after which it is returned on an event loop that does not show whether other code can run."""


class Turns:
    """Returns results one at a time, the one recorded first first; the next when no other code can run.

    A result waits for those recorded earlier whose calls were made already, and for no others.

    Args:
        loop: The event loop of the calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[float, float, int, asyncio.Future[None]]] = []
        self._at_hand: set[asyncio.Future[None]] = set()
        self._count = itertools.count().__next__
        self._is_scheduled = False
        self._context = contextvars.Context()
        self._ready: Sized | None = getattr(loop, "_ready", None)

    async def take(self, work: Awaitable[T], seq: float, ended_at: float = 0.0) -> T:
        """Await some work, and return its value when its turn has come.

        Args:
            work: Gets or commits a result; it depends on no other result.
            seq: The sequence number of the result.
            ended_at: What decides between results of one number, as for sleeps.
        """
        turn = self._loop.create_future()
        heapq.heappush(self._waiting, (seq, ended_at, self._count(), turn))
        try:
            value = await work
            self._at_hand.add(turn)
            self._schedule()
            await turn
        except BaseException:  # its caller was cancelled, or the result could not be had
            turn.cancel()
            self._schedule()
            raise
        return value

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._return_next, 0, context=self._context)

    def _return_next(self, rounds: int) -> None:
        if self._others_can_run(rounds):
            self._loop.call_soon(self._return_next, rounds + 1, context=self._context)
            return
        waiting = self._waiting
        while waiting and waiting[0][-1].done():
            self._at_hand.discard(heapq.heappop(waiting)[-1])
        self._is_scheduled = bool(waiting) and waiting[0][-1] in self._at_hand
        if self._is_scheduled:
            waiting[0][-1].set_result(None)
            self._loop.call_soon(self._return_next, 0, context=self._context)

    def _others_can_run(self, rounds: int) -> bool:
        if self._ready is None:
            return rounds < _ROUNDS_UNSEEN
        return len(self._ready) > 0 and rounds < _ROUNDS
