"""Waiting in a run: for signals and for time to pass, in async and in synchronous code."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, SupportsFloat

from durable_nb import codec, fingerprint, settings
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.errors import InvalidOption, NoOpenRun, OpenRun, SignalTimeout, error_context
from durable_nb.records import Call, StepKind, signal_step
from durable_nb.signals import delivery
from durable_nb.signals.prompter import current_prompter
from durable_nb.signals.waiting import Question, wait_for_answer
from durable_nb.stores.host import this_process
from durable_nb.workflow.perform import VALUES, notify

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.caller import StepHandle
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["as_seconds", "ask_question", "complete", "sleep", "sleep_until", "wait_for_signal"]


def as_seconds(length: float | timedelta | None) -> float | None:
    """Return a length of time in seconds, or None if there is none.

    Raises:
        InvalidOption: It is negative, infinite, or neither a number nor a timedelta.
    """
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    is_number = seconds is None or isinstance(seconds, SupportsFloat)
    if not is_number or (seconds is not None and not 0 <= seconds < float("inf")):
        raise _invalid_length(length)
    return seconds


def _invalid_length(length: object) -> InvalidOption:
    return InvalidOption(
        f"invalid length of time {length!r}: expected a number of seconds >= 0, or a timedelta",
        remedy="For example: 0.5, or timedelta(hours=1).",
    )


async def ask_question(workflow: WorkflowLike, question: Question, mode: CallMode) -> Any:
    """Return the answer to a question of the current run: see ``Workflow.signal``."""
    name = check_name(question.name, "a signal", InvalidOption)
    return await wait_for_signal(_scope(workflow, f"signal({name!r})"), question, mode)


async def complete(workflow: WorkflowLike, run_id: str, name: str, payload: Any, mode: CallMode) -> bool:
    """Deliver a signal to a run, and return whether it is the first: see ``Workflow.complete``."""
    check_name(name, "a signal", InvalidOption)
    signal = delivery.make_signal(check_run_id(run_id), name, payload, this_process())
    return await mode.store(delivery.deliver(workflow.journal, signal, payload)) is None


async def sleep(workflow: WorkflowLike, length: float | timedelta, mode: CallMode) -> None:
    """Let time pass in the current run: see ``Workflow.sleep``."""
    seconds = as_seconds(length)
    if seconds is None:
        raise _invalid_length(length)
    scope = _scope(workflow, f"sleep({seconds:g})")
    arguments = fingerprint.arguments({"seconds": seconds})
    call = Call(
        scope.step_id("sleep", arguments),
        StepKind.SLEEP,
        arguments=arguments,
        on_change="keep",
        called_seq=scope.tick(),
        branched=scope.branched,
    )
    await _sleep_step(Caller(scope.current, mode), call, time.time() + seconds, seconds)


async def sleep_until(workflow: WorkflowLike, moment: datetime, mode: CallMode) -> None:
    """Wait in the current run until a moment: see ``Workflow.sleep_until``."""
    scope = _scope(workflow, "sleep_until")
    until = moment.timestamp()
    step_id = scope.step_id("sleep", fingerprint.arguments({"until": until}))
    call = Call(step_id, StepKind.SLEEP, called_seq=scope.tick(), branched=scope.branched)
    await _sleep_step(Caller(scope.current, mode), call, until, max(0.0, until - time.time()))


def _scope(workflow: WorkflowLike, what: str) -> scopes.Scope:
    scope = scopes.current_scope() or workflow.attached
    if scope is None:
        raise NoOpenRun(
            f"{what} was called outside a run",
            remedy=("Call it in a @wf.workflow, or open a run: ", OpenRun()),
        )
    return scope


async def wait_for_signal(scope: scopes.Scope, question: Question, mode: CallMode) -> Any:
    """Return the answer to a question, from its checkpoint or from the signal that answers it.

    Args:
        scope: The scope of the call.
        question: The question.
        mode: How the caller waits.

    Raises:
        SignalTimeout: No answer was delivered in time.
        SignalPending: This session has no one to prompt, and its ``headless_timeout`` has passed.
    """
    caller = Caller(scope.current, mode)
    step_id = scope.internal_id(signal_step(question.name))
    call = Call(step_id, StepKind.SIGNAL, called_seq=scope.tick(), branched=scope.branched)
    with error_context(run_id=caller.run.run_id, step=call.step_id):
        handle = await caller.begin(call)
        if not handle.replayed:
            return await _record_answer(caller, handle, question)
        if prompter := current_prompter():
            step = handle.step
            prompter.show_answer(step.run_id, question.name, step.delivered_by or "", step.finished_at or 0.0)
        return VALUES.unpack(handle, await caller.load(handle.step))


async def _record_answer(caller: Caller, handle: StepHandle, question: Question) -> Any:
    try:
        answer = await wait_for_answer(caller, question, handle.step)
    except SignalTimeout as late:
        await caller.fail(handle, late)
        raise
    payload = codec.encode(answer.value)
    await caller.complete(handle, payload, delivered_by=answer.by)
    return codec.decode(payload)  # what a replay returns


async def _sleep_step(caller: Caller, call: Call, until: float, seconds: float) -> None:
    """Record once when the sleep ends, and wait for the rest of it."""
    handle = await caller.begin(call)
    if handle.decision.notice:
        notify(handle)
    if not handle.replayed:
        # The end is committed before the wait: after a crash the sleep must not begin anew.
        await caller.complete(handle, codec.encode((until, seconds)), finished_at=until)
    elif caller.run.history.continued_after(handle.step):  # it has ended, whatever the clock says now
        return
    else:
        until, seconds = VALUES.unpack(handle, await caller.load(handle.step))
    with caller.noting_cancellation(handle):
        await _wait_until(caller, until, seconds)


async def _wait_until(caller: Caller, until: float, seconds: float) -> None:
    # By the clock, since the machine may have been suspended; but a clock that is set back adds nothing.
    end = time.monotonic() + max(0.0, min(until - time.time(), seconds))
    while (left := min(until - time.time(), end - time.monotonic())) > 0:
        await caller.mode.sleep(min(left, settings.SLEEP_SLICE))
        caller.current.check_stopped()
