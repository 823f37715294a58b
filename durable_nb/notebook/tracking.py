"""Follow the cells of one shell: where each name comes from, what a durable cell reads, what it gave."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import xxhash

from durable_nb import fingerprint
from durable_nb.notebook import drift, frontend
from durable_nb.notebook.names import Mentioned, mentioned, outer_reads, parse
from durable_nb.notebook.provenance import Chain, Origins, Reads, Source, difference, step_source
from durable_nb.notebook.statements import Statement, statements
from durable_nb.records import Call, Step, StepKind, StepStatus, scope_of

if TYPE_CHECKING:
    from durable_nb.engine.run import OpenRun
    from durable_nb.notebook.namespace import Changes, Saved

__all__ = [
    "Seen",
    "Tracker",
    "downstream",
    "look",
    "reads_of",
    "renamed",
    "sources",
    "with_changes",
]

_DURABLE: Final = re.compile(r"^(await )?get_ipython\(\)\.run_cell_magic\('durable_step'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a durable cell would read now.

    Attributes:
        body: Its statements.
        names: Where the names that it reads come from.
        values: Fingerprints of the small ones among their values.
        cell: The cell's id, where the front end told it.
        mentioned: What its code mentions.
    """

    body: tuple[Statement, ...] = ()
    names: Mapping[str, Chain] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    cell: str | None = None
    mentioned: Mentioned = field(default_factory=Mentioned)


def look(origins: Origins, source: str, user_ns: Mapping[str, Any], cell: str | None = None) -> Seen:
    """See what a durable cell reads.

    Args:
        origins: Where names come from now.
        source: The cell's Python.
        user_ns: The namespace; empty where nothing is executed.
        cell: The cell's id, where the front end told it.
    """
    tree = parse(source)
    direct = outer_reads(tree)
    names = origins.of(sorted(direct))
    values = drift.small_values(user_ns, _judged_by_value({*direct, *names}, names))
    return Seen(tuple(statements(tree)), names, values, cell, mentioned(tree))


def _judged_by_value(reads: Iterable[str], names: Mapping[str, Chain]) -> Iterator[str]:
    # What a step gave has a version, which says more.
    return (name for name in reads if not names.get(name) or not names[name][-1].step)


def reads_of(record: Step) -> Reads:
    """What a recorded cell read and gave; nothing where that was not recorded."""
    return Reads.from_json(record.reads) if record.reads else Reads(record.step_id)


def with_changes(call: Call, record: Step | None, seen: Seen) -> Call:
    """Put into a call how what it reads differs from what is on record."""
    if record is None or not record.reads:
        return call
    recorded = reads_of(record)
    own = {name for name, chain in seen.names.items() if any(call.step_id in one.steps for one in chain)}
    moved = [name for name in drift.drifted(recorded.values, seen.values) if name not in own]
    # What nothing gives now may be in a cell that was not executed; to run would be a NameError.
    moved += [name for name in recorded.names if name not in seen.names and name not in moved]
    edit = difference(recorded, seen.names, call.step_id)
    return call._replace(edit=edit, drift=", ".join(f"`{name}`" for name in moved))


def renamed(run: OpenRun, call: Call, seen: Seen, gone: Callable[[Step], bool]) -> str:
    """The id of a recorded cell that is gone and has a call's code and reads; empty if there is none.

    Args:
        run: The run.
        call: The call of a cell that is not on record.
        seen: What it reads.
        gone: Whether a step's cell is known to be gone.
    """
    cells = [step for step in run.history.values() if step.kind is StepKind.CELL and step.reads]
    known = [reads_of(step).known_as for step in cells]
    for step in cells:
        same = step.status is StepStatus.DONE and step.code == call.code and not scope_of(step.step_id)
        only = known.count(reads_of(step).known_as) == 1  # else it has been renamed before
        if same and only and gone(step) and not difference(reads_of(step), seen.names, step.step_id):
            return step.step_id
    return ""


def downstream(run: OpenRun, step_id: str) -> list[str]:
    """The ids of the recorded cells that read what a step gave, or what such a cell gave in turn."""
    reads = {step.step_id: reads_of(step) for step in run.history.values() if step.reads}
    start = reads.get(step_id, Reads(step_id)).known_as
    reached, found = {start}, list[str]()
    grown = True
    while grown:
        more = [
            name
            for name, each in reads.items()
            if name not in found
            and name != step_id
            and not reached.isdisjoint(source.step for source in each.sources())
        ]
        found += more
        reached |= {reads[name].known_as for name in more}
        grown = bool(more)
    return found


def sources(step_id: str, reads: Reads, seen: Seen) -> dict[str, Source]:
    """Where the names come from that a durable step gave."""
    steps = {step_id, *(step for chain in seen.names.values() for one in chain for step in one.steps)}
    later = {name: statement.later for statement in seen.body for name in statement.binds}
    return {
        name: step_source(
            step_id,
            reads.known_as,
            version,
            steps=frozenset(steps),
            later=later.get(name, frozenset()),
            imports=version.startswith(_MODULE),
        )
        for name, version in reads.gave.items()
    }


class Tracker:
    """Follows the cells of one shell.

    Args:
        shell: The IPython shell; the cells that it has executed before are taken in.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.origins = Origins()
        self._count = itertools.count()
        for raw in shell.user_ns.get("In", [])[1:-1]:
            self._take_in(raw, lambda statement: statement.may_change)

    def ran(self, result: Any) -> None:
        """Take in an ordinary cell after it was executed: a ``post_run_cell`` callback."""
        info = result.info
        if info is None or result.error_before_exec is not None:
            return
        line = _failed_at(result.error_in_exec, self.shell.user_ns)
        self._take_in(info.raw_cell, lambda statement: self._changed(statement, result), line)

    def look(self, source: str) -> Seen:
        """See what a durable cell reads.

        Args:
            source: The cell's Python.
        """
        return look(self.origins, source, self.shell.user_ns, frontend.cell_id(self.shell))

    def call(self, run: OpenRun, call: Call, seen: Seen, called: Iterable[str]) -> Call:
        """Put into a call what became of all that it reads, and whether it was renamed.

        Args:
            run: The run.
            call: The call.
            seen: What its cell reads.
            called: The steps that were called in this pass.
        """
        if call.step_id not in run.history:
            call = call._replace(
                renamed=renamed(run, call, seen, self._gone(call.step_id, seen, set(called)))
            )
        return with_changes(call, run.history.get(call.step_id) or run.history.get(call.renamed), seen)

    def gave(self, record: Step | None, call: Call, seen: Seen, changes: Changes, saved: Saved) -> Reads:
        """What is to be kept with the checkpoint of a cell that was executed.

        Args:
            record: What was on record.
            call: The call.
            seen: What the cell read.
            changes: What it did to the namespace.
            saved: What of that is saved.
        """
        own = tuple(n for n, chain in seen.names.items() if any(call.step_id in one.steps for one in chain))
        changed = (*changes.created, *changes.rebound, *changes.mutated)
        written = [name for name in changed if name in self.shell.user_ns]  # pyplot's figures have no name
        bound = {name: one.code for one in seen.body for name in one.binds}
        return Reads(
            known_as=reads_of(record).known_as if record else call.step_id,
            names={name: chain for name, chain in seen.names.items() if name not in own},
            own=own,
            values=seen.values,
            gave={name: self._version(name, saved, bound, call.code or "") for name in written},
            deleted=changes.deleted,
            cell=seen.cell,
        )

    def wrote(self, step_id: str, reads: Reads, seen: Seen) -> None:
        """Take in a durable cell that was executed or replayed."""
        self.origins.write(sources(step_id, reads, seen), reads.deleted)

    def _take_in(self, raw: str, changes: Callable[[Statement], bool], line: int | None = None) -> None:
        try:
            source = self.shell.transform_cell(raw)
        except SyntaxError:
            return
        if _DURABLE.search(source):
            return
        executed = [each for each in statements(parse(source)) if line is None or each.end < line]
        last = executed[-1:] if line is None else []
        self.origins.execute(
            self._cell(source), executed, lambda statement: statement not in last or changes(statement)
        )

    def _cell(self, source: str) -> str:
        # Where nobody executes a cell twice, equal cells are two; elsewhere it is one executed again.
        own = f"#{next(self._count)}" if frontend.is_headless(self.shell) else fingerprint.source(source)
        return frontend.cell_id(self.shell) or own

    def _changed(self, statement: Statement, result: Any) -> bool:
        """Whether the method call that ends a cell changed its object: if it gave nothing, or itself."""
        if statement.may_change or statement.looked_at is None:
            return True
        if self.shell.displayhook.semicolon_at_end_of_expression(result.info.raw_cell):
            return False
        return result.result is None or result.result is self.shell.user_ns.get(statement.looked_at)

    def _gone(self, name: str, seen: Seen, called: set[str]) -> Callable[[Step], bool]:
        file = frontend.notebook_file()
        names = frontend.durable_names(frontend.code_cells(file)) if file else set()

        def gone(step: Step) -> bool:
            if step.step_id in called:
                return False
            in_place = seen.cell is not None and reads_of(step).cell == seen.cell
            return in_place or (name in names and step.step_id not in names)

        return gone

    def _version(self, name: str, saved: Saved, bound: Mapping[str, str], code: str) -> str:
        value = self.shell.user_ns[name]
        if name in saved.unsaved:
            return f"unsaved:{code}"
        kind = type(value)  # a placeholder's __class__ raises
        if kind is ModuleType:
            return f"{_MODULE}{value.__name__}"
        if issubclass(kind, FunctionType | type) and name in bound:
            return bound[name]
        return drift.portable(name, value) or _stored(name, saved)


_MODULE: Final = "module:"


def _stored(name: str, saved: Saved) -> str:
    """Fingerprint what a name is stored as, with those that share objects with it."""
    found = xxhash.xxh3_128()
    for group in saved.groups:
        if name in group.names:
            for part in (group.data, *group.buffers):
                found.update(cast("bytes", part))  # nothing is lost of what was just saved
    return found.hexdigest()


def _failed_at(error: BaseException | None, user_ns: dict[str, Any]) -> int | None:
    """The line of a cell at which it failed; 0 if that is not known."""
    if error is None:
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is not user_ns:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0
