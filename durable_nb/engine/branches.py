"""Concurrent branches of a run: a task that is created in a scope gets a scope of its own."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Reversible
from types import FrameType
from typing import Any, Final

from durable_nb.engine import scopes
from durable_nb.errors import DurableNotice

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
        self._numbers: dict[int, int] = {}  # of the coroutines that as_completed is about to start

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        scope = scopes.CURRENT.get()
        if scope is not None:
            context = options.get("context") or contextvars.copy_context()
            context.run(scopes.CURRENT.set, self._branch(scope, coro))
            options["context"] = context
            task = self.previous(loop, coro, **options)
            scope.current.add_branch(task)
            return task
        return self.previous(loop, coro, **options)

    def _branch(self, scope: scopes.Scope, coro: Coroutine[Any, Any, Any]) -> scopes.Scope:
        """Return the branch of a task. ``as_completed`` makes tasks in the order of a set, by address."""
        frame = _as_completed_frame()
        if frame is None:
            return scope.branch()
        if id(coro) not in self._numbers:
            given = _coroutines_given(scope, frame)
            if id(coro) not in given:
                return scope.branch()
            first = scope.reserve_branches(len(given))
            self._numbers = {key: first + rank for rank, key in enumerate(given)}
        return scope.branch(self._numbers.pop(id(coro)))


_ITERATOR: Final = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # from Python 3.13 on
_AS_COMPLETED: Final = (asyncio.as_completed if _ITERATOR is None else _ITERATOR.__init__).__code__
_DEPTH: Final = 7
"""Frames from a task factory to ``as_completed``, at most."""


def _as_completed_frame() -> FrameType | None:
    """Return the frame of ``as_completed`` if it makes the task that is being created."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - documented
    for _ in range(_DEPTH):
        if frame is None or frame.f_code is _AS_COMPLETED:
            return frame
        frame = frame.f_back
    return None


def _coroutines_given(scope: scopes.Scope, frame: FrameType) -> dict[int, None]:
    """Return the ids of the coroutines that a call of ``as_completed`` was given, in their order."""
    names = frame.f_locals
    given = names.get("fs", names.get("aws"))
    if isinstance(given, Reversible):  # it has an order, and still holds what it held
        return {id(each): None for each in given if asyncio.iscoroutine(each)}
    if "as_completed" not in scope.current.noticed:
        scope.current.noticed.add("as_completed")
        warnings.warn(
            f"run {scope.run.run_id!r}: asyncio.as_completed() was given a {type(given).__name__},"
            " and starts its coroutines in another order in each process: a resumed run would not find "
            "their steps. Give it a list: as_completed([…])",
            DurableNotice,
            stacklevel=3,
        )
    return {}


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
