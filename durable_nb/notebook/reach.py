"""What names a cell binds, what it names, and what it can reach through them."""

from __future__ import annotations

import ast
import dis
import types
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from durable_nb.notebook.body import Shell

__all__ = ["Names", "names", "reached"]


class Names(NamedTuple):
    """The names in a cell's code.

    Attributes:
        bound: Bound or deleted by assignment, import, definition or ``global``.
        named: Those, and all that are read, attributes among them.
    """

    bound: frozenset[str]
    named: frozenset[str]


def names(shell: Shell, body: str) -> Names:
    """The names in a cell's code."""
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(shell.transform_cell(body), "<cell>", "exec", flags, dont_inherit=True)
    bound = frozenset(_stores(code, ("STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL")))
    return Names(bound, bound.union(_names_in(code)))


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


def _stores(code: types.CodeType, operations: tuple[str, ...]) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in operations:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _stores(constant, operations[1::2])
