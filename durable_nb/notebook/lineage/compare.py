"""What a durable cell reads now, compared with what is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from durable_nb.notebook.lineage import drift
from durable_nb.notebook.lineage.names import Mentioned, mentioned, outer_reads, parse
from durable_nb.notebook.lineage.origins import Chain, Origins, Reads, Source, difference, step_source
from durable_nb.notebook.lineage.statements import Statement, statements
from durable_nb.records import Call, Step, StepKind, StepStatus, scope_of

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle

__all__ = ["MODULE", "Seen", "downstream", "look", "reads_of", "renamed", "sources", "with_changes"]

MODULE: Final = "module:"
"""What the version of a name begins with that is bound to a module."""


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
    return Reads.from_json(record.lineage) if record.lineage else Reads(record.step_id)


def with_changes(call: Call, record: Step | None, seen: Seen) -> Call:
    """Put into a call how what it reads differs from what is on record."""
    if record is None or not record.lineage:
        return call
    recorded = reads_of(record)
    own = {name for name, chain in seen.names.items() if any(call.step_id in one.steps for one in chain)}
    moved = [name for name in drift.drifted(recorded.values, seen.values) if name not in own]
    # What nothing gives now may be in a cell that was not executed; to run would be a NameError.
    moved += [name for name in recorded.names if name not in seen.names and name not in moved]
    edit = difference(recorded, seen.names, call.step_id)
    return call._replace(edit=edit, drift=", ".join(f"`{name}`" for name in moved))


def renamed(run: RunHandle, call: Call, seen: Seen, gone: Callable[[Step], bool]) -> str:
    """The id of a recorded cell that is gone and has a call's code and reads; empty if there is none.

    Args:
        run: The run.
        call: The call of a cell that is not on record.
        seen: What it reads.
        gone: Whether a step's cell is known to be gone.
    """
    cells = [step for step in run.history.values() if step.kind is StepKind.CELL and step.lineage]
    known = [reads_of(step).known_as for step in cells]
    for step in cells:
        same = step.status is StepStatus.DONE and step.code == call.code and not scope_of(step.step_id)
        only = known.count(reads_of(step).known_as) == 1  # else it has been renamed before
        if same and only and gone(step) and not difference(reads_of(step), seen.names, step.step_id):
            return step.step_id
    return ""


def downstream(run: RunHandle, step_id: str) -> list[str]:
    """The ids of the recorded cells that read what a step gave, or what such a cell gave in turn."""
    reads = {step.step_id: reads_of(step) for step in run.history.values() if step.lineage}
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
            imports=version.startswith(MODULE),
        )
        for name, version in reads.gave.items()
    }
