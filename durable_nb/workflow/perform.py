"""Performing a call: from the decision about it to its checkpoint."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.engine import opened
from durable_nb.engine.files import not_on_record, unrecorded
from durable_nb.errors import DurableNotice, ResetStep, ResolveEarlier, error_context
from durable_nb.records import Action, Call, StepKind, StepStatus
from durable_nb.signals import in_doubt
from durable_nb.workflow.retry import Policy, execute_with_retries, is_ours

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller, StepHandle
    from durable_nb.records import Payload

__all__ = ["VALUES", "StepCodec", "kept_result", "notify", "perform"]


class StepCodec:
    """Packs what a step keeps, and restores it: here, the value that its body returns."""

    def notify(self, handle: StepHandle) -> None:
        """Tell the user that a changed step was replayed, or that it runs again."""
        notify(handle)

    def executing(self, caller: Caller, handle: StepHandle) -> AbstractContextManager[object]:  # noqa: ARG002
        """Return a context manager in which the body is executed, with all its attempts."""
        return nullcontext()

    def mentioned(self, arguments: Mapping[str, Any] | None) -> Iterable[str]:  # noqa: ARG002
        """Return the paths of the files that a call mentions: here, none.

        Args:
            arguments: The call's arguments by name.
        """
        return ()

    def pack(self, handle: StepHandle, value: Any) -> Payload:  # noqa: ARG002
        """Return what is kept of a body that has returned ``value``.

        Raises:
            StepNotSaved: It cannot be saved.
        """
        return codec.encode(value)

    def pack_failure(self, handle: StepHandle, failure: Exception) -> Payload:  # noqa: ARG002
        """Return what is kept of a body that has failed."""
        return codec.encode_failure(failure)

    def completed(self, handle: StepHandle) -> None:
        """Tell the user what a step that is committed does not have on record."""
        further = unrecorded(handle.step)
        if further:
            where = f"run {handle.step.run_id!r}, step {handle.call.step_id!r}"
            warnings.warn(f"{where}: {not_on_record(further)}", DurableNotice, stacklevel=3)

    def unpack(self, caller: Caller, handle: StepHandle, payload: Payload) -> Any:  # noqa: ARG002
        """Restore what was kept, and return the value; raise the failure of a step that failed."""
        if handle.step.status in (StepStatus.FAILED, StepStatus.CAUGHT):
            raise codec.decode_failure(payload)
        return codec.decode(payload)


VALUES = StepCodec()
"""The codec of tasks."""


async def perform(
    caller: Caller,
    call: Call,
    body: Callable[[], Any],
    policy: Policy,
    arguments: Mapping[str, Any] | None = None,
    step_codec: StepCodec = VALUES,
) -> Any:
    """Return the result of a call: from its checkpoint, or from its body, whose result is then committed.

    Only the body is retried. Encoding and storing are outside of the loop, so that a value that cannot be
    saved, or a store that fails, never executes user code again.

    Args:
        caller: The caller.
        call: The call.
        body: The function to execute.
        policy: The retries and the timeout.
        arguments: The arguments by name, to show which differ.
        step_codec: What the step keeps.
    """
    caller.current.claim(call.step_id)
    try:
        with error_context(run_id=caller.run.run_id, step=call.step_id):
            handle = await caller.begin(call, arguments)
            while handle.decision.action is Action.ASK:
                handle = await in_doubt.ask(caller, handle, arguments)
            if handle.decision.notice:
                step_codec.notify(handle)
            if handle.replayed:
                payload = await caller.replay(handle)
                opened.include_replayed(handle.step)
                return step_codec.unpack(caller, handle, payload)
            policy.check_thread(caller.mode)
            with caller.noting_cancellation(handle):
                await caller.start(handle)
                mentioned = functools.partial(step_codec.mentioned, arguments)
                with opened.recording(caller.run.journal.address, mentioned) as used:
                    value = await _execute(caller, handle, body, policy, step_codec, used)
                payload = step_codec.pack(handle, value)
                handle.step = used.record_on(handle.step)
                await caller.complete(handle, payload)
            step_codec.completed(handle)
            return value
    finally:
        del caller.current.claims[call.step_id]


async def _execute(
    caller: Caller,
    handle: StepHandle,
    body: Callable[[], Any],
    policy: Policy,
    step_codec: StepCodec,
    used: opened.Recording,
) -> Any:
    with step_codec.executing(caller, handle):
        try:
            return await execute_with_retries(caller, handle.call, body, policy)
        except Exception as failure:
            if not is_ours(failure):
                payload = step_codec.pack_failure(handle, failure)
                if handle.call.kind is not StepKind.CELL:  # whose lineage is made when it succeeds
                    handle.step = used.record_on(handle.step)
                await caller.fail(handle, failure, payload=payload)
            raise


def kept_result(handle: StepHandle) -> str:
    """Return what to type for the result that a step had before it ran again; empty if none is kept."""
    if not handle.decision.kept:
        return ""
    back = ResolveEarlier(handle.step.run_id, handle.call.step_id)
    return f"; the result of attempt {handle.decision.kept} is kept, to take it back: {back}"


def notify(handle: StepHandle) -> None:
    """Warn that a changed step was replayed, or that it runs again, and say why."""
    run_id, step, reason = handle.step.run_id, handle.call.step_id, handle.decision.reason
    where = f"run {run_id!r}, step {step!r}"
    if handle.replayed:
        again = ResetStep(run_id, step)
        message = f"{where}: replayed although {reason}. To run it again: {again}"
    else:
        message = f"{where}: run again, since {reason}{kept_result(handle)}"
    warnings.warn(message, DurableNotice, stacklevel=3)
