"""One look at the namespace: what names are bound to, what they share, what cannot be pickled."""

from __future__ import annotations

import re
import time
import types
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from durable_nb import settings
from durable_nb.notebook.figures import open_figures
from durable_nb.notebook.pickling import Fingerprinter, NamedRef, OverBudget, reason
from durable_nb.notebook.reducers import LRU_CACHE, importable
from durable_nb.notebook.sharing import ATOMS, Sharing, containers, is_flat

__all__ = ["RESULT", "Look", "Mark"]

RESULT: Final = "<result>"
"""The name under which a cell's last value is saved: no identifier, so no user's name."""

_OWNED_BY_IPYTHON: Final = re.compile(r"_i?\d*|_{2,3}|_i{2,3}|_[dio]h|In|Out|__\w+__")


class Mark(NamedTuple):
    """What a name was bound to.

    Attributes:
        id: The object's id.
        digest: Its fingerprint; empty where identity says all, None where it has none.
        hold: What keeps the id from naming another object where the digest would not show that: the object
            in a tuple, or a weak reference.
    """

    id: int
    digest: bytes | None
    hold: object = None

    def is_same(self, value: object) -> bool:
        """Whether a name that is bound to `value` now was bound to that very object then."""
        gone = isinstance(self.hold, weakref.ref) and self.hold() is not value
        return self.id == id(value) and not gone


class Look:
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
        marks: What each was found to be.
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
        self.values = {name: value for name, value in taken if not _is_hidden(name, hidden)}
        self.anchors = {**(before or {}), **{id(v): v for v in self.values.values() if _is_anchor(v)}}
        self.sharing = Sharing(self.anchors)
        self.marks: dict[str, Mark] = {}
        self.failed: dict[str, str] = {}
        self.skipped: list[str] = []
        self.fingerprinter = Fingerprinter(user_ns, self.anchors)
        self._asks_sharing = before is not None
        for name in self.values:
            if name in first:
                self._note(name, self.values[name])
        self.fingerprinter.until = time.monotonic() + settings.SWEEP_BUDGET
        for name in self.values:
            if name not in first:
                self._note(name, self.values[name])
        self.fingerprinter.until = None
        self._note_failed_again(user_ns)
        self.fingerprinter.forget()

    def closure(self, changed: Iterable[str]) -> list[list[str]]:
        """Give the groups of names that must be saved if the changed ones must.

        A class or function that is saved binds those that hold it; which ones are saved may in turn follow
        from what they share.
        """
        names: set[str] = set()
        grown, groups = set(changed), list[list[str]]()
        while grown != names:
            names = grown
            groups = [group for group in self.groups(self.values, names) if not names.isdisjoint(group)]
            grown = {name for group in groups for name in group}
        return groups

    def groups(self, among: Iterable[str], saved: Collection[str]) -> list[list[str]]:
        """Part names into groups that share nothing, if the anchors of `saved` are saved themselves."""
        staying = {id(value) for name, value in self.values.items() if name not in saved}
        return self.sharing.groups(among, self.anchors.keys() - staying)

    def live(self, saved: Collection[str]) -> dict[int, str]:
        """What to refer to by name when `saved` is saved: the other anchors, and what cannot be pickled."""
        return {
            id(value): name
            for name, value in self.values.items()
            if name in self.failed or (name not in saved and id(value) in self.anchors)
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
        if kind in ATOMS or kind is types.ModuleType or (_is_code(kind) and importable(value)):
            self.marks[name] = Mark(id(value), b"", (value,))
        else:
            self._fingerprint(self.fingerprinter, name, value)

    def _fingerprint(self, fingerprinter: Fingerprinter, name: str, value: object) -> None:
        flat = is_flat(value)
        try:
            self.marks[name] = Mark(id(value), fingerprinter.fingerprint(value, flat=flat))
            if self._asks_sharing:
                self._note_sharing(fingerprinter, name, value, flat=flat)
        except OverBudget:
            self.skipped.append(name)
            self.marks[name] = Mark(id(value), None, _hold(value))
        except Exception as error:
            self.failed[name] = reason(value, fingerprinter.culprit, error)
            self.marks[name] = Mark(id(value), None, _hold(value))
        else:
            self.failed.pop(name, None)

    def _note_sharing(self, fingerprinter: Fingerprinter, name: str, value: object, *, flat: bool) -> None:
        found = {id(value): value} if flat else containers(value)
        if found is None:
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


def _is_hidden(name: object, hidden: Collection[str]) -> bool:
    if not isinstance(name, str):
        return True  # what `globals()[1] = 2` makes is no name
    return name in hidden or (name[:1] in "_IO" and _OWNED_BY_IPYTHON.fullmatch(name) is not None)


def _is_code(kind: type) -> bool:
    return kind is types.FunctionType or kind is types.BuiltinFunctionType or issubclass(kind, type)


def _is_anchor(value: object) -> bool:
    kind = type(value)
    if kind in ATOMS:
        return False
    code = kind is types.FunctionType or kind is LRU_CACHE or issubclass(kind, type)
    return code and not importable(value)


def _hold(value: object) -> object:
    try:
        return weakref.ref(value)
    except TypeError:
        return (value,)
