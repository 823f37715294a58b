"""Resolving a step in doubt: the user says that it runs again, what it returned, or that it is given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.concurrency.bridge import wait_for_pending
from durable_nb.engine.caller import Caller, StepHandle
from durable_nb.engine.passes import Pass
from durable_nb.engine.run import RunHandle
from durable_nb.errors import (
    InvalidOption,
    Remedy,
    ResetStep,
    ResolveRerun,
    RunHeld,
    StepError,
    StepFailed,
    StepNotFound,
    error_context,
)
from durable_nb.records import Action, Call, Decision, RunStatus, Step, StepKind, StepStatus, scope_of
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.records import RunSnapshot
    from durable_nb.stores.base import Journal

__all__ = ["ANSWERS", "find_step", "record_answer", "recorded_run", "resolve_step", "with_inner"]

ANSWERS = ("rerun", "value", "fail", "earlier")

_RESOLVED = Decision(Action.RUN, "it was resolved by the user")


async def recorded_run(journal: Journal, run_id: str, mode: CallMode, *, writing: bool = True) -> Caller:
    """Return a caller of a recorded run, without a new pass: its owner and its epoch stay.

    Args:
        journal: The journal of the run.
        run_id: The run.
        mode: How the caller waits.
        writing: Whether the caller is to change the run.

    Raises:
        RunNotFound: The journal has no run of that id.
        RunHeld: Another living process has the run open, and the caller is to change it.
    """

    async def read() -> RunSnapshot:
        await journal.setup()
        try:
            if writing:
                await journal.check_owner(run_id)
        except RunHeld as held:
            held.remedy = (
                "Resolve the step in that process: ",
                ResolveRerun(),
                "; or end that process first.",
            )
            raise
        snapshot = await journal.read_run(run_id)
        if snapshot is None:
            raise unknown_run(run_id, journal.address)
        return snapshot

    await wait_for_pending(mode)
    with error_context(run_id=run_id):
        snapshot = await mode.store(read())
    known = Pass(journal, snapshot.run)
    known.run = RunHandle(journal, snapshot.run, snapshot.steps)
    return Caller(known, mode)


async def resolve_step(caller: Caller, step_id: str, answer: str, value: Any) -> None:
    """Record the user's answer about a step that was started but never finished, or that failed.

    Args:
        caller: The caller of the run.
        step_id: The step.
        answer: ``rerun``: execute it again, a finished step too; ``value``: it succeeded and returned
            ``value``; ``fail``: it is given up, and its call raises; ``earlier``: the last result that it had
            before it ran again is taken back, a finished step's too.
        value: What it returned.

    Raises:
        InvalidOption: The answer is none of these, or a value was given with an answer other than ``value``.
        StepNotFound: The run has no step ``step_id``.
        StepError: The step is done, running, or waiting for a signal.
        RunHeld: Another process has opened the run meanwhile.
        StepNotSaved: The value cannot be saved.
    """
    _check_answer(answer, value)
    await wait_for_pending(caller.mode)
    if caller.run.run.crashes:
        await caller.mode.store(caller.run.forget_crashes())
        if answer == "rerun" and not with_inner(caller.run, step_id):  # no plain task commits its start
            return
    if answer == "rerun" and step_id in caller.run.history.damaged:
        await _enter_again(caller)
        await caller.reset(with_inner(caller.run, step_id))
        return
    step = await find_step(caller, step_id)
    if step_id in caller.current.claims:
        raise _not_in_doubt(step, "the step is running now", "Wait until it ends.")
    if step.is_awaited:
        deliver = "Deliver the signal: wf.sync.complete(RUN_ID, NAME, VALUE)."
        if step.kind is StepKind.MESSAGE:
            deliver = "Send a message: wf.sync.send(RUN_ID, TOPIC, VALUE)."
        raise _not_in_doubt(step, f"the step waits for a {step.kind}", deliver)
    await record_answer(caller, step, answer, value)


async def record_answer(caller: Caller, step: Step, answer: str, value: Any) -> None:
    """Record the answer about a step whose call waits for it: see ``resolve_step``."""
    step_id = step.step_id
    if answer == "rerun":
        # The steps inside a step in doubt have finished and replay; of a step that is done, all run again.
        again = with_inner(caller.run, step_id) if step.status is StepStatus.DONE else [step_id]
        await _enter_again(caller)
        await caller.reset(again)
        return
    if answer == "earlier":
        await _take_back(caller, step)
        return
    if step.status in (StepStatus.DONE, StepStatus.RESET):
        what = "is done" if step.status is StepStatus.DONE else "will run at its next call"
        raise _not_in_doubt(step, f"the step is not in doubt: it {what}", ("To run it again: ", ResetStep()))
    await _enter_again(caller)
    await _record_outcome(caller, step, answer, value)


async def _enter_again(caller: Caller) -> None:
    """Have a run that is done entered again, before one of its steps is changed: its result rests on them."""
    if caller.run.run.status is RunStatus.DONE:
        await caller.mark(RunStatus.INTERRUPTED)


async def _take_back(caller: Caller, step: Step) -> None:
    """Record the earlier result of a step as that of its code and arguments of now."""
    kept = await caller.mode.store(caller.run.earlier_result(step.step_id))
    if kept is None:
        raise _not_in_doubt(step, "no earlier result of the step is kept", ("To run it again: ", ResetStep()))
    back = kept._replace(
        status=StepStatus.DONE,
        attempt=step.attempt + 1,  # the store keeps the result that it replaces
        epoch=caller.run.run.epoch,
        code=step.code,
        arguments=step.arguments,
        arguments_repr=step.arguments_repr,
    )
    await _enter_again(caller)
    await caller.mode.commit(caller.run.commit_again(back))


async def _record_outcome(caller: Caller, step: Step, answer: str, value: Any) -> None:
    by = this_process()
    call = Call(step.step_id, step.kind)
    handle = StepHandle(call, _RESOLVED, step._replace(epoch=caller.run.run.epoch))
    with error_context(run_id=caller.run.run_id, step=step.step_id):
        if answer == "value":
            await caller.complete(handle, codec.encode(value), delivered_by=by)
            return
        failure = _given_up(step, by)
        if step.status in (StepStatus.FAILED, StepStatus.CAUGHT):
            failure.__cause__ = codec.decode_failure(await caller.load(step))
        await caller.fail(handle, failure, delivered_by=by)


async def find_step(caller: Caller, step_id: str) -> Step:
    """Return a step as recorded.

    Raises:
        StepNotFound: The run has no step ``step_id``.
    """
    run = caller.run
    if step_id not in run.history and not run.journal.whole_runs:
        await caller.mode.store(run.reload(step_id))
    step = run.history.get(step_id)
    if step is None:
        known = ", ".join(step for step in run.history if not scope_of(step)) or "none yet"
        raise StepNotFound("no step of that name", run_id=run.run_id, step=step_id, remedy=f"Steps: {known}.")
    return step


def with_inner(run: RunHandle, step_id: str) -> list[str]:
    """Return the ids of a recorded step and of all inside it."""
    own = [step_id] if step_id in run.history else []
    known = (*run.history, *run.history.damaged)
    return own + [each for each in known if each.startswith(f"{step_id}/")]


def _check_answer(answer: str, value: Any) -> None:
    if answer not in ANSWERS:
        raise InvalidOption(
            f"invalid answer {answer!r}: expected 'rerun', 'value', 'fail' or 'earlier'",
            remedy=("For example: ", ResolveRerun()),
        )
    if answer != "value" and value is not None:
        raise InvalidOption(
            f"answer {answer!r} takes no value: only 'value' does", remedy="Leave the value out."
        )


def _not_in_doubt(step: Step, what: str, remedy: Remedy) -> StepError:
    return StepError(what, run_id=step.run_id, step=step.step_id, remedy=remedy)


def _given_up(step: Step, by: str) -> StepFailed:
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return StepFailed(
        f"the step was given up on {when}, by {by}",
        run_id=step.run_id,
        step=step.step_id,
        remedy=("To run it again nevertheless: ", ResetStep()),
    )
