"""Concurrent branches of a run: a task that is created in a scope counts its steps in one of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from durable_nb.engine import scopes

__all__ = ["install_task_factory", "outside"]


def outside(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Start something of ours beside the user's code: a task that is no branch of any scope."""
    context = contextvars.copy_context()
    context.run(scopes.CURRENT.set, None)
    return context.run(asyncio.ensure_future, work)


class _BranchNamer:
    """A task factory that gives each task created in a scope a branch of its own."""

    def __init__(self, previous: Callable[..., asyncio.Future[Any]] | None) -> None:
        self.previous = previous or _plain_task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        scope = scopes.CURRENT.get()
        if scope is not None:
            context = options.get("context") or contextvars.copy_context()
            context.run(scopes.CURRENT.set, scope.branch())
            options["context"] = context
        return self.previous(loop, coro, **options)


def _plain_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Future[Any]:
    return asyncio.Task(coro, loop=loop, **options)


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Have ``loop`` name each branch that is created inside our scopes; all else goes to its old factory."""
    previous = loop.get_task_factory()
    if not isinstance(previous, _BranchNamer):
        loop.set_task_factory(_BranchNamer(previous))  # type: ignore[arg-type]
