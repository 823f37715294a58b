"""Concurrent branches of a run: a task that is created in a scope gets a scope of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from durable_nb.engine import scopes

__all__ = ["install_task_factory", "task_without_scope"]


def task_without_scope(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Start a task of this package's own beside the user's code: it is no branch of the current scope."""
    context = contextvars.copy_context()
    context.run(scopes.CURRENT.set, None)
    return context.run(asyncio.ensure_future, work)


class _BranchNamer:
    """A task factory: a task that is created in a scope runs in a branch of that scope."""

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
            task = self.previous(loop, coro, **options)
            scope.current.add_branch(task)
            return task
        return self.previous(loop, coro, **options)


def _plain_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Future[Any]:
    return asyncio.Task(coro, loop=loop, **options)


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Give each task that is created in a scope a branch of it; the loop's own factory makes the task.

    Args:
        loop: The event loop of the run.
    """
    previous = loop.get_task_factory()
    if not isinstance(previous, _BranchNamer):
        loop.set_task_factory(_BranchNamer(previous))  # type: ignore[arg-type]
