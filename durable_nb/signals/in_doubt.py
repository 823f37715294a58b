"""Calls that the decision table leaves to the user: asked where a prompter is, refused elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from durable_nb import fingerprint
from durable_nb.engine import resolve
from durable_nb.engine.explain import describe, refusal
from durable_nb.errors import ResetStep, StepChanged, StepInDoubt
from durable_nb.signals import waiting
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import current_prompter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from durable_nb.engine.caller import Caller, StepHandle
    from durable_nb.records import Call, Step

__all__ = ["ask"]

_AGAIN, _KEEP, _DONE, _GIVE_UP = "run again", "keep", "it succeeded", "give up"
_EARLIER = "take back its earlier result"
_ANSWERS: Final = {_AGAIN: "rerun", _DONE: "value", _GIVE_UP: "fail", _EARLIER: "earlier"}


async def ask(caller: Caller, handle: StepHandle, arguments: Mapping[str, Any] | None = None) -> StepHandle:
    """Ask the user about a step whose decision is to ask, and begin it again with the answer.

    Args:
        caller: The caller of the step.
        handle: The step, as ``Caller.begin`` returned it.
        arguments: The arguments by name, to show which differ.

    Raises:
        StepChanged: The arguments or the code changed, and this session has no one to ask, or the user gave
            the step up.
        StepInDoubt: The step was started but never finished, and this session has no one to ask.
    """
    call, decision, record = handle.call, handle.decision, handle.step
    prompter = current_prompter()
    if prompter is None or not prompter.can_prompt():
        raise refusal(decision, record, call, arguments)
    call = await _ask_user(caller, handle, describe(decision, record, arguments))
    return await caller.begin(call, arguments)


async def _ask_user(caller: Caller, handle: StepHandle, prompt: str) -> Call:
    """Ask the user and record the answer; return the call as the answer changes it."""
    call, record = handle.call, handle.step
    in_doubt = handle.decision.error is StepInDoubt
    name = _question_name(call, record)
    choices: tuple[str, ...] = (_AGAIN, _DONE if in_doubt else _KEEP, _GIVE_UP)
    choices += (_EARLIER,) if handle.decision.kept else ()
    question = waiting.Question(name, f"step {call.step_id!r}: {prompt}", Accepted(choices=choices))
    answer = await waiting.wait_for_answer(caller, question)
    if answer.value == _KEEP:  # the answer is in the store, and applies to this change only
        return call._replace(on_edit="keep", on_drift="keep", on_change="keep")
    if answer.value == _GIVE_UP and not in_doubt:
        raise StepChanged(
            f"{prompt}, and the step was given up by {answer.by}",
            run_id=record.run_id,
            step=call.step_id,
            remedy=("To run it again nevertheless: ", ResetStep()),
        )
    value = None
    if answer.value == _DONE:
        question = waiting.Question(f"{name} value", "What did it return, as JSON?", Accepted(Any))
        value = (await waiting.wait_for_answer(caller, question)).value
    await resolve.record_answer(caller, record, _ANSWERS[answer.value], value)
    return call


def _question_name(call: Call, record: Step) -> str:
    """Return a name that is unique for the attempt and the change: an answer applies to these only."""
    changed = (call.code, call.arguments, call.edit, call.drift, *call.files)
    about = fingerprint.value((changed, record.attempt, record.recorded_seq)) or ""
    return f"step {call.step_id} {about[:8]}"
