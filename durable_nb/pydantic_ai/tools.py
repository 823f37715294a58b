"""Decorators that make an agent's tools tasks, and functions that call agents entry points of runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_ai.tools import RunContext

from durable_nb.workflow.task import Arguments

if TYPE_CHECKING:
    from durable_nb.workflow.backoff import BackoffStrategy
    from durable_nb.workflow.workflow import Workflow

__all__ = ["durable_pipeline", "durable_tool"]


class _LiveArguments(Arguments):
    """A tool's arguments without the RunContext that pydantic-ai passes, which differs for each call."""

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        bound = super().bound(args, kwargs)
        return {name: value for name, value in bound.items() if not isinstance(value, RunContext)}


def durable_tool(
    wf: Workflow, name: str | None = None, retries: int = 2, backoff: BackoffStrategy | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a tool's function, sync or async, a task of a workflow: its calls in a run are checkpointed.

    Args:
        wf: The workflow.
        name: The name of its steps; by default the function's name.
        retries: Number of further attempts after the first.
        backoff: Takes the 0-based number of the attempt that failed, and returns the seconds to wait before
            the next one.

    Example:
        >>> from durable_nb import Workflow
        >>> @durable_tool(Workflow("reports"), retries=1)
        ... async def weather(city: str) -> str: ...
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        task = wf.task(name=name, retries=retries, backoff=backoff)(function)
        task.arguments = _LiveArguments(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                return await task(*args, **kwargs)

            return call_async

        @functools.wraps(function)
        def call_sync(*args: Any, **kwargs: Any) -> Any:
            return task(*args, **kwargs)

        return call_sync

    return decorate


def durable_pipeline(wf: Workflow, id: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Make a function that calls agents an entry point of runs: equivalent to ``wf.workflow(id=…)``.

    Args:
        wf: The workflow.
        id: A template for run ids, filled from the arguments.

    Example:
        >>> from durable_nb import Workflow
        >>> @durable_pipeline(Workflow("reports"), id="report-{topic}")
        ... async def report(topic: str) -> str: ...
    """
    return wf.workflow(id=id)
