"""Pickle the changes that a cell made to the namespace."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from durable_nb.codec.pickling import Saver, refusal
from durable_nb.codec.second_pass import Named
from durable_nb.codec.sources import texts
from durable_nb.errors.redaction import redacted, secret_in
from durable_nb.notebook.namespace.in_place import Updated
from durable_nb.notebook.namespace.marks import mark
from durable_nb.notebook.namespace.pickling import PlainSaver, Reference, reference, stand_ins
from durable_nb.notebook.namespace.restore import NO_RESULT
from durable_nb.notebook.namespace.saved import Group, SavedNames
from durable_nb.notebook.namespace.scan import RESULT, Scan, is_code, reachable_names
from durable_nb.notebook.namespace.snapshot import Changes
from durable_nb.notebook.namespace.trial import NotTried, Trial

__all__ = ["save_names"]

_SMALL = 1 << 20
"""Bytes of a group that is loaded along with those that are tried out: they may need its names."""


def save_names(
    user_ns: dict[str, Any],
    changes: Changes,
    result: object = NO_RESULT,
    *,
    lost: Collection[str] = (),
    excluded: Collection[str] = (),
    trial: Trial | None = None,
    largest: float = math.inf,
) -> SavedNames:
    """Pickle the changes of a cell; names that cannot be saved are reported and do not affect the others.

    Args:
        user_ns: The namespace, unchanged since `changes` was computed.
        changes: The changes to save.
        result: The cell's last value.
        lost: Names that an earlier step could not save: a replay has placeholders for them.
        excluded: Names that the user leaves out.
        trial: Loads objects of kinds that are not known to come back; by default none are.
        largest: Bytes beyond which a value is not saved.
    """
    scan, names, in_place = changes.scan, changes.names, changes.in_place
    unsaved = scan.unsaveable(names, lost, excluded)
    if any(result is scan.values.get(name) for name in excluded):
        result = NO_RESULT
    values = {name: scan.values[name] for name in names if name not in unsaved}
    if result is not NO_RESULT:
        values[RESULT] = scan.note_result(user_ns, result, names)
    made = [name for name in names if name not in in_place]
    references = scan.shared([*names, RESULT])[0] | scan.cells_of(in_place)
    updated = {name: before for name, before in in_place.items() if name in values}
    values |= {name: Updated(name, values[name], before) for name, before in updated.items()}
    live, names_of_texts = scan.live(made), scan.texts()
    saved, plain = list[_Saved](), PlainSaver(user_ns, names_of_texts)
    for group_names in sorted(scan.groups(values, made), key=lambda names: not scan.are_texts(names)):
        found = scan.of_these(references, group_names)
        group_values = {name: values[name] for name in group_names}
        pickled = plain.save(group_values) if not found else None
        group = (
            _Saved.of_plain(group_values, pickled)
            if pickled is not None
            else _save_group(user_ns, group_values, live, found, names_of_texts)
        )
        saved.append(group.within(largest))
    untried = _try_out(user_ns, scan, saved, trial, updated) if trial is not None else ""
    groups = [one.group for one in saved if one.group]
    unsaved |= {name: why for one in saved for name, why in one.unsaved.items()}
    beside = _save_beside(user_ns, scan, groups, live)
    marks = {name: mark(name, scan.values[name]) for name in (beside.names if beside else ())}
    sources = texts({file for one in saved for file in one.files})
    return SavedNames(tuple(groups), changes.deleted, unsaved, beside, marks, sources, untried)


@dataclass
class _Saved:
    """A group of names that was pickled, and what it was made of.

    Attributes:
        group: The group; None if none of its names can be saved.
        kinds: The kinds of the objects in it.
        files: The files, or cells, whose code is in it.
        unsaved: Why other names are not saved.
        values: The values of its names.
        live: References, by ids, to objects that are not pickled.
        references: References to objects that other names hold.
        texts: Names that are bound to immutable values, by the ids of these.
    """

    group: Group | None
    kinds: set[type]
    files: set[str]
    unsaved: dict[str, str]
    values: dict[str, Any]
    live: dict[int, Any]
    references: Mapping[int, Reference]
    texts: Named | None

    @classmethod
    def of_plain(cls, values: dict[str, Any], pickled: bytes) -> Self:
        """Return a group of plain data, which loading cannot fail for."""
        return cls(Group((*values,), pickled, (), (), len(values)), set(), set(), {}, values, {}, {}, None)

    def within(self, largest: float) -> _Saved:
        """Return the group; without its names if it is larger than a value may be."""
        if self.group is None or self.group.size <= largest:
            return self
        size, most = (f"{number / 1e6:,.3g} MB" for number in (self.group.size, largest))
        reason = f"it has {size}, and max_result is {most}"
        return replace(self, group=None, unsaved=self.unsaved | dict.fromkeys(self.values, reason))

    def without(self, user_ns: dict[str, Any], failed: Mapping[str, str]) -> _Saved:
        """Return the group without names that would not come back."""
        found = {name: why for name, why in failed.items() if name in self.values}
        if not found:
            return self
        self.live |= {id(self.values[name]): reference(name) for name in found if name != RESULT}
        left = {name: value for name, value in self.values.items() if name not in found}
        again = _save_group(user_ns, left, self.live, self.references, self.texts)
        again.unsaved |= self.unsaved | {
            name: f"it cannot be loaded again ({redacted(found[name])})" for name in found
        }
        return again


def _try_out(
    user_ns: dict[str, Any], scan: Scan, saved: list[_Saved], trial: Trial, updated: Collection[str]
) -> str:
    """Load what holds objects of unknown kinds once, and leave out the names that fail.

    Returns:
        Which names were not loaded, and why; empty if all were that had to be.
    """
    doubtful = {id(one): kinds for one in saved if (kinds := trial.unknown(one.kinds))}
    if not doubtful:
        return ""
    tried = [one.group for one in saved if one.group and (id(one) in doubtful or one.group.size < _SMALL)]
    own = {name for group in tried for name in group.names}
    needed = {name for group in tried for name in group.refers} | scan.anchors_of(own) | {*updated}
    reached = reachable_names(scan.values, own | needed) & scan.values.keys()
    values = {name: scan.values[name] for name in reached if name in updated or name not in own}
    around = _save_group(user_ns, values, {}, {}).group if values else None
    new = {kind for kinds in doubtful.values() for kind in kinds}
    try:
        failed = trial.failures(new, SavedNames(tuple(tried)), SavedNames((around,) if around else ()))
    except NotTried as why:
        return (
            f"loading not tried ({why}): {', '.join(_own_names(one for one in saved if id(one) in doubtful))}"
        )
    saved[:] = [one.without(user_ns, failed) for one in saved]
    return ""


def _own_names(saved: Iterable[_Saved]) -> list[str]:
    """Return the names of groups that hold objects, without those of functions, classes and modules."""
    return [name for one in saved for name, value in one.values.items() if not is_code(type(value))]


def _save_beside(
    user_ns: dict[str, Any], scan: Scan, groups: Sequence[Group], live: dict[int, Any]
) -> Group | None:
    """Save copies of the names to whose objects the groups refer."""
    referred = {name for group in groups for name in group.refers}
    values = {name: scan.values[name] for name in scan.values if name in referred}
    # Those of ordinary cells are not in the step's own results: the names of then are used instead.
    values = {name: value for name, value in values.items() if secret_in(name, value) is None}
    return _save_group(user_ns, values, dict(live), {}).group if values else None


def _save_group(
    user_ns: dict[str, Any],
    values: dict[str, Any],
    live: dict[int, Any],
    references: Mapping[int, Reference],
    texts: Named | None = None,
) -> _Saved:
    """Save the names of a group that can be saved; they refer to the others by name."""
    unsaved: dict[str, str] = {}
    refers, known = tuple({each.name: None for each in references.values()}), stand_ins(references)
    while values:
        saver = Saver(user_ns, live, texts=texts)
        first, rest = _parted(values)
        try:
            stream = saver.save(*filter(None, (first, rest)), known=known, own=values)
        except Exception as error:
            found = _refused(user_ns, values, live, references)
            found = found or dict.fromkeys(values, refusal(None, saver.blamed, error))
            unsaved |= found
            live |= {id(values[name]): reference(name) for name in found if name != RESULT}
            values = {name: value for name, value in values.items() if name not in found}
            continue
        group = Group((*first, *rest), *stream, refers, len(first if saver.kinds else values))
        return _Saved(group, saver.kinds, saver.files, unsaved, values, live, references, texts)
    return _Saved(None, set(), set(), unsaved, {}, live, references, texts)


def _parted(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that loading others may need, and the others."""
    first = {name: value for name, value in values.items() if is_code(type(value)) or type(value) is Updated}
    return first, {name: value for name, value in values.items() if name not in first}


def _refused(
    user_ns: dict[str, Any], values: dict[str, Any], live: dict[int, Any], references: Mapping[int, Reference]
) -> dict[str, str]:
    """Return the names of a group that cannot be pickled on their own, with the reasons."""
    found, known = {}, stand_ins(references)
    for name, value in values.items():
        saver = Saver(user_ns, live)
        try:
            saver.save(value, known=known)
        except Exception as error:
            found[name] = refusal(value, saver.blamed, error)
    return found
