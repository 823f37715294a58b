"""A durable cell: the same hops as a task, from its call to its checkpoint."""

from __future__ import annotations

import asyncio
import functools
import shlex
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from durable_nb import codec, fingerprint, scopes, settings
from durable_nb.attempts import attempts, is_ours
from durable_nb.codec import bundle
from durable_nb.deadline import deadline
from durable_nb.errors import StepNested, located
from durable_nb.loop import AWAITING
from durable_nb.notebook import body, namespace, outputs, view
from durable_nb.notebook.tracking import reads_of
from durable_nb.records import Call, Payload, StepKind, StepStatus

if TYPE_CHECKING:
    from durable_nb.attempts import Policy
    from durable_nb.engine import Begun, OpenRun
    from durable_nb.notebook.session import Session
    from durable_nb.notebook.tracking import Seen

__all__ = ["CellOptions", "run_cell"]

FORMAT = "cell"


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
    scopes.install_task_factory(asyncio.get_running_loop())
    python = body.source_as_run(session.shell, source)
    call = options.call(scopes.Scope(run).named_id(options.name), python)
    with session.named(options.name, call.code or ""), located(run_id=run.run_id, step=call.step_id):
        seen = session.tracker.look(python)
        begun = await run.begin_step(session.tracker.call(run, call, seen, session.called), AWAITING)
        if begun.replayed:
            await _replay(session, run, begun)
        else:
            await _execute(session, run, begun, source, options, seen)
        session.tracker.wrote(call.step_id, reads_of(run.history[call.step_id]), seen)


async def _replay(session: Session, run: OpenRun, begun: Begun) -> None:
    payload = await run.load(begun.step, AWAITING)
    if begun.step.delivered_by is not None:
        _replay_answer(session, begun, payload)
        return
    header, parts = bundle.unpack(payload.data)
    saved = namespace.Saved.from_parts(header["namespace"], parts)
    restored = namespace.restore(session.shell.user_ns, saved, step=begun.step.step_id)
    outputs.replay(session.shell, header["outputs"], result=restored.result)
    _show(session, begun, begun.step.seconds, restored.names, {**saved.unsaved, **restored.failed})


def _replay_answer(session: Session, begun: Begun, payload: Payload) -> None:
    """Give back what a person said that the cell gave; which names it made, nobody knows."""
    if begun.step.status is StepStatus.FAILED:
        raise codec.decode_failure(payload)
    value = codec.decode(payload)
    if value is not None:
        session.shell.displayhook(value)
    _show(session, begun, 0.0, (), {}, notice=f"resolved by hand, by {begun.step.delivered_by}: no names")


async def _execute(
    session: Session, run: OpenRun, begun: Begun, source: str, options: CellOptions, seen: Seen
) -> None:
    record = run.history.get(begun.call.step_id)
    user_ns = session.shell.user_ns
    before = namespace.take(user_ns, session.shell.user_ns_hidden)
    with outputs.Recorder.of(session.shell).recording() as recording, body.interruptible():
        execute = functools.partial(_limited, session.shell, source, options.policy.timeout)
        try:
            await attempts(run, begun, execute, options.policy, AWAITING)
        except Exception as failure:
            if not is_ours(failure):
                await run.fail_step(begun, failure, AWAITING)
            raise
    changes = before.changes(user_ns, body.assigned_names(session.shell, source))
    saved = namespace.save(user_ns, changes, result=recording.result)
    header = {"namespace": saved.header(), "outputs": recording.outputs}
    reads = session.tracker.gave(record, begun.call, seen, changes, saved)
    begun.step = replace(begun.step, reads=reads.to_json())
    step = await run.complete_step(begun, Payload(FORMAT, bundle.pack(header, saved.parts)), AWAITING)
    _show(session, begun, step.seconds, changes.names, saved.unsaved)


async def _limited(shell: Any, source: str, seconds: float | None) -> None:
    """Execute the body; waiting is limited where every body's is, plain code in between has to be here."""
    task = asyncio.current_task()
    with nullcontext() if seconds is None else deadline(seconds, lambda: asyncio.current_task() is task):
        await body.execute(shell, source)


def _show(
    session: Session,
    begun: Begun,
    seconds: float,
    names: tuple[str, ...],
    unsaved: dict[str, str],
    notice: str = "",
) -> None:
    if begun.decision.notice:
        notice = f"run again: {begun.decision.reason}"
    if begun.decision.notice and begun.replayed:
        again = f"%durable_reset {shlex.quote(begun.step.step_id)}"
        notice = f"replayed; {begun.decision.reason}; to run it again: {again}"
    view.show_cell(
        session.badge,
        run=begun.step.run_id,
        step=begun.step.step_id,
        replayed=begun.replayed,
        seconds=seconds,
        names=tuple(name for name in names if name not in unsaved and not _is_module(session, name)),
        unsaved=unsaved,
        notice=notice,
    )


def _is_module(session: Session, name: str) -> bool:
    return isinstance(session.shell.user_ns.get(name), ModuleType)
