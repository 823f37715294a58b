"""A person's answer about a step in doubt: that it shall run again, what it gave, or that it is given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.concurrency.pending import wait_for_pending
from durable_nb.engine.run import RunHandle, StepHandle
from durable_nb.errors import (
    InvalidOption,
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

__all__ = ["ANSWERS", "find_step", "inside", "record_answer", "recorded_run", "resolve"]

ANSWERS = ("rerun", "value", "fail")

_BY_HAND = Decision(Action.RUN, "it was resolved by hand")


async def recorded_run(journal: Journal, run_id: str, mode: CallMode) -> RunHandle:
    """A run as it is on record: not a new pass, nothing is taken over, writes come under its own epoch.

    Raises:
        RunNotFound: There is none of that id.
        RunHeld: Another living process has it open.
    """

    async def read() -> RunHandle:
        await journal.setup()
        try:
            await journal.check_owner(run_id)
        except RunHeld as held:
            held.remedy = ("Answer in that process: ", ResolveRerun(), "; or end it first.")
            raise
        snapshot = await journal.read_run(run_id)
        if snapshot is None:
            raise unknown_run(run_id, journal.address)
        return RunHandle(journal, snapshot.run, snapshot.steps)

    await wait_for_pending(mode)
    with error_context(run_id=run_id):
        return await mode.store(read())


async def resolve(run: RunHandle, step_id: str, answer: str, value: Any, mode: CallMode) -> None:
    """Record what a person says of a step that was started and never finished, or that failed.

    Args:
        run: The run.
        step_id: The step.
        answer: ``rerun``, ``value``: it succeeded, and gave that; ``fail``: it is given up.
        value: What it gave.
        mode: How the caller waits.

    Raises:
        InvalidOption: There is no such answer, or a value goes with another one.
        StepNotFound: The run has no such step.
        StepError: The step is done, or running.
        RunHeld: Somebody else has opened the run meanwhile.
        StepNotSaved: The value cannot be saved.
    """
    _check(answer, value)
    await wait_for_pending(mode)
    step = await find_step(run, step_id, mode)
    if step_id in run.claims:
        raise _not_in_doubt(step, "it is running now", "Wait until it ends.")
    if step.is_awaited:
        raise _not_in_doubt(step, "it waits for a signal", "Deliver that: wf.sync.complete(RUN_ID, NAME, …).")
    await record_answer(run, step, answer, value, mode)


async def record_answer(run: RunHandle, step: Step, answer: str, value: Any, mode: CallMode) -> None:
    """The same for a step whose call is waiting for the answer."""
    step_id = step.step_id
    if answer == "rerun":
        # Of a step in doubt, what had finished inside it replays; of one that is done, all runs again.
        again = inside(run, step_id) if step.status is StepStatus.DONE else [step_id]
        await run.reset(again, mode)
        return
    if step.status not in (StepStatus.STARTED, StepStatus.FAILED):
        what = "it is done" if step.status is StepStatus.DONE else "it will run at its next call anyway"
        raise _not_in_doubt(step, f"{what}, so that it is not in doubt", "To run it again: answer rerun.")
    await _settle(run, step, answer, value, mode)


async def _settle(run: RunHandle, step: Step, answer: str, value: Any, mode: CallMode) -> None:
    by = this_process()
    handle = StepHandle(
        Call(step.step_id, step.kind), _BY_HAND, step._replace(epoch=run.run.epoch, delivered_by=by)
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
    """One step as it is on record.

    Raises:
        StepNotFound: The run has none of that id.
    """
    step = run.history.get(step_id)
    if step is None and not run.journal.whole_runs:
        step = await mode.store(run.journal.get_step(run.run_id, step_id))
    if step is None:
        known = ", ".join(step for step in run.history if not scope_of(step)) or "none yet"
        raise StepNotFound("no such step", run_id=run.run_id, step=step_id, remedy=f"Steps: {known}.")
    return run.history.setdefault(step_id, step)


def inside(run: RunHandle, step_id: str) -> list[str]:
    """The ids of a step and of all inside it."""
    own = [step_id] if step_id in run.history else []
    return own + [step.step_id for step in run.history.inside(step_id)]


def _check(answer: str, value: Any) -> None:
    if answer not in ANSWERS:
        raise InvalidOption(f"{answer!r} is no answer", remedy=f"Answer {', '.join(ANSWERS)}.")
    if answer != "value" and value is not None:
        raise InvalidOption(f"a value does not go with {answer!r}", remedy="Answer value, and give it.")


def _not_in_doubt(step: Step, what: str, remedy: str) -> StepError:
    return StepError(what, run_id=step.run_id, step=step.step_id, remedy=remedy)


def _given_up(step: Step, by: str) -> StepFailed:
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return StepFailed(
        f"given up by hand on {when}, by {by}",
        run_id=step.run_id,
        step=step.step_id,
        remedy=("To run it again all the same: ", ResetStep()),
    )
