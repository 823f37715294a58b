"""Where in a value the thing is that cannot be saved, said as a person would index it."""

from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["locate", "type_name"]

_LOOKED_AT: Final = 100_000
"""Objects looked at before giving up: a few tens of milliseconds, in an error that stops the step anyway."""


def type_name(kind: type) -> str:
    """Name a class for people: with its module, unless that is plain to see.

    Args:
        kind: Any class.

    Example:
        >>> type_name(dict), type_name(sqlite3.Connection)
        ('dict', 'sqlite3.Connection')
    """
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def locate(value: Any, blamed: Any) -> str | None:
    """Give the path to an object inside a value, the shortest there is; None where it isn't found.

    Args:
        value: What to look through: lists, tuples, sets, dicts, and the attributes of anything else.
        blamed: The very object to look for.

    Example:
        >>> locate({"con": connection}, connection)
        "['con']"
    """
    queue, seen = deque([("", value)]), {id(value)}
    while queue and len(seen) < _LOOKED_AT:
        path, found = queue.popleft()
        if found is blamed:
            return path
        for step, child in _children(found):
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((path + step, child))
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if issubclass(kind, dict):
        for key, item in dict.items(value):
            yield f"[{_key(key)}]", item
            yield f" key {_key(key)}", key
    elif issubclass(kind, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(_items(value)))
    elif issubclass(kind, set | frozenset):
        yield from ((f" item {_key(item)}", item) for item in _items(value))
    yield from ((f".{name}", item) for name, item in _attributes(value))


def _items(value: Any) -> Iterator[Any]:
    # The built-in iterators, whatever a subclass makes of __iter__.
    bases: tuple[Any, ...] = (list, tuple, set, frozenset)
    base = next(base for base in bases if issubclass(type(value), base))
    return iter(base.__iter__(value))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return []
    return list(found.items()) if type(found) is dict else []


def _key(key: Any) -> str:
    return reprlib.repr(key) if type(key) in (str, int, float, bool, tuple) else f"<{type_name(type(key))}>"
