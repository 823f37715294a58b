"""Take the secrets out of source code: literals that are bound to the name of a secret, or are like one."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from durable_nb.errors.redaction.names import is_secret
from durable_nb.errors.redaction.shapes import HIDDEN
from durable_nb.errors.redaction.text import redacted

__all__ = ["redacted_source"]

_CONSTANT: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
"""The name of an environment variable, rather than a secret."""

_Literal = ast.Constant | ast.JoinedStr
_Bound: TypeAlias = tuple[str, ast.AST]


def redacted_source(text: str) -> str:
    """Return source code without its secrets, with as many lines.

    Args:
        text: Python; what does not parse is treated as text.

    Example:
        >>> redacted_source("client = Client('eu', api_key='hush')")
        "client = Client('eu', api_key='\u2039hidden\u203a')"
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return redacted(text)
    lines = text.encode().splitlines(keepends=True)
    for node in sorted(_hidden(tree), key=lambda node: (node.lineno, node.col_offset), reverse=True):
        _hide(lines, node)
    return redacted(b"".join(lines).decode())


def _hide(lines: list[bytes], node: _Literal) -> None:
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    quote = "'" if first == last else "'''"
    hidden = quote + HIDDEN + "\n" * (last - first) + quote
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    lines[first : last + 1] = (before + hidden.encode() + after).splitlines(keepends=True)


def _hidden(tree: ast.AST) -> list[_Literal]:
    """Return the literals that are secrets by the names they have, outermost ones only, each once."""
    found = {
        id(each): each for node in ast.walk(tree) for name, value in _bound(node) for each in _of(name, value)
    }
    inside = {id(part) for node in found.values() for part in ast.walk(node) if part is not node}
    return [node for key, node in found.items() if key not in inside]


def _of(name: str, value: ast.AST) -> Iterator[_Literal]:
    return (each for each in _literals(value) if _is_hidden(name, each))


def _is_hidden(name: str, node: _Literal) -> bool:
    if isinstance(node, ast.JoinedStr):
        return is_secret(name) and any(isinstance(part, ast.Constant) for part in node.values)
    value = node.value
    if value is None or value is Ellipsis or isinstance(value, bool) or value in ("", b""):
        return False
    return is_secret(name, value) and not (isinstance(value, str) and _CONSTANT.fullmatch(value))


def _literals(node: ast.AST) -> Iterator[_Literal]:
    """Yield the literals of a value, without the keys by which something is looked up."""
    if isinstance(node, _Literal):
        yield node
    elif not isinstance(node, ast.Lambda):
        skipped = node.slice if isinstance(node, ast.Subscript) else None
        keys: Iterable[ast.AST | None] = node.keys if isinstance(node, ast.Dict) else ()
        left = {id(each) for each in (skipped, *keys)}
        for child in ast.iter_child_nodes(node):
            if id(child) not in left:
                yield from _literals(child)


def _bound(node: ast.AST) -> Iterator[_Bound]:
    """Yield each name in a node, with the value that has it."""
    binds = _BINDS.get(type(node))
    return iter(()) if binds is None else binds(node)


def _assigned(node: Any) -> Iterator[_Bound]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return (pair for each in targets if node.value is not None for pair in _targets(each, node.value))


def _keyword(node: ast.keyword) -> Iterator[_Bound]:
    if node.arg is not None:
        yield node.arg, node.value


def _entries(node: ast.Dict) -> Iterator[_Bound]:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, value


def _given(node: ast.Call) -> Iterator[_Bound]:
    yield from _positions(node.args)
    if name := _called(node.func):
        yield from ((name, each) for each in node.args)


def _compared(node: ast.Compare) -> Iterator[_Bound]:
    sides = (node.left, *node.comparators)
    return ((name, each) for side in sides for name in _names(side) for each in sides if each is not side)


def _targets(target: ast.AST, value: ast.AST) -> Iterator[_Bound]:
    match target, value:
        case (
            (ast.Tuple(elts=names) | ast.List(elts=names)),
            (ast.Tuple(elts=values) | ast.List(elts=values)),
        ):
            if len(names) == len(values):
                for each, one in zip(names, values, strict=True):
                    yield from _targets(each, one)
                return
        case ((ast.Tuple(elts=names) | ast.List(elts=names)), _):
            yield from (pair for each in names for pair in _targets(each, value))
            return
    yield from ((name, value) for name in _names(target))


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Subscript(slice=ast.Constant(value=str() as name)):
            yield name


def _called(function: ast.expr) -> str | None:
    """Return the name of a function to which a secret is given: `set_password`, `SecretStr`."""
    name = next(_names(function), "")
    is_setter = (
        re.match(r"(set|add|put|store|save|use|with|check|verify|login|log_in)(?![a-z])", name) is not None
    )
    is_class = name[:1].isupper()
    return name if (is_setter or is_class) and is_secret(name) else None


def _positions(items: list[ast.expr]) -> Iterator[_Bound]:
    """Yield each text with the item after it: `setdefault('API_KEY', '…')`, `('Authorization', '…')`."""
    for before, after in itertools.pairwise(items):
        if isinstance(before, ast.Constant) and isinstance(before.value, str | bytes):
            name = before.value if isinstance(before.value, str) else before.value.decode("latin-1")
            if len(name) < 80 and isinstance(after, _Literal):
                yield name, after


def _defaults(node: ast.arguments) -> Iterator[_Bound]:
    plain = [*node.posonlyargs, *node.args]
    given = zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True)
    only = zip(node.kwonlyargs, node.kw_defaults, strict=True)
    yield from ((arg.arg, value) for arg, value in (*given, *only) if value is not None)


_BINDS: Final[dict[type, Callable[[Any], Iterator[_Bound]]]] = {
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr), _assigned),
    ast.keyword: _keyword,
    ast.Dict: _entries,
    ast.Call: _given,
    **dict.fromkeys((ast.Tuple, ast.List), lambda node: _positions(node.elts)),
    ast.Compare: _compared,
    ast.arguments: _defaults,
}
