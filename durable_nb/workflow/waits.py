"""Waiting in a run: for signals and for time to pass, in async and in synchronous code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, SupportsFloat

from durable_nb import codec, fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.errors import InvalidOption, SignalTimeout, error_context
from durable_nb.records import Call, StepKind, signal_step
from durable_nb.signals import delivery
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import current_prompter
from durable_nb.signals.waiting import NOTHING, Question, wait_for_answer
from durable_nb.stores.host import this_process
from durable_nb.workflow.awaitables import awaited
from durable_nb.workflow.perform import VALUES, notify

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.caller import StepHandle
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["Waits", "as_seconds", "ask_question", "complete", "sleep", "sleep_until", "wait_for_signal"]


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


class Waits:
    """The methods of a workflow that wait, and the one that ends a wait, for async code."""

    @awaited
    async def signal(
        self: WorkflowLike,
        name: str,
        poll: float = settings.SIGNAL_POLL,
        *,
        prompt: str | None = None,
        schema: Any = None,
        choices: Sequence[Any] | None = None,
        timeout: float | timedelta | None = None,
        default: Any = NOTHING,
    ) -> Any:
        """Wait in a run for a value from outside; one that was delivered before is returned at once.

        A value that is not accepted is set aside, and the next one awaited.

        Args:
            name: The signal's name; a run gets one value for it, wherever it waits.
            poll: Seconds between two reads of a store that cannot report changes; SQLite and Redis can.
            prompt: The text shown to the user who is asked.
            schema: A type: bool, int, float, str, list, dict, or, with pydantic installed, any type that it
                validates, such as a model, a dataclass or a TypedDict. The value is converted to it.
            choices: A list of the only values that are accepted.
            timeout: Seconds, or a timedelta, after which the wait ends; a restart does not reset it.
            default: The value returned then.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).
            SignalTimeout: No value was delivered in time, and there is no ``default`` (also a TimeoutError).
            SignalPending: The notebook is run without a front end, and has no one to prompt.

        Example:
            >>> async def review(wf: Workflow) -> str:
            ...     return "published" if await wf.signal("approval") else "withdrawn"
        """
        accepted, seconds = Accepted(schema, choices), as_seconds(timeout)
        question = Question(name, prompt, accepted, seconds, default, poll)
        return await ask_question(self, question, ASYNC)

    @awaited
    async def complete(
        self: WorkflowLike,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        ttl: float | timedelta | None = None,
    ) -> bool:
        """Deliver a signal to a run, from any process, also before it exists; the first delivery wins.

        Args:
            run_id: The run.
            name: The signal's name.
            payload: The value, kept as it is: False and None are answers too.
            ttl: Seconds, or a timedelta, after which it is deleted if the run has not begun; None keeps it.

        Returns:
            True if this was the first delivery.

        Raises:
            SignalInvalid: The run waits for the signal, and does not accept this value (also a ValueError).

        Example:
            >>> async def approve(wf: Workflow) -> bool:
            ...     return await wf.complete("order-a17", "approval", {"approved": True})
        """
        return await complete(self, run_id, name, payload, ASYNC, ttl=ttl)

    @awaited
    async def sleep(self: WorkflowLike, seconds: float | timedelta) -> None:
        """Let time pass in a run; after a restart, only the rest of it.

        Args:
            seconds: How long, in seconds or as a timedelta.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).
            InvalidOption: ``seconds`` is neither a number >= 0 nor a timedelta (also a ValueError).

        Example:
            >>> async def remind(wf: Workflow) -> None:
            ...     await wf.sleep(timedelta(days=3))
        """
        await sleep(self, seconds, ASYNC)

    @awaited
    async def sleep_until(self: WorkflowLike, moment: datetime) -> None:
        """Wait in a run until a moment, which is recorded at the first call.

        Args:
            moment: The moment; one without a time zone is in local time.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).

        Example:
            >>> async def new_year(wf: Workflow) -> None:
            ...     await wf.sleep_until(datetime(2030, 1, 1))
        """
        await sleep_until(self, moment, ASYNC)


async def ask_question(workflow: WorkflowLike, question: Question, mode: CallMode) -> Any:
    """Return the answer to a question of the current run: see ``Workflow.signal``."""
    name = check_name(question.name, "a signal", InvalidOption)
    return await wait_for_signal(
        scopes.required_scope(workflow.attached, f"signal({name!r})"), question, mode
    )


async def complete(
    workflow: WorkflowLike,
    run_id: str,
    name: str,
    payload: Any,
    mode: CallMode,
    *,
    ttl: float | timedelta | None = None,
) -> bool:
    """Deliver a signal to a run, and return whether it is the first: see ``Workflow.complete``."""
    check_name(name, "a signal", InvalidOption)
    signal = delivery.make_signal(check_run_id(run_id), name, payload, this_process())
    work = delivery.deliver(workflow.journal, signal, payload, ttl=as_seconds(ttl))
    return await mode.store(work) is None


async def sleep(workflow: WorkflowLike, length: float | timedelta, mode: CallMode) -> None:
    """Let time pass in the current run: see ``Workflow.sleep``."""
    seconds = as_seconds(length)
    if seconds is None:
        raise _invalid_length(length)
    scope = scopes.required_scope(workflow.attached, f"sleep({seconds:g})")
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
    scope = scopes.required_scope(workflow.attached, "sleep_until")
    until = moment.timestamp()
    step_id = scope.step_id("sleep", fingerprint.arguments({"until": until}))
    call = Call(step_id, StepKind.SLEEP, called_seq=scope.tick(), branched=scope.branched)
    await _sleep_step(Caller(scope.current, mode), call, until, max(0.0, until - time.time()))


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
            with caller.noting_cancellation(handle):
                return await _record_answer(caller, handle, question)
        if prompter := current_prompter():
            step = handle.step
            prompter.show_answer(step.run_id, question.name, step.delivered_by or "", step.finished_at or 0.0)
        return VALUES.unpack(caller, handle, await caller.replay(handle))


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
        await _wait_until(caller, handle, until, seconds)
        return
    until, seconds = VALUES.unpack(caller, handle, await caller.load(handle.step))
    if not caller.run.history.continued_after(handle.step):  # else it has ended, whatever the clock says now
        await _wait_until(caller, handle, until, seconds)
    await caller.in_order(_nothing(), caller.run.history.seq_at(until), until)


async def _wait_until(caller: Caller, handle: StepHandle, until: float, seconds: float) -> None:
    # By the clock, since the machine may have been suspended; but a clock that is set back adds nothing.
    end = time.monotonic() + max(0.0, min(until - time.time(), seconds))
    with caller.noting_cancellation(handle):
        while (left := min(until - time.time(), end - time.monotonic())) > 0:
            await caller.mode.sleep(min(left, settings.SLEEP_SLICE))
            caller.current.check_stopped()


async def _nothing() -> None:
    """Return at once: what is awaited is the turn of a sleep that has ended."""
