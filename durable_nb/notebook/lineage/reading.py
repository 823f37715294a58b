"""Code that does nothing but read plain data and bind names: it leaves what it reads as it is."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Collection, Container
from typing import Final

__all__ = ["only_reads"]

_PURE: Final = frozenset(
    {
        *("abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int"),
        *("isinstance", "len", "list", "max", "min", "range", "repr", "reversed", "round", "set", "sorted"),
        *("str", "sum", "tuple", "zip"),
    }
)
"""Functions of Python that change no plain data, and that call nothing of the user's for it."""

_METHODS: Final = frozenset(
    {
        *("copy", "count", "endswith", "get", "index", "isdigit", "items", "join", "keys", "lower", "lstrip"),
        *("replace", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "values"),
    }
)
"""Methods that change no plain data that has them."""

_NODES: Final = (
    *(ast.Assign, ast.Expr, ast.For, ast.If, ast.Pass, ast.Break, ast.Continue),
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Slice, ast.Starred, ast.JoinedStr),
    *(ast.FormattedValue, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.keyword),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.NamedExpr),
    *(ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context),
)


def only_reads(source: str, bound: Collection[str], plain: Container[str]) -> bool:
    """Return whether a cell does nothing but read plain data and bind names.

    Args:
        source: The cell's Python.
        bound: The names that are bound before it.
        plain: Those of them that are bound to containers of atoms, or to atoms.

    Example:
        >>> only_reads("x = rows[0]['a']", {"rows"}, {"rows"}), only_reads("rows[0] = 1", {"rows"}, {"rows"})
        (True, False)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and _is_stored(node)}
        return all(_is_harmless(node, bound, plain, own) for node in tree.body)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _is_stored(node: ast.expr) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def _is_harmless(node: ast.AST, bound: Collection[str], plain: Container[str], own: Collection[str]) -> bool:
    """Return whether a node, and those inside it, only read."""
    match node:
        case ast.Name(name, ast.Load()):
            return name in plain if name in bound else name in own
        case ast.Name(ctx=ast.Store()):
            return True
        case ast.Call(ast.Name(name)) if name in bound or name in own or not hasattr(builtins, name):
            return False
    inner = _inner(node)
    return inner is not None and all(_is_harmless(each, bound, plain, own) for each in inner)


def _inner(node: ast.AST) -> list[ast.AST] | None:
    """Return the nodes inside a node that does nothing else than evaluate them; None for other nodes."""
    match node:
        case ast.Subscript(ctx=ast.Load()):
            return [node.value, node.slice]
        case ast.Call(ast.Name(name), arguments, keywords) if name in _PURE:
            return [*arguments, *keywords]
        case ast.Call(ast.Attribute(value, method), arguments, keywords) if method in _METHODS:
            return [value, *arguments, *keywords]
    return [*ast.iter_child_nodes(node)] if isinstance(node, _NODES) else None
