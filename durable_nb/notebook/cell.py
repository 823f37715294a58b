"""Durable cells: replay a cell from its checkpoint, or execute it and commit one."""

from __future__ import annotations

import asyncio
import functools
import json
import shlex
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.concurrency.timeouts import deadline
from durable_nb.engine import branches, scopes
from durable_nb.engine.files import not_on_record, unrecorded
from durable_nb.engine.opened import Recording, current_recording
from durable_nb.errors import DurableError, StepNested, StepNotFound, StepNotSaved, error_context
from durable_nb.fingerprint.mentions import mentioned_files, module_of
from durable_nb.notebook import secret_names
from durable_nb.notebook.ambient import state as ambient
from durable_nb.notebook.display import badge, recorder
from durable_nb.notebook.lineage.compare import CellInputs, lineage_of
from durable_nb.notebook.lineage.reading import only_reads
from durable_nb.notebook.made_again import Made, Remaker
from durable_nb.notebook.namespace import restore, scan, snapshot
from durable_nb.notebook.namespace.pickling import check_stream
from durable_nb.notebook.namespace.save import save_names
from durable_nb.notebook.namespace.saved import SavedNames
from durable_nb.notebook.shell import execute as body
from durable_nb.records import Action, Call, Payload, StepKind
from durable_nb.workflow import awaitables
from durable_nb.workflow.perform import StepCodec, kept_result, perform

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller, StepHandle
    from durable_nb.notebook.session import Session
    from durable_nb.records import Step
    from durable_nb.workflow.retry import Policy

__all__ = ["CellOptions", "RestoredCell", "keep_interrupted", "restore_all", "restore_cell", "run_cell"]

FORMAT = "cell"
"""The format of a cell's checkpoint: a JSON header, with pickle streams and buffers as its parts."""

_RUN_OTHER_CODE = frozenset({"exec", "eval", "globals", "locals", "vars", "get_ipython"})
"""Names with which a cell changes names that its own code does not show."""


@dataclass(frozen=True, slots=True)
class CellOptions:
    """The options on the first line of a durable cell.

    Attributes:
        name: The step's name.
        policy: Retries, backoff and timeout of the body.
        on_edit: ``rerun``, ``keep``, ``ask`` or ``error``: what to do if the cell's code, or code that
            produced its inputs, was edited.
        once: Whether the body must never be started a second time without confirmation.
        on_drift: Likewise, if unchanged code produced other inputs, or files have changed.
        marked: Whether the cell has such a line.
        again: Whether an unmarked cell is executed a further time in one pass.
        live: What happens to names that cannot be kept: see ``made_again.LIVE``.
        exclude: Names that are left out of what is saved.
    """

    name: str
    policy: Policy
    on_edit: str
    once: bool = False
    on_drift: str = settings.CELL_ON_DRIFT
    marked: bool = True
    again: bool = False
    live: str = "keep"
    exclude: tuple[str, ...] = ()

    def call(self, step_id: str, source: str) -> Call:
        """Return the call record of the cell.

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
            again=self.again,
        )


async def run_cell(session: Session, options: CellOptions, source: str) -> None:
    """Replay a durable cell, or execute its body and commit its checkpoint.

    Args:
        session: The shell's session.
        options: The options on the cell's first line.
        source: The body, as typed.

    Raises:
        NoOpenRun: No run is open.
        StepNested: The cell is executed inside another durable cell.
        StepChanged: Another cell of the notebook uses the step's name, or the policy for edits is ``error``.
    """
    caller = session.caller(ASYNC)
    run = caller.run
    if scopes.current_scope() is not None:
        raise StepNested(
            "a durable cell cannot be nested in another durable cell",
            run_id=run.run_id,
            step=options.name,
            remedy="Move it to a cell of its own; inside a durable cell, use @wf.task.",
        )
    branches.install_task_factory(asyncio.get_running_loop())
    python = body.source_as_run(session.shell, source)
    call = options.call(scopes.Scope(caller.current).named_id(options.name), python)
    claim = session.claim_name(options.name, call.code or "", marked=options.marked)
    with claim, error_context(run_id=run.run_id, step=call.step_id):
        inputs = session.tracker.inputs_of(python, marked=options.marked)
        call = session.tracker.with_lineage(run, call, inputs, session.called_steps)
        session.made.pop(call.step_id, None)
        if run.decide(call)[2].action is not Action.REPLAY:
            remaker = Remaker(session.shell, session.badge, session.made, caller, session.tracker.origins)
            read = {*inputs.reads, *inputs.names}
            if remaker.missing(read):  # what is made again may be a task, which changes other names
                session.note_before(
                    snapshot.snapshot_names(session.shell.user_ns, session.shell.user_ns_hidden)
                )
            await remaker.make(read)
        session.made[call.step_id] = made = Made(python, options.live)
        kept = _CellCodec(session, caller.current.replays, inputs, made, options.exclude)
        execute = functools.partial(_limited, session.shell, source, options)
        await perform(caller, call, execute, options.policy, step_codec=kept)
        kept.show_badge()
        session.tracker.record_step(call.step_id, lineage_of(run.history[call.step_id]), inputs)


class _CellCodec(StepCodec):
    """Keeps what a durable cell did: its names, the ambient state it set, and its outputs.

    Args:
        session: The shell's session.
        replays: The ids of the calls that replay in this pass, in order.
        inputs: The names that the cell reads.
        made: The cell.
        exclude: Names that are left out of what is saved.
    """

    def __init__(
        self, session: Session, replays: list[str], inputs: CellInputs, made: Made, exclude: tuple[str, ...]
    ) -> None:
        self._session, self._shell, self._made, self._exclude = session, session.shell, made, exclude
        self._replays, self._inputs = replays, inputs
        self._names: tuple[str, ...] = ()
        self._unsaved: dict[str, str] = {}
        self._notices: list[str] = []
        self._untried, self._size = "", 0

    def notify(self, handle: StepHandle) -> None:
        """Do nothing: the badge says why the cell was replayed or ran again."""

    @contextmanager
    def executing(self, caller: Caller, handle: StepHandle) -> Iterator[None]:  # noqa: ARG002 - of its base
        """Record outputs, and what the cell changes, while its body is executed."""
        user_ns, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        self._reachable = scan.reachable_names(user_ns, self._inputs.mentioned.named)
        self._before = snapshot.snapshot_names(user_ns, hidden, self._reachable, self._session.large())
        marks = self._before.marks
        self._only_reads = bool(marks.large) and only_reads(self._made.source, user_ns, marks.plain)
        self._session.note_moved(self._before)
        self._state = ambient.snapshot_state()
        first_replay = len(self._replays)
        try:
            with recorder.Recorder.of(self._shell).recording() as self._recording, body.interruptible():
                yield
        except BaseException as stopped:
            interrupted = isinstance(stopped, KeyboardInterrupt)
            _show_stopped_badge(self._session, handle, self._before, interrupted=interrupted)
            if interrupted:
                self._note_made_paths()
                self._session.interrupted = functools.partial(
                    self._keep, handle, current_recording(), time.time()
                )
            raise
        self._note_made_paths()
        if handle.decision.notice:
            self._notices += _replayed_tasks(handle, self._replays[first_replay:])

    def _keep(self, handle: StepHandle, used: Recording | None, stopped_at: float) -> None:
        """Commit what the cell had made when it was interrupted, as its result."""
        session, step_id = self._session, handle.call.step_id
        with error_context(run_id=handle.step.run_id, step=step_id):
            payload = self.pack(handle, None)
            handle.step = handle.step if used is None else used.record_on(handle.step)
            run_blocking(session.caller(SYNC).complete(handle, payload, finished_at=stopped_at))
        self._notices.append("interrupted, and kept with what it had made by then")
        self.completed(handle)
        self.show_badge()
        session.tracker.record_step(step_id, lineage_of(handle.step), self._inputs)

    def _note_made_paths(self) -> None:
        """Note the files whose paths the cell has put together and bound to names."""
        user_ns, recording = self._shell.user_ns, current_recording()
        with suppress(Exception):  # raised by an object of the user's that was looked at
            for path in mentioned_files(user_ns[n] for n in self._inputs.mentioned.bound if n in user_ns):
                if recording is not None:
                    recording.note_afterwards(path)

    def mentioned(self, arguments: Mapping[str, Any] | None) -> Iterable[str]:  # noqa: ARG002 - a cell has none
        """Return the paths in the cell and among what it reads, and the files of modules behind its names."""
        user_ns = self._shell.user_ns
        read = [user_ns[name] for name in self._inputs.reads if name in user_ns]
        # Drift names the modules that the cell reads itself.
        return self._inputs.mentioned.paths | mentioned_files(read, map(module_of, read))

    def pack(self, handle: StepHandle, value: Any) -> Payload:  # noqa: ARG002 - what counts is what it changed
        """Return the checkpoint of a cell whose body has succeeded."""
        self._handle = handle
        user_ns, mentioned = self._shell.user_ns, self._inputs.mentioned
        state = self._state.changes(user_ns, mentioned.attributes)
        named = None if mentioned.named & _RUN_OTHER_CODE else {*mentioned.named, *self._reachable}
        changes = self._before.changes(
            user_ns, mentioned.bound, named, self._session.moved, only_reads=self._only_reads
        )
        self._session.note_saved(changes)
        lost, trial = self._session.tracker.origins.unsaved(), self._session.trial
        saved = save_names(
            user_ns,
            changes,
            self._recording.result,
            lost=lost,
            excluded=self._exclude,
            trial=trial,
            largest=self._session.largest_result(),
        )
        _check_awaited(saved.unsaved)
        lineage = self._session.tracker.lineage(handle.earlier, handle.call, self._inputs, changes, saved)
        handle.step = handle.step._replace(lineage=lineage.to_json())
        self._names, self._unsaved = changes.names, {**saved.unsaved, **state.unsaved}
        self._untried, self._size = saved.untried, saved.size
        undetected = _undetected_changes(self._session, self._before, changes, mentioned.named)
        secrets = secret_names.notices(self._session, handle.step, changes.names, self._unsaved)
        unbound = secret_names.unbound(self._exclude, changes.names)
        self._notices = [*undetected, *unbound, *secrets, *self._notices]
        return _payload(saved, state, self._recording.outputs)

    def completed(self, handle: StepHandle) -> None:
        """Have the badge say what is not on record, and that the database outgrows its disk."""
        further = unrecorded(handle.step)
        self._notices += [not_on_record(further)] if further else []
        self._notices += filter(None, [self._session.room.notice(self._size)])

    def unpack(self, caller: Caller, handle: StepHandle, payload: Payload) -> None:
        """Restore the names and the ambient state of a finished cell, and show its outputs."""
        self._handle = handle
        if handle.step.delivered_by is not None:
            self._show_answer(caller, handle, payload)
            return
        with recorder.unseen_ends(self._shell):
            restored = restore_cell(self._shell.user_ns, handle.step, payload)
        recorder.replay(self._shell, restored.outputs, result=restored.result)
        self._names, self._unsaved = restored.names, restored.unsaved
        kept = [name for name in self._exclude if name in restored.names]
        self._notices += secret_names.kept_before(self._session, handle.step, kept)

    def _show_answer(self, caller: Caller, handle: StepHandle, payload: Payload) -> None:
        """Show the result that a step was resolved with; the names that its body made are unknown."""
        value = super().unpack(caller, handle, payload)
        if value is not None:
            self._shell.displayhook(value)
        self._notices.append(f"resolved by hand by {handle.step.delivered_by}; no names were restored")

    def show_badge(self) -> None:
        """Show what was saved or restored; the step is committed by now."""
        session, handle = self._session, self._handle
        session.saved_names.update(set(self._names) - self._unsaved.keys())
        if handle.decision.notice:
            self._notices.append(_notice(handle))
        shown = (name for name in self._names if name not in self._unsaved and not _is_module(session, name))
        badge.show_cell(
            session.badge,
            run=handle.step.run_id,
            step=handle.step.step_id,
            replayed=handle.replayed,
            seconds=0.0 if handle.step.delivered_by else handle.step.seconds,
            names=tuple(shown),
            unsaved=self._unsaved,
            untried=self._untried,
            again=self._made.again(self._unsaved),
            notices=tuple(self._notices),
        )


class RestoredCell(NamedTuple):
    """The restored checkpoint of a durable cell.

    Attributes:
        names: The names that were bound.
        result: The cell's last value; NO_RESULT if it has none or it could not be saved.
        outputs: The recorded outputs.
        unsaved: Why other names and state were not restored.
    """

    names: tuple[str, ...]
    result: Any
    outputs: list[dict[str, Any]]
    unsaved: dict[str, str]


def restore_cell(user_ns: dict[str, Any], step: Step, payload: Payload) -> RestoredCell:
    """Restore the names and the ambient state of a finished cell, without displaying its outputs.

    Args:
        user_ns: The live namespace.
        step: The cell's step.
        payload: The step's result.

    Raises:
        StepNotRestored: A development version wrote the checkpoint; nothing is bound then.
    """
    header = json.loads(payload.data)
    saved = SavedNames.from_parts(header["namespace"], payload.parts)
    state = ambient.SavedState.from_parts(header["ambient"], payload.parts)
    _check_format(saved, state)
    failed = ambient.restore_state(user_ns, state, before_names=True)
    restored = restore.restore_names(user_ns, saved, step=step.step_id)
    failed |= restored.failed | ambient.restore_state(user_ns, state, before_names=False)
    unsaved = {**saved.unsaved, **state.unsaved, **failed}
    return RestoredCell(restored.names, restored.result, header["outputs"], unsaved)


def _check_awaited(unsaved: Mapping[str, str]) -> None:
    """Refuse to save a call without ``await`` as if it were a result."""
    for name, reason in unsaved.items():
        if awaitables.MISSING in reason:
            what = "its last value" if name == scan.RESULT else f"`{name}`"
            remedy = "Write `await` before the call, and run the cell again."
            raise StepNotSaved(f"cannot save {what}: {reason}", remedy=remedy)


def _check_format(saved: SavedNames, state: ambient.SavedState) -> None:
    for stream in (*(group.data for group in saved.groups), *state.pickled.values()):
        if not isinstance(stream, DurableError):
            check_stream(stream)


def restore_all(session: Session) -> tuple[set[str], dict[str, str]]:
    """Restore the checkpoints of all finished cells of the open run, oldest first, without running cells.

    Returns:
        The restored names, and why other names and state were not restored.

    Raises:
        NoOpenRun: No run is open.
    """
    caller = session.caller(SYNC)
    names, unsaved = set[str](), dict[str, str]()
    cells = [one for one in session.finished() if one.kind is StepKind.CELL and one.delivered_by is None]
    for step in sorted(cells, key=lambda one: one.recorded_seq):
        try:
            restored = restore_cell(session.shell.user_ns, step, run_blocking(caller.load(step)))
        except DurableError as error:  # a damaged step does not affect the others
            unsaved[f"step {step.step_id}"] = str(error.at(run_id=step.run_id, step=step.step_id))
            continue
        session.tracker.record_step(step.step_id, lineage_of(step), CellInputs())
        earlier = {name: why for name, why in unsaved.items() if name not in restored.names}
        unsaved = earlier | restored.unsaved
        names = names.union(restored.names) - restored.unsaved.keys()
    session.saved_names |= names
    return names, unsaved


def keep_interrupted(session: Session) -> None:
    """Commit what the durable cell that was just interrupted has made, as its result.

    Raises:
        NoOpenRun: No run is open.
        StepNotFound: The last cell was no durable cell that was interrupted.
    """
    run, keep = session.require_run(), session.keepable
    if keep is None:
        raise StepNotFound(
            "the last cell was no durable cell that was interrupted",
            run_id=run.run_id,
            remedy="Type %durable_keep directly after the interrupt, in a cell of its own.",
        )
    session.keepable = None
    keep()


def _payload(saved: SavedNames, state: ambient.SavedState, shown: list[Any]) -> Payload:
    described = {"namespace": saved.header(), "ambient": state.header(), "outputs": shown}
    try:
        header = json.dumps(described, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise StepNotSaved(f"cannot save the cell's outputs: they are not valid JSON ({error})") from error
    return Payload(FORMAT, header.encode(), parts=(*saved.parts, *state.parts))


def _undetected_changes(
    session: Session, before: snapshot.NamesSnapshot, changes: snapshot.Changes, named: Collection[str]
) -> list[str]:
    """Return notices about changes that may be missing from the checkpoint; once for an unpicklable name."""
    unseen = [name for name in changes.unseen if name in before.unseen and name in named]
    unseen = [name for name in unseen if not _is_from_package(session, name)]
    unreported = [
        name for name in unseen if name not in session.reported_unseen and name not in changes.names
    ]
    session.reported_unseen.update(unreported)
    notices = [
        f"{name} cannot be saved: any in-place changes to it are not in the checkpoint."
        for name in unreported
    ]
    skipped = [name for name in changes.skipped if not _is_from_package(session, name)]
    if skipped:
        budget = f"scan budget of {settings.SWEEP_BUDGET:g} s used up"
        notices.append(f"skipped ({budget}): {', '.join(skipped)}. In-place changes to them were not saved.")
    return notices


def _show_stopped_badge(
    session: Session, handle: StepHandle, before: snapshot.NamesSnapshot, *, interrupted: bool
) -> None:
    """Show the names that a cell had changed when it failed or was interrupted, which are not saved."""
    with suppress(Exception):  # the failure itself must be shown
        changes = before.changes(session.shell.user_ns)
        changed = (*changes.created, *changes.rebound, *changes.mutated, *changes.deleted)
        restorable = tuple(name for name in changed if name in session.saved_names)
        badge.show_stopped(
            session.badge,
            run=handle.step.run_id,
            step=handle.step.step_id,
            changed=changed,
            restorable=restorable,
            interrupted=interrupted,
        )


async def _limited(shell: Any, source: str, options: CellOptions) -> None:
    """Execute the body with a time limit for its synchronous code; `attempts` limits the time it awaits."""
    task, seconds = asyncio.current_task(), options.policy.timeout
    with nullcontext() if seconds is None else deadline(seconds, lambda: asyncio.current_task() is task):
        await body.execute(shell, source, marked=options.marked)


def _notice(handle: StepHandle) -> str:
    if not handle.replayed:
        return f"ran again: {handle.decision.reason}{kept_result(handle)}"
    again = f"%durable_reset {shlex.quote(handle.step.step_id)}"
    return f"replayed; {handle.decision.reason}; to run it again: {again}"


def _replayed_tasks(handle: StepHandle, replays: list[str]) -> list[str]:
    """Return a notice about the tasks that were replayed inside a cell that ran again."""
    name = handle.call.step_id
    inside = [each.removeprefix(f"{name}/") for each in replays if each.startswith(f"{name}/")]
    if not inside:
        return []
    again = f"%durable_reset {shlex.quote(name)}"
    return [f"steps replayed inside it: {badge.listed(inside)}; to run them again too: {again}"]


def _is_from_package(session: Session, name: str) -> bool:
    """Return whether a name is bound to a workflow, durable agent or the like, created again in every run."""
    module: str = type(session.shell.user_ns.get(name)).__module__
    return module.partition(".")[0] == __name__.partition(".")[0]


def _is_module(session: Session, name: str) -> bool:
    return isinstance(session.shell.user_ns.get(name), ModuleType)
