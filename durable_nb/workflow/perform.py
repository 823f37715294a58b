"""A step's life: from the decision about its call to its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.errors import DurableNotice, ResetStep, StepError, error_context
from durable_nb.records import Call, StepStatus
from durable_nb.signals import in_doubt
from durable_nb.workflow.retry import Policy, attempts, is_ours

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle

__all__ = ["notice", "perform", "replay"]


async def perform(
    run: RunHandle,
    call: Call,
    body: Callable[[], Any],
    arguments: Mapping[str, Any],
    policy: Policy,
    mode: CallMode,
    *,
    used: Callable[[Any], str | None] = lambda _: None,
) -> Any:
    """Give back a call's checkpoint, or execute its body and commit one.

    Only the body is retried: encoding and storing stand outside the loop, so that a value that cannot be
    saved or a store that fails never executes user code again.

    Args:
        run: The open run.
        call: The call.
        body: What is executed.
        arguments: The arguments by name, to show what differs.
        policy: How it is executed.
        mode: How the caller waits.
        used: What a result says of what was used up for it: see ``Step.usage``.
    """
    _claim(run, call.step_id)
    try:
        handle = await in_doubt.begin_or_ask(run, call, mode, arguments)
        if handle.decision.notice:
            warnings.warn(notice(run, handle), DurableNotice, stacklevel=2)
        if handle.replayed:
            return await replay(run, handle, mode)
        return await _execute(run, handle, body, policy, mode, used)
    finally:
        del run.claims[call.step_id]


def _claim(run: RunHandle, step_id: str) -> None:
    """Have a step's name to oneself: two calls never share it at one time."""
    mine = object()
    if run.claims.setdefault(step_id, mine) is not mine:
        raise StepError(
            "a call of that name is still running",
            run_id=run.run_id,
            step=step_id,
            remedy="Give each call a step_id='…' of its own, or end the first one before the second begins.",
        )


async def _execute(
    run: RunHandle,
    handle: StepHandle,
    body: Callable[[], Any],
    policy: Policy,
    mode: CallMode,
    used: Callable[[Any], str | None],
) -> Any:
    try:
        value = await attempts(run, handle, body, policy, mode)
    except Exception as failure:
        if not is_ours(failure):
            await run.fail_step(handle, failure, mode)
        raise
    with error_context(run_id=run.run_id, step=handle.call.step_id):
        payload = codec.encode(value)
    await run.complete_step(handle, payload, mode, used=used(value))
    return value


async def replay(run: RunHandle, handle: StepHandle, mode: CallMode) -> Any:
    """Give back what is on record: the value, or the failure."""
    with error_context(run_id=run.run_id, step=handle.step.step_id):
        payload = await run.load(handle.step, mode)
        if handle.step.status is StepStatus.FAILED:
            raise codec.decode_failure(payload)
        return codec.decode(payload)


def notice(run: RunHandle, handle: StepHandle) -> str:
    """What a person should know of a decision that refuses nothing."""
    step, reason = handle.call.step_id, handle.decision.reason
    where = f"run {run.run_id!r}, step {step!r}"
    if handle.replayed:
        again = ResetStep(run.run_id, step)
        return f"{where}: replayed although {reason}. To run it again: {again}"
    return f"{where}: run again, since {reason}"
