"""Where an object is inside a value: paths that lead to it again in another process.

A path is a tuple of steps, ``(("key", "rows"), ("item", 3), ("attribute", "name"))``. Following it calls no
code of the user's: items and attributes are read past what a class overrides.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeAlias

from durable_nb.lookup import slots_of

__all__ = ["Path", "children", "find_parts", "follow"]

Path: TypeAlias = tuple[tuple[Any, ...], ...]

_ATOMS: Final = frozenset({bool, bytes, complex, float, int, range, str, type(None), types.ModuleType})
_SEQUENCES: Final = (list, tuple, deque)
_MAX_VISITED: Final = 2_000_000


def find_parts(value: Any, wanted: Collection[int]) -> dict[int, tuple[Any, Path]]:
    """Return each wanted object that is found inside a value, with the shortest path to it.

    Args:
        value: Any object.
        wanted: The ids of the objects.
    """
    left: deque[tuple[Any, Path]] = deque([(value, ())])
    seen, found, missing = dict[int, Any](), dict[int, tuple[Any, Path]](), set(wanted)
    while left and missing and len(seen) < _MAX_VISITED:
        item, path = left.popleft()
        if id(item) in seen:
            continue
        seen[id(item)] = item  # kept alive, so that no id is used twice
        if id(item) in missing:
            missing.discard(id(item))
            found[id(item)] = item, path
        for step, child in children(item):
            if type(child) not in _ATOMS:
                left.append((child, (*path, step)))
    return found


def follow(value: Any, path: Path) -> Any:
    """Return the object to which a path leads.

    Args:
        value: The object at which the path begins.
        path: The path.

    Raises:
        LookupError: The path leads to no object.
    """
    for kind, *where in path:
        try:
            value = _FOLLOW[kind](value, *where)
        except Exception as error:
            raise LookupError(f"{type(value).__name__} has no {kind} {where}") from error
    return value


def children(item: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the objects that an object holds, each with the step of a path that leads to it."""
    kind = type(item)
    if isinstance(item, dict):
        yield from _of_dict(item)
    elif isinstance(item, _SEQUENCES):
        items: Any = next(base for base in _SEQUENCES if isinstance(item, base)).__iter__
        yield from ((("item", place), child) for place, child in enumerate(items(item)))
    if kind is types.FunctionType:
        yield from ((("closure", place), child) for place, child in enumerate(item.__closure__ or ()))
        yield from ((("default", place), child) for place, child in enumerate(item.__defaults__ or ()))
    elif kind in _MEMBERS:
        yield from _of_members(item, _MEMBERS[kind])
    elif _is_array(kind):
        yield from _of_array(item)
    elif kind.__module__.startswith("torch") and hasattr(item, "untyped_storage"):
        yield ("storage",), item.untyped_storage()
    if issubclass(kind, type):
        own = vars(item) if item.__module__ == "__main__" else {}
        yield from ((("attribute", name), child) for name, child in own.items())
    else:
        yield from _of_instance(item, kind)


def _of_dict(item: dict[Any, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for place, (key, child) in enumerate(dict.items(item)):
        plain = type(key) in _ATOMS
        yield ("key", key) if plain else ("value", place), child
        if not plain:
            yield ("name", place), key


def _of_members(item: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for name in names:
        with contextlib.suppress(ValueError):  # an empty closure cell
            yield ("member", name), getattr(item, name)


def _of_array(array: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if (owner := _owner(array)) is not array:
        yield ("owner",), owner
    if array.dtype.hasobject and array.dtype.names is None:
        yield from ((("flat", place), child) for place, child in enumerate(array.flat))


def _of_instance(item: Any, kind: type) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if (own := _attributes(item)) is not None:
        yield ("attributes",), own
        yield from ((("attribute", name), child) for name, child in own.items())
    for name in slots_of(kind):
        try:
            yield ("slot", name), object.__getattribute__(item, name)
        except AttributeError:
            continue
    if kind.__module__ == "__main__":
        yield ("class",), kind


def _attributes(item: Any) -> dict[str, Any] | None:
    try:
        found = object.__getattribute__(item, "__dict__")
    except (AttributeError, TypeError):
        return None
    return found if type(found) is dict else None


def _is_array(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def _owner(array: Any) -> Any:
    """Return the array at the end of a chain of views, which owns the memory."""
    while _is_array(type(base := _base(array))):
        array = base
    return array


def _base(array: Any) -> Any:
    base = array.base
    # as_strided and sliding_window_view put an object in between.
    return base.base if type(base).__name__ == "DummyArray" else base


def _item(sequence: Any, place: int) -> Any:
    own: Any = next(base for base in _SEQUENCES if isinstance(sequence, base))
    return own.__getitem__(sequence, place)


_MEMBERS: Final[dict[type, tuple[str, ...]]] = {
    types.MethodType: ("__self__", "__func__"),
    types.CellType: ("cell_contents",),
    functools.partial: ("func", "args", "keywords"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
}

_FOLLOW: Final[dict[str, Callable[..., Any]]] = {
    "item": _item,
    "key": lambda value, key: dict.__getitem__(value, key),
    "value": lambda value, place: [*dict.values(value)][place],
    "name": lambda value, place: [*dict.keys(value)][place],
    "closure": lambda value, place: value.__closure__[place],
    "default": lambda value, place: value.__defaults__[place],
    "member": getattr,
    "owner": _owner,
    "flat": lambda value, place: value.flat[place],
    "storage": lambda value: value.untyped_storage(),
    "attributes": lambda value: object.__getattribute__(value, "__dict__"),
    "attribute": lambda value, name: vars(value)[name],
    "slot": object.__getattribute__,
    "class": type,
}
"""What each kind of step does. Append only: checkpoints name them."""
