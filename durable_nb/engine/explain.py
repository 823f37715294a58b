"""The errors of calls that are neither replayed nor run: the reason, and what to type."""

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
    ResolveEarlier,
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

__all__ = ["describe", "refusal"]

_HOW_TO_RESOLVE = (
    *("If they did not: ", ResolveRerun(), "; if they did: ", ResolveValue(), "; to give the step up: "),
    *(ResolveFail(), "."),
)
_TAKE_BACK = (" To take back the result that it had before: ", ResolveEarlier(), ".")
_OVER = ("to start the run over: ", StartOver(), ".")


def refusal(
    decision: Decision, record: Step, call: Call, arguments: Mapping[str, Any] | None
) -> DurableError:
    """Return the error of a call that is refused, or that cannot be asked about in this session.

    Args:
        decision: The decision about the call.
        record: The step as recorded.
        call: The call.
        arguments: The call's arguments by name, to show which differ.
    """
    kind = decision.error or StepChanged
    what = describe(decision, record, arguments)
    if kind is StepInDoubt:
        resolve = (*_HOW_TO_RESOLVE, *_TAKE_BACK) if decision.kept else _HOW_TO_RESOLVE
        return kind(what, run_id=record.run_id, step=call.step_id, remedy=resolve)
    again: RemedyAction = ResetStep()
    if decision.action is Action.ASK:
        what += ", and this session has no one to ask whether to run it again"
        again = ResolveRerun()
    rename = RenameCell() if call.kind is StepKind.CELL else RenameStep()
    remedy = ("To run it again: ", again, "; to make it another step: ", rename, "; ", *_OVER)
    return kind(what, run_id=record.run_id, step=call.step_id, remedy=remedy)


def describe(decision: Decision, record: Step, arguments: Mapping[str, Any] | None) -> str:
    """Return why a call is neither replayed nor run, for people: the arguments of ``refusal``."""
    if decision.error is StepInDoubt:
        started = f"started at {_started_at(record)}"
        kept = f"; the result of attempt {decision.kept} is kept" if decision.kept else ""
        return f"{decision.reason} ({started}); its side effects may or may not have happened{kept}"
    if record.arguments_repr and arguments:
        now = fingerprint.show(arguments), record.arguments, fingerprint.arguments(arguments)
        difference = fingerprint.explain(record.arguments_repr, *now)
        return f"{decision.reason} ({difference})"
    return decision.reason


def _started_at(record: Step) -> str:
    if not record.started_at:
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))
