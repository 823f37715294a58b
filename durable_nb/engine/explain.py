"""What is said when a call is neither replayed nor run: why, since when, and what to type."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from durable_nb import fingerprint
from durable_nb.errors import (
    DurableError,
    RemedyAction,
    RenameCell,
    RenameStep,
    ResetStep,
    ResolveFail,
    ResolveRerun,
    ResolveValue,
    StartOver,
    StepChanged,
    StepInDoubt,
)
from durable_nb.records import Action, StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from durable_nb.records import Call, Decision, Step

__all__ = ["refusal"]

_ANSWERS = (
    *("If they did not: ", ResolveRerun(), "; if they did: ", ResolveValue(), "; to give the step up: "),
    *(ResolveFail(), "."),
)
_OVER = ("to start the run over: ", StartOver(), ".")


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
        what += f" (started {_moment(record)}); its side effects may or may not have happened"
        return kind(what, run_id=run_id, step=call.step_id, remedy=_ANSWERS)
    if record is not None and record.arguments_repr and arguments:
        what += f" ({fingerprint.explain(record.arguments_repr, fingerprint.show(arguments))})"
    again: RemedyAction = ResetStep()
    if decision.action is Action.ASK:
        what += ", and this session has no one to ask whether to run it again"
        again = ResolveRerun()
    rename = RenameCell() if call.kind is StepKind.CELL else RenameStep()
    remedy = ("To run it again: ", again, "; to make it another step: ", rename, "; ", *_OVER)
    return kind(what, run_id=run_id, step=call.step_id, remedy=remedy)


def _moment(record: Step | None) -> str:
    if record is None or not record.started_at:
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))
