"""One look at the namespace: what names are bound to, what they share, what cannot be pickled."""

from __future__ import annotations

import marshal
import re
import sys
import time
import types
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import xxhash

from durable_nb import settings
from durable_nb._stored import importable
from durable_nb.notebook.namespace.figures import open_figures
from durable_nb.notebook.namespace.pickling import Fingerprinter, NamedRef, OverBudget, reason
from durable_nb.notebook.namespace.reducers import LRU_CACHE
from durable_nb.notebook.namespace.sharing import ATOMS, CONTAINERS, Sharing, containers, is_flat

__all__ = ["RESULT", "Identities", "Scan", "named_objects"]

RESULT: Final = "<result>"
"""The name under which a cell's last value is saved: no identifier, so no user's name."""

_OWNED_BY_IPYTHON: Final = re.compile(r"_i?\d*|_{2,3}|_i{2,3}|_[dio]h|In|Out|__\w+__")


_FEW: Final = 100
"""Atoms up to which a container is small: asking each for its size must stay cheap."""

_WITHOUT_IDENTITY: Final = 2
"""The version of marshal that takes equal atoms for the same, whether they are one object or two."""

_BY_IDENTITY: Final = ATOMS | {types.ModuleType}
"""Types whose instances a name is bound to as before if it is bound to the same one."""


class Identities:
    """What names were bound to; keeps none of the values alive but those that only identity can tell.

    Args:
        values: The names and what they are bound to.

    Attributes:
        ids: The ids of the objects.
        digests: Their fingerprints; empty where identity says all, None where there is none.
        held: What keeps ids from naming other objects.
        weakly: The same of objects that must not be kept, by name.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.ids = {name: id(value) for name, value in values.items()}
        self.digests: dict[str, bytes | None] = {}
        self.held: list[object] = []
        self.weakly: dict[str, weakref.ref[object]] = {}

    def hold(self, name: str, value: object) -> None:
        """Keep the id of a value that has no fingerprint, if not the value."""
        self.digests[name] = None
        try:
            self.weakly[name] = weakref.ref(value)
        except TypeError:
            self.held.append(value)

    def same(self, user_ns: Mapping[str, object]) -> set[str]:
        """The names that are still bound to the very same object."""
        ids, bound = self.ids, list(user_ns.items())
        same = {name for name, value in bound if ids.get(name) == id(value)}
        return same.difference(name for name, ref in self.weakly.items() if ref() is not user_ns.get(name))


class Scan:
    """One look at every name of the user's.

    Objects that names are bound to and that are referred to by name (classes, functions) are the anchors:
    inside other values they count by identity. Those of the look before count too: redefining a class
    changes none of its instances.

    Args:
        user_ns: The namespace.
        hidden: Names that are never considered.
        first: Names to look at whatever it takes; the others share a budget of time.
        before: The anchors of the look before; None for the first look, which asks nobody what is shared.

    Attributes:
        values: The names considered and what they are bound to, in the namespace's order.
        marks: What each was found to be bound to.
        failed: Why the values of some names cannot be pickled.
        skipped: Names that there was no time to look at.
        anchors: The anchors of this look and the one before, by id.
        sharing: What the names share.
        fingerprinter: What went through the values.
    """

    def __init__(
        self,
        user_ns: dict[str, Any],
        hidden: Collection[str],
        first: Collection[str] = (),
        before: Mapping[int, object] | None = None,
    ) -> None:
        taken = [*user_ns.items(), *open_figures().items()]
        self.values = {name: value for name, value in taken if name not in hidden and _is_name(name)}
        kinds = set(map(type, self.values.values()))
        self._code = {kind for kind in kinds if _is_code(kind)}
        named = {kind for kind in kinds if _may_be_anchor(kind)}
        anchors = [v for v in self.values.values() if type(v) in named and not importable(v)]
        self.anchors = {**(before or {}), **{id(value): value for value in anchors}}
        self._anchored = {name: id(value) for name, value in self.values.items() if id(value) in self.anchors}
        self.sharing = Sharing(self.anchors)
        self.marks = Identities(self.values)
        self.failed: dict[str, str] = {}
        self.skipped: list[str] = []
        self.fingerprinter = Fingerprinter(user_ns, self.anchors)
        self._asks_sharing = before is not None
        self._twins: dict[int, str] = {}  # what two names are bound to is looked at once, in or out of time
        for name in [name for name in self.values if name in first]:
            self._note(name, self.values[name])
        self.fingerprinter.until = time.monotonic() + settings.SWEEP_BUDGET
        for name in [name for name in self.values if name not in first]:
            self._note(name, self.values[name])
        self.fingerprinter.until = None
        self._note_failed_again(user_ns)
        self.fingerprinter.forget()

    def closure(self, changed: Iterable[str]) -> list[list[str]]:
        """Give the groups of names that must be saved if the changed ones must.

        A class or function that is saved binds those that hold it; which ones are saved may in turn follow
        from what they share.
        """
        names, loose = set(changed), None
        while loose != (now := self._loose(names)):
            loose = now
            names = self.sharing.bound_to(names, loose)
        return self.sharing.groups((name for name in self.values if name in names), self._loose(names))

    def groups(self, among: Iterable[str], saved: Collection[str]) -> list[list[str]]:
        """Part names into groups that share nothing, if the anchors of `saved` are saved themselves."""
        return self.sharing.groups(among, self._loose(saved))

    def _loose(self, saved: Collection[str]) -> frozenset[int]:
        staying = {key for name, key in self._anchored.items() if name not in saved}
        return frozenset(self.anchors.keys() - staying)

    def live(self, saved: Collection[str]) -> dict[int, str]:
        """What to refer to by name when `saved` is saved: the other anchors, and what cannot be pickled."""
        return {
            id(value): name
            for name, value in self.values.items()
            if name in self.failed or (name not in saved and name in self._anchored)
        }

    def unsaveable(self, names: Collection[str]) -> dict[str, str]:
        """Say which of the names to save cannot be: those that failed, and what needs their classes."""
        found = {name: self.failed[name] for name in names if name in self.failed}
        left = list(found)
        while left:
            cls = left.pop()
            value = self.values[cls]
            for name in self.sharing.holders([id(value)]) if issubclass(type(value), type) else ():
                if name in names and name not in found:
                    found[name] = f"it needs the class `{cls}`, which cannot be saved"
                    left.append(name)
        return found

    def note_result(self, user_ns: dict[str, Any], result: object, saved: Collection[str]) -> object:
        """Note what the cell's last value shares; gives what to save, a reference if a name has it."""
        if type(result) not in ATOMS:
            for name, value in self.values.items():
                if value is result and (name not in saved or name in self.failed):
                    return NamedRef(name)
            self._fingerprint(self._with_failed(user_ns), RESULT, result)
            self.fingerprinter.forget()
        return result

    def _note(self, name: str, value: Any) -> None:
        kind = type(value)
        if kind in _BY_IDENTITY or (kind in self._code and importable(value)):
            self.marks.digests[name] = b""
            self.marks.held.append(value)
        elif (digest := _short_digest(value)) is not None:
            self.marks.digests[name] = digest
            self.sharing.add_flat(name, value)
        elif self.marks.digests.get(twin := self._twins.setdefault(id(value), name)) is not None:
            self.marks.digests[name] = self.marks.digests[twin]
            self.sharing.add_same(name, twin)
        else:
            self._fingerprint(self.fingerprinter, name, value)

    def _fingerprint(self, fingerprinter: Fingerprinter, name: str, value: object) -> None:
        flat = is_flat(value)
        try:
            self.marks.digests[name] = fingerprinter.fingerprint(value, flat=flat)
            if self._asks_sharing:
                self._note_sharing(fingerprinter, name, value, flat=flat)
        except OverBudget:
            self.skipped.append(name)
            self.marks.hold(name, value)
        except Exception as error:
            self.failed[name] = reason(value, fingerprinter.blamed, error)
            self.marks.hold(name, value)
        else:
            self.failed.pop(name, None)

    def _note_sharing(self, fingerprinter: Fingerprinter, name: str, value: object, *, flat: bool) -> None:
        if flat:
            self.sharing.add_flat(name, value)
        elif (found := containers(value)) is None:
            self.sharing.add(name, fingerprinter.visited(), fingerprinter.by_value)
        else:
            self.sharing.add_containers(name, found)

    def _note_failed_again(self, user_ns: dict[str, Any]) -> None:
        """What holds the unpicklable value of another name can be pickled with that name in its place."""
        if len(self.failed) > 1:
            fingerprinter = self._with_failed(user_ns)
            for name in list(self.failed):
                self._fingerprint(fingerprinter, name, self.values[name])
            fingerprinter.forget()

    def _with_failed(self, user_ns: dict[str, Any]) -> Fingerprinter:
        unpicklable = (id(self.values[name]) for name in self.failed if name in self.values)
        return Fingerprinter(user_ns, (*self.anchors, *unpicklable), self.fingerprinter.kept)


def named_objects(user_ns: Mapping[str, object]) -> dict[int, str]:
    """The user's names by the ids of what they are bound to, but for what importing gives as well."""
    return {id(value): name for name, value in user_ns.items() if _is_name(name) and not _is_imported(value)}


def _is_imported(value: object) -> bool:
    kind = type(value)
    return kind in _BY_IDENTITY or (_is_code(kind) and importable(value))


def _is_name(name: object) -> bool:
    """Whether it is a user's: what `globals()[1] = 2` makes is no name."""
    return isinstance(name, str) and (name[:1] not in "_IO" or not _OWNED_BY_IPYTHON.fullmatch(name))


def _is_code(kind: type) -> bool:
    return kind is types.FunctionType or kind is types.BuiltinFunctionType or issubclass(kind, type)


def _short_digest(value: Any) -> bytes | None:
    """The digest of a small container of atoms, in a tenth of a pickler's time; None for other values."""
    kind = type(value)
    if kind not in CONTAINERS:
        return None
    parts = (*value, *value.values()) if kind is dict else value
    if len(parts) > _FEW or not ATOMS.issuperset(map(type, parts)):
        return None
    if sum(map(sys.getsizeof, parts)) > settings.OUT_OF_BAND:  # marshal makes a copy of it
        return None
    try:
        return xxhash.xxh3_128_digest(marshal.dumps(value, _WITHOUT_IDENTITY))
    except ValueError:  # a range or a slice
        return None


def _may_be_anchor(kind: type) -> bool:
    return kind is types.FunctionType or kind is LRU_CACHE or issubclass(kind, type)
