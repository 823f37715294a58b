"""The names that each statement of a cell reads, binds and changes in place, derived from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from durable_nb import fingerprint
from durable_nb.errors.redaction import redacted_source
from durable_nb.notebook.lineage.names import bound_by, read_later, read_now, same_scope, stored

__all__ = ["STAR", "Statement", "shown_text", "statements"]

STAR: Final = "*"
"""Stands for the names of a star import, which the syntax tree does not show."""

_SHOWN: Final = 60
"""Characters of a statement that are shown to the user."""

_MUTATORS: Final = frozenset({*dir(list), *dir(dict), *dir(set), *dir(bytearray)}) - frozenset(
    {*dir(tuple), *dir(frozenset), *dir(bytes), *dir(MappingProxyType), "fromkeys"}
)
"""Methods that only mutable containers have: a call of one is likely to mutate its receiver."""

_MUTATE_AND_RETURN: Final = frozenset(
    {"fit", "fit_predict", "fit_transform", "partial_fit", "pop", "popitem", "setdefault"}
)
"""Methods that, by convention, mutate their receiver and also return a value."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level statement.

    Attributes:
        code: Fingerprint of its syntax tree.
        text: Its beginning, as shown to the user and as stored, without secrets.
        reads_now: Names that it reads when it is executed.
        reads_later: Names that functions defined in it read when they are called.
        binds: Names that it binds unconditionally; `STAR` for those of a star import.
        changes: Names that it changes in place or binds conditionally.
        mutated_receivers: Names on which it calls a method that mutates them and also returns a value.
        deletes: Names that it deletes.
        imports: Whether it is an import.
        receiver: The name whose method it calls, if the statement is a bare method call.
        may_change: Whether that call is likely to mutate the receiver.
        end: Number of its last line.
    """

    code: str
    text: str
    reads_now: frozenset[str]
    reads_later: frozenset[str]
    binds: frozenset[str]
    changes: frozenset[str]
    mutated_receivers: frozenset[str]
    deletes: frozenset[str]
    imports: bool
    receiver: str | None
    may_change: bool
    end: int


def statements(body: Sequence[ast.stmt]) -> Iterator[Statement]:
    """Analyze each statement of a cell; an import of several names counts as one statement for each name."""
    return (_statement(each) for node in body for each in _split_imports(node))


def _split_imports(node: ast.stmt) -> list[ast.stmt]:
    match node:
        case ast.Import(names=aliases):
            parts: list[ast.stmt] = [ast.Import([alias]) for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=level):
            parts = [ast.ImportFrom(module, [alias], level) for alias in aliases]
        case _:
            return [node]
    return [ast.copy_location(part, node) for part in parts]


def _statement(node: ast.stmt) -> Statement:
    certain = bound_by(node)
    everywhere = frozenset(stored(node, ast.Store))
    now = frozenset(read_now(node))
    receiver, may_change = _method_call(node)
    changes = frozenset(_changed(node)) | (everywhere - certain)
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        certain, changes = frozenset(), changes | {node.target.id}
    return Statement(
        code=fingerprint.syntax(node),
        text=shown_text(node),
        reads_now=now,
        reads_later=frozenset(read_later([node])),
        binds=certain,
        changes=changes,
        mutated_receivers=now.intersection(_mutated_receivers(node)),  # without a comprehension's own names
        deletes=frozenset(stored(node, ast.Del)),
        imports=isinstance(node, ast.Import | ast.ImportFrom),
        receiver=receiver,
        may_change=may_change,
        end=node.end_lineno or 0,
    )


def shown_text(node: ast.stmt) -> str:
    """Return the beginning of a statement, for people, without secrets."""
    first, *rest = redacted_source(ast.unparse(node)).splitlines() or [""]
    return first if len(first) <= _SHOWN and not rest else f"{first[:_SHOWN]} …"


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement stores into, or calls a method of and discards the returned value."""
    for each in same_scope(node):
        match each:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from _root(each)
            case ast.AugAssign(target=ast.Name(id=name)) if each is not node:
                yield name
            case ast.Expr() if each is not node:
                root, _ = _method_call(each)
                yield from [root] if root else []


def _mutated_receivers(node: ast.AST) -> Iterator[str]:
    for each in same_scope(node):
        match each:
            case ast.Call(func=ast.Attribute(value=holder, attr=method)) if method in _MUTATE_AND_RETURN:
                # The receiver of Model().fit(x) has no name.
                if not any(isinstance(part, ast.Call) for part in ast.walk(holder)):
                    yield from _root(holder)


def _method_call(node: ast.stmt) -> tuple[str | None, bool]:
    value = node.value if isinstance(node, ast.Expr) else None
    value = value.value if isinstance(value, ast.Await) else value
    match value:
        case ast.Call(func=ast.Attribute(attr=method), keywords=keywords):
            root = next(_root(value), None)
            in_place = any(
                keyword.arg == "inplace" and getattr(keyword.value, "value", False) for keyword in keywords
            )
            return root, in_place or method in _MUTATORS
    return None, False


def _root(node: ast.expr) -> Iterator[str]:
    while not isinstance(node, ast.Name):
        match node:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                node = inner
            case _:
                return
        if isinstance(node, ast.Name) and node.id == "get_ipython":
            return
    yield node.id
