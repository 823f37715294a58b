"""Snapshots of the namespace: find, save and restore the changes that a cell made to it.

`snapshot_names` notes every name by identity and digest before a cell. `NamesSnapshot.changes` returns the
names that the cell created, rebound, deleted or changed in place, together with those that share objects with
them. `save_names` pickles these names in groups that share objects, and reports those that cannot be saved.
`restore_names` binds them in another process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from durable_nb.codec.pickling import Saver, refusal
from durable_nb.errors import DurableError, spelled
from durable_nb.notebook.namespace.figures import FIGURES, reopen
from durable_nb.notebook.namespace.pickling import load, reference
from durable_nb.notebook.namespace.placeholder import placeholder
from durable_nb.notebook.namespace.scan import RESULT, Identities, Scan

__all__ = [
    "NO_RESULT",
    "RESULT",
    "Changes",
    "Group",
    "NamesSnapshot",
    "RestoredNames",
    "SavedNames",
    "restore_names",
    "save_names",
    "snapshot_names",
]

NO_RESULT: Final = object()
"""Stands for the last value of a cell that has none."""


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
    _kept: object = field(repr=False)

    def changes(self, user_ns: dict[str, Any], assigned: Collection[str] = ()) -> Changes:
        """Return the changes to the namespace since the snapshot.

        Args:
            user_ns: The same namespace, after the cell.
            assigned: Names that the cell binds: they count as rebound, even if to the same object.
        """
        marks = self._marks
        other = {*user_ns} - marks.same(user_ns)
        scan = Scan.of(user_ns, self.hidden, {*self._first, *other, *assigned}, self._anchors)
        skipped = {*self.skipped, *scan.skipped}
        created, rebound, mutated = [], [], []
        for name in scan.values:
            if name not in marks.ids:
                created.append(name)
            elif name in assigned or name in other:
                rebound.append(name)
            elif name not in skipped and marks.digests[name] != scan.marks.digests[name]:
                mutated.append(name)
        groups = scan.closure({*created, *rebound, *mutated})
        return Changes(
            created=tuple(created),
            rebound=tuple(rebound),
            mutated=tuple(mutated),
            deleted=tuple(name for name in marks.ids if name not in scan.values),
            groups=tuple(map(tuple, groups)),
            unseen=tuple(scan.failed),
            skipped=tuple(sorted(skipped.difference(created, rebound))),
            _scan=scan,
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that a cell made to the namespace. It keeps the values alive: save and release it at once.

    Attributes:
        created: Names that did not exist before.
        rebound: Names that are bound to another object.
        mutated: Names whose object was changed in place.
        deleted: Names that no longer exist.
        groups: The names to save and those that share mutable objects with them, partitioned into groups
            that share nothing with each other.
        unseen: Names whose in-place changes cannot be detected, since they cannot be pickled.
        skipped: Names that were not compared, before or after the cell, because the time budget was used up.
    """

    created: tuple[str, ...]
    rebound: tuple[str, ...]
    mutated: tuple[str, ...]
    deleted: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    unseen: tuple[str, ...]
    skipped: tuple[str, ...]
    _scan: Scan = field(repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All names to save, in the namespace's order."""
        chosen = {name for group in self.groups for name in group}
        return tuple(name for name in self._scan.values if name in chosen)


@dataclass(frozen=True, slots=True)
class Group:
    """Names that share objects, pickled in one stream.

    Attributes:
        names: The names, including `RESULT` if it is in this group.
        data: The pickle stream.
        buffers: Its out-of-band buffers: after saving, views of the live arrays; after loading, an error in
            place of a buffer that is lost.
    """

    names: tuple[str, ...]
    data: bytes | memoryview | DurableError
    buffers: tuple[bytes | memoryview | DurableError, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedNames:
    """The saved changes of a cell: a JSON header and the binary parts it describes.

    Attributes:
        groups: The names that are saved.
        deleted: The names that the cell deleted.
        unsaved: Why other names are not saved.
    """

    groups: tuple[Group, ...]
    deleted: tuple[str, ...] = ()
    unsaved: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Return a description of the parts that can be written as JSON."""
        groups = [{"names": list(group.names), "buffers": len(group.buffers)} for group in self.groups]
        return {"groups": groups, "deleted": list(self.deleted), "unsaved": dict(self.unsaved)}

    @property
    def parts(self) -> list[bytes | memoryview | DurableError]:
        """The binary parts, in the header's order; store them before the user's code continues."""
        return [part for group in self.groups for part in (group.data, *group.buffers)]

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview | DurableError]) -> Self:
        """Rebuild saved names from their header and parts.

        Args:
            header: The header that `header` returned.
            parts: The parts; arrays use writable ones in place, read-only ones are copied.
        """
        left, groups = iter(parts), []
        for described in header["groups"]:
            data = next(left)
            buffers = tuple(next(left) for _ in range(described["buffers"]))
            groups.append(Group(tuple(described["names"]), data, buffers))
        return cls(tuple(groups), tuple(header["deleted"]), dict(header["unsaved"]))


@dataclass(frozen=True, slots=True)
class RestoredNames:
    """The names that were restored.

    Attributes:
        names: The names that were bound.
        result: The cell's last value; NO_RESULT if it has none or it could not be saved.
        failed: Why other names could not be loaded; they are bound to placeholders.
    """

    names: tuple[str, ...]
    result: Any
    failed: dict[str, str]


def snapshot_names(
    user_ns: dict[str, Any], hidden: Collection[str], first: Collection[str] = ()
) -> NamesSnapshot:
    """Take a snapshot of the namespace before a cell; runs no code of the user's except what pickling runs.

    Args:
        user_ns: The namespace that cells run in.
        hidden: Names that are never considered, besides those with the form of IPython's own.
        first: Names to scan without a time limit; the others share a budget of ``SWEEP_BUDGET`` seconds.
    """
    scan = Scan.of(user_ns, hidden, first)
    failed, skipped = tuple(scan.failed), tuple(scan.skipped)
    return NamesSnapshot(hidden, failed, skipped, first, scan.marks, scan.anchors, scan.fingerprinter.kept)


def save_names(user_ns: dict[str, Any], changes: Changes, result: object = NO_RESULT) -> SavedNames:
    """Pickle the changes of a cell; names that cannot be saved are reported and do not affect the others.

    Args:
        user_ns: The namespace, unchanged since `changes` was computed.
        changes: The changes to save.
        result: The cell's last value.
    """
    scan, names = changes._scan, changes.names  # noqa: SLF001 - one module
    unsaved = scan.unsaveable(names)
    values = {name: scan.values[name] for name in names if name not in unsaved}
    if result is not NO_RESULT:
        values[RESULT] = scan.note_result(user_ns, result, names)
    live, groups = scan.live(names), list[Group]()
    for group_names in scan.groups(values, names):
        group, refused = _save_group(user_ns, {name: values[name] for name in group_names}, live)
        groups += [group] if group else []
        unsaved |= refused
    return SavedNames(tuple(groups), changes.deleted, unsaved)


def restore_names(user_ns: dict[str, Any], saved: SavedNames, step: str = "") -> RestoredNames:
    """Bind and delete the names of a saved cell; names that fail are bound to placeholders.

    Args:
        user_ns: The live namespace.
        saved: The saved changes of the cell.
        step: The step's id, named in placeholders.
    """
    for name in saved.deleted:
        user_ns.pop(name, None)
    _bind_placeholders(user_ns, saved.unsaved, step)
    names: list[str] = []
    failed = _reopen([]) if FIGURES in saved.deleted else {}
    result = NO_RESULT
    for group in saved.groups:
        try:
            values = load(group.data, group.buffers, user_ns)
        except Exception as error:
            failed |= dict.fromkeys(group.names, _why(error, step))
            continue
        result = values.pop(RESULT, result)
        names += values
        if FIGURES in values:
            failed |= _reopen(values.pop(FIGURES))
        user_ns.update(values)
    _bind_placeholders(user_ns, failed, step)
    return RestoredNames(tuple(names), result, failed)


def _save_group(
    user_ns: dict[str, Any], values: dict[str, Any], live: dict[int, Any]
) -> tuple[Group | None, dict[str, str]]:
    """Save the names of a group that can be saved; they refer to the others by name."""
    unsaved: dict[str, str] = {}
    while values:
        saver = Saver(user_ns, live)
        try:
            return Group(tuple(values), *saver.save(values)), unsaved
        except Exception as error:
            found = _refused(user_ns, values, live)
            found = found or dict.fromkeys(values, refusal(None, saver.blamed, error))
        unsaved |= found
        live |= {id(values[name]): reference(name) for name in found if name != RESULT}
        values = {name: value for name, value in values.items() if name not in found}
    return None, unsaved


def _refused(user_ns: dict[str, Any], values: dict[str, Any], live: dict[int, Any]) -> dict[str, str]:
    """Return the names of a group that cannot be pickled on their own, with the reasons."""
    found = {}
    for name, value in values.items():
        saver = Saver(user_ns, live)
        try:
            saver.save(value)
        except Exception as error:
            found[name] = refusal(value, saver.blamed, error)
    return found


def _why(error: Exception, step: str) -> str:
    if isinstance(error, DurableError):  # the reason stands where the step is named already
        return f"{error.what}. {spelled(error.remedy or '', step=step)}".rstrip(" .")
    return f"{type(error).__name__}: {error}"


def _reopen(figures: list[tuple[Any, Any]]) -> dict[str, str]:
    try:
        reopen(figures)
    except Exception as error:
        return {FIGURES: f"{type(error).__name__}: {error}"}
    return {}


def _bind_placeholders(user_ns: dict[str, Any], reasons: dict[str, str], step: str) -> None:
    names = (name for name in reasons if name not in (RESULT, FIGURES))
    user_ns.update({name: placeholder(name, step, reasons[name]) for name in names})
