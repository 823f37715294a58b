"""Snapshots of the namespace: find the changes that a cell made to it.

`snapshot_names` notes every name by identity and digest before a cell. `NamesSnapshot.changes` returns the
names that the cell created, rebound, deleted or changed in place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_nb.notebook.namespace.in_place import attributes_of
from durable_nb.notebook.namespace.kept_results import holder_of
from durable_nb.notebook.namespace.large import Large, untouched
from durable_nb.notebook.namespace.reach import reached
from durable_nb.notebook.namespace.scan import Identities, Scan
from durable_nb.notebook.namespace.unnamed import is_unnamed

__all__ = ["Changes", "NamesSnapshot", "snapshot_names"]


@dataclass(frozen=True, slots=True)
class NamesSnapshot:
    """The namespace before a cell.

    Attributes:
        hidden: Names that are never considered.
        unseen: Names whose in-place changes cannot be detected, since they cannot be pickled.
        skipped: Names that were not compared because the time budget was used up.
    """

    hidden: Collection[str]
    unseen: tuple[str, ...]
    skipped: tuple[str, ...]
    _first: Collection[str] = field(repr=False)
    _marks: Identities = field(repr=False)
    _anchors: dict[int, object] = field(repr=False)
    _attributes: dict[str, dict[str, Any]] = field(repr=False)
    _kept: object = field(repr=False)

    @property
    def marks(self) -> Identities:
        """The identities and digests of the names."""
        return self._marks

    def moved_since(self, marks: Identities) -> set[str]:
        """Return the names whose objects were changed in place between an earlier look and this one."""
        now, before = self._marks, marks.digests
        same = (name for name in now.ids if marks.ids.get(name) == now.ids[name])
        return {
            name for name in same if before.get(name) and now.digests.get(name) not in (None, before[name])
        }

    def changes(
        self,
        user_ns: dict[str, Any],
        assigned: Collection[str] = (),
        named: Collection[str] | None = None,
        moved: Collection[str] = (),
        *,
        only_reads: bool = False,
    ) -> Changes:
        """Return the changes to the namespace since the snapshot.

        Args:
            user_ns: The same namespace, after the cell.
            assigned: Names that the cell binds: they count as rebound, even if to the same object.
            named: The names in the cell's code. A name to whose object none of them leads was changed in
                place by something else, such as a thread, and is left out; by default none is.
            moved: Names that something else has changed in place before, and that no cell has saved since.
            only_reads: Whether the code does nothing but read plain data and bind names.
        """
        marks = self._marks
        other = {*user_ns} - marks.same(user_ns)
        first = {*self._first, *other, *assigned}
        kept = {name: one for name, one in marks.large.items() if name not in {*other, *assigned}}
        named_now = None if named is None else {*named, *assigned, *other}
        known = untouched(kept, user_ns, named_now, only_reads=only_reads)
        scan = Scan.of(user_ns, self.hidden, first, self._anchors, assigned, known)
        skipped = {*self.skipped, *scan.skipped}
        created, rebound, mutated = [], [], []
        for name in scan.values:
            if name not in marks.ids:
                created.append(name)
            elif (bound := holder_of(name)) in assigned or bound in other:
                rebound.append(name)
            elif name not in skipped and (name in moved or marks.digests[name] != scan.marks.digests[name]):
                mutated.append(name)
        everywhere = {*mutated}
        if named is not None and mutated:
            mutated = _in_reach(scan, user_ns, {*named, *created, *rebound}, mutated)
        in_place = [name for name in mutated if scan.is_own_code(scan.values[name])]
        return Changes(
            created=tuple(created),
            rebound=tuple(rebound),
            mutated=tuple(mutated),
            deleted=tuple(name for name in marks.ids if name not in scan.values),
            along=_held_along(scan, {*created, *rebound, *mutated}, skipped),
            unseen=tuple(scan.failed),
            skipped=tuple(sorted(skipped.difference(created, rebound))),
            elsewhere=tuple(sorted(everywhere.difference(mutated))),
            scan=scan,
            in_place={name: self._attributes.get(name, {}) for name in in_place},
        )


def _in_reach(
    scan: Scan, user_ns: dict[str, Any], named: Collection[str], mutated: Sequence[str]
) -> list[str]:
    """Return those of the names changed in place to whose objects the code leads."""
    if {*named}.issuperset(mutated):
        return [*mutated]
    found = scan.in_reach([name for name in named if name in scan.values])
    doubtful = [name for name in mutated if name not in found and not is_unnamed(name)]
    found |= reached(user_ns, named, doubtful) if doubtful else set()
    return [name for name in mutated if name in found or is_unnamed(name)]


def _held_along(scan: Scan, saved: set[str], skipped: set[str]) -> tuple[str, ...]:
    """Return further names to save: those that hold objects of the saved names where no path leads to them.

    A name that was not compared before the cell may hold what changed, and is saved too.
    """
    found = saved | (scan.in_reach(saved) & skipped if skipped else set())
    while along := scan.shared(found)[1]:
        found |= along
    further = found - saved
    return tuple(name for name in scan.values if name in further)


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that a cell made to the namespace. It keeps the values alive: save and release it at once.

    Attributes:
        created: Names that did not exist before.
        rebound: Names that are bound to another object.
        mutated: Names whose object was changed in place.
        deleted: Names that no longer exist.
        along: Unchanged names to save with them, since they share objects that cannot be referred to.
        unseen: Names whose in-place changes cannot be detected, since they cannot be pickled.
        skipped: Names that were not compared, before or after the cell, because the time budget was used up.
        elsewhere: Names whose objects something else has changed in place, such as a thread.
        scan: The namespace after the cell.
        in_place: Attributes before the cell of the classes and functions that it changed in place, by name.
    """

    created: tuple[str, ...]
    rebound: tuple[str, ...]
    mutated: tuple[str, ...]
    deleted: tuple[str, ...]
    along: tuple[str, ...]
    unseen: tuple[str, ...]
    skipped: tuple[str, ...]
    elsewhere: tuple[str, ...]
    scan: Scan = field(repr=False, compare=False)
    in_place: dict[str, dict[str, Any]] = field(repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All names to save, in the namespace's order."""
        chosen = {*self.created, *self.rebound, *self.mutated, *self.along}
        return tuple(name for name in self.scan.values if name in chosen)


def snapshot_names(
    user_ns: dict[str, Any],
    hidden: Collection[str],
    first: Collection[str] = (),
    known: Mapping[str, Large] | None = None,
) -> NamesSnapshot:
    """Take a snapshot of the namespace before a cell; runs no code of the user's except what pickling runs.

    Args:
        user_ns: The namespace that cells run in.
        hidden: Names that are never considered, besides those with the form of IPython's own.
        first: Names to scan without a time limit; the others share a budget of ``SWEEP_BUDGET`` seconds.
        known: Large values as a cell has just left them, by name: what has changed in them since counts as
            changed by this cell.
    """
    scan = Scan.of(user_ns, hidden, first, known=known or {})
    failed, skipped = tuple(scan.failed), tuple(scan.skipped)
    classes = {name: attributes_of(value) for name, value in scan.values.items() if scan.is_own_class(value)}
    return NamesSnapshot(
        hidden, failed, skipped, first, scan.marks, scan.anchors, classes, scan.fingerprinter.kept
    )
