"""What one statement of a cell reads, binds and changes in place, as far as its syntax tree shows it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from durable_nb import fingerprint
from durable_nb.notebook.lineage.names import bound_by, read_later, read_now, same_scope, stored

__all__ = ["STAR", "Statement", "statements"]

STAR: Final = "*"
"""Stands for the names of a star import, which its statement does not tell."""

_SHOWN: Final = 60
"""Characters kept of a statement, for people to know it by."""

_MUTATORS: Final = frozenset({*dir(list), *dir(dict), *dir(set), *dir(bytearray)}) - frozenset(
    {*dir(tuple), *dir(frozenset), *dir(bytes), *dir(MappingProxyType), "fromkeys"}
)
"""Methods that only containers which change have: a call of one is likely to change what it is called on."""

_GIVING: Final = frozenset(
    {"fit", "fit_predict", "fit_transform", "partial_fit", "pop", "popitem", "setdefault"}
)
"""Methods that change what they are called on, by what everybody means by them, and give something too."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level statement.

    Attributes:
        code: Fingerprint of its syntax tree.
        text: How it begins, for people; what secret-looking names are bound to is hidden.
        now: The names that it reads when it is executed.
        later: The names that functions in it read when they are called.
        binds: The names that it certainly binds; `STAR` for those of a star import.
        changes: The names that it changes in place, or binds perhaps.
        called_on: The names that it calls a method of which gives something and changes them as well.
        deletes: The names that it deletes.
        imports: Whether it is an import.
        looked_at: The name whose method the statement calls, if its value may be shown or thrown away.
        may_change: Whether such a call is likely to change what it is called on.
        end: The last line.
    """

    code: str
    text: str
    now: frozenset[str]
    later: frozenset[str]
    binds: frozenset[str]
    changes: frozenset[str]
    called_on: frozenset[str]
    deletes: frozenset[str]
    imports: bool
    looked_at: str | None
    may_change: bool
    end: int


def statements(body: Sequence[ast.stmt]) -> Iterator[Statement]:
    """Look at each statement of a cell; each name that is imported counts as imported by one of its own."""
    return (_statement(each) for node in body for each in _apart(node))


def _apart(node: ast.stmt) -> list[ast.stmt]:
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
    looked_at, may_change = _method_call(node)
    changes = frozenset(_changed(node)) | (everywhere - certain)
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        certain, changes = frozenset(), changes | {node.target.id}
    return Statement(
        code=fingerprint.syntax(node),
        text=_text(node, everywhere),
        now=now,
        later=frozenset(read_later([node])),
        binds=certain,
        changes=changes,
        called_on=now.intersection(_called_on(node)),  # of a comprehension's own name nobody else knows
        deletes=frozenset(stored(node, ast.Del)),
        imports=isinstance(node, ast.Import | ast.ImportFrom),
        looked_at=looked_at,
        may_change=may_change,
        end=node.end_lineno or 0,
    )


def _text(node: ast.stmt, bound: Iterable[str]) -> str:
    shown = next((name for name in bound if fingerprint.is_secret(name)), None)
    if shown is not None:
        return f"{shown} = …"
    first, *rest = ast.unparse(node).splitlines() or [""]
    return first if len(first) <= _SHOWN and not rest else f"{first[:_SHOWN]} …"


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose objects a statement stores into, or calls a method of and throws its value away."""
    for each in same_scope(node):
        match each:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from _root(each)
            case ast.AugAssign(target=ast.Name(id=name)) if each is not node:
                yield name
            case ast.Expr() if each is not node:
                root, _ = _method_call(each)
                yield from [root] if root else []


def _called_on(node: ast.AST) -> Iterator[str]:
    for each in same_scope(node):
        match each:
            case ast.Call(func=ast.Attribute(value=holder, attr=method)) if method in _GIVING:
                # Of what a call gives, such as Model().fit(x), nothing else has a name.
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
