"""Mutable objects: what they hold, whether that has changed, and how the change is made again in place."""

from __future__ import annotations

import enum
import functools
import logging
import operator
import os
import re
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, NamedTuple
from uuid import UUID

from xxhash import xxh3_128_digest

from durable_nb.fingerprint.files import is_users
from durable_nb.fingerprint.values import value
from durable_nb.lookup import derives, slots_of

__all__ = ["IMMUTABLE", "Kind", "has_attributes", "is_fixed", "kind_of"]

IMMUTABLE: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        range,
        slice,
        frozenset,
        type(...),
        type(NotImplemented),
    }
)
"""Types of objects that no body can change."""

_FIXED: Final = (
    *(date, time, timedelta, tzinfo, Decimal, Fraction, PurePath, UUID, re.Pattern, enum.Enum, type),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial),
    *(weakref.ref, ContextVar, BaseException, logging.Logger),
)
"""Classes of objects that are not looked into: immutable ones, and code."""

_ABSENT: Final = object()


class Kind(NamedTuple):
    """The functions that compare an object with what it was, keep a change of it, and make it again.

    Attributes:
        note: Returns what an object holds.
        is_same: Returns whether two notes of one object are equal.
        change: Returns what is kept of a change, from the note before and the object; raises ValueError if
            it cannot be made again.
        put: Makes a change on an object that is as it was before; raises LookupError if it cannot.
        size: Returns how much there is to note, in items.
    """

    note: Callable[[Any], Any]
    is_same: Callable[[Any, Any], bool]
    change: Callable[[Any, Any], Any]
    put: Callable[[Any, Any], None]
    size: Callable[[Any], int] = len


def kind_of(obj: Any) -> Kind | None:
    """Return how an object is compared and changed; None for what holds nothing itself."""
    kind: type = type(obj)
    found = _kind_of_type(kind)
    return None if found is _ARRAY and not obj.flags.writeable else found


@functools.lru_cache(maxsize=4096)
def _kind_of_type(kind: type) -> Kind | None:
    for base, found in _CONTAINERS.items():
        if issubclass(kind, base):
            return found if kind.__module__ in ("builtins", "collections") or _is_users(kind) else None
    if derives(kind, "numpy", "ndarray"):
        return _ARRAY if kind.__module__ == "numpy" else None
    if derives(kind, "pandas.core.generic", "NDFrame"):
        return _FRAME if kind.__module__.partition(".")[0] == "pandas" else None
    return _SLOTS if has_attributes(kind) and slots_of(kind) else None


@functools.lru_cache(maxsize=4096)
def has_attributes(kind: type) -> bool:
    """Return whether the attributes of instances are their data: the class is the user's, or a data class."""
    return (
        _is_users(kind)
        or hasattr(kind, "__dataclass_fields__")
        or derives(kind, "pydantic.main", "BaseModel")
    )


@functools.lru_cache(maxsize=4096)
def is_fixed(kind: type) -> bool:
    """Return whether instances are not looked into: they are immutable, code, or part of this package."""
    if kind in IMMUTABLE or issubclass(kind, _FIXED):
        return True
    package = kind.__module__.partition(".")[0]
    frames = derives(kind, "pandas.core.generic", "NDFrame")
    return (
        package == __name__.partition(".")[0]
        or derives(kind, "numpy", "generic")
        or (package == "pandas" and not frames)
    )


def _is_users(kind: type) -> bool:
    if kind.__module__ == "__main__":
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and is_users(os.path.abspath(file))  # noqa: PTH100 - no link is followed


def _identical(before: Iterable[Any], now: Iterable[Any]) -> bool:
    before, now = [*before], [*now]
    return len(before) == len(now) and all(map(operator.is_, before, now))


def _same_items(before: dict[Any, Any], now: dict[Any, Any]) -> bool:
    return _identical(before, now) and _identical(before.values(), now.values())


def _items(obj: dict[Any, Any]) -> dict[Any, Any]:
    return dict(_base(obj).items(obj))


def _base(obj: dict[Any, Any]) -> type[dict[Any, Any]]:
    return OrderedDict if isinstance(obj, OrderedDict) else dict


def _items_changed(before: dict[Any, Any], obj: dict[Any, Any]) -> Any:
    now = _items(obj)
    changed = [(key, held) for key, held in now.items() if before.get(key, _ABSENT) is not held]
    deleted = [key for key in before if key not in now]
    order = [*(key for key in before if key in now), *(key for key in now if key not in before)]
    return changed, deleted, None if _identical(order, now) else [*now]


def _put_items(obj: dict[Any, Any], change: Any) -> None:
    changed, deleted, order = change
    base = _base(obj)
    for key in deleted:
        base.pop(obj, key, None)
    for key, held in changed:
        base.__setitem__(obj, key, held)
    if order is not None:
        items = _items(obj)
        base.clear(obj)
        for key in [*order, *items]:
            if key in items:
                base.__setitem__(obj, key, items.pop(key))


def _put_deque(obj: deque[Any], items: list[Any]) -> None:
    deque.clear(obj)
    deque.extend(obj, items)


def _put_set(obj: set[Any], items: list[Any]) -> None:
    set.clear(obj)
    set.update(obj, items)


def _same_ids(before: list[Any], now: list[Any]) -> bool:
    return {*map(id, before)} == {*map(id, now)}


def _slots(obj: Any) -> dict[str, Any]:
    found = dict[str, Any]()
    kind: type = type(obj)
    for name in slots_of(kind):
        held = _slot(obj, name)
        if held is not _ABSENT:
            found[name] = held
    return found


def _slot(obj: Any, name: str) -> Any:
    try:
        return object.__getattribute__(obj, name)
    except AttributeError:
        return _ABSENT


def _slots_changed(before: dict[str, Any], obj: Any) -> Any:
    now = _slots(obj)
    changed = [(name, held) for name, held in now.items() if before.get(name, _ABSENT) is not held]
    return changed, [name for name in before if name not in now]


def _put_slots(obj: Any, change: Any) -> None:
    changed, deleted = change
    for name in deleted:
        object.__delattr__(obj, name)
    for name, held in changed:
        object.__setattr__(obj, name, held)


def _note_array(obj: Any) -> Any:
    numpy = sys.modules["numpy"]
    if obj.dtype.hasobject:
        return obj.dtype, obj.shape, [*obj.flat]
    flat = numpy.ascontiguousarray(obj).reshape(-1)
    return obj.dtype, obj.shape, xxh3_128_digest(flat.view(numpy.uint8) if flat.nbytes else b"")


def _same_array(before: Any, now: Any) -> bool:
    if before[:2] != now[:2]:
        return False
    return _identical(before[2], now[2]) if isinstance(now[2], list) else bool(before[2] == now[2])


def _array_changed(before: Any, obj: Any) -> Any:
    if before[:2] != (obj.dtype, obj.shape):
        raise ValueError("the shape or the type of an array was changed in place")
    return sys.modules["numpy"].array(obj)


def _put_array(obj: Any, change: Any) -> None:
    if (obj.dtype, obj.shape) != (change.dtype, change.shape):
        raise LookupError("an array of another shape or type")
    obj[...] = change


def _put_frame(obj: Any, change: Any) -> None:
    obj._update_inplace(change)  # noqa: SLF001 - what the inplace=True of pandas itself does


_DICT: Final = Kind(_items, _same_items, _items_changed, _put_items)
_CONTAINERS: Final[dict[type, Kind]] = {
    list: Kind(
        lambda obj: list.__getitem__(obj, slice(None)),
        _identical,
        lambda _, obj: list.__getitem__(obj, slice(None)),
        lambda obj, items: list.__setitem__(obj, slice(None), items),
    ),
    dict: _DICT,
    set: Kind(lambda obj: [*set.__iter__(obj)], _same_ids, lambda _, obj: [*set.__iter__(obj)], _put_set),
    bytearray: Kind(
        bytes,
        operator.eq,
        lambda _, obj: bytes(obj),
        lambda obj, data: bytearray.__setitem__(obj, slice(None), data),
        lambda obj: len(obj) >> 10,
    ),
    deque: Kind(
        lambda obj: [*deque.__iter__(obj)], _identical, lambda _, obj: [*deque.__iter__(obj)], _put_deque
    ),
}
_SLOTS: Final = Kind(_slots, _same_items, _slots_changed, _put_slots, lambda _: 1)
_ARRAY: Final = Kind(_note_array, _same_array, _array_changed, _put_array, lambda obj: obj.nbytes >> 10)
_FRAME: Final = Kind(value, operator.eq, lambda _, obj: obj.copy(), _put_frame, lambda obj: obj.size >> 3)
