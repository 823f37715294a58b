"""A durable cell: the same hops as a task, from its call to its checkpoint."""

from __future__ import annotations

import asyncio
import functools
import json
import shlex
from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from durable_nb import codec, fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.concurrency.timeouts import deadline
from durable_nb.engine import branches, scopes
from durable_nb.errors import DurableError, StepNested, StepNotSaved, error_context
from durable_nb.notebook.ambient import state as ambient
from durable_nb.notebook.display import badge, recorder
from durable_nb.notebook.lineage.compare import CellInputs, lineage_of
from durable_nb.notebook.namespace import scan, snapshot
from durable_nb.notebook.shell import execute as body
from durable_nb.records import Call, Payload, StepKind, StepStatus
from durable_nb.signals import in_doubt
from durable_nb.workflow.retry import attempts, is_ours

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle, StepHandle
    from durable_nb.notebook.session import Session
    from durable_nb.records import Step
    from durable_nb.workflow.retry import Policy

__all__ = ["CellOptions", "RestoredCell", "restore", "restore_all", "run_cell"]

FORMAT = "cell"
"""The format of a checkpoint: a header in JSON, and the names' streams and buffers as its parts."""


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What stands on the first line of a durable cell.

    Attributes:
        name: The step's name.
        policy: How the body is executed.
        on_edit: What to do when its code or that of what it reads changed: rerun, keep, ask or error.
        once: Whether the body must never be started twice unasked.
        on_drift: What to do when what it reads has another value from the same code: likewise.
    """

    name: str
    policy: Policy
    on_edit: str
    once: bool = False
    on_drift: str = settings.CELL_ON_DRIFT

    def call(self, step_id: str, source: str) -> Call:
        """The call of the cell.

        Args:
            step_id: The step's id.
            source: The cell's Python.
        """
        return Call(
            step_id,
            StepKind.CELL,
            code=fingerprint.source(source),
            on_edit=self.on_edit,
            on_drift=self.on_drift,
            once=self.once,
        )


async def run_cell(session: Session, options: CellOptions, source: str) -> None:
    """Replay a durable cell, or execute its body and commit what it did.

    Raises:
        NoOpenRun: There is no open run.
        StepNested: It stands inside another durable cell.
    """
    run = session.require_run()
    if scopes.current() is not None:
        raise StepNested(
            "a durable cell cannot stand inside another",
            run_id=run.run_id,
            step=options.name,
            remedy="Give it a cell of its own; inside a durable cell, use @wf.task.",
        )
    branches.install_task_factory(asyncio.get_running_loop())
    python = body.source_as_run(session.shell, source)
    call = options.call(scopes.Scope(run).named_id(options.name), python)
    with session.named(options.name, call.code or ""), error_context(run_id=run.run_id, step=call.step_id):
        inputs = session.tracker.inputs_of(python)
        call = session.tracker.with_lineage(run, call, inputs, session.called)
        handle = await in_doubt.begin_or_ask(run, call, ASYNC)
        if handle.replayed:
            await _replay(session, run, handle)
        else:
            await _execute(session, run, handle, source, options, inputs)
        session.tracker.record_step(call.step_id, lineage_of(run.history[call.step_id]), inputs)


async def _replay(session: Session, run: RunHandle, handle: StepHandle) -> None:
    payload = await run.load(handle.step, ASYNC)
    if handle.step.delivered_by is not None:
        _replay_answer(session, handle, payload)
        return
    restored = restore(session.shell.user_ns, handle.step, payload)
    recorder.replay(session.shell, restored.outputs, result=restored.result)
    session.on_record.update(restored.names)
    _show(session, handle, handle.step.seconds, restored.names, restored.unsaved)


class RestoredCell(NamedTuple):
    """What came back of a durable cell.

    Attributes:
        names: The names that are bound again.
        result: The cell's last value; NO_RESULT if it has none or could not be saved.
        outputs: What it displayed, to be displayed again.
        unsaved: Why other names and state did not come back.
    """

    names: tuple[str, ...]
    result: Any
    outputs: list[dict[str, Any]]
    unsaved: dict[str, str]


def restore(user_ns: dict[str, Any], step: Step, payload: Payload) -> RestoredCell:
    """Put back the names and the ambient state of a finished cell; runs and shows nothing.

    Args:
        user_ns: The live namespace.
        step: The cell's step.
        payload: Its result.
    """
    header = json.loads(payload.data)
    saved = snapshot.SavedNames.from_parts(header["namespace"], payload.parts)
    state = ambient.SavedState.from_parts(header["ambient"], payload.parts)
    failed = ambient.restore_state(user_ns, state, before_names=True)
    restored = snapshot.restore_names(user_ns, saved, step=step.step_id)
    failed |= restored.failed | ambient.restore_state(user_ns, state, before_names=False)
    unsaved = {**saved.unsaved, **state.unsaved, **failed}
    return RestoredCell(restored.names, restored.result, header["outputs"], unsaved)


def _replay_answer(session: Session, handle: StepHandle, payload: Payload) -> None:
    """Give back what a person said that the cell gave; which names it made, nobody knows."""
    if handle.step.status is StepStatus.FAILED:
        raise codec.decode_failure(payload)
    value = codec.decode(payload)
    if value is not None:
        session.shell.displayhook(value)
    _show(session, handle, 0.0, (), {}, f"resolved by hand, by {handle.step.delivered_by}: no names")


def restore_all(session: Session) -> tuple[set[str], dict[str, str]]:
    """Put back what every finished cell of the open run made, oldest first; runs and shows nothing.

    Returns:
        The names, and why other names and state did not come back.

    Raises:
        NoOpenRun: There is no open run.
    """
    run = session.require_run()
    names, unsaved = set[str](), dict[str, str]()
    cells = [one for one in session.finished() if one.kind is StepKind.CELL and one.delivered_by is None]
    for step in sorted(cells, key=lambda one: one.recorded_seq):
        try:
            restored = restore(session.shell.user_ns, step, run_blocking(run.load(step, SYNC)))
        except DurableError as error:  # one damaged step keeps nobody else's names back
            unsaved[f"step {step.step_id}"] = str(error)
            continue
        session.tracker.record_step(step.step_id, lineage_of(step), CellInputs())
        earlier = {name: why for name, why in unsaved.items() if name not in restored.names}
        unsaved = earlier | restored.unsaved
        names = names.union(restored.names) - restored.unsaved.keys()
    session.on_record |= names
    return names, unsaved


async def _execute(
    session: Session,
    run: RunHandle,
    handle: StepHandle,
    source: str,
    options: CellOptions,
    inputs: CellInputs,
) -> None:
    record = run.history.get(handle.call.step_id)
    earlier = len(run.replays)
    user_ns = session.shell.user_ns
    before = snapshot.snapshot_names(
        user_ns, session.shell.user_ns_hidden, scan.reachable_names(user_ns, inputs.mentioned.named)
    )
    state = ambient.snapshot_state()
    with recorder.Recorder.of(session.shell).recording() as recording, body.interruptible():
        execute = functools.partial(_limited, session.shell, source, options.policy.timeout)
        try:
            await attempts(run, handle, execute, options.policy, ASYNC)
        except BaseException as failure:
            if isinstance(failure, Exception) and not is_ours(failure):
                await run.fail_step(handle, failure, ASYNC)
            _show_stopped(session, handle, before)
            raise
    state_saved = state.changes(user_ns, inputs.mentioned.attributes)
    changes = before.changes(user_ns, inputs.mentioned.bound)
    saved = snapshot.save_names(user_ns, changes, result=recording.result)
    reads = session.tracker.lineage(record, handle.call, inputs, changes, saved)
    handle.step = handle.step._replace(lineage=reads.to_json())
    step = await run.complete_step(handle, _payload(saved, state_saved, recording.outputs), ASYNC)
    unsaved = {**saved.unsaved, **state_saved.unsaved}
    session.on_record.update(set(changes.names) - unsaved.keys())
    notices = _unnoticed(session, before, changes, inputs.mentioned.named)
    if handle.decision.notice:
        notices += _replayed_inside(handle, run.replays[earlier:])
    _show(session, handle, step.seconds, changes.names, unsaved, *notices)


def _payload(saved: snapshot.SavedNames, state: ambient.SavedState, shown: list[Any]) -> Payload:
    described = {"namespace": saved.header(), "ambient": state.header(), "outputs": shown}
    try:
        header = json.dumps(described, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise StepNotSaved(f"what the cell displayed is not JSON ({error})") from error
    return Payload(FORMAT, header.encode(), parts=(*saved.parts, *state.parts))


def _unnoticed(
    session: Session, before: snapshot.NamesSnapshot, changes: snapshot.Changes, named: Collection[str]
) -> list[str]:
    """What a person must know of changes that the record may lack; of a name that cannot be seen, once."""
    unseen = [name for name in changes.unseen if name in before.unseen and name in named]
    unseen = [name for name in unseen if not _is_of_ours(session, name)]
    unreported = [
        name for name in unseen if name not in session.reported_unseen and name not in changes.names
    ]
    session.reported_unseen.update(unreported)
    lacking = "cannot be saved: if this cell changed it in place, that is not on record."
    notices = [f"{name} {lacking}" for name in unreported]
    if changes.skipped:
        listed = ", ".join(changes.skipped)
        notices.append(f"not looked at, for want of time: {listed}. What changed in them is not on record.")
    return notices


def _show_stopped(session: Session, handle: StepHandle, before: snapshot.NamesSnapshot) -> None:
    """Say what a cell that failed or was interrupted had changed by then; nothing of it is on record."""
    with suppress(Exception):  # the failure itself must be seen
        changes = before.changes(session.shell.user_ns)
        changed = (*changes.created, *changes.rebound, *changes.mutated, *changes.deleted)
        on_record = tuple(name for name in changed if name in session.on_record)
        badge.show_stopped(
            session.badge,
            run=handle.step.run_id,
            step=handle.step.step_id,
            changed=changed,
            on_record=on_record,
        )


async def _limited(shell: Any, source: str, seconds: float | None) -> None:
    """Execute the body; waiting is limited where every body's is, plain code in between has to be here."""
    task = asyncio.current_task()
    with nullcontext() if seconds is None else deadline(seconds, lambda: asyncio.current_task() is task):
        await body.execute(shell, source)


def _show(
    session: Session,
    handle: StepHandle,
    seconds: float,
    names: tuple[str, ...],
    unsaved: dict[str, str],
    *notices: str,
) -> None:
    if handle.decision.notice:
        notices = (*notices, _notice(handle))
    badge.show_cell(
        session.badge,
        run=handle.step.run_id,
        step=handle.step.step_id,
        replayed=handle.replayed,
        seconds=seconds,
        names=tuple(name for name in names if name not in unsaved and not _is_module(session, name)),
        unsaved=unsaved,
        notices=notices,
    )


def _notice(handle: StepHandle) -> str:
    if not handle.replayed:
        return f"run again: {handle.decision.reason}"
    again = f"%durable_reset {shlex.quote(handle.step.step_id)}"
    return f"replayed; {handle.decision.reason}; to run it again: {again}"


def _replayed_inside(handle: StepHandle, replays: list[str]) -> list[str]:
    """What a person must know of a cell that runs again, and of whose tasks some did not."""
    name = handle.call.step_id
    inside = [each.removeprefix(f"{name}/") for each in replays if each.startswith(f"{name}/")]
    if not inside:
        return []
    again = f"%durable_reset {shlex.quote(name)}"
    return [f"replayed in it, called as before: {badge.listed(inside)}; to run all of it again: {again}"]


def _is_of_ours(session: Session, name: str) -> bool:
    """Whether it is a workflow, a durable agent or the like, which every run makes anew."""
    module: str = type(session.shell.user_ns.get(name)).__module__
    return module.partition(".")[0] == __name__.partition(".")[0]


def _is_module(session: Session, name: str) -> bool:
    return isinstance(session.shell.user_ns.get(name), ModuleType)
