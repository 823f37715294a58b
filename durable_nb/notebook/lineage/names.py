"""Find the names that a cell's code reads, now or when its functions are called, and those that it binds."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from durable_nb.fingerprint.mentions import looks_like_path

__all__ = [
    "Mentioned",
    "bound_by",
    "mentioned",
    "outer_reads",
    "parse",
    "read_later",
    "read_now",
    "same_scope",
    "stored",
]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_MAX_DEPTH: Final = 150
"""Levels of a syntax tree that can be walked recursively without overflowing the stack."""

_PYTHON_MAGICS: Final = frozenset({"time", "capture"})
"""Magics whose body is Python that runs in the user's namespace."""

_EXPANDED: Final = re.compile(r"[{$]([^\W\d]\w*)")


def parse(source: str) -> list[ast.stmt]:
    """Return the top-level statements of a cell as IPython transformed it; none if it does not parse.

    Statements that are nested too deeply to be walked are left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [inner for node in body if _depth(node) < _MAX_DEPTH for inner in _without_magic(node)]


def outer_reads(body: Sequence[ast.stmt]) -> frozenset[str]:
    """Return the names that a cell reads before it has bound them itself."""
    reads, bound = _reads(body, frozenset())
    return reads | (read_later(body) - bound)


class Mentioned(NamedTuple):
    """The names and attributes that occur in a cell's code.

    Attributes:
        bound: Names that it binds or deletes, including in functions that declare them global.
        named: All names that it binds, deletes or reads, and all attribute names.
        attributes: Attributes that it assigns to: ``("a", "b", "c")`` for `a.b.c = 1`.
        paths: Literal texts that look like paths.
    """

    bound: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    attributes: frozenset[tuple[str, ...]] = frozenset()
    paths: frozenset[str] = frozenset()


def mentioned(body: Iterable[ast.stmt]) -> Mentioned:
    """Collect the names and attributes that occur in a cell's code."""
    bound, named, attributes, paths = set[str](), set[str](), set[tuple[str, ...]](), set[str]()
    for top in body:
        bound.update(stored(top, ast.Store), stored(top, ast.Del))
        for node in ast.walk(top):
            match node:
                case ast.Name(id=name):
                    named.add(name)
                case ast.Global(names=names):
                    bound.update(names)
                case ast.Constant(value=str(text)) if looks_like_path(text):
                    paths.add(text)
                case ast.Attribute(attr=name, ctx=ctx):
                    named.add(name)
                    if isinstance(ctx, ast.Store):
                        attributes.add(_dotted(node))
    return Mentioned(
        frozenset(bound), frozenset(bound | named), frozenset(attributes - {()}), frozenset(paths)
    )


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """Return the parts of `a.b.c`; empty for any expression that is not a dotted name."""
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=value, attr=name):
            outer = _dotted(value)
            return (*outer, name) if outer else ()
    return ()


def _without_magic(node: ast.stmt) -> list[ast.stmt]:
    """Return the Python inside ``%%time`` and the like; any other statement unchanged."""
    value = node.value if isinstance(node, ast.Expr) else None
    match value:
        case ast.Call(
            func=ast.Attribute(attr="run_cell_magic" | "run_line_magic"),
            args=[ast.Constant(str(name)), *_, ast.Constant(str(body))],
        ) if name in _PYTHON_MAGICS:
            inner = parse(body)
            for each in inner:  # an error has the line of the call
                each.end_lineno = node.end_lineno
            return inner
    return [node]


def _depth(top: ast.AST) -> int:
    level, depth = [top], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


def read_now(node: ast.stmt) -> set[str]:
    """Return the names that a statement reads when it is executed."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _outside(node)
        case ast.ClassDef():
            within = {name for each in node.body for name in stored(each, ast.Store)}
            inside = {name for each in node.body for name in read_now(each)}
            return _loads([*node.decorator_list, *node.bases, *node.keywords]) | (inside - within)
        case ast.Assign(value=ast.Lambda() as function):
            return _loads(node.targets) | _outside(function)
    return set(_reads([node], frozenset())[0]) if _blocks(node)[1] else _loads([node])


def _reads(body: Sequence[ast.stmt], bound: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that statements read before binding them, and those they bind unconditionally."""
    reads: frozenset[str] = frozenset()
    for node in body:
        first, blocks = _blocks(node)
        reads |= (first if blocks else frozenset(read_now(node))) - bound
        within = bound | frozenset(_head_binds(node))
        ends = []
        for block in blocks:
            found, end = _reads(block, within)
            reads |= found
            ends.append(end)
        if isinstance(node, ast.If) and ends:
            bound |= frozenset.intersection(*ends)
        elif blocks:
            bound |= ends[0]
        else:
            bound = (bound | bound_by(node)) - frozenset(stored(node, ast.Del))
    return reads, bound


def _blocks(node: ast.stmt) -> tuple[frozenset[str], list[list[ast.stmt]]]:
    """Return the names that the head of a compound statement reads, and its blocks."""
    match node:
        case ast.If() | ast.While():
            return frozenset(_loads([node.test])), [node.body, node.orelse]
        case ast.For() | ast.AsyncFor():
            return frozenset(_loads([node.iter, node.target])), [node.body, node.orelse]
        case ast.With() | ast.AsyncWith():
            return frozenset(_loads(node.items)), [node.body]
        case ast.Try():
            handled = [list[ast.stmt](handler.body) for handler in node.handlers]
            kinds = [handler.type for handler in node.handlers if handler.type]
            return frozenset(_loads(kinds)), [node.body + node.orelse + node.finalbody, *handled]
    return frozenset(), []


def _head_binds(node: ast.stmt) -> set[str]:
    match node:
        case ast.For() | ast.AsyncFor():
            return set(stored(node.target, ast.Store))
        case ast.With() | ast.AsyncWith():
            return {name for item in node.items for name in stored(item, ast.Store)}
        case ast.Try():
            return {handler.name for handler in node.handlers if handler.name}
    return set()


def bound_by(node: ast.stmt) -> frozenset[str]:
    """Return the names that a statement binds unconditionally; loops are assumed to run at least once."""
    _, blocks = _blocks(node)
    if blocks:
        return _reads([node], frozenset())[1]
    if isinstance(node, ast.Match):
        return frozenset()
    return frozenset(stored(node, ast.Store))


def read_later(body: Iterable[ast.AST]) -> set[str]:
    """Return the names that functions defined in a cell read when they are called."""
    functions = (node for top in body for node in ast.walk(top) if isinstance(node, _Function))
    return {name for function in functions for name in _inside(function)}


def _loads(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that nodes read and do not bind in a scope of their own."""
    return {name for node in nodes for name in _free(node)}


def _free(node: ast.AST) -> set[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return {name}
        case ast.AugAssign(target=ast.Name(id=name)):
            return {name} | _free(node.value)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return _outside(node) | _inside(node)
        case ast.ClassDef():
            return read_now(node) | read_later([node])
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            targets = {name for each in node.generators for name in stored(each.target, ast.Store)}
            return _loads(ast.iter_child_nodes(node)) - targets
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")))):
            return _expanded(node)
        case ast.AnnAssign():
            return _loads([node.target, *([node.value] if node.value else [])])
    return _loads(ast.iter_child_nodes(node))


def _expanded(call: ast.Call) -> set[str]:
    """Return the names that IPython expands in ``{name}`` and ``$name``, and those that ``%time`` reads."""
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    found = {name for text in texts for name in _EXPANDED.findall(text)}
    if texts and texts[0] in _PYTHON_MAGICS:
        found |= outer_reads(parse(texts[-1]))
    return found


def _outside(node: _Function) -> set[str]:
    defaults = [each for each in (*node.args.defaults, *node.args.kw_defaults) if each is not None]
    return _loads([*getattr(node, "decorator_list", []), *defaults])


def _inside(node: _Function) -> set[str]:
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    arguments = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
    bound = {name for each in body for name in stored(each, ast.Store)}
    declared = {name for each in body for name in _declared(each)}
    return _loads(body) - arguments - (bound - declared)


def _declared(node: ast.AST) -> Iterator[str]:
    for each in same_scope(node):
        if isinstance(each, ast.Global):
            yield from each.names


@functools.lru_cache(maxsize=64)  # called several times for each statement
def same_scope(node: ast.AST) -> tuple[ast.AST, ...]:
    """Return a node and its descendants, without the bodies of functions and classes."""
    found, left = list[ast.AST](), [node]
    while left:
        each = left.pop()
        found.append(each)
        if not isinstance(each, _Function | ast.ClassDef):
            left += ast.iter_child_nodes(each)
    return tuple(found)


def stored(node: ast.AST, context: type[ast.Store | ast.Del]) -> Iterator[str]:
    """Yield the names that a node binds, or deletes, in its own scope."""
    own = {
        id(target)
        for each in same_scope(node)
        if isinstance(each, _Comprehension)
        for generator in each.generators
        for target in ast.walk(generator.target)
    }
    for each in same_scope(node):
        match each:
            case ast.Name(id=name, ctx=ctx) if isinstance(ctx, context) and id(each) not in own:
                yield name
            case _ if context is ast.Store:
                yield from _bound_otherwise(each)


def _bound_otherwise(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases):
            yield from ((alias.asname or alias.name.partition(".")[0]) for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
