"""Performing a call: from the decision about it to its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.errors import DurableNotice, ResetStep, StepError, error_context
from durable_nb.records import Call, StepStatus
from durable_nb.signals import in_doubt
from durable_nb.workflow.retry import Policy, execute_with_retries, is_ours

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle

__all__ = ["load_result", "notice", "perform"]


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
    """Return the result of a call: from its checkpoint, or from its body, whose result is then committed.

    Only the body is retried. Encoding and storing are outside of the loop, so that a value that cannot be
    saved, or a store that fails, never executes user code again.

    Args:
        run: The open run.
        call: The call.
        body: The function to execute.
        arguments: The arguments by name, to show which differ.
        policy: The retries and the timeout.
        mode: How the caller waits.
        used: What a result says of what was used up for it: see ``Step.usage``.
    """
    _claim(run, call.step_id)
    try:
        handle = await in_doubt.begin_or_ask(run, call, mode, arguments)
        if handle.decision.notice:
            warnings.warn(notice(run, handle), DurableNotice, stacklevel=2)
        if handle.replayed:
            return await load_result(run, handle, mode)
        return await _execute_and_record(run, handle, body, policy, mode, used)
    finally:
        del run.claims[call.step_id]


def _claim(run: RunHandle, step_id: str) -> None:
    """Claim a step's name for a call; two calls never have it at one time."""
    # setdefault is atomic: of two threads one gets the claim, and the other the object of the first.
    claim = object()
    if run.claims.setdefault(step_id, claim) is not claim:
        raise StepError(
            "another call of that name is still running",
            run_id=run.run_id,
            step=step_id,
            remedy="Give each call a step_id='…' of its own, or await the first call before the second.",
        )


async def _execute_and_record(
    run: RunHandle,
    handle: StepHandle,
    body: Callable[[], Any],
    policy: Policy,
    mode: CallMode,
    used: Callable[[Any], str | None],
) -> Any:
    try:
        value = await execute_with_retries(run, handle, body, policy, mode)
    except Exception as failure:
        if not is_ours(failure):
            await run.fail_step(handle, failure, mode)
        raise
    with error_context(run_id=run.run_id, step=handle.call.step_id):
        payload = codec.encode(value)
    await run.complete_step(handle, payload, mode, used=used(value))
    return value


async def load_result(run: RunHandle, handle: StepHandle, mode: CallMode) -> Any:
    """Return the recorded value of a step, or raise its recorded failure."""
    with error_context(run_id=run.run_id, step=handle.step.step_id):
        payload = await run.load(handle.step, mode)
        if handle.step.status is StepStatus.FAILED:
            raise codec.decode_failure(payload)
        return codec.decode(payload)


def notice(run: RunHandle, handle: StepHandle) -> str:
    """Return the notice about a decision: why a changed step was replayed, or why it ran again."""
    step, reason = handle.call.step_id, handle.decision.reason
    where = f"run {run.run_id!r}, step {step!r}"
    if handle.replayed:
        again = ResetStep(run.run_id, step)
        return f"{where}: replayed although {reason}. To run it again: {again}"
    return f"{where}: run again, since {reason}"
