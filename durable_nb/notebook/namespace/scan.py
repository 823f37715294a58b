"""Scan the namespace: the objects that names are bound to, those they share, those that cannot be pickled."""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import marshal
import pathlib
import re
import sys
import time
import types
import typing
import uuid
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Self

import xxhash

from durable_nb import settings
from durable_nb.codec.parts import find_parts
from durable_nb.codec.pickling import Call, refusal
from durable_nb.codec.second_pass import Named, has_identity
from durable_nb.lookup import LRU_CACHE, derives, importable
from durable_nb.notebook.namespace.large import LARGE, Large
from durable_nb.notebook.namespace.marks import mark
from durable_nb.notebook.namespace.pickling import Fingerprinter, OverBudget, Reference, reference
from durable_nb.notebook.namespace.reach import names_in
from durable_nb.notebook.namespace.saved import EXCLUDED
from durable_nb.notebook.namespace.sharing import ATOMS, CONTAINERS, Sharing, is_flat
from durable_nb.notebook.namespace.unnamed import unnamed

__all__ = ["RESULT", "Identities", "Scan", "is_code", "named_objects", "reachable_names"]

RESULT: Final = "<result>"
"""The name under which a cell's last value is saved; not an identifier, so it clashes with no user's name."""

_OWNED_BY_IPYTHON: Final = re.compile(r"_i?\d*|_{2,3}|_i{2,3}|_[dio]h|In|Out|__\w+__")

_LAST_RESULTS: Final = frozenset({"_", "__", "___"})


_FEW: Final = 100
"""Largest number of atoms in a container whose total size is computed, to keep that cheap."""

_WITHOUT_IDENTITY: Final = 2
"""The marshal version that writes equal atoms alike, whether they are one object or two."""

_COMPARED_BY_IS: Final = (
    *(tuple, frozenset, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(decimal.Decimal, fractions.Fraction, pathlib.PurePath, uuid.UUID),
)

_NO_LARGE: Final[Mapping[str, Large]] = {}

_EMPTY: Final[tuple[object, ...]] = ((), frozenset())

_NAMED_TYPES: Final = frozenset(
    {typing.NewType, typing.TypeVar, typing.ParamSpec, getattr(typing, "TypeAliasType", typing.NewType)}
)

_BY_IDENTITY: Final = ATOMS | {types.ModuleType}
"""Types whose instances are compared by identity alone."""


class Identities:
    """The identities and digests of the objects that names are bound to.

    Keeps only those values alive that are compared by identity.

    Args:
        values: The names and the objects they are bound to.

    Attributes:
        ids: Ids of the objects.
        digests: Their fingerprints; empty for objects compared by identity, None for those without one.
        held: Objects kept alive so that their ids are not reused.
        weakly: Weak references, by name, to objects that must not be kept alive.
        plain: Names that are bound to containers of atoms, at any depth, or to atoms.
        large: Those of them that are large, by name.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.ids = {name: id(value) for name, value in values.items()}
        self.digests: dict[str, bytes | None] = {}
        self.held: list[object] = []
        self.weakly: dict[str, weakref.ref[object]] = {}
        self.plain = {name for name, value in values.items() if type(value) in ATOMS}
        self.large: dict[str, Large] = {}

    def hold(self, name: str, value: object) -> None:
        """Note a value that has no fingerprint: reserve its id, with a weak reference if possible."""
        self.digests[name] = None
        try:
            self.weakly[name] = weakref.ref(value)
        except TypeError:
            self.held.append(value)

    def copy(self, name: str, twin: str) -> None:
        """Note a name that is bound to the same object as another name."""
        self.digests[name] = self.digests[twin]
        if twin in self.plain:
            self.plain.add(name)
        if twin in self.large:
            self.large[name] = self.large[twin]

    def same(self, user_ns: Mapping[str, object]) -> set[str]:
        """Return the names that are still bound to the same object."""
        ids, bound = self.ids, list(user_ns.items())
        same = {name for name, value in bound if ids.get(name) == id(value)}
        return same.difference(name for name, ref in self.weakly.items() if ref() is not user_ns.get(name))


class Scan:
    """The user's names at one moment: their values, what they share, which cannot be pickled; see `of`.

    Functions and classes that names are bound to, and that are therefore referred to by name, are the
    anchors: inside other values they are compared by identity. Anchors of the previous scan count too, since
    redefining a class changes none of its instances.

    Args:
        values: The names and the objects they are bound to.
        anchors: The anchors of this scan and the previous one, by id.
        fingerprinter: Fingerprints the values.
        finds_sharing: Whether to find out which names share objects.
        known: Large values that are as they were.

    Attributes:
        values: The names considered and the objects they are bound to, in the namespace's order.
        marks: Their identities and digests.
        failed: Why the values of some names cannot be pickled.
        skipped: Names that were not compared because the time budget was used up.
        anchors: The anchors of this scan and the previous one, by id.
        sharing: The objects that names share.
        fingerprinter: The fingerprinter that visited the values.
    """

    def __init__(
        self,
        values: dict[str, Any],
        anchors: dict[int, object],
        fingerprinter: Fingerprinter,
        *,
        finds_sharing: bool,
        known: Mapping[str, Large] = _NO_LARGE,
    ) -> None:
        self.values = values
        self._known = known
        self.marks = Identities(values)
        self.failed: dict[str, str] = {}
        self.skipped: list[str] = []
        self.anchors = anchors
        self.sharing = Sharing(anchors, fingerprinter.namespace)
        self.fingerprinter = fingerprinter
        self._finds_sharing = finds_sharing
        self._code_types = {kind for kind in set(map(type, values.values())) if _is_function_or_class(kind)}
        self._anchored = {name: id(value) for name, value in values.items() if id(value) in anchors}
        self._constants = (
            {id(value) for value in values.values() if _is_constant(value)} if finds_sharing else set()
        )
        self._first_name: dict[int, str] = {}  # an object with two names is fingerprinted once

    @classmethod
    def of(
        cls,
        user_ns: dict[str, Any],
        hidden: Collection[str],
        first: Collection[str] = (),
        before: Mapping[int, object] | None = None,
        assigned: Collection[str] = (),
        known: Mapping[str, Large] = _NO_LARGE,
    ) -> Self:
        """Scan a namespace.

        Args:
            user_ns: The namespace.
            hidden: Names that are never considered.
            first: Names to scan without a time limit; the others share a budget of ``SWEEP_BUDGET`` seconds.
            before: The anchors of the previous scan; None for the first scan, which ignores sharing.
            assigned: Names that the user's code has bound: then IPython's own ``_`` is one of the user's.
            known: Large values that need not be looked at again, by name.
        """
        found = {**user_ns, **unnamed(user_ns)}
        named = {name: value for name, value in found.items() if name not in hidden and _is_name(name)}
        values = {**named, **{name: user_ns[name] for name in _LAST_RESULTS & {*assigned} & user_ns.keys()}}
        anchors = {**(before or {}), **_anchors(values)}
        fingerprinter = Fingerprinter(user_ns, anchors)
        scan = cls(values, anchors, fingerprinter, finds_sharing=before is not None, known=known)
        scan._note_all(first)
        scan._note_failed_again(user_ns)
        scan.fingerprinter.forget()
        return scan

    def _note_all(self, first: Collection[str]) -> None:
        for name in [name for name in self.values if name in first]:
            self._note(name, self.values[name])
        self.fingerprinter.until = time.monotonic() + settings.SWEEP_BUDGET
        for name in [name for name in self.values if name not in first]:
            self._note(name, self.values[name])
        self.fingerprinter.until = None

    def in_reach(self, names: Collection[str]) -> set[str]:
        """Return the names that share objects with these, directly or through others, and these."""
        return self.sharing.bound_to(names, frozenset(self.anchors))

    def shared(self, saved: Collection[str]) -> tuple[dict[int, Reference], set[str]]:
        """Find the objects in saved names that other names hold.

        Args:
            saved: The names to save, with `RESULT` if it was noted.

        Returns:
            References by the ids of the objects, and names that hold some of them where no path leads to:
            these must be saved too.
        """
        live, anchors = self.live(saved), frozenset(self.anchors)
        left_out = {*saved, *self.failed}
        staying = {name: value for name, value in self.values.items() if name not in left_out}
        wanted = self.sharing.common_to(saved, staying, anchors) - live.keys()
        whole = {name: one for name, one in staying.items() if id(one) in wanted and _can_be_known(name, one)}
        wanted -= self._constants
        found = {id(one): Reference(name, (), one) for name, one in whole.items()}
        along = set[str]()
        for name, value in staying.items() if wanted else ():
            common = self.sharing.common(name, wanted, anchors) - found.keys()
            if common:
                parts = find_parts(value, common)
                found |= {key: Reference(name, path, obj) for key, (obj, path) in parts.items()}
                if common - parts.keys() and id(value) not in anchors:
                    along.add(name)
        return found, along

    def anchors_of(self, names: Collection[str]) -> set[str]:
        """Return the names of the classes and functions that the values of other names hold."""
        anchors = frozenset(self.anchors)
        held = {key for name in names for key in self.sharing.keys(name, anchors)}
        return {name for name, key in self._anchored.items() if key in held}

    def code_in(self, name: str) -> list[str]:
        """Return the names of the classes and functions that a value holds, apart from its own."""
        held = self.sharing.code_in(name)
        return sorted(each for each, key in self._anchored.items() if key in held and each != name)

    def cells_of(self, names: Iterable[str]) -> dict[int, Reference]:
        """Return references to the closure cells of functions."""
        functions = ((name, getattr(self.values[name], "__closure__", None) or ()) for name in names)
        found = ((name, place, cell) for name, cells in functions for place, cell in enumerate(cells))
        return {id(cell): Reference(name, (("closure", place),), cell) for name, place, cell in found}

    def of_these(self, references: Mapping[int, Reference], names: Iterable[str]) -> dict[int, Reference]:
        """Return the references to objects that some of these names hold."""
        anchors = frozenset(self.anchors)
        held = {key for name in names for key in self.sharing.keys(name, anchors)} if references else set()
        return {key: references[key] for key in held & references.keys()}

    def texts(self) -> Named:
        """Return the names that are bound to texts, numbers and the like, by the ids of these."""
        found = [(name, value) for name, value in self.values.items() if has_identity(value)]
        return Named({id(value): name for name, value in reversed(found)})

    def are_texts(self, names: Iterable[str]) -> bool:
        """Return whether names are bound to texts, numbers and the like."""
        return all(has_identity(self.values.get(name)) for name in names)

    def is_own_code(self, value: Any) -> bool:
        """Return whether a value is a class or function that is saved by value, and that can be updated."""
        return self.is_own_class(value) or (id(value) in self.anchors and type(value) is types.FunctionType)

    def is_own_class(self, value: Any) -> bool:
        """Return whether a value is a class that is saved by value."""
        return id(value) in self.anchors and issubclass(type(value), type)

    def groups(self, among: Iterable[str], saved: Collection[str]) -> list[list[str]]:
        """Partition names into groups that share nothing, given that the anchors in `saved` are saved too."""
        return self.sharing.groups(among, self._saved_anchors(saved))

    def _saved_anchors(self, saved: Collection[str]) -> frozenset[int]:
        staying = {self._anchored[name] for name in self._anchored.keys() - set(saved)}
        return frozenset(self.anchors.keys() - staying)

    def live(self, saved: Collection[str]) -> dict[int, Any]:
        """Return references to anchors not in `saved` and to objects that cannot be pickled, by their ids."""
        referred = {*self.failed, *(self._anchored.keys() - set(saved))}
        return {id(value): reference(name) for name, value in self.values.items() if name in referred}

    def unsaveable(
        self, names: Collection[str], lost: Collection[str] = (), excluded: Collection[str] = ()
    ) -> dict[str, str]:
        """Return why some of the names are not saved: they failed, are excluded, or need such a class.

        Args:
            names: The names.
            lost: Further names that failed, and will be placeholders when these names are restored.
            excluded: Names that the user leaves out.
        """
        found = {name: self.failed[name] for name in names if name in self.failed}
        found |= {name: EXCLUDED for name in excluded if name in names}
        left = [*found, *(name for name in lost if name in self.failed and name not in found)]
        while left:
            cls = left.pop()
            value = self.values[cls]
            for name in self.sharing.holders([id(value)]) if issubclass(type(value), type) else ():
                if name in names and name not in found:
                    found[name] = f"it needs the class `{cls}`, which cannot be saved"
                    left.append(name)
        return found

    def note_result(self, user_ns: dict[str, Any], result: object, saved: Collection[str]) -> object:
        """Note the objects that the cell's last value shares.

        Returns:
            The value to save: the result itself, or a reference if an unsaved name is bound to it.
        """
        if type(result) not in ATOMS:
            for name, value in self.values.items():
                if value is result and (name not in saved or name in self.failed):
                    return Call(*reference(name))
            self._fingerprint(self._with_failed(user_ns), RESULT, result)
            self.fingerprinter.forget()
        return result

    def _note(self, name: str, value: Any) -> None:
        kind = type(value)
        if kind in _BY_IDENTITY or (kind in self._code_types and importable(value)):
            self.marks.digests[name] = b""
            self.marks.held.append(value)
        elif (digest := _short_digest(value)) is not None:
            self.marks.digests[name] = digest
            self.marks.plain.add(name)
            self.sharing.add_flat(name, value)
        elif (large := self._known.get(name)) is not None and large.is_still(value):
            self._first_name.setdefault(id(value), name)
            self._note_large(name, value, large)
        elif self.marks.digests.get(twin := self._first_name.setdefault(id(value), name)) is not None:
            self.marks.copy(name, twin)
            self.sharing.add_same(name, twin)
        else:
            self._fingerprint(self.fingerprinter, name, value)
        if id(value) in self._constants:
            self.sharing.add_constants(name, {id(value)})

    def _fingerprint(self, fingerprinter: Fingerprinter, name: str, value: object) -> None:
        flat = is_flat(value)
        try:
            self.marks.digests[name] = fingerprinter.fingerprint(value, flat=flat)
            if self._finds_sharing:
                self._note_sharing(fingerprinter, name, value, flat=flat)
            self._note_plain(fingerprinter, name, value, flat=flat)
        except OverBudget:
            self.skipped.append(name)
            self.marks.hold(name, value)
        except Exception as error:
            self.failed[name] = refusal(value, fingerprinter.blamed, error)
            self.marks.hold(name, value)
        else:
            self.failed.pop(name, None)

    def _note_plain(self, fingerprinter: Fingerprinter, name: str, value: Any, *, flat: bool) -> None:
        if name == RESULT or type(value) not in CONTAINERS or fingerprinter.blamed is not None:
            return
        self.marks.plain.add(name)
        digest = self.marks.digests[name]
        if digest and fingerprinter.size >= LARGE:
            self._note_large(name, value, Large(value, digest, fingerprinter.namespace, flat=flat))

    def _note_large(self, name: str, value: Any, large: Large) -> None:
        self.marks.digests[name] = large.digest
        self.marks.plain.add(name)
        self.marks.large[name] = large
        if self._finds_sharing and large.flat:
            self.sharing.add_flat(name, value)
        elif self._finds_sharing:
            self.sharing.add_plain(name, value, self._constants)
            self.sharing.add_large(name, functools.partial(large.holds, value))

    def _note_sharing(self, fingerprinter: Fingerprinter, name: str, value: object, *, flat: bool) -> None:
        if flat:
            self.sharing.add_flat(name, value)
        elif fingerprinter.blamed is None:
            self.sharing.add_plain(name, value, self._constants)
        else:
            self.sharing.add(name, fingerprinter.visited(), fingerprinter.by_value)
            if self._constants:
                self.sharing.add_constants(name, self._constants & fingerprinter.ids())

    def _note_failed_again(self, user_ns: dict[str, Any]) -> None:
        """Retry values that failed: a reference may replace the unpicklable value of another name."""
        if len(self.failed) > 1:
            fingerprinter = self._with_failed(user_ns)
            for name in list(self.failed):
                self._fingerprint(fingerprinter, name, self.values[name])
            fingerprinter.forget()

    def _with_failed(self, user_ns: dict[str, Any]) -> Fingerprinter:
        unpicklable = (id(self.values[name]) for name in self.failed if name in self.values)
        return Fingerprinter(user_ns, (*self.anchors, *unpicklable), self.fingerprinter.kept)


def named_objects(user_ns: Mapping[str, object]) -> dict[int, Any]:
    """Return references to the objects of the user's names, by their ids, unless they can be imported."""
    named = ((name, value) for name, value in user_ns.items() if _is_name(name) and not _is_imported(value))
    return {id(value): reference(name) for name, value in named}


def _is_imported(value: object) -> bool:
    kind = type(value)
    return kind in _BY_IDENTITY or (_is_function_or_class(kind) and importable(value))


def _is_name(name: object) -> bool:
    """Return whether a key of the namespace is a user's name; `globals()[1] = 2` makes keys that are not."""
    return isinstance(name, str) and (name[:1] not in "_IO" or not _OWNED_BY_IPYTHON.fullmatch(name))


def is_code(kind: type) -> bool:
    """Return whether values of a type are functions, classes or modules, which loading may need."""
    return kind is types.ModuleType or kind is LRU_CACHE or _is_function_or_class(kind)


def _is_function_or_class(kind: type) -> bool:
    return kind is types.FunctionType or kind is types.BuiltinFunctionType or issubclass(kind, type)


def _can_be_known(name: str, value: Any) -> bool:
    """Return whether another value under that name would be noticed; of mutable objects that is not asked."""
    return not _is_compared_by_is(value) or mark(name, value) is not None


def _is_constant(value: Any) -> bool:
    """Return whether a value is immutable, and code may compare it with ``is`` all the same."""
    return type(value) in _NAMED_TYPES or _is_compared_by_is(value)


def _is_compared_by_is(value: Any) -> bool:
    if derives(type(value), "pandas", "Index"):
        return True
    return isinstance(value, _COMPARED_BY_IS) and value not in _EMPTY


def _short_digest(value: Any) -> bytes | None:
    """Return the digest of a small container of atoms, ten times faster than pickling; None for others."""
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


def _anchors(values: Mapping[str, Any]) -> dict[int, object]:
    kinds = {kind for kind in set(map(type, values.values())) if _may_be_anchor(kind)}
    return {id(value): value for value in values.values() if type(value) in kinds and not importable(value)}


def _may_be_anchor(kind: type) -> bool:
    return kind is types.FunctionType or kind is LRU_CACHE or issubclass(kind, type)


def reachable_names(user_ns: Mapping[str, Any], named: Collection[str]) -> set[str]:
    """Return the names that a cell can reach through the notebook's functions and classes that it names.

    This is a heuristic for the names to scan first: an object may lead to any other.

    Args:
        user_ns: The namespace.
        named: The names in the cell's code.
    """
    found: set[str] = set()
    left = set(named)
    while left:
        found |= left
        values = [user_ns[name] for name in left if name in user_ns]
        left = {name for value in values for code in _code_objects(value) for name in names_in(code)} - found
    return found


def _code_objects(value: Any) -> Iterator[types.CodeType]:
    function = value.__func__ if type(value) is types.MethodType else value
    if type(function) is types.FunctionType:
        yield function.__code__
        return
    cls: Any = value if issubclass(type(value), type) else type(value)
    if cls.__module__ == "__main__":
        yield from (one.__code__ for one in vars(cls).values() if type(one) is types.FunctionType)
