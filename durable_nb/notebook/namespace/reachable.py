"""What a cell can reach through the functions and classes of the notebook that it names."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any

__all__ = ["reached"]


def reached(user_ns: Mapping[str, Any], named: Collection[str]) -> set[str]:
    """The names that code naming these can reach through the functions and classes of the notebook.

    It says where to look first, and no more: an object may lead anywhere.

    Args:
        user_ns: The namespace.
        named: What the cell names.
    """
    found: set[str] = set()
    left = set(named)
    while left:
        found |= left
        values = [user_ns[name] for name in left if name in user_ns]
        left = {name for value in values for code in _codes(value) for name in _names_in(code)} - found
    return found


def _codes(value: Any) -> Iterator[types.CodeType]:
    function = value.__func__ if type(value) is types.MethodType else value
    if type(function) is types.FunctionType:
        yield function.__code__
        return
    cls: Any = value if issubclass(type(value), type) else type(value)
    if cls.__module__ == "__main__":
        yield from (one.__code__ for one in vars(cls).values() if type(one) is types.FunctionType)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
