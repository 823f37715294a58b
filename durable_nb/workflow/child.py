"""A run that another run calls: its failure is settled like that of a task, in the history of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from durable_nb.engine.caller import Caller
from durable_nb.errors import error_context
from durable_nb.records import Call, StepKind
from durable_nb.workflow.perform import VALUES
from durable_nb.workflow.retry import is_ours

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.scopes import Scope
    from durable_nb.records import Run

__all__ = ["perform_child"]


def perform_child(
    scope: Scope, opening: Run, enter: Callable[[], Awaitable[Any]], mode: CallMode
) -> Coroutine[Any, Any, Any]:
    """Return the outcome of a run that is called in another run.

    Args:
        scope: The scope of the call.
        opening: The run as its caller sees it.
        enter: Runs a pass through its code, or joins one.
        mode: How the caller waits.
    """
    call = Call(
        scope.child_id(opening.run_id),
        StepKind.RUN,
        code=opening.code,
        called_seq=scope.tick(),
        branched=scope.branched,
    )
    return _perform(Caller(scope.current, mode), call, enter)


async def _perform(caller: Caller, call: Call, enter: Callable[[], Awaitable[Any]]) -> Any:
    with error_context(run_id=caller.run.run_id, step=call.step_id):
        handle = await caller.begin(call)
        if handle.replayed:
            return VALUES.unpack(caller, handle, await caller.replay(handle))
    with caller.noting_cancellation(handle):
        try:
            value = await enter()
        except Exception as failure:
            if not is_ours(failure):
                await caller.fail(handle, failure)
            raise
    if handle.earlier is not None:  # it failed in an earlier pass: its own record has the result now
        await caller.reset([call.step_id])
    return value
