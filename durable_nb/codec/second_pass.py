"""What only a first pass of pickling shows: which objects are shared that pickle would copy.

Pickle writes each ``nan`` as a new float: code that looks one up, as ``table[np.nan]``, would not find it. It
copies the ``__dict__`` of an object: another name for it, as ``vars(x)``, would be another dict. It copies
the text or the number that a name is bound to: code may compare the copy with ``is``.
"""

from __future__ import annotations

import functools
import gc
import importlib
import math
import pickle
import sys
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, Final, NamedTuple

import cloudpickle

from durable_nb import _stored
from durable_nb.codec.arrays import Views
from durable_nb.codec.rules import Rule, Rules

__all__ = ["Identified", "Named", "Owners", "SharedDicts", "has_identity", "holds", "holds_nan", "nan_of"]

_NANS: Final = (b"G\x7f\xf8\0\0\0\0\0\0", b"G\xff\xf8\0\0\0\0\0\0")
_PROTOCOL: Final = 5
_LEAST, _MOST = -5, 256
"""The integers that exist once in a process."""
_LONG: Final = 256
"""Bytes from which on pickle writes the length of a text in another way."""

_HEAP_TYPE: Final = 1 << 9
_LEAVES: Final = frozenset({str, bytes, int, float, complex, bool, type(None)})
_DEEPEST: Final = 4
"""How deep in the reduce value of an object its ``__dict__`` is looked for."""


def holds_nan(stream: bytes | memoryview) -> bool:
    """Return whether a pickle stream may hold a float that is not a number."""
    data = bytes(stream)
    return any(pattern in data for pattern in _NANS)


class Named(dict[int, str]):
    """The names that are bound to values for which `has_identity` holds, by the ids of these."""

    def in_much(self, stream: bytes, bound: Mapping[str, Any]) -> bool:
        """Return whether a long pickle stream may hold such a value; of numbers, those named in capitals.

        Another number, as a loop leaves, is often equal to one in the stream by chance.
        """
        values = [(name, bound[name]) for name in self.values()]
        return any(
            holds(stream, value)
            for name, value in values
            if name.isupper() or not isinstance(value, (int, float))
        )


def has_identity(value: Any) -> bool:
    """Return whether a value is one that pickle copies, though code may compare it with ``is``."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) > 1
    if kind is int:
        return not _LEAST <= value <= _MOST
    if kind is slice:
        return all(type(each) in (int, type(None)) for each in (value.start, value.stop, value.step))
    return (kind is float and value == value) or kind is complex or kind is range


def holds(stream: bytes, value: Any) -> bool:
    """Return whether a pickle stream may hold a value for which `has_identity` holds."""
    if isinstance(value, (int, float)):
        return pickle.dumps(value, 2)[2:-1] in stream  # without the bytes that begin and end a pickle
    if not isinstance(value, (str, bytes)):
        return type(value).__name__.encode() in stream
    kind, data = (
        (b"C", value) if isinstance(value, bytes) else (b"\x8c", value.encode("utf-8", "surrogatepass"))
    )
    return (kind + bytes([len(data)]) + data if len(data) < _LONG else data) in stream


def _copied(value: Any) -> Any:
    """Return an equal value that is another object."""
    return value[:1] + value[1:] if type(value) in (str, bytes) else pickle.loads(pickle.dumps(value))  # noqa: S301


class Identified:
    """Gives objects that pickle would copy an id by which the unpickler finds them: the persistent ids.

    Args:
        namespace: The globals of a notebook; None for the result of a task.
        owners: Objects by the ids of the dicts that are their ``__dict__``.
        texts: Names of the namespace, with the immutable values that they are bound to, by the ids of these.
    """

    def __init__(
        self,
        namespace: Mapping[str, Any] | None,
        owners: Mapping[int, Any],
        texts: Mapping[int, tuple[str, Any]],
    ) -> None:
        self._owners = owners
        # A copy of each value: it is pickled for its id, where the value itself would be replaced by the id.
        self._texts = {key: ("text", name, _copied(value)) for key, (name, value) in texts.items()}
        self._nans = {id(math.nan): "math"}
        if (numpy := sys.modules.get("numpy")) is not None:
            self._nans[id(numpy.nan)] = "numpy"
        for name, value in list((namespace or {}).items()):
            if type(value) is float and value != value:
                self._nans.setdefault(id(value), f"={name}")

    def id_of(self, obj: object) -> str | tuple[Any, ...] | None:
        """Return the id of a nan, of a dict of attributes or of a value with a name; None for others."""
        if type(obj) is float and obj != obj:
            return self._nans.setdefault(id(obj), f"#{len(self._nans)}")
        if type(obj) is dict and id(obj) in self._owners:
            return "attributes", self._owners[id(obj)]
        return self._texts.get(id(obj))


def nan_of(name: str, made: dict[str, float], live: Callable[[str], Any] | None) -> float:
    """Return the float of a persistent id.

    Args:
        name: The id.
        made: The floats that were made for ids in this stream.
        live: Returns the value of a name in the namespace that is not a number.
    """
    if name == "math":
        return math.nan
    if name == "numpy":
        found: float = importlib.import_module("numpy").nan
        return found
    if name.startswith("=") and live is not None:
        return float(live(name[1:]))
    return made.setdefault(name, float("nan"))


class SharedDicts(NamedTuple):
    """The dicts that are the ``__dict__`` of an object, and that are held otherwise too.

    Attributes:
        owners: The object by the id of its dict, where it is the only one with this dict.
        reduced: Reduce values, by id, of the owners, and of objects that have one dict together.
    """

    owners: dict[int, Any]
    reduced: dict[int, Any]


class _Plain:
    """Shows how many references there are to a dict that nothing but its object and a pickler's memo hold."""


class Owners(Rules):
    """Rules that note the objects with a ``__dict__`` for which they were asked, and the code.

    Args:
        views: Pickles the arrays.

    Attributes:
        code: The code objects.
    """

    def __init__(self, views: Views) -> None:
        super().__init__(views, {})
        self._noted: list[Any] = []
        self._specs: list[ModuleSpec] = []
        self.code: list[types.CodeType] = []

    def __missing__(self, kind: type) -> Rule | None:
        rule = super().__missing__(kind)
        if kind is types.CodeType:
            rule = self[kind] = functools.partial(_note, self.code.append, rule)
        elif kind is ModuleSpec:
            rule = self[kind] = functools.partial(_note, self._specs.append, rule)
        elif kind.__dictoffset__ and (rule or kind not in cloudpickle.Pickler.dispatch_table):
            rule = self[kind] = functools.partial(_note, self._noted.append, rule)
        return rule

    def modules(self) -> dict[int, types.ModuleType]:
        """Return the modules whose ``__dict__`` may have been pickled, by its id: each holds a spec."""
        found = [module for spec in self._specs if (module := sys.modules.get(spec.name)) is not None]
        return {id(vars(module)): module for module in found}

    def shared(self, known: Collection[int], pickled: Callable[[], Iterable[Any]]) -> SharedDicts:
        """Return the dicts of the objects that are held otherwise too, after the objects were pickled.

        Args:
            known: The ids of dicts and other objects that exist where the pickle is loaded.
            pickled: Returns all objects that were pickled.
        """
        plain = _Plain()
        memo = [vars(plain)]
        least = max(count for *_, count in _counted([plain]))
        memo.clear()
        held = [(obj, own) for obj, own, count in _counted(self._noted) if count > least]
        found, times = SharedDicts({}, {}), Counter(id(own) for _, own in held)
        elsewhere = {*known, *_held_by_others(held, pickled())} if held else set()
        for obj, own in [pair for pair in held if times[id(pair[1])] > 1 or id(pair[1]) in elsewhere]:
            rule = self[type(obj)]
            reduced = NotImplemented if rule is None else rule(obj)
            reduced = obj.__reduce_ex__(_PROTOCOL) if reduced is NotImplemented else reduced
            if id(own) in known or times[id(own)] > 1:
                reduced = _set_as_a_whole(obj, own, reduced)
            elif (reduced := _with_a_copy(own, reduced)) is not None:
                found.owners[id(own)] = obj
            if reduced is not None:
                found.reduced[id(obj)] = reduced
        return found


def _held_by_others(held: Sequence[tuple[Any, dict[str, Any]]], pickled: Iterable[Any]) -> set[int]:
    """Return the ids of those dicts of objects that other objects hold too."""
    dicts = {id(own): own for _, own in held}
    left_out = {id(obj) for obj, _ in held} | dicts.keys()
    others = [obj for obj in pickled if type(obj) not in _LEAVES and id(obj) not in left_out]
    values = (value for own in dicts.values() for value in own.values())
    return {id(each) for each in (*gc.get_referents(*others), *values) if id(each) in dicts}


def _note(note: Callable[[Any], None], rule: Rule | None, obj: Any) -> Any:
    note(obj)
    return NotImplemented if rule is None else rule(obj)


def _counted(objects: Iterable[Any]) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """Yield the objects that have a dict, their dicts, and how many references there are to each dict."""
    for obj in list(objects):
        if (own := _dict_of(obj)) is not None:
            yield obj, own, sys.getrefcount(own)


def _dict_of(obj: Any) -> dict[str, Any] | None:
    try:
        own = object.__getattribute__(obj, "__dict__")
    except (AttributeError, TypeError):
        return None
    return own if type(own) is dict else None


def _set_as_a_whole(obj: Any, own: dict[str, Any], reduced: Any) -> Any:
    if not type(obj).__flags__ & _HEAP_TYPE:  # C code made the class, and does not let the dict be replaced
        return None
    if type(reduced) is not tuple or len(reduced) < 3 or reduced[2] is not own or any(reduced[3:]):
        return None
    return *reduced[:3], None, None, _stored.share_dict


def _with_a_copy(own: dict[str, Any], reduced: Any) -> Any:
    """Return a reduce value with a copy of the object's dict, since the dict itself is identified."""
    return _replaced(reduced, own, dict(own), _DEEPEST) if type(reduced) is tuple else None


def _replaced(value: Any, old: Any, new: Any, depth: int) -> Any:
    if value is old:
        return new
    if type(value) is tuple and depth:
        found = tuple(_replaced(each, old, new, depth - 1) for each in value)
        return found if any(map(_differ, found, value)) else value
    if type(value) is dict and depth:
        changed = {key: _replaced(each, old, new, depth - 1) for key, each in value.items()}
        return changed if any(map(_differ, changed.values(), value.values())) else value
    return value


def _differ(one: Any, other: Any) -> bool:
    return one is not other
