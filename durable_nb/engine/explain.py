"""What is said when a call is neither replayed nor run: why, since when, and what to type."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from durable_nb import fingerprint
from durable_nb.errors import DurableError, StepChanged, StepInDoubt
from durable_nb.records import Action, StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from durable_nb.records import Call, Decision, Step

__all__ = ["refusal"]


def refusal(
    decision: Decision, record: Step | None, call: Call, run_id: str, arguments: Mapping[str, Any] | None
) -> DurableError:
    """The error for a call that nobody can be asked about, or that is refused.

    Args:
        decision: What was decided.
        record: What is on record of the step.
        call: The call.
        run_id: The run.
        arguments: The call's arguments by name, to show what differs.
    """
    kind = decision.error or StepChanged
    what = decision.reason
    if kind is StepInDoubt:
        what += f" (started {_moment(record)}), and nobody knows whether it had its effect"
        return kind(what, run_id=run_id, step=call.step_id, remedy=_answers(run_id, call.step_id))
    if record is not None and record.shown and arguments:
        what += f" ({fingerprint.explain(record.shown, fingerprint.show(arguments))})"
    again = f"%durable_reset {shlex.quote(call.step_id)}"
    if decision.action is Action.ASK:
        what += ", and nobody can be asked whether to run it again"
        again = _either(run_id, call.step_id, "rerun")
    elsewhere = "to call it under another name: step_id='…'; to start the run over: fresh=True."
    if call.kind is StepKind.CELL:
        over = f"%durable_workflow {shlex.quote(run_id)} --fresh"
        elsewhere = f"to give it another name: %%durable_step OTHER; to start the run over: {over}"
    remedy = f"To run it again: {again}; {elsewhere}"
    return kind(what, run_id=run_id, step=call.step_id, remedy=remedy)


def _moment(record: Step | None) -> str:
    if record is None or not record.started_at:
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))


def _answers(run_id: str, step_id: str) -> str:
    magic, call = f"%durable_resolve {shlex.quote(step_id)}", f"wf.sync.resolve({run_id!r}, {step_id!r}, "
    return (
        f"If it had none: {magic} rerun; if it had: {magic} value EXPR; to give it up: {magic} fail. "
        f"In a script: {call}'rerun'), {call}'value', …) or {call}'fail'); "
        "in async code await wf.resolve(…)."
    )


def _either(run_id: str, step_id: str, answer: str) -> str:
    call = f"wf.sync.resolve({run_id!r}, {step_id!r}, {answer!r})"
    return f"%durable_resolve {shlex.quote(step_id)} {answer}, in a script {call}"
