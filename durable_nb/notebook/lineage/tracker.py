"""Follow the cells of one shell: the origin of each name, and the lineage of each durable cell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import xxhash

from durable_nb import fingerprint
from durable_nb.notebook.lineage import drift
from durable_nb.notebook.lineage.compare import (
    MODULE,
    CellInputs,
    former_id,
    inputs_of,
    lineage_of,
    step_sources,
    with_changes,
)
from durable_nb.notebook.lineage.names import parse
from durable_nb.notebook.lineage.origins import UNSAVED, Lineage, Origins
from durable_nb.notebook.lineage.statements import Statement, statements
from durable_nb.notebook.shell import frontend
from durable_nb.records import Call, Step

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle
    from durable_nb.notebook.namespace.saved import SavedNames
    from durable_nb.notebook.namespace.snapshot import Changes

__all__ = ["Tracker"]

_DURABLE: Final = re.compile(r"^(await )?get_ipython\(\)\.run_cell_magic\('durable_step'", re.MULTILINE)


class Tracker:
    """Follows the cells that one shell executes.

    Args:
        shell: The IPython shell; cells that it has already executed are recorded.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.origins = Origins()
        self._count = itertools.count()
        for raw in shell.user_ns.get("In", [])[1:-1]:
            self._record(raw, lambda statement: statement.may_change)

    def record_ordinary_cell(self, result: Any) -> None:
        """Record an ordinary cell after it was executed: a ``post_run_cell`` callback."""
        info = result.info
        if info is None or result.error_before_exec is not None:
            return
        line = _failed_line(result.error_in_exec, self.shell.user_ns)
        self._record(info.raw_cell, lambda statement: self._mutated_receiver(statement, result), line)

    def inputs_of(self, source: str, *, marked: bool = True) -> CellInputs:
        """Return the inputs of a durable cell, from its Python source."""
        cell = frontend.cell_id(self.shell)
        return inputs_of(self.origins, source, self.shell.user_ns, cell, marked=marked)

    def with_lineage(self, run: RunHandle, call: Call, inputs: CellInputs, called: Iterable[str]) -> Call:
        """Return a call with its former id, if the cell was renamed, and the changes of its inputs.

        Args:
            run: The run.
            call: The call.
            inputs: The inputs of its cell.
            called: The steps that were called in this pass.
        """
        if inputs.unmarked:
            begun = Lineage(call.step_id, cell=inputs.cell, unmarked=True)
            call = call._replace(lineage=begun.to_json())
        elif call.step_id not in run.history:
            is_gone = self._gone(call.step_id, inputs, set(called))
            call = call._replace(renamed=former_id(run, call, inputs, is_gone))
        record = run.history.get(call.step_id) or run.history.get(call.renamed)
        return with_changes(call, record, inputs, self.origins)

    def lineage(
        self, record: Step | None, call: Call, inputs: CellInputs, changes: Changes, saved: SavedNames
    ) -> Lineage:
        """Return the lineage to store with the checkpoint of a cell that was executed.

        Args:
            record: The step as it was recorded before, if it was.
            call: The call.
            inputs: The cell's inputs.
            changes: The cell's changes to the namespace.
            saved: Those changes as saved.
        """
        # What it changed in place, it has read, also where its code does not mention it.
        names = {**self.origins.of((*changes.mutated, *changes.along)), **inputs.names}
        own = {name for name, chain in names.items() if any(call.step_id in one.steps for one in chain)}
        known = lineage_of(record) if record is not None else Lineage(call.step_id)
        # What it reads from its own earlier execution is compared by what that one has read.
        names |= {name: known.names[name] for name in own if name in known.names}
        own -= known.names.keys()
        changed = (*changes.created, *changes.rebound, *changes.mutated)
        written = [name for name in changed if name in self.shell.user_ns]  # pyplot's figures have no name
        bound = {name: one.code for one in inputs.body for name in one.binds}
        return Lineage(
            known_as=known.known_as,
            names={name: chain for name, chain in names.items() if name not in own},
            own=tuple(sorted(own)),
            values=inputs.values,
            versions={name: self._version(name, saved, bound, call.code or "") for name in written},
            holds={name: held for name in written if (held := changes.scan.code_in(name))},
            deleted=changes.deleted,
            cell=inputs.cell,
            unmarked=inputs.unmarked,
            notebook=str(frontend.notebook_file() or ""),
        )

    def record_step(self, step_id: str, lineage: Lineage, inputs: CellInputs) -> None:
        """Record a durable cell that was executed or replayed."""
        self.origins.write(step_sources(step_id, lineage, inputs), lineage.deleted)

    def _record(self, raw: str, changes: Callable[[Statement], bool], line: int | None = None) -> None:
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
        # A headless run executes each cell once: equal sources are two cells, not one executed again.
        own = f"#{next(self._count)}" if frontend.is_headless(self.shell) else fingerprint.source(source)
        return frontend.cell_id(self.shell) or own

    def _mutated_receiver(self, statement: Statement, result: Any) -> bool:
        """Guess whether the method call that ends a cell mutated its receiver: it returned None or that."""
        if statement.may_change or statement.receiver is None:
            return True
        if self.shell.displayhook.semicolon_at_end_of_expression(result.info.raw_cell):
            return False
        return result.result is None or result.result is self.shell.user_ns.get(statement.receiver)

    def _gone(self, name: str, inputs: CellInputs, called: set[str]) -> Callable[[Step], bool]:
        file = frontend.notebook_file()
        names = frontend.durable_names(frontend.code_cells(file)) if file else set()

        def gone(step: Step) -> bool:
            if step.step_id in called:
                return False
            in_place = inputs.cell is not None and lineage_of(step).cell == inputs.cell
            return in_place or (name in names and step.step_id not in names)

        return gone

    def _version(self, name: str, saved: SavedNames, bound: Mapping[str, str], code: str) -> str:
        value = self.shell.user_ns[name]
        if name in saved.unsaved:
            return f"{UNSAVED}{code}"
        kind = type(value)  # a placeholder's __class__ raises
        if kind is ModuleType:
            return f"{MODULE}{value.__name__}"
        if issubclass(kind, FunctionType | type) and name in bound:
            return bound[name]
        return drift.portable(name, value) or _stored(name, saved)


def _stored(name: str, saved: SavedNames) -> str:
    """Fingerprint the saved bytes of a name, with those of the names that share objects with it."""
    found = xxhash.xxh3_128()
    for group in saved.groups:
        if name in group.names:
            for part in (group.data, *group.buffers):
                found.update(cast("bytes", part))  # parts that were just saved are never errors
    return found.hexdigest()


def _failed_line(error: BaseException | None, user_ns: dict[str, Any]) -> int | None:
    """Return the line at which a cell failed; 0 if that is unknown, None if the cell succeeded."""
    if error is None:
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is not user_ns:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0
