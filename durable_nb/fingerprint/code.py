"""Fingerprints of code, made of the parts of its syntax tree that run; equal on every Python version."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

from xxhash import xxh3_128_hexdigest

from durable_nb.errors.redaction import HIDDEN

__all__ = ["function", "plain_function", "source", "syntax"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_NOT_BEHAVIOUR: Final = frozenset({"ctx", "kind", "type_comment", "type_params", "returns", "annotation"})
"""Fields of a syntax tree that are redundant, are type hints, or exist only in some Python versions."""


def function(fn: Callable[..., Any]) -> str | None:
    """Return the fingerprint of a function's code, including its name and the source of its defaults.

    Comments, formatting, docstrings, decorators and type hints are ignored.

    Args:
        fn: A function, method or lambda, decorated or not, of a module or a notebook cell.

    Returns:
        32 hex digits; None if the source is not available.

    Example:
        >>> function(textwrap.dedent) == function(textwrap.dedent)
        True
    """
    plain = plain_function(fn)
    if plain is None:
        return None
    try:
        node = _node(plain)
        return None if node is None else _digest("function", _dump(_without_decorators(node)))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return None


def source(text: str) -> str:
    """Return the fingerprint of a cell's source.

    Args:
        text: The source, already transformed from IPython's syntax to Python.

    Returns:
        32 hex digits: of the syntax tree, or of the text if it does not parse.

    Example:
        >>> source("x = 1  # one") == source("x=1")
        True
    """
    try:
        return _digest("source", _dump(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return _digest("text", text)


def syntax(node: ast.AST) -> str:
    """Return the fingerprint of a node of a syntax tree, without docstrings and type hints.

    Args:
        node: A node, such as a statement.

    Returns:
        32 hex digits.

    Example:
        >>> syntax(ast.parse("x = 1  # one").body[0]) == syntax(ast.parse("x=1").body[0])
        True
    """
    return _digest("syntax", _dump(node))


def plain_function(fn: Any) -> FunctionType | None:
    """Return the Python function of a method, or behind decorators that use functools.wraps.

    Args:
        fn: Any callable.

    Returns:
        The function; None if there is none, as for ``len`` or a class.

    Example:
        >>> plain_function(textwrap.dedent) is textwrap.dedent
        True
    """
    try:
        found = inspect.unwrap(fn)
        found = inspect.unwrap(getattr(found, "__func__", found))
    except ValueError:  # wrappers in a circle
        return None
    return found if isinstance(found, FunctionType) else None


def _digest(kind: str, text: str) -> str:
    return xxh3_128_hexdigest(f"{kind}:{text}".encode("utf-8", "surrogatepass"))


def _node(fn: FunctionType) -> _Function | None:
    lines = linecache.getlines(fn.__code__.co_filename, fn.__globals__)
    found = _best(_functions("".join(lines)), fn) if lines else None
    if found and HIDDEN in "".join(lines[_first_line(found) - 1 : found.end_lineno]):
        return None  # restored from a checkpoint, without the secrets in it: it has another fingerprint
    # A file may not parse as a whole, such as a cell with a magic in it, while the function's block does.
    return found or _best(_functions(_block(fn)), fn, anywhere=True)


def _block(fn: FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(fn))
    except (OSError, TypeError, SyntaxError, IndexError):
        return ""


@functools.lru_cache(maxsize=64)
def _functions(text: str) -> tuple[_Function, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, _Function))


def _best(nodes: tuple[_Function, ...], fn: FunctionType, *, anywhere: bool = False) -> _Function | None:
    code = fn.__code__
    named = [node for node in nodes if getattr(node, "name", "<lambda>") == code.co_name]
    if anywhere:  # line numbers are relative to the block: only a unique name identifies the function
        return named[0] if len(named) == 1 else None
    matching = [node for node in named if _first_line(node) == code.co_firstlineno and _holds(node, code)]
    return min(matching, key=_extent, default=None)


def _first_line(node: _Function) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _span(node: _Function) -> tuple[tuple[int, int], tuple[int, int]]:
    return (_first_line(node), node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def _extent(node: _Function) -> tuple[int, int]:
    (line, column), (end_line, end_column) = _span(node)
    return end_line - line, end_column - column


def _holds(node: _Function, code: CodeType) -> bool:
    """Return whether code was compiled from a node; this distinguishes the lambdas of one line."""
    if not isinstance(node, ast.Lambda):
        return True
    start, end = _span(node)
    return all(start <= begin and stop <= end for begin, stop in _positions(code))


def _positions(code: CodeType) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for line, end_line, column, end_column in code.co_positions():
        if line and end_line and column is not None and end_column:
            yield (line, column), (end_line, end_column)


def _without_decorators(node: _Function) -> ast.AST:
    if isinstance(node, ast.Lambda):
        return node
    fields = {name: field for name, field in ast.iter_fields(node) if name != "decorator_list"}
    return type(node)(**fields, decorator_list=[])


def _dump(node: Any, in_class: bool = False) -> str:
    """Return a tree as text: like ast.dump, without empty fields and fields that do not affect behaviour."""
    if isinstance(node, list):
        return f"[{','.join(filter(None, (_dump(item, in_class) for item in node)))}]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{_constant(node)}"
    if isinstance(node, ast.AnnAssign) and not in_class:
        return _dump_annotated(node)
    inside = isinstance(node, ast.ClassDef) or (in_class and not isinstance(node, _Function))
    fields = (
        f"{name}={_dump(field, inside)}"
        for name, field in _fields(node, in_class)
        if field is not None and field != []
    )
    return f"{type(node).__name__}({','.join(fields)})"


def _fields(node: ast.AST, in_class: bool) -> Iterator[tuple[str, Any]]:
    # In a class body an annotation affects behaviour: it defines a field of a dataclass or a model.
    keep = in_class and isinstance(node, ast.AnnAssign)
    for name, field in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield name, _without_docstring(field)
        elif name not in _NOT_BEHAVIOUR or (keep and name == "annotation"):
            yield name, field


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body


def _dump_annotated(node: ast.AnnAssign) -> str:
    if node.value is None:
        return ""  # a bare hint
    return _dump(ast.Assign(targets=[node.target], value=node.value))


def _constant(value: Any) -> str:
    # Not repr: the characters it escapes depend on the Python version. Hex has no limit of digits.
    return hex(value) if type(value) is int else ascii(value)
