"""The decision table: whether a call replays its checkpoint, runs, or has to be asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_nb import fingerprint
from durable_nb.errors import InvalidOption, StepChanged, StepInDoubt
from durable_nb.records import Action, Decision, StepStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from durable_nb.records import Call, Step

__all__ = ["check_failure", "check_policy", "decide"]

_FIRST = Decision(Action.RUN, "first run")
_AGAIN = Decision(Action.RUN, "it was executed again")
_UNCHANGED = Decision(Action.REPLAY, "nothing changed")
_GIVEN_UP = Decision(Action.REPLAY, "it was given up by the user")
_CANCELLED = Decision(Action.REPLAY, "its caller cancelled it, and the run continued")
_CAUGHT = Decision(Action.REPLAY, "it failed, and the run continued after that")
_FINAL = Decision(Action.REPLAY, "it failed, and its failure is final")
_SHOWN_FILES = 3
_POLICIES = {"keep": Action.REPLAY, "rerun": Action.RUN, "ask": Action.ASK, "error": Action.REFUSE}


def check_policy(option: str, policy: str) -> str:
    """Return a policy that is valid.

    Args:
        option: The name of the option, such as ``on_edit``.
        policy: Its value.

    Raises:
        InvalidOption: The policy is none of ``keep``, ``rerun``, ``ask`` and ``error``.
    """
    if policy not in _POLICIES:
        raise InvalidOption(
            f"invalid {option}={policy!r}: expected 'keep', 'rerun', 'ask' or 'error'",
            remedy=f"For example: {option}='rerun'.",
        )
    return policy


def check_failure(policy: str) -> str:
    """Return a policy for recorded failures that is valid.

    Args:
        policy: Its value.

    Raises:
        InvalidOption: It is none of ``caught``, ``final`` and ``retry``.
    """
    if policy not in ("caught", "final", "retry"):
        raise InvalidOption(
            f"invalid failure={policy!r}: expected 'caught', 'final' or 'retry'",
            remedy="For example: failure='final'.",
        )
    return policy


def decide(record: Step | None, call: Call) -> Decision:
    """Decide whether a call runs or replays, from its record and the call alone.

    Args:
        record: The step as recorded under the call's id, or None.
        call: The call.

    Example:
        >>> decide(None, Call("load")).action
        <Action.RUN: 'run'>
    """
    if record is None:
        return _FIRST
    if call.again:
        return _AGAIN
    if record.status is StepStatus.DONE:
        return _decide_done(record, call)
    if record.status is StepStatus.RESET:
        return Decision(Action.RUN, "it was reset")
    if record.status is StepStatus.CANCELLED:
        return _decide_done(record, call, unchanged=_CANCELLED)
    if record.status is not StepStatus.STARTED:
        return _decide_failed(record, call)
    return _decide_unfinished(record, call, "it was started but never recorded as finished")


def _decide_failed(record: Step, call: Call) -> Decision:
    if record.delivered_by is not None:
        return _decide_done(record, call, unchanged=_GIVEN_UP)
    if call.failure == "final":
        return _decide_done(record, call, unchanged=_FINAL)
    if record.status is StepStatus.CAUGHT and call.failure != "retry":
        return _decide_done(record, call, unchanged=_CAUGHT)
    return _decide_unfinished(record, call, "it failed last time")


def _decide_unfinished(record: Step, call: Call, reason: str) -> Decision:
    if call.once or record.once:
        return Decision(Action.ASK, reason, error=StepInDoubt)
    return Decision(Action.RUN, reason)


def _decide_done(record: Step, call: Call, unchanged: Decision = _UNCHANGED) -> Decision:
    found = unchanged
    for policy, reason in _changes(record, call):
        changed = _decide_changed(policy, reason, call)
        # A policy that keeps the result in spite of one change decides nothing about another change.
        found = found if changed.action is Action.REPLAY and found.notice else changed
    return found


def _changes(record: Step, call: Call) -> Iterator[tuple[str, str]]:
    """Yield the policy and the reason for each change since the record was made.

    Drift means that the code is unchanged, but a value or a file that it reads is another.
    """
    if fingerprint.differ(record.code, call.code):
        yield call.on_edit, "its code changed"
    elif call.edit:
        yield call.on_edit, call.edit
    elif call.drift or call.files:
        yield call.on_drift, _drift(call)
    if fingerprint.differ(record.arguments, call.arguments):
        yield call.on_change, "its arguments changed"
    if record.step_id != call.step_id:
        yield "keep", f"it was called `{record.step_id}`"


def _drift(call: Call) -> str:
    parts = [f"drifted: {call.drift}"] if call.drift else []
    parts += call.files[:_SHOWN_FILES]
    rest = len(call.files) - _SHOWN_FILES
    if rest > 0:
        parts.append(f"and {rest} more {'file' if rest == 1 else 'files'}")
    return "; ".join(parts)


def _decide_changed(policy: str, reason: str, call: Call) -> Decision:
    action = _POLICIES[policy]
    if action is Action.RUN and call.once:
        action = Action.ASK
    return Decision(action, reason, notice=True, error=StepChanged, more=call.files[_SHOWN_FILES:])
