"""Calls that the decision table leaves to the user: asked where a prompter is, refused elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from durable_nb import fingerprint
from durable_nb.concurrency.bridge import SYNC
from durable_nb.engine import resolve
from durable_nb.errors import ResetStep, StepChanged, StepInDoubt
from durable_nb.records import Action
from durable_nb.signals import waiting
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import current_prompter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle
    from durable_nb.records import Call, Decision, Step

__all__ = ["begin_or_ask"]

_AGAIN, _KEEP, _DONE, _GIVE_UP = "run again", "keep", "it succeeded", "give up"
_ANSWERS: Final = {_AGAIN: "rerun", _DONE: "value", _GIVE_UP: "fail"}


async def begin_or_ask(
    run: RunHandle, call: Call, mode: CallMode, arguments: Mapping[str, Any] | None = None
) -> StepHandle:
    """Begin a step as ``RunHandle.begin_step`` does; if the decision is to ask, ask the user first.

    Args:
        run: The open run.
        call: The call.
        mode: How the caller waits.
        arguments: The arguments by name, to show which differ.

    Raises:
        StepChanged: The arguments or the code changed, and this session has no one to ask, or the user gave
            the step up.
        StepInDoubt: The step was started but never finished, and this session has no one to ask.
    """
    try:
        return await run.begin_step(call, mode, arguments)
    except (StepChanged, StepInDoubt) as refused:
        record = run.history.get(call.step_id)
        if record is None or run.decide(call).action is not Action.ASK or not _can_prompt(mode):
            raise
        prompt = _prompt_text(refused, run.decide(call), record, arguments)
        call = await _ask_user(run, call, record, prompt, mode)
    return await run.begin_step(call, mode, arguments)


def _can_prompt(mode: CallMode) -> bool:
    present = current_prompter()
    return present is not None and present.can_prompt(blocking=mode is SYNC)


def _prompt_text(
    refused: StepChanged | StepInDoubt, decision: Decision, record: Step, arguments: Mapping[str, Any] | None
) -> str:
    if isinstance(refused, StepInDoubt):
        return refused.what
    if record.arguments_repr and arguments:
        return (
            f"{decision.reason} ({fingerprint.explain(record.arguments_repr, fingerprint.show(arguments))})"
        )
    return decision.reason


async def _ask_user(run: RunHandle, call: Call, record: Step, prompt: str, mode: CallMode) -> Call:
    """Ask the user and record the answer; return the call as the answer changes it."""
    in_doubt = run.decide(call).error is StepInDoubt
    name = _question_name(call, record)
    choices = (_AGAIN, _DONE, _GIVE_UP) if in_doubt else (_AGAIN, _KEEP, _GIVE_UP)
    question = waiting.Question(name, f"step {call.step_id!r}: {prompt}", Accepted(choices=choices))
    answer = await waiting.wait_for_answer(run, question, mode)
    if answer.value == _KEEP:  # the answer is in the store, and applies to this change only
        return call._replace(on_edit="keep", on_drift="keep", on_change="keep")
    if answer.value == _GIVE_UP and not in_doubt:
        raise StepChanged(
            f"{prompt}, and the step was given up by {answer.by}",
            run_id=run.run_id,
            step=call.step_id,
            remedy=("To run it again nevertheless: ", ResetStep()),
        )
    value = None
    if answer.value == _DONE:
        question = waiting.Question(f"{name} value", "What did it return, as JSON?", Accepted(Any))
        value = (await waiting.wait_for_answer(run, question, mode)).value
    await resolve.record_answer(run, record, _ANSWERS[answer.value], value, mode)
    return call


def _question_name(call: Call, record: Step) -> str:
    """Return a name that is unique for the attempt and the change: an answer applies to these only."""
    changed = call.code, call.arguments, call.edit, call.drift
    about = fingerprint.value((changed, record.attempt, record.recorded_seq)) or ""
    return f"step {call.step_id} {about[:8]}"
