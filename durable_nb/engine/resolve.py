"""Resolving a step in doubt: the user says that it runs again, what it returned, or that it is given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.concurrency.bridge import wait_for_pending
from durable_nb.engine.run import RunHandle, StepHandle
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
from durable_nb.records import Action, Call, Decision, Step, StepStatus, scope_of
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.stores.base import Journal

__all__ = ["ANSWERS", "find_step", "record_answer", "recorded_run", "resolve_step", "with_inner"]

ANSWERS = ("rerun", "value", "fail")

_RESOLVED = Decision(Action.RUN, "it was resolved by the user")


async def recorded_run(journal: Journal, run_id: str, mode: CallMode) -> RunHandle:
    """Return a handle of a recorded run, without a new pass: its owner and its epoch stay.

    Args:
        journal: The journal of the run.
        run_id: The run.
        mode: How the caller waits.

    Raises:
        RunNotFound: The journal has no run of that id.
        RunHeld: Another living process has the run open.
    """

    async def read() -> RunHandle:
        await journal.setup()
        try:
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
        return RunHandle(journal, snapshot.run, snapshot.steps)

    await wait_for_pending(mode)
    with error_context(run_id=run_id):
        return await mode.store(read())


async def resolve_step(run: RunHandle, step_id: str, answer: str, value: Any, mode: CallMode) -> None:
    """Record the user's answer about a step that was started but never finished, or that failed.

    Args:
        run: The run.
        step_id: The step.
        answer: ``rerun``: execute it again, a finished step too; ``value``: it succeeded and returned
            ``value``; ``fail``: it is given up, and its call raises.
        value: What it returned.
        mode: How the caller waits.

    Raises:
        InvalidOption: The answer is none of these, or a value was given with an answer other than ``value``.
        StepNotFound: The run has no step ``step_id``.
        StepError: The step is done, running, or waiting for a signal.
        RunHeld: Another process has opened the run meanwhile.
        StepNotSaved: The value cannot be saved.
    """
    _check_answer(answer, value)
    await wait_for_pending(mode)
    step = await find_step(run, step_id, mode)
    if step_id in run.claims:
        raise _not_in_doubt(step, "the step is running now", "Wait until it ends.")
    if step.is_awaited:
        deliver = "Deliver the signal: wf.sync.complete(RUN_ID, NAME, VALUE)."
        raise _not_in_doubt(step, "the step waits for a signal", deliver)
    await record_answer(run, step, answer, value, mode)


async def record_answer(run: RunHandle, step: Step, answer: str, value: Any, mode: CallMode) -> None:
    """Record the answer about a step whose call waits for it: see ``resolve_step``."""
    step_id = step.step_id
    if answer == "rerun":
        # The steps inside a step in doubt have finished and replay; of a step that is done, all run again.
        again = with_inner(run, step_id) if step.status is StepStatus.DONE else [step_id]
        await run.reset(again, mode)
        return
    if step.status not in (StepStatus.STARTED, StepStatus.FAILED):
        what = "is done" if step.status is StepStatus.DONE else "will run at its next call"
        raise _not_in_doubt(step, f"the step is not in doubt: it {what}", ("To run it again: ", ResetStep()))
    await _record_outcome(run, step, answer, value, mode)


async def _record_outcome(run: RunHandle, step: Step, answer: str, value: Any, mode: CallMode) -> None:
    by = this_process()
    handle = StepHandle(
        Call(step.step_id, step.kind), _RESOLVED, step._replace(epoch=run.run.epoch, delivered_by=by)
    )
    if answer == "fail":
        failure = _given_up(step, by)
        if step.status is StepStatus.FAILED:
            failure.__cause__ = codec.decode_failure(await run.load(step, mode))
        await run.fail_step(handle, failure, mode)
        return
    with error_context(run_id=run.run_id, step=step.step_id):
        payload = codec.encode(value)
    await run.complete_step(handle, payload, mode, delivered_by=by)


async def find_step(run: RunHandle, step_id: str, mode: CallMode) -> Step:
    """Return a step as recorded.

    Raises:
        StepNotFound: The run has no step ``step_id``.
    """
    step = run.history.get(step_id)
    if step is None and not run.journal.whole_runs:
        step = await mode.store(run.journal.get_step(run.run_id, step_id))
    if step is None:
        known = ", ".join(step for step in run.history if not scope_of(step)) or "none yet"
        raise StepNotFound("no step of that name", run_id=run.run_id, step=step_id, remedy=f"Steps: {known}.")
    return run.history.setdefault(step_id, step)


def with_inner(run: RunHandle, step_id: str) -> list[str]:
    """Return the ids of a recorded step and of all inside it."""
    own = [step_id] if step_id in run.history else []
    return own + [step.step_id for step in run.history.inside(step_id)]


def _check_answer(answer: str, value: Any) -> None:
    if answer not in ANSWERS:
        raise InvalidOption(
            f"invalid answer {answer!r}: expected 'rerun', 'value' or 'fail'",
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
