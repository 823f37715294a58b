"""Which objects a cell's code can have changed: those that it mentions, and what these lead to."""

from __future__ import annotations

import functools
import gc
import os
import sys
import time
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from durable_nb import _stored, settings
from durable_nb.fingerprint.files import is_users

__all__ = ["ids_within", "names_in", "reached"]

_MOST: Final = 20_000
"""How many objects are visited before a search is given up: as many take some milliseconds."""

_NO_WAY_ON: Final = frozenset({str, bytes, int, float, complex, bool, type(None), weakref.ref})


def reached(user_ns: Mapping[str, Any], mentioned: Iterable[str], wanted: Iterable[str]) -> set[str]:
    """Return those of the wanted names to whose objects the mentioned names lead.

    Objects lead to what they refer to, functions also to the names in their code. Modules of the user's lead
    to what they hold; installed ones only if they, or functions of theirs, are mentioned themselves.

    Args:
        user_ns: The namespace.
        mentioned: The names in the cell's code.
        wanted: Names of the namespace.

    Returns:
        The names that are reached; all that are wanted if the search takes too long.
    """
    ids = {name: id(user_ns[name]) for name in wanted}
    unreached = _unreached(user_ns, mentioned, {*ids.values()})
    return {name for name, key in ids.items() if key not in unreached}


def ids_within(user_ns: Mapping[str, Any], mentioned: Iterable[str]) -> set[int] | None:
    """Return the ids of the objects to which the mentioned names lead; None if these are many.

    Args:
        user_ns: The namespace.
        mentioned: The names in the cell's code.
    """
    seen: dict[int, Any] = {id(user_ns): user_ns}
    left = _roots(user_ns, mentioned)
    while left:
        value = left.pop()
        if type(value) in _NO_WAY_ON or id(value) in seen:
            continue
        if len(seen) + len(left) > _MOST:
            return None
        seen[id(value)] = value
        left += _leads_to(value, user_ns)
    return {*seen}


def _roots(user_ns: Mapping[str, Any], mentioned: Iterable[str]) -> list[Any]:
    left = [user_ns[name] for name in mentioned if name in user_ns]
    # Whatever prints may write to what the user has put in place of a stream.
    left += [each for each in (sys.stdout, sys.stderr) if each not in _stored.STREAMS.values()]
    return left + [vars(home) for value in left if (home := _home(value)) is not None]


def _unreached(user_ns: Mapping[str, Any], mentioned: Iterable[str], missing: set[int]) -> set[int]:
    stop = time.monotonic() + settings.SWEEP_BUDGET
    seen: dict[int, Any] = {id(user_ns): user_ns}
    left = _roots(user_ns, mentioned)
    while left and missing:
        value = left.pop()
        if type(value) in _NO_WAY_ON or id(value) in seen:
            continue
        seen[id(value)] = value  # kept alive, so that no id is used twice
        missing.discard(id(value))
        if time.monotonic() > stop:
            return set()
        left += _leads_to(value, user_ns)
    return missing


def _home(value: Any) -> types.ModuleType | None:
    """Return a mentioned module, or the module of a mentioned function or class."""
    if type(value) is types.ModuleType:
        return value
    if type(value) in (types.FunctionType, types.BuiltinFunctionType) or issubclass(type(value), type):
        return sys.modules.get(str(value.__module__))
    return None


def _leads_to(value: Any, user_ns: Mapping[str, Any]) -> list[Any]:
    kind = type(value)
    if kind is types.ModuleType:
        return [vars(value)] if _is_users(value.__name__) else []
    if kind is types.FunctionType:
        return _of_function(value, user_ns)
    if issubclass(kind, type) and not _is_users(str(value.__module__)):
        return []
    return gc.get_referents(value)


def _of_function(function: types.FunctionType, user_ns: Mapping[str, Any]) -> list[Any]:
    held = [function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__]
    if function.__globals__ is user_ns:
        held += [user_ns[name] for name in names_in(function.__code__) if name in user_ns]
    elif _is_users(str(function.__module__)):
        held.append(function.__globals__)
    return held


@functools.lru_cache(maxsize=1024)
def _is_users(module: str) -> bool:
    """Return whether a module is the notebook, or a file that is neither installed nor part of Python."""
    if module == "__main__":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return isinstance(file, str) and is_users(os.path.abspath(file))  # noqa: PTH100 - no link is followed


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in a code object and in those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)
