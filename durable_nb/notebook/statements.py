"""What one statement of a cell reads, binds and changes in place, as far as its syntax tree shows it."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from durable_nb import fingerprint

__all__ = ["STAR", "Statement", "outer_reads", "parse", "statements"]

STAR: Final = "*"
"""Stands for the names of a star import, which its statement does not tell."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_SHOWN: Final = 60
"""Characters kept of a statement, for people to know it by."""

_PYTHON_MAGICS: Final = frozenset({"time", "capture"})
"""Magics whose text is Python that runs in the namespace."""

_EXPANDED: Final = re.compile(r"[{$]([^\W\d]\w*)")
_MUTATORS: Final = frozenset({*dir(list), *dir(dict), *dir(set), *dir(bytearray)}) - frozenset(
    {*dir(tuple), *dir(frozenset), *dir(bytes), *dir(MappingProxyType), "fromkeys"}
)
"""Methods that only containers which change have: a call of one is likely to change what it is called on."""


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
    deletes: frozenset[str]
    imports: bool
    looked_at: str | None
    may_change: bool
    end: int


def parse(source: str) -> list[ast.stmt]:
    """The top-level statements of a cell as IPython transformed it; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [inner for node in body for inner in _without_magic(node)]


def statements(body: Sequence[ast.stmt]) -> Iterator[Statement]:
    """Look at each statement of a cell."""
    return map(_statement, body)


def outer_reads(body: Sequence[ast.stmt]) -> frozenset[str]:
    """The names that a cell reads before it has bound them itself."""
    reads, bound = _reads(body, frozenset())
    later = _later(body) - bound
    return reads | later


def _statement(node: ast.stmt) -> Statement:
    certain = _bound_by(node)
    everywhere = frozenset(_stored(node, ast.Store))
    now = frozenset(_now(node))
    looked_at, may_change = _method_call(node)
    changes = frozenset(_changed(node)) | (everywhere - certain)
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        certain, changes = frozenset(), changes | {node.target.id}
    return Statement(
        code=fingerprint.syntax(node),
        text=_text(node, everywhere),
        now=now,
        later=frozenset(_later([node])),
        binds=certain,
        changes=changes,
        deletes=frozenset(_stored(node, ast.Del)),
        imports=isinstance(node, ast.Import | ast.ImportFrom),
        looked_at=looked_at,
        may_change=may_change,
        end=node.end_lineno or 0,
    )


def _without_magic(node: ast.stmt) -> list[ast.stmt]:
    """The Python inside ``%%time`` and the like; any other statement as it is."""
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


def _text(node: ast.stmt, bound: Iterable[str]) -> str:
    shown = next((name for name in bound if fingerprint.is_secret(name)), None)
    if shown is not None:
        return f"{shown} = …"
    first, *rest = ast.unparse(node).splitlines() or [""]
    return first if len(first) <= _SHOWN and not rest else f"{first[:_SHOWN]} …"


# What is read.


def _now(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _outside(node)
        case ast.ClassDef():
            within = {name for each in node.body for name in _stored(each, ast.Store)}
            inside = {name for each in node.body for name in _now(each)}
            return _loads([*node.decorator_list, *node.bases, *node.keywords]) | (inside - within)
        case ast.Assign(value=ast.Lambda() as function):
            return _loads(node.targets) | _outside(function)
    return set(_reads([node], frozenset())[0]) if _blocks(node)[1] else _loads([node])


def _reads(body: Sequence[ast.stmt], bound: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What statements read beyond what they bound themselves, and what they certainly bound."""
    reads: frozenset[str] = frozenset()
    for node in body:
        first, blocks = _blocks(node)
        reads |= (first if blocks else frozenset(_now(node))) - bound
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
            bound = (bound | _bound_by(node)) - frozenset(_stored(node, ast.Del))
    return reads, bound


def _blocks(node: ast.stmt) -> tuple[frozenset[str], list[list[ast.stmt]]]:
    """What the head of a compound statement reads, and its blocks."""
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
            return set(_stored(node.target, ast.Store))
        case ast.With() | ast.AsyncWith():
            return {name for item in node.items for name in _stored(item, ast.Store)}
        case ast.Try():
            return {handler.name for handler in node.handlers if handler.name}
    return set()


def _bound_by(node: ast.stmt) -> frozenset[str]:
    """What a statement binds whatever happens; loops are taken to have a first round."""
    _, blocks = _blocks(node)
    if blocks:
        return _reads([node], frozenset())[1]
    if isinstance(node, ast.Match):
        return frozenset()
    return frozenset(_stored(node, ast.Store))


def _later(body: Iterable[ast.AST]) -> set[str]:
    functions = (node for top in body for node in ast.walk(top) if isinstance(node, _Function))
    return {name for function in functions for name in _inside(function)}


def _loads(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are read in some nodes and not bound in a scope of their own."""
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
            return _now(node) | _later([node])
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            targets = {name for each in node.generators for name in _stored(each.target, ast.Store)}
            return _loads(ast.iter_child_nodes(node)) - targets
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")))):
            return _expanded(node)
        case ast.AnnAssign():
            return _loads([node.target, *([node.value] if node.value else [])])
    return _loads(ast.iter_child_nodes(node))


def _expanded(call: ast.Call) -> set[str]:
    """The names that IPython puts in for ``{name}`` and ``$name``, and those of ``%time``."""
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
    bound = {name for each in body for name in _stored(each, ast.Store)}
    declared = {name for each in body for name in _declared(each)}
    return _loads(body) - arguments - (bound - declared)


def _declared(node: ast.AST) -> Iterator[str]:
    for each in _same_scope(node):
        if isinstance(each, ast.Global):
            yield from each.names


# What is written.


@functools.lru_cache(maxsize=64)  # each statement is asked several things
def _same_scope(node: ast.AST) -> tuple[ast.AST, ...]:
    """A node and what is in it, but for the bodies of functions and classes."""
    found, left = list[ast.AST](), [node]
    while left:
        each = left.pop()
        found.append(each)
        if not isinstance(each, _Function | ast.ClassDef):
            left += ast.iter_child_nodes(each)
    return tuple(found)


def _stored(node: ast.AST, context: type[ast.Store | ast.Del]) -> Iterator[str]:
    own = {
        id(target)
        for each in _same_scope(node)
        if isinstance(each, _Comprehension)
        for generator in each.generators
        for target in ast.walk(generator.target)
    }
    for each in _same_scope(node):
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


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose objects a statement stores into, or calls a method of and throws its value away."""
    for each in _same_scope(node):
        match each:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from _root(each)
            case ast.AugAssign(target=ast.Name(id=name)) if each is not node:
                yield name
            case ast.Expr() if each is not node:
                root, _ = _method_call(each)
                yield from [root] if root else []


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
