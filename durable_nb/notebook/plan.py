"""Predict which cells "Run All" would replay and which it would run, without running the user's code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from durable_nb import fingerprint
from durable_nb.engine.status import one_line
from durable_nb.notebook.every_cell import UnmarkedSteps, is_ordinary
from durable_nb.notebook.lineage import names
from durable_nb.notebook.lineage.compare import (
    CellInputs,
    former_id,
    inputs_of,
    lineage_of,
    step_sources,
    with_changes,
)
from durable_nb.notebook.lineage.origins import Lineage, Origins
from durable_nb.notebook.lineage.statements import STAR, Statement, statements
from durable_nb.notebook.shell import frontend
from durable_nb.notebook.shell.durable_cells import magic_first
from durable_nb.notebook.shell.frontend import CodeCell
from durable_nb.records import Action, Step, StepKind, scope_of

if TYPE_CHECKING:
    from pathlib import Path

    from durable_nb.engine.run import RunHandle
    from durable_nb.notebook.cell import CellOptions

__all__ = ["GONE", "MAY_RUN", "Planned", "plan", "spell_plan"]

GONE: Final = "gone"
MAY_RUN: Final = "may run"
ORDINARY: Final = "runs"

_DURABLE: Final = re.compile(r"\s*%%durable_step\b(?!\?)(?P<line>[^\n]*)\n?(?P<body>.*)", re.DOTALL)
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class Planned:
    """The predicted action for one cell.

    Attributes:
        place: Number of the code cell in the notebook, from 1; 0 for a step whose cell was removed.
        step: The step's id; empty for an ordinary cell.
        action: ``replay``, ``run``, ``ask`` or ``refuse``; ``may run`` if it depends on another step's new
            result; ``runs`` for an ordinary cell, ``gone`` for a step whose cell was removed.
        reason: The reason, in one line.
    """

    place: int
    step: str
    action: str
    reason: str = ""


def plan(
    run: RunHandle,
    notebook: Path,
    *,
    parse: Callable[[str], CellOptions],
    transform: Callable[[str], str],
    every_cell: bool,
) -> list[Planned]:
    """Return the predicted action for each cell; drift of values is not predicted: they are not known yet.

    Args:
        run: The run.
        notebook: The notebook's file.
        parse: Parses the options on the first line of a durable cell.
        transform: Converts a cell to Python, as IPython does.
        every_cell: Whether cells without a magic are steps.

    Raises:
        InvalidOption: The file is not a notebook.
    """
    cells = frontend.code_cells(notebook)
    planner = _Planner(run, cells, parse, transform)
    planner.unmarked = UnmarkedSteps(run.history.values()) if every_cell else None
    planned = [planner.cell(place, cell) for place, cell in enumerate(cells, 1)]
    return [*planned, *planner.gone()]


def spell_plan(planned: Sequence[Planned]) -> str:
    """Return a plan as a table for a terminal."""
    steps = [one_line(each.step) for each in planned]
    width = max(map(len, steps), default=0)
    lines = [
        f"{each.place or '':>4}  {step:<{width}}  {each.action:<7}  {one_line(each.reason)}".rstrip()
        for each, step in zip(planned, steps, strict=True)
    ]
    return "\n".join(lines)


class _Planner:
    unmarked: UnmarkedSteps | None = None
    """The steps of the cells without a magic; None if these are no steps."""

    def __init__(
        self,
        run: RunHandle,
        cells: list[CodeCell],
        parse: Callable[[str], CellOptions],
        transform: Callable[[str], str],
    ) -> None:
        self._run = run
        self._placed = {cell.id for cell in cells if cell.id is not None}
        self._parse = parse
        self._transform = transform
        self._origins = Origins()
        self._names = frontend.durable_names(cells)
        self._codes: dict[str, str | None] = {}
        self._taken: set[str] = set()
        self._unsure: set[str] = set()
        recorded = [lineage_of(step) for step in run.history.values() if step.lineage]
        self._changing = {source.code for reads in recorded for source in reads.sources()}

    def cell(self, place: int, cell: CodeCell) -> Planned:
        durable = _DURABLE.match(magic_first(cell.source))
        if durable is not None:
            return self._durable(place, self._parse(durable["line"]), self._transform(durable["body"]))
        python = self._transform(cell.source)
        if self.unmarked is not None and cell.source.strip() and not is_ordinary(cell, python):
            step_id, _ = self.unmarked.claim(cell, fingerprint.source(python), self._placed)
            self._taken.add(step_id)
            return self._durable(place, replace(self._parse(shlex.quote(step_id)), marked=False), python)
        found = list(statements(names.parse(python)))
        last = found[-1:]
        self._origins.execute(f"#{place}", found, lambda each: each not in last or self._changes(each))
        return Planned(place, "", ORDINARY)

    def gone(self) -> Iterator[Planned]:
        for step in self._run.history.values():
            top = step.kind is StepKind.CELL and not scope_of(step.step_id)
            if top and step.step_id not in self._names | self._taken:
                reason = "its cell is no longer in the notebook; its result stays recorded"
                yield Planned(0, step.step_id, GONE, reason)

    def _durable(self, place: int, options: CellOptions, python: str) -> Planned:
        call = options.call(options.name, python)
        if self._codes.setdefault(call.step_id, call.code) != call.code:
            reason = "another cell already uses this step name"
            return Planned(place, call.step_id, Action.REFUSE.value, reason)
        inputs = inputs_of(self._origins, python, {})
        if options.marked and call.step_id not in self._run.history:
            call = call._replace(renamed=former_id(self._run, call, inputs, self._is_gone))
            self._taken.add(call.renamed)
        record = self._run.history.get(call.step_id) or self._run.history.get(call.renamed)
        _, _, decision = self._run.decide(with_changes(call, record, inputs, self._origins))
        action, reason = decision.action.value, decision.reason
        reason += f": {'; '.join(decision.more)}" if decision.more else ""
        if decision.action is Action.REPLAY:
            action, reason = self._after_replay(action, reason, record, inputs)
        if action != Action.REPLAY.value:
            self._unsure.add(call.step_id)
        self._record(call.step_id, record, inputs, decision.action)
        return Planned(place, call.step_id, action, reason)

    def _after_replay(
        self, action: str, reason: str, record: Step | None, inputs: CellInputs
    ) -> tuple[str, str]:
        """Return the action and reason of a replay, if earlier steps may change its inputs."""
        for name, chain in inputs.names.items():
            unsure = sorted(self._unsure.intersection(step for one in chain for step in one.steps))
            if unsure:
                return MAY_RUN, f"`{name}` comes from step `{unsure[0]}`, whose result may change"
        if record is not None and lineage_of(record).values:
            names = ", ".join(f"`{name}`" for name in sorted(lineage_of(record).values))
            reason += f"; may drift: {names}"
        return action, reason

    def _record(self, step_id: str, record: Step | None, inputs: CellInputs, action: Action) -> None:
        """Record the names that a step wrote before and, if it will run, those that its code may write."""
        lineage = lineage_of(record) if record is not None else Lineage(step_id)
        if action is not Action.REPLAY:
            found = {name for one in inputs.body for name in one.binds | one.changes | one.mutated_receivers}
            versions = {**dict.fromkeys(found - {STAR}, _UNKNOWN), **lineage.versions}
            lineage = replace(lineage, versions=versions)
        self._origins.write(step_sources(step_id, lineage, inputs), lineage.deleted)

    def _is_gone(self, step: Step) -> bool:
        return step.step_id not in self._names

    def _changes(self, statement: Statement) -> bool:
        """Guess whether the method call that ends a cell mutates its receiver."""
        return statement.may_change or statement.receiver is None or statement.code in self._changing
