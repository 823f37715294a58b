"""The files that values mention: paths among them, and the user's own modules that they come from."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from durable_nb.fingerprint.files import is_users

__all__ = ["looks_like_path", "mentioned_files", "mentions_anything", "module_of"]

_MOST: Final = 2000
"""Values that are looked at for one step; the paths among further ones are not found."""

_LONGEST: Final = 1024
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
_PLAIN: Final = frozenset({int, float, bool, type(None), bytes, complex})


def looks_like_path(text: str) -> bool:
    """Return whether a text may name a file: it has a folder or a suffix, and one line.

    Example:
        >>> looks_like_path("data.csv"), looks_like_path("mean"), looks_like_path("https://example.org/a.csv")
        (True, False, False)
    """
    return (
        0 < len(text) <= _LONGEST
        and ("." in text or "/" in text)
        and "\n" not in text
        and "\0" not in text
        and "://" not in text
    )


def module_of(value: Any) -> ModuleType | None:
    """Return the user's own module that a module, function or class is, or comes from; None if there is none.

    Example:
        >>> module_of(os.path) is None
        True
    """
    kind = type(value)  # a placeholder's __class__ raises
    if issubclass(kind, ModuleType):
        found: Any = value
    elif issubclass(kind, FunctionType | type):
        found = None if value.__module__ == "__main__" else sys.modules.get(value.__module__)
    else:
        return None
    file = getattr(found, "__file__", None)
    is_own = isinstance(file, str) and file.endswith(".py") and is_users(os.path.abspath(file))
    return found if is_own else None


def mentioned_files(values: Iterable[Any], known: Iterable[ModuleType | None] = ()) -> set[str]:
    """Return paths among values, in containers and in the user's functions, and files of the user's modules.

    Args:
        values: The values.
        known: Modules whose files are not to be returned.

    Example:
        >>> mentioned_files([3, "data.csv", ["a.csv"]]) == {"data.csv", "a.csv"}
        True
    """
    left = [value for value in values if type(value) not in _PLAIN]
    if not left:  # the most frequent case
        return set()
    seen, modules, found = set[int](), list[ModuleType](), set[str]()
    while left and len(seen) < _MOST:
        value = left.pop()
        kind = type(value)
        if kind in _PLAIN or id(value) in seen:
            continue
        seen.add(id(value))
        if kind is str:
            found |= {value} if looks_like_path(value) else set()
        elif issubclass(kind, PurePath):
            found.add(str(value))
        else:
            left += _inside(value, kind)
            own = module_of(value)
            modules += [own] if own is not None else []
    return found | _files_of(modules, {id(module) for module in known})


def _inside(value: Any, kind: type) -> Iterable[Any]:
    if kind in _CONTAINERS:
        return list(value)[:_MOST]
    if kind is dict:
        return list(value.values())[:_MOST]
    if kind is FunctionType:
        return _used_by(value) if value.__module__ == "__main__" or module_of(value) else ()
    if dataclasses.is_dataclass(kind):
        return list(getattr(value, "__dict__", {}).values())
    return ()


def mentions_anything(function: FunctionType) -> bool:
    """Return whether a function's code names globals or texts, among which there may be files.

    Example:
        >>> mentions_anything(lambda n: n + 1)
        False
    """
    code = function.__code__
    texts = any(isinstance(constant, str | CodeType) for constant in code.co_consts)
    return bool(code.co_names or texts)


def _used_by(function: FunctionType) -> Iterator[Any]:
    """Yield the constants and the globals that a function's code names."""
    codes = [function.__code__]
    yield vars(function).get("__wrapped__")
    while codes:
        code = codes.pop()
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                codes.append(constant)
            else:
                yield constant
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)


def _files_of(modules: list[ModuleType], known: set[int]) -> set[str]:
    """Return the files of modules, and of the user's own modules that these name."""
    left, seen, found = modules, set[int](), set[str]()
    while left:
        module = left.pop()
        if id(module) not in seen:
            seen.add(id(module))
            found |= set() if id(module) in known else {str(module.__file__)}
            left += [own for value in list(vars(module).values()) if (own := module_of(value)) is not None]
    return found
