"""A function on many items, several at a time: each in a branch of its own, in two colours."""

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

__all__ = ["concurrently", "in_threads"]

R = TypeVar("R")


class _Batch(Generic[R]):
    """The items of one call, and what became of them: after a failure no further one is begun."""

    def __init__(self, iterables: tuple[Iterable[Any], ...], limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise InvalidOption(f"limit={limit} makes no sense", remedy="Give 1 or more, or None.")
        self.items = list(zip(*iterables, strict=True))
        self.results: list[Any] = [None] * len(self.items)
        self.failures: dict[int, BaseException] = {}

    @contextmanager
    def noting(self, number: int) -> Iterator[None]:
        """Note that an item fails; it is raised once those under way have ended."""
        try:
            yield
        except BaseException as failure:
            self.failures[number] = failure
            raise

    def outcome(self) -> list[R]:
        """The results in the order of the items, or the failure of the first item that failed."""
        if self.failures:
            raise self.failures[min(self.failures)]
        return self.results


async def concurrently(
    function: Callable[..., Awaitable[R]], iterables: tuple[Iterable[Any], ...], limit: int | None
) -> list[R]:
    """Await a function for every item; without a limit for all of them at once."""
    batch = _Batch[R](iterables, limit)
    gate = nullcontext() if limit is None else asyncio.Semaphore(limit)

    async def one(number: int, arguments: tuple[Any, ...]) -> None:
        async with gate:
            if not batch.failures:
                with batch.noting(number):
                    batch.results[number] = await function(*arguments)

    await asyncio.gather(*(one(*each) for each in enumerate(batch.items)), return_exceptions=True)
    return batch.outcome()


def in_threads(
    function: Callable[..., R], iterables: tuple[Iterable[Any], ...], limit: int | None
) -> list[R]:
    """Call a function for every item, in so many threads; by default in as many as Python deems fit.

    Raises:
        TypeError: The function is async.
    """
    if inspect.iscoroutinefunction(getattr(function, "function", function)):
        raise TypeError("wf.sync.map takes synchronous functions; await wf.map(…) takes async ones")
    batch = _Batch[R](iterables, limit)
    here = scopes.current()

    def one(number: int, branch: scopes.Scope | None) -> None:
        if not batch.failures:
            with nullcontext() if branch is None else scopes.entered(branch), batch.noting(number):
                batch.results[number] = function(*batch.items[number])

    with ThreadPoolExecutor(limit, thread_name_prefix="durable_nb.map") as pool:
        branches = [here.branch() if here else None for _ in batch.items]
        handle = [
            pool.submit(copy_context().run, one, number, branch) for number, branch in enumerate(branches)
        ]
        try:
            wait(handle)
        except BaseException:  # interrupted: what is under way ends, nothing further begins
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return batch.outcome()
