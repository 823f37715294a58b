"""Steps that the table says a person must be asked about: asked where one is, refused elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from durable_nb import fingerprint
from durable_nb.concurrency.bridge import SYNC
from durable_nb.engine import resolve
from durable_nb.errors import ResetStep, StepChanged, StepInDoubt
from durable_nb.records import Action
from durable_nb.signals import waiting
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import attached

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
    """Begin a step as ``RunHandle.begin_step`` does; where that is for a person to say, ask first.

    Raises:
        StepChanged: Its arguments or code changed, and nobody can be asked, or the answer was to give up.
        StepInDoubt: It was started and never finished, and nobody can be asked.
    """
    try:
        return await run.begin_step(call, mode, arguments)
    except (StepChanged, StepInDoubt) as refused:
        record = run.history.get(call.step_id)
        if record is None or run.decide(call).action is not Action.ASK or not _somebody_is_there(mode):
            raise
        prompt = _prompt(refused, run.decide(call), record, arguments)
        call = await _asked(run, call, record, prompt, mode)
    return await run.begin_step(call, mode, arguments)


def _somebody_is_there(mode: CallMode) -> bool:
    present = attached()
    return present is not None and present.can_prompt(blocking=mode is SYNC)


def _prompt(
    refused: StepChanged | StepInDoubt, decision: Decision, record: Step, arguments: Mapping[str, Any] | None
) -> str:
    if isinstance(refused, StepInDoubt):
        return refused.what
    if record.arguments_repr and arguments:
        return (
            f"{decision.reason} ({fingerprint.explain(record.arguments_repr, fingerprint.show(arguments))})"
        )
    return decision.reason


async def _asked(run: RunHandle, call: Call, record: Step, prompt: str, mode: CallMode) -> Call:
    """Record what a person says; gives the call as it stands then."""
    in_doubt = run.decide(call).error is StepInDoubt
    name = _question_name(call, record)
    choices = (_AGAIN, _DONE, _GIVE_UP) if in_doubt else (_AGAIN, _KEEP, _GIVE_UP)
    question = waiting.Question(name, f"step {call.step_id!r}: {prompt}", Accepted(choices=choices))
    said = await waiting.wait_for_answer(run, question, mode)
    if said.value == _KEEP:  # the answer is in the store, and holds for this very change alone
        return call._replace(on_edit="keep", on_drift="keep", on_change="keep")
    if said.value == _GIVE_UP and not in_doubt:
        raise StepChanged(
            f"{prompt}, and it was given up by {said.by}",
            run_id=run.run_id,
            step=call.step_id,
            remedy=("To run it again all the same: ", ResetStep()),
        )
    value = None
    if said.value == _DONE:
        question = waiting.Question(f"{name} value", "What did it give, as JSON?", Accepted(Any))
        value = (await waiting.wait_for_answer(run, question, mode)).value
    await resolve.record_answer(run, record, _ANSWERS[said.value], value, mode)
    return call


def _question_name(call: Call, record: Step) -> str:
    """Equal for the same doubt alone: an answer about another attempt or another change is none to this."""
    changed = call.code, call.arguments, call.edit, call.drift
    about = fingerprint.value((changed, record.attempt, record.recorded_seq)) or ""
    return f"step {call.step_id} {about[:8]}"
