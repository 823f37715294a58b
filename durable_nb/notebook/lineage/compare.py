"""Compare the names that a durable cell reads now with its recorded lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from durable_nb.notebook.lineage import drift
from durable_nb.notebook.lineage.names import Mentioned, mentioned, outer_reads, parse
from durable_nb.notebook.lineage.origins import Chain, Lineage, Origins, Source, difference, step_source
from durable_nb.notebook.lineage.statements import Statement, statements
from durable_nb.records import Call, Step, StepKind, StepStatus, scope_of
from durable_nb.stores.errors import damaged_lineage

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle

__all__ = [
    "MODULE",
    "CellInputs",
    "downstream",
    "former_id",
    "inputs_of",
    "lineage_of",
    "step_sources",
    "with_changes",
]

MODULE: Final = "module:"
"""Prefix of the version of a name that is bound to a module."""


@dataclass(frozen=True, slots=True)
class CellInputs:
    """The names that a durable cell would read if it ran now.

    Attributes:
        body: The cell's statements.
        names: Origins of the names that it reads.
        values: Fingerprints of the small values among them.
        cell: The cell's id, if the front end sent one.
        mentioned: Names and attributes that occur in its code.
        reads: Names that it reads before it has bound them itself.
        unmarked: Whether the cell has no magic that names its step.
    """

    body: tuple[Statement, ...] = ()
    names: Mapping[str, Chain] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    cell: str | None = None
    mentioned: Mentioned = field(default_factory=Mentioned)
    reads: frozenset[str] = frozenset()
    unmarked: bool = False


def inputs_of(
    origins: Origins,
    source: str,
    user_ns: Mapping[str, Any],
    cell: str | None = None,
    *,
    marked: bool = True,
) -> CellInputs:
    """Return the inputs of a durable cell.

    Args:
        origins: The origins of names now.
        source: The cell's Python.
        user_ns: The namespace; empty if nothing has been executed.
        cell: The cell's id, if the front end sent one.
        marked: Whether the cell has a magic that names its step.
    """
    tree = parse(source)
    direct = outer_reads(tree)
    names = origins.of(sorted(direct))
    values = drift.small_values(user_ns, _judged_by_value({*direct, *names}, names))
    return CellInputs(
        tuple(statements(tree)), names, values, cell, mentioned(tree), frozenset(direct), not marked
    )


def _judged_by_value(reads: Iterable[str], names: Mapping[str, Chain]) -> Iterator[str]:
    # Names that a step wrote have a version, which identifies large values too.
    return (name for name in reads if not names.get(name) or not names[name][-1].step)


def lineage_of(record: Step) -> Lineage:
    """Return the lineage of a recorded cell; an empty one if none was recorded.

    Raises:
        StoreUnreadable: It has another shape than durable_nb writes.
    """
    try:
        found = Lineage.from_json(record.lineage) if record.lineage else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged_lineage(record) from error
    return found or Lineage(record.step_id)


def with_changes(call: Call, record: Step | None, inputs: CellInputs, origins: Origins) -> Call:
    """Return a call with the edit and the drift of its inputs since they were recorded.

    Args:
        call: The call.
        record: The step as it was recorded; None if it was not.
        inputs: The inputs of its cell.
        origins: The origins of names now; the cell may have changed names that its code does not mention.
    """
    if record is None or not record.lineage:
        return call
    recorded = lineage_of(record)
    names = {**origins.of(name for name in recorded.names if name not in inputs.names), **inputs.names}
    own = {name for name, chain in names.items() if any(call.step_id in one.steps for one in chain)}
    moved = [name for name in drift.drifted(recorded.values, inputs.values) if name not in own]
    # A name without an origin may be bound by a cell that was not executed; running would raise a NameError.
    moved += [name for name in recorded.names if name not in names and name not in moved]
    edit = difference(recorded, names, call.step_id)
    return call._replace(edit=edit, drift=", ".join(f"`{name}`" for name in moved))


def former_id(run: RunHandle, call: Call, inputs: CellInputs, gone: Callable[[Step], bool]) -> str:
    """Return the id of the recorded cell that was renamed to a call's step; empty if there is none.

    A cell was renamed if it is no longer in the notebook and has the call's code and inputs.

    Args:
        run: The run.
        call: The call of a cell that is not recorded.
        inputs: The inputs of that cell.
        gone: Returns whether a step's cell is known to be no longer in the notebook.
    """
    cells = [step for step in run.history.values() if step.kind is StepKind.CELL and step.lineage]
    known = [lineage_of(step).known_as for step in cells]
    for step in cells:
        same = step.status is StepStatus.DONE and step.code == call.code and not scope_of(step.step_id)
        only = known.count(lineage_of(step).known_as) == 1  # otherwise it was renamed before
        if same and only and gone(step) and not difference(lineage_of(step), inputs.names, step.step_id):
            return step.step_id
    return ""


def downstream(run: RunHandle, step_id: str) -> list[str]:
    """Return the ids of the recorded cells that depend on a step, directly or through other cells."""
    reads = {step.step_id: lineage_of(step) for step in run.history.values() if step.lineage}
    start = reads.get(step_id, Lineage(step_id)).known_as
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


def step_sources(step_id: str, lineage: Lineage, inputs: CellInputs) -> dict[str, Source]:
    """Return the sources of the names that a durable step wrote."""
    steps = {step_id, *(step for chain in inputs.names.values() for one in chain for step in one.steps)}
    later = {name: statement.reads_later for statement in inputs.body for name in statement.binds}
    return {
        name: step_source(
            step_id,
            lineage.known_as,
            version,
            steps=frozenset(steps),
            reads_later=later.get(name, frozenset()).union(lineage.holds.get(name, ())),
            imports=version.startswith(MODULE),
        )
        for name, version in lineage.versions.items()
    }
