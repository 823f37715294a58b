"""What a cell did to the namespace: taken before, compared after, saved, restored.

`take` notes every name by identity and digest; `Snapshot.changes` says what a cell created, rebound,
deleted or changed in place, closed over shared objects; `save` pickles those names, a group of names that
share objects at a time, and says which cannot be saved; `restore` binds them in another process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from durable_nb.errors import DurableError, spelled
from durable_nb.notebook.namespace.figures import FIGURES, reopen
from durable_nb.notebook.namespace.pickling import Saver, load, reason
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
    "restore",
    "save",
    "take",
]

NO_RESULT: Final = object()
"""The last value of a cell that has none."""


@dataclass(frozen=True, slots=True)
class NamesSnapshot:
    """How the namespace was before a cell.

    Attributes:
        hidden: Names that are never considered.
        unseen: Names that changes in place cannot be seen of, as they cannot be pickled.
        skipped: Names that there was no time to look at.
    """

    hidden: Collection[str]
    unseen: tuple[str, ...]
    skipped: tuple[str, ...]
    _first: Collection[str] = field(repr=False)
    _marks: Identities = field(repr=False)
    _anchors: dict[int, object] = field(repr=False)
    _kept: object = field(repr=False)

    def changes(self, user_ns: dict[str, Any], assigned: Collection[str] = ()) -> Changes:
        """Compare with how the namespace is now.

        Args:
            user_ns: The same namespace, after the cell.
            assigned: Names that the cell is known to bind: rebound, even if to the very same object.
        """
        marks = self._marks
        other = {*user_ns} - marks.same(user_ns)
        look = Scan(user_ns, self.hidden, {*self._first, *other, *assigned}, self._anchors)
        skipped = {*self.skipped, *look.skipped}
        created, rebound, mutated = [], [], []
        for name in look.values:
            if name not in marks.ids:
                created.append(name)
            elif name in assigned or name in other:
                rebound.append(name)
            elif name not in skipped and marks.digests[name] != look.marks.digests[name]:
                mutated.append(name)
        groups = look.closure({*created, *rebound, *mutated})
        return Changes(
            created=tuple(created),
            rebound=tuple(rebound),
            mutated=tuple(mutated),
            deleted=tuple(name for name in marks.ids if name not in look.values),
            groups=tuple(map(tuple, groups)),
            unseen=tuple(look.failed),
            skipped=tuple(sorted(skipped.difference(created, rebound))),
            _look=look,
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What a cell did to the namespace. To be saved and let go at once: it keeps the values alive.

    Attributes:
        created: Names that did not exist before.
        rebound: Names that are bound to another object.
        mutated: Names whose object was changed in place.
        deleted: Names that are gone.
        groups: The names to save, with those that share mutable objects with them, parted into groups
            that share nothing with each other.
        unseen: Names that changes in place cannot be seen of, as they cannot be pickled.
        skipped: Names that there was no time to look at, before the cell or after it.
    """

    created: tuple[str, ...]
    rebound: tuple[str, ...]
    mutated: tuple[str, ...]
    deleted: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    unseen: tuple[str, ...]
    skipped: tuple[str, ...]
    _look: Scan = field(repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name to save, in the namespace's order."""
        chosen = {name for group in self.groups for name in group}
        return tuple(name for name in self._look.values if name in chosen)


@dataclass(frozen=True, slots=True)
class Group:
    """Names that share objects, pickled in one stream.

    Attributes:
        names: The names, `RESULT` among them if it is in this group.
        data: The stream.
        buffers: The large buffers beside it: when just saved, views of the living arrays; when fetched,
            an error in place of one that is lost.
    """

    names: tuple[str, ...]
    data: bytes | memoryview | DurableError
    buffers: tuple[bytes | memoryview | DurableError, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedNames:
    """What a cell did, as bytes: a header of plain JSON and the parts it speaks of.

    Attributes:
        groups: The names that are saved.
        deleted: The names that the cell deleted.
        unsaved: Why the other names are not saved.
    """

    groups: tuple[Group, ...]
    deleted: tuple[str, ...] = ()
    unsaved: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Describe the parts in what JSON can hold."""
        groups = [{"names": list(group.names), "buffers": len(group.buffers)} for group in self.groups]
        return {"groups": groups, "deleted": list(self.deleted), "unsaved": dict(self.unsaved)}

    @property
    def parts(self) -> list[bytes | memoryview | DurableError]:
        """The bytes, in the order the header gives; store them before the user's code goes on."""
        return [part for group in self.groups for part in (group.data, *group.buffers)]

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview | DurableError]) -> Self:
        """Put together what `header` and `parts` took apart.

        Args:
            header: What `header` gave.
            parts: What `parts` gave; the arrays of writable ones are used in place, others are copied.
        """
        left, groups = iter(parts), []
        for described in header["groups"]:
            data = next(left)
            buffers = tuple(next(left) for _ in range(described["buffers"]))
            groups.append(Group(tuple(described["names"]), data, buffers))
        return cls(tuple(groups), tuple(header["deleted"]), dict(header["unsaved"]))


@dataclass(frozen=True, slots=True)
class RestoredNames:
    """What came back.

    Attributes:
        names: The names that are bound again.
        result: The cell's last value; NO_RESULT if it has none or could not be saved.
        failed: Why other names could not be loaded; they are bound to placeholders.
    """

    names: tuple[str, ...]
    result: Any
    failed: dict[str, str]


def take(user_ns: dict[str, Any], hidden: Collection[str], first: Collection[str] = ()) -> NamesSnapshot:
    """Note how the namespace is before a cell; runs nothing of the user's but what pickling runs.

    Args:
        user_ns: The namespace that cells run in.
        hidden: Names that are never considered, besides those that are IPython's by their form.
        first: Names that are looked at whatever it takes; the others have a budget of time.
    """
    look = Scan(user_ns, hidden, first)
    failed, skipped = tuple(look.failed), tuple(look.skipped)
    return NamesSnapshot(hidden, failed, skipped, first, look.marks, look.anchors, look.fingerprinter.kept)


def save(user_ns: dict[str, Any], changes: Changes, result: object = NO_RESULT) -> SavedNames:
    """Pickle what a cell changed; names that cannot be saved are named, and take nobody along.

    Args:
        user_ns: The namespace, as it was when `changes` was made.
        changes: What to save.
        result: The cell's last value.
    """
    look, names = changes._look, changes.names  # noqa: SLF001 - one module
    unsaved = look.unsaveable(names)
    values = {name: look.values[name] for name in names if name not in unsaved}
    if result is not NO_RESULT:
        values[RESULT] = look.note_result(user_ns, result, names)
    live, shared, groups = look.live(names), look.sharing.views(), list[Group]()
    for group_names in look.groups(values, names):
        group, refused = _save_group(user_ns, {name: values[name] for name in group_names}, live, shared)
        groups += [group] if group else []
        unsaved |= refused
    return SavedNames(tuple(groups), changes.deleted, unsaved)


def restore(user_ns: dict[str, Any], saved: SavedNames, step: str = "") -> RestoredNames:
    """Bind and delete the names of a saved cell; what fails is bound to placeholders.

    Args:
        user_ns: The live namespace.
        saved: What `save` gave.
        step: The step's id, for the placeholders to name.
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
    user_ns: dict[str, Any], values: dict[str, Any], live: dict[int, str], shared: frozenset[int]
) -> tuple[Group | None, dict[str, str]]:
    """Save what of a group can be saved; the others are referred to by name from then on."""
    unsaved: dict[str, str] = {}
    while values:
        saver = Saver(user_ns, live, shared)
        try:
            return Group(tuple(values), *saver.save(values)), unsaved
        except Exception as error:
            found = _refused(user_ns, values, live) or dict.fromkeys(
                values, reason(None, saver.blamed, error)
            )
        unsaved |= found
        live |= {id(values[name]): name for name in found if name != RESULT}
        values = {name: value for name, value in values.items() if name not in found}
    return None, unsaved


def _refused(user_ns: dict[str, Any], values: dict[str, Any], live: dict[int, str]) -> dict[str, str]:
    """Find the names of a group that cannot be pickled even alone."""
    found = {}
    for name, value in values.items():
        saver = Saver(user_ns, live)
        try:
            saver.save({name: value})
        except Exception as error:
            found[name] = reason(value, saver.blamed, error)
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
