"""Find the names that share mutable objects and must therefore be saved together."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import pickle
import re
import types
import uuid
from collections.abc import Callable, Iterable, Sequence
from enum import EnumMeta
from itertools import chain
from typing import Any, Final

from durable_nb.codec import arrays
from durable_nb.lookup import LRU_CACHE, derives, importable

__all__ = ["ATOMS", "CONTAINERS", "Sharing", "containers", "is_flat"]

ATOMS: Final[frozenset[type]] = frozenset(
    {bool, bytes, complex, float, int, range, slice, str, type(None), type(...), type(NotImplemented)}
)
"""Immutable types whose instances hold no mutable objects."""

_MUTABLE: Final = frozenset({dict, list, set, bytearray})
CONTAINERS: Final = frozenset({dict, list, set, tuple, frozenset})

_NONE: Final[set[int]] = set()

_FROZEN: Final[tuple[type, ...]] = (
    bytes,
    complex,
    float,
    int,
    str,
    tuple,
    frozenset,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    re.Pattern,
    uuid.UUID,
)
"""Classes whose instances are immutable if they have no ``__dict__``; their items are visited separately."""

_FROZEN_CLASSES: Final = (
    ("numpy", "dtype"),
    ("numpy", "generic"),
    ("pandas", "Index"),
    ("pandas.api.extensions", "ExtensionDtype"),
)
_FROZEN_OF_TORCH: Final = frozenset({"device", "dtype", "layout", "memory_format", "Size"})
_FROZEN_MODULES: Final = ("pandas._libs.missing", "pandas._libs.tslibs", "pyarrow.")

_STATELESS: Final = frozenset(
    {
        arrays.Private,
        classmethod,
        pickle.PickleBuffer,
        property,
        staticmethod,
        types.BuiltinFunctionType,
        types.CodeType,
        types.GenericAlias,
        types.GetSetDescriptorType,
        types.MappingProxyType,
        types.MethodDescriptorType,
        types.MethodType,
        types.ModuleType,
        types.WrapperDescriptorType,
    }
)

_HOOKS: Final = ("__reduce__", "__reduce_ex__", "__getstate__")


def is_flat(value: Any) -> bool:
    """Return whether a value is a container that holds only atoms."""
    kind = type(value)
    if kind is dict:
        return ATOMS.issuperset(map(type, value)) and ATOMS.issuperset(map(type, value.values()))
    return kind in CONTAINERS and ATOMS.issuperset(map(type, value))


def containers(value: Any, apart: object = None) -> dict[int, object]:
    """Return the containers, by id, in a value that consists of containers and atoms.

    They are visited level by level, by functions in C. The pickler's memo would have to be copied as a whole.

    Args:
        value: The value.
        apart: A container that is not visited.
    """
    found: dict[int, object] = {}
    level = [value]
    while level:
        new = {key: one for key, one in zip(map(id, level), level, strict=True) if key not in found}
        new.pop(id(apart), None)
        found |= new
        parts = [one for one in new.values() if type(one) is not bytearray]
        level = [] if ATOMS.issuperset(map(type, _items(parts))) else _visited(_items(parts))
    return found


def _items(values: Sequence[Any]) -> Iterable[Any]:
    dicts = [one for one in values if type(one) is dict]
    return chain(chain.from_iterable(values), chain.from_iterable(map(dict.values, dicts)))


def _visited(parts: Iterable[Any]) -> list[Any]:
    return [part for part in parts if type(part) not in ATOMS]


class Sharing:
    """The ids of the mutable objects that each name holds; the objects are kept alive.

    Args:
        anchors: Ids of the classes and functions that names are bound to. Two names that hold one of them
            share it only if the class or function itself is saved.
        namespace: The namespace of the names: a value that holds it shares nothing with others for that.
    """

    def __init__(self, anchors: Iterable[int], namespace: object = None) -> None:
        self._namespace = namespace
        self._anchors = frozenset(anchors)
        self._flat: dict[str, int] = {}
        self._keys: dict[str, set[int]] = {}
        self._refs: dict[str, set[int]] = {}
        self._plain_values: dict[str, tuple[object, set[int]]] = {}
        self._held: dict[str, Callable[[set[int]], set[int]]] = {}
        self._kept: list[object] = []
        self._visitors: dict[type, _Visitor | None] = {}
        self._frozen: set[type] = {*ATOMS, tuple, frozenset}

    def add_flat(self, name: str, value: object) -> None:
        """Add a name whose value is one container of atoms, which the caller keeps alive."""
        if type(value) in _MUTABLE:
            self._flat[name] = id(value)

    def add_same(self, name: str, other: str) -> None:
        """Add a name that is bound to the same object as another name."""
        if other in self._plain_values:
            self._plain_values[name] = self._plain_values[other]
        if other in self._held:
            self._held[name] = self._held[other]
        self._keys[name], self._refs[name] = self._keys.get(other, _NONE), self._refs.get(other, _NONE)

    def add_plain(self, name: str, value: object, constants: set[int]) -> None:
        """Add a name whose value consists of containers and atoms; they are visited only if need be.

        Args:
            name: The name.
            value: Its value.
            constants: Ids of immutable objects of other names, which count as shared too.
        """
        self._plain_values[name] = value, constants

    def add_large(self, name: str, held: Callable[[set[int]], set[int]]) -> None:
        """Add to a plain value that it is large: which of some ids it holds is known without a visit.

        Args:
            name: The name, which was added.
            held: Returns those of some ids that are ids of containers in the value.
        """
        if name in self._plain_values:
            self._held[name] = held

    def common(self, name: str, keys: set[int], saved: frozenset[int]) -> set[int]:
        """Return those of the ids that are ids of objects that a name shares; see `keys`."""
        if name in self._plain_values and name in self._held:
            return self._held[name](keys) if keys else _NONE
        return self.keys(name, saved) & keys

    def common_to(self, names: Iterable[str], others: Iterable[str], saved: frozenset[int]) -> set[int]:
        """Return the ids of objects that some names share with others; large values are visited if need be.

        Args:
            names: The names.
            others: Other names.
            saved: Ids of the anchors that count as shared.
        """
        keys = {name: set[int]() if self._is_large(name) else self.keys(name, saved) for name in {*names}}
        beside = set[int]().union(*(self.keys(name, saved) for name in others if not self._is_large(name)))
        found = set[int]().union(*keys.values())
        large = [name for name in keys if self._is_large(name)]
        if large and any(self._is_large(name) for name in others):
            return found.union(*(self.keys(name, saved) for name in large))
        return found.union(*(self.common(name, beside, saved) for name in large))

    def _is_large(self, name: str) -> bool:
        return name in self._held and name in self._plain_values

    def _visit(self, name: str) -> None:
        value, constants = self._plain_values.pop(name)
        found = containers(value, self._namespace)
        mutable = {key: obj for key, obj in found.items() if type(obj) in _MUTABLE}
        self._kept.append(mutable)
        self.add_constants(name, {*mutable, *(constants & found.keys())})

    def add_constants(self, name: str, found: set[int]) -> None:
        """Add immutable objects of other names that a name holds: they are the same objects again, too."""
        if found:
            self._keys[name] = self._keys.get(name, _NONE) | found

    def add(self, name: str, visited: Iterable[tuple[int, object]], by_value: set[int]) -> None:
        """Add a name with the objects inside its value.

        Args:
            name: The name.
            visited: The memo of the pickler that visited its value.
            by_value: Ids of the classes and functions that were pickled by value, not by reference.
        """
        keys, refs = self._keys.setdefault(name, set()), self._refs.setdefault(name, set())
        frozen = self._frozen  # skips millions of strings and tuples quickly
        for obj in [obj for _, obj in visited if type(obj) not in frozen]:
            kind = type(obj)
            if kind not in self._visitors:
                self._visitors[kind] = _visitor_of(kind)
            visit = self._visitors[kind]
            if visit is None:
                frozen.add(kind)
            else:
                visit(self, obj, keys, refs, by_value)

    def code_in(self, name: str) -> set[int]:
        """Return the ids of the classes and functions that a name's value holds."""
        return self._refs.get(name, _NONE)

    def holders(self, anchors: Iterable[int]) -> set[str]:
        """Return the names whose values hold one of these classes or functions."""
        wanted = set(anchors)
        return {name for name, refs in self._refs.items() if not wanted.isdisjoint(refs)}

    def groups(self, names: Iterable[str], saved: frozenset[int]) -> list[list[str]]:
        """Partition names into groups that share nothing with each other.

        Args:
            names: The names; each group keeps their order.
            saved: Ids of the anchors that are saved themselves, so that their holders share them.
        """
        names = [*names]
        if len(names) <= 1:
            return [names] if names else []
        parent, first = dict[str, str](), dict[int, str]()
        for name in names:
            parent[name] = name
            keys = self.keys(name, saved)
            for key in keys & first.keys():
                _join(parent, first[key], name)
            first |= dict.fromkeys(keys, name)
        groups: dict[str, list[str]] = {}
        for name in parent:
            groups.setdefault(_root(parent, name), []).append(name)
        return list(groups.values())

    def bound_to(self, names: Iterable[str], saved: frozenset[int]) -> set[str]:
        """Return the names with all names that share objects with them, directly or through others."""
        found, left = set(names), set(names)
        while left:
            keys = set().union(*(self.keys(name, saved) for name in left))
            if not keys:
                break
            left = {name for name, key in self._flat.items() if key in keys}
            holders = self._keys.keys() | self._plain_values.keys()
            left |= {name for name in holders if self.common(name, keys, saved)}
            left -= found
            found |= left
        return found

    def keys(self, name: str, saved: frozenset[int]) -> set[int]:
        """Return the ids of the objects that a name shares with other names.

        Args:
            name: The name.
            saved: Ids of the anchors that count as shared.
        """
        if name in self._flat:
            return {self._flat[name]}
        if name in self._plain_values:
            self._visit(name)
        keys, refs = self._keys.get(name, _NONE), self._refs.get(name)
        return keys | (refs & saved) if refs else keys

    def _plain(self, obj: Any, keys: set[int], _refs: set[int], _by_value: set[int]) -> None:
        self._kept.append(obj)
        keys.add(id(obj))

    def _with_attributes(self, obj: Any, keys: set[int], refs: set[int], by_value: set[int]) -> None:
        self._plain(obj, keys, refs, by_value)
        try:
            keys.add(id(object.__getattribute__(obj, "__dict__")))
        except (AttributeError, TypeError):
            return

    def _code(self, obj: Any, keys: set[int], refs: set[int], by_value: set[int]) -> None:
        if id(obj) in self._anchors:
            refs.add(id(obj))
        elif id(obj) in by_value:
            self._plain(obj, keys, refs, by_value)

    def _callable(self, obj: Any, keys: set[int], refs: set[int], by_value: set[int]) -> None:
        if not importable(obj):  # ufuncs and Cython functions are importable: sharing them means nothing
            self._plain(obj, keys, refs, by_value)

    def _array(self, obj: Any, keys: set[int], refs: set[int], by_value: set[int]) -> None:
        self._plain(arrays.owner(obj), keys, refs, by_value)


_Visitor = Callable[[Sharing, Any, set[int], set[int], set[int]], None]


def _visitor_of(kind: type) -> _Visitor | None:
    if kind in (types.FunctionType, LRU_CACHE) or issubclass(kind, type):
        return Sharing._code  # noqa: SLF001 - the table of its own methods
    if arrays.is_array(kind):
        return Sharing._array  # noqa: SLF001
    frozen = kind in ATOMS or kind in _STATELESS or isinstance(kind, EnumMeta) or _is_frozen(kind)
    if frozen or (issubclass(kind, _FROZEN) and not kind.__dictoffset__) or kind.__module__ == "typing":
        return None
    if _is_library_callable(kind):
        return Sharing._callable  # noqa: SLF001
    if kind.__dictoffset__ and any(getattr(kind, each) is not getattr(object, each) for each in _HOOKS):
        return Sharing._with_attributes  # noqa: SLF001 - its `__dict__` may not have been visited
    return Sharing._plain  # noqa: SLF001


def _is_frozen(kind: type) -> bool:
    """Return whether a library's class is immutable, so that names may share its instances safely."""
    if any(derives(kind, *each) for each in _FROZEN_CLASSES):
        return True
    if kind.__module__ == "torch":
        return kind.__name__ in _FROZEN_OF_TORCH
    return str(kind.__module__).startswith(_FROZEN_MODULES)


def _is_library_callable(kind: type) -> bool:
    """Return whether a class's instances may be library functions whose name can be read safely."""
    if kind.__module__ == "__main__":
        return False
    attributes = [
        vars(base).get(hook) for base in kind.__mro__ for hook in ("__getattr__", "__getattribute__")
    ]
    hooked = any(type(attribute) is types.FunctionType for attribute in attributes)
    return not hooked and any("__call__" in vars(base) for base in kind.__mro__)


def _root(parent: dict[str, str], name: str) -> str:
    while parent[name] != name:
        parent[name] = name = parent[parent[name]]
    return name


def _join(parent: dict[str, str], one: str, other: str) -> None:
    parent[_root(parent, other)] = _root(parent, one)
