"""What messages say of objects that cannot be saved: the class, the place in the value, the error."""

from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["locate", "message_of", "type_name"]

_MAX_OBJECTS: Final = 100_000
"""Objects visited before the search gives up; it takes a few tens of milliseconds."""


def type_name(kind: type) -> str:
    """Return a class's name for messages, with its module unless that is ``builtins`` or ``__main__``.

    Args:
        kind: Any class.

    Example:
        >>> type_name(dict), type_name(sqlite3.Connection)
        ('dict', 'sqlite3.Connection')
    """
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the message of an exception, whatever its ``__str__`` does.

    Args:
        error: Any exception.

    Example:
        >>> message_of(ValueError("no"))
        'no'
    """
    try:
        return str(error)
    except Exception as failure:
        return f"<str() of the exception failed: {type(failure).__name__}>"


def locate(value: Any, blamed: Any) -> str | None:
    """Return the shortest path to an object inside a value, None if it is not found.

    Args:
        value: The value to search: lists, tuples, sets, dicts, and the attributes of other objects.
        blamed: The object to find, by identity.

    Example:
        >>> locate({"con": connection}, connection)
        "['con']"
    """
    queue, seen = deque([("", value)]), {id(value)}
    while queue and len(seen) < _MAX_OBJECTS:
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
    # The built-in iterators: a subclass may override __iter__.
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
