"""A durable cell: the same hops as a task, from its call to its checkpoint."""

from __future__ import annotations

import asyncio
import functools
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from durable_nb import codec, doubts, fingerprint, scopes
from durable_nb.attempts import attempts, is_ours
from durable_nb.codec import bundle
from durable_nb.deadline import deadline
from durable_nb.errors import StepNested, located
from durable_nb.loop import AWAITING
from durable_nb.notebook import body, namespace, outputs, view
from durable_nb.records import Call, Payload, StepKind, StepStatus

if TYPE_CHECKING:
    from durable_nb.attempts import Policy
    from durable_nb.engine import Begun, OpenRun
    from durable_nb.notebook.session import Session

__all__ = ["CellOptions", "run_cell"]

FORMAT = "cell"


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What stands on the first line of a durable cell.

    Attributes:
        name: The step's name.
        policy: How the body is executed.
        on_edit: What to do when the cell's own code changed: rerun, keep, ask or error.
        once: Whether the body must never be started twice unasked.
    """

    name: str
    policy: Policy
    on_edit: str
    once: bool = False


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
    code = fingerprint.source(body.source_as_run(session.shell, source))
    step_id = scopes.Scope(run).named_id(options.name)
    call = Call(step_id, StepKind.CELL, code=code, on_edit=options.on_edit, once=options.once)
    with session.named(options.name, code), located(run_id=run.run_id, step=call.step_id):
        begun = await doubts.begin_step(run, call, AWAITING)
        if begun.replayed:
            await _replay(session, run, begun)
        else:
            await _execute(session, run, begun, source, options)


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


async def _execute(session: Session, run: OpenRun, begun: Begun, source: str, options: CellOptions) -> None:
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
    although = "replayed although" if begun.replayed else "run again, since"
    if begun.decision.notice:
        notice = f"{although} {begun.decision.reason}"
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
