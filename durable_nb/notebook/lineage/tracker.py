"""Follow the cells of one shell: where each name comes from, what a durable cell reads, what it gave."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import xxhash

from durable_nb import fingerprint
from durable_nb.notebook.lineage import drift
from durable_nb.notebook.lineage.compare import MODULE, Seen, look, reads_of, renamed, sources, with_changes
from durable_nb.notebook.lineage.names import parse
from durable_nb.notebook.lineage.origins import Origins, Reads
from durable_nb.notebook.lineage.statements import Statement, statements
from durable_nb.notebook.shell import frontend
from durable_nb.records import Call, Step

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle
    from durable_nb.notebook.namespace.snapshot import Changes, SavedNames

__all__ = ["Tracker"]

_DURABLE: Final = re.compile(r"^(await )?get_ipython\(\)\.run_cell_magic\('durable_step'", re.MULTILINE)


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

    def call(self, run: RunHandle, call: Call, seen: Seen, called: Iterable[str]) -> Call:
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

    def gave(self, record: Step | None, call: Call, seen: Seen, changes: Changes, saved: SavedNames) -> Reads:
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

    def _version(self, name: str, saved: SavedNames, bound: Mapping[str, str], code: str) -> str:
        value = self.shell.user_ns[name]
        if name in saved.unsaved:
            return f"unsaved:{code}"
        kind = type(value)  # a placeholder's __class__ raises
        if kind is ModuleType:
            return f"{MODULE}{value.__name__}"
        if issubclass(kind, FunctionType | type) and name in bound:
            return bound[name]
        return drift.portable(name, value) or _stored(name, saved)


def _stored(name: str, saved: SavedNames) -> str:
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
