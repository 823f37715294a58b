"""What "Run All" would replay and what it would run, cell by cell; nothing of the user's is run for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from durable_nb.notebook.lineage import names
from durable_nb.notebook.lineage.compare import Seen, look, reads_of, renamed, sources, with_changes
from durable_nb.notebook.lineage.origins import Origins, Reads
from durable_nb.notebook.lineage.statements import STAR, Statement, statements
from durable_nb.notebook.shell import frontend
from durable_nb.records import Action, Call, Step, StepKind, scope_of

if TYPE_CHECKING:
    from pathlib import Path

    from durable_nb.engine.run import RunHandle

__all__ = ["Planned", "plan", "spell_plan"]

GONE: Final = "gone"
MAY_RUN: Final = "may run"
ORDINARY: Final = "runs"

_DURABLE: Final = re.compile(r"\s*%%durable_step\b(?P<line>[^\n]*)\n?(?P<body>.*)", re.DOTALL)
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class Planned:
    """What would become of one cell.

    Attributes:
        place: Which of the notebook's code cells it is, from 1; 0 for a step whose cell is gone.
        step: The step's id; empty for an ordinary cell.
        action: replay, run, ask or refuse; ``may run`` if that hangs on what another step will give;
            ``runs`` for an ordinary cell, ``gone`` for a step whose cell is gone.
        reason: Why, in one line.
    """

    place: int
    step: str
    action: str
    reason: str = ""


def plan(
    run: RunHandle,
    notebook: Path,
    *,
    parse: Callable[[str], Any],
    transform: Callable[[str], str],
) -> list[Planned]:
    """Say what would become of each cell. What values will be cannot be known: drift is not foreseen.

    Args:
        run: The run.
        notebook: The notebook's file.
        parse: Reads what stands on the first line of a durable cell.
        transform: Makes Python of a cell, as IPython does.

    Raises:
        InvalidOption: The file is no notebook.
    """
    cells = frontend.code_cells(notebook)
    planner = _Planner(run, cells, parse, transform)
    planned = [planner.cell(place, cell) for place, cell in enumerate(cells, 1)]
    return [*planned, *planner.gone()]


def spell_plan(planned: Sequence[Planned]) -> str:
    """Write a plan as a table for a terminal."""
    width = max((len(each.step) for each in planned), default=0)
    lines = [
        f"{each.place or '':>4}  {each.step:<{width}}  {each.action:<7}  {each.reason}".rstrip()
        for each in planned
    ]
    return "\n".join(lines)


class _Planner:
    def __init__(
        self, run: RunHandle, cells: list[str], parse: Callable[[str], Any], transform: Callable[[str], str]
    ) -> None:
        self._run = run
        self._parse = parse
        self._transform = transform
        self._origins = Origins()
        self._names = frontend.durable_names(cells)
        self._codes: dict[str, str | None] = {}
        self._taken: set[str] = set()
        self._unsure: set[str] = set()
        recorded = [reads_of(step) for step in run.history.values() if step.lineage]
        self._changing = {source.code for reads in recorded for source in reads.sources()}

    def cell(self, place: int, text: str) -> Planned:
        durable = _DURABLE.match(text)
        if durable is not None:
            return self._durable(place, durable["line"], durable["body"])
        found = list(statements(names.parse(self._transform(text))))
        last = found[-1:]
        self._origins.execute(f"#{place}", found, lambda each: each not in last or self._changes(each))
        return Planned(place, "", ORDINARY)

    def gone(self) -> Iterator[Planned]:
        for step in self._run.history.values():
            top = step.kind is StepKind.CELL and not scope_of(step.step_id)
            if top and step.step_id not in self._names | self._taken:
                yield Planned(0, step.step_id, GONE, "its cell is gone; what it gave stays on record")

    def _durable(self, place: int, line: str, body: str) -> Planned:
        options = self._parse(line)
        python = self._transform(body)
        call: Call = options.call(options.name, python)
        if self._codes.setdefault(call.step_id, call.code) != call.code:
            return Planned(place, call.step_id, Action.REFUSE.value, "another cell has that name")
        seen = look(self._origins, python, {})
        if call.step_id not in self._run.history:
            call = call._replace(renamed=renamed(self._run, call, seen, self._is_gone))
            self._taken.add(call.renamed)
        record = self._run.history.get(call.step_id) or self._run.history.get(call.renamed)
        decision = self._run.decide(with_changes(call, record, seen))
        action, reason = decision.action.value, decision.reason
        if decision.action is Action.REPLAY:
            action, reason = self._foresee(action, reason, record, seen)
        if action != Action.REPLAY.value:
            self._unsure.add(call.step_id)
        self._write(call.step_id, record, seen, decision.action)
        return Planned(place, call.step_id, action, reason)

    def _foresee(self, action: str, reason: str, record: Step | None, seen: Seen) -> tuple[str, str]:
        for name, chain in seen.names.items():
            unsure = sorted(self._unsure.intersection(step for one in chain for step in one.steps))
            if unsure:
                return MAY_RUN, f"`{name}` comes from step `{unsure[0]}`, which may give another result"
        if record is not None and reads_of(record).values:
            names = ", ".join(f"`{name}`" for name in sorted(reads_of(record).values))
            reason += f"; may drift: {names}"
        return action, reason

    def _write(self, step_id: str, record: Step | None, seen: Seen, action: Action) -> None:
        """Take in what a step gives: what it gave before, and, if it runs, whatever its code may write."""
        reads = reads_of(record) if record is not None else Reads(step_id)
        if action is not Action.REPLAY:
            written = {name for one in seen.body for name in one.binds | one.changes | one.called_on} - {STAR}
            reads = replace(reads, gave={**dict.fromkeys(written, _UNKNOWN), **reads.gave})
        self._origins.write(sources(step_id, reads, seen), reads.deleted)

    def _is_gone(self, step: Step) -> bool:
        return step.step_id not in self._names

    def _changes(self, statement: Statement) -> bool:
        """Whether the method call that ends a cell is known, or likely, to change its object."""
        return statement.may_change or statement.looked_at is None or statement.code in self._changing
