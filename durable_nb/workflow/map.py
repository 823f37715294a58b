"""Mapping a function over many items, several at a time, each in a branch of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durable_nb.engine import scopes
from durable_nb.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["map_concurrently", "map_in_threads"]

R = TypeVar("R")


class _Batch(Generic[R]):
    """The items of one call with their results and failures; after a failure no further item is started."""

    def __init__(self, iterables: tuple[Iterable[Any], ...], limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise InvalidOption(
                f"invalid limit={limit}: expected 1 or more, or None", remedy="For example: limit=8."
            )
        self.items = list(zip(*iterables, strict=True))
        self.results: list[Any] = [None] * len(self.items)
        self.failures: dict[int, BaseException] = {}

    @contextmanager
    def noting(self, number: int) -> Iterator[None]:
        """Note the failure of an item; ``outcome`` raises it when the items under way have ended."""
        try:
            yield
        except BaseException as failure:
            self.failures[number] = failure
            raise

    def outcome(self) -> list[R]:
        """Return the results in the order of the items, or raise the failure of the first that failed."""
        if self.failures:
            raise self.failures[min(self.failures)]
        return self.results


async def map_concurrently(
    function: Callable[..., Awaitable[R]], iterables: tuple[Iterable[Any], ...], limit: int | None
) -> list[R]:
    """Await a function for every item, at most ``limit`` at a time; without a limit for all at once."""
    batch = _Batch[R](iterables, limit)
    gate = nullcontext() if limit is None else asyncio.Semaphore(limit)

    async def one(number: int, arguments: tuple[Any, ...]) -> None:
        async with gate:
            if not batch.failures:
                with batch.noting(number):
                    batch.results[number] = await function(*arguments)

    await asyncio.gather(*(one(*each) for each in enumerate(batch.items)), return_exceptions=True)
    return batch.outcome()


def map_in_threads(
    function: Callable[..., R], iterables: tuple[Iterable[Any], ...], limit: int | None
) -> list[R]:
    """Call a function for every item in ``limit`` threads; by default in as many as Python chooses.

    Raises:
        TypeError: The function is async.
    """
    if inspect.iscoroutinefunction(getattr(function, "function", function)):
        raise TypeError("wf.sync.map() takes a synchronous function: use await wf.map(…) for an async one")
    batch = _Batch[R](iterables, limit)
    here = scopes.current_scope()

    def one(number: int, branch: scopes.Scope | None) -> None:
        if not batch.failures:
            with nullcontext() if branch is None else scopes.enter_scope(branch), batch.noting(number):
                batch.results[number] = function(*batch.items[number])

    with ThreadPoolExecutor(limit, thread_name_prefix="durable_nb.map") as pool:
        branches = [here.branch() if here else None for _ in batch.items]
        futures = [
            pool.submit(copy_context().run, one, number, branch) for number, branch in enumerate(branches)
        ]
        try:
            wait(futures)
        except BaseException:  # interrupted: items under way end, no further one starts
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return batch.outcome()
