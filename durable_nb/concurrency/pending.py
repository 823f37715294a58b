"""Commits that outlive their caller: an interrupt or a cancellation ended the call before the store was done.

The work goes on on the loop thread. Before a step or a run is read from the store, the reader waits for it.
"""

from __future__ import annotations

import asyncio
import atexit
import warnings
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.concurrency.loop_thread import end_of
from durable_nb.errors import DurableNotice

__all__ = ["PENDING", "add_pending", "after_pending", "drain_pending", "pending_done", "raise_or_warn"]

T = TypeVar("T")

PENDING: Final[set[Future[Any]]] = set()
"""The work that goes on without its caller."""


async def pending_done() -> None:
    """Return when the work is done that goes on without its caller now. Runs on the loop thread."""
    await _all_done(tuple(PENDING))


def add_pending(future: Future[Any]) -> float:
    """Note that some work goes on without its caller.

    Returns:
        Seconds for which the caller should wait for it nevertheless: 0 if other work is pending already. The
        store is slow or out of reach then, and one such wait is enough.
    """
    grace = 0.0 if PENDING else settings.INTERRUPT_GRACE
    PENDING.add(future)
    future.add_done_callback(PENDING.discard)
    return grace


def after_pending(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Return a coroutine that runs ``work`` after the work that is pending now."""
    # The set is copied here, before `work` is submitted and added to it: it would wait for its own end.
    return _after(tuple(PENDING), work)


async def _after(earlier: tuple[Future[Any], ...], work: Coroutine[Any, Any, T]) -> T:
    await _all_done(earlier)
    return await work


async def _all_done(futures: tuple[Future[Any], ...]) -> None:
    if futures:
        await asyncio.wait([end_of(future) for future in futures])


def raise_or_warn(future: Future[Any]) -> None:
    """Raise the failure of work that is done; of work that is not, warn when it fails."""
    if future.done():
        future.result()
    else:
        future.add_done_callback(_warn_of_failure)


def _warn_of_failure(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        message = f"a commit that went on after an interrupt has failed: {error}"
        warnings.warn(message, DurableNotice, stacklevel=2)


in_forked_child(PENDING.clear)  # the futures that it inherits would never be done


@atexit.register
def drain_pending() -> None:
    """Block until no work goes on without its caller, or ``settings.EXIT_GRACE`` seconds have passed.

    Called before a store is closed, and at the exit of Python, whose loop thread is a daemon: without this,
    commits that are under way would be lost.
    """
    wait(tuple(PENDING), settings.EXIT_GRACE)
