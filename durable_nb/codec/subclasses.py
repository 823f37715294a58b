"""Rules for instances of subclasses of built-in types: read and made again by the built-in type alone.

By default pickle reads a container by the ``items`` or ``__iter__`` of its class, and loads it by a call of
the class: a class with other items, or whose ``__init__`` or ``__new__`` takes other arguments, comes back
wrong or not at all.
"""

from __future__ import annotations

import collections
import copyreg
from collections.abc import Callable
from typing import Any, Final

from durable_nb import _stored
from durable_nb.lookup import importable

__all__ = ["reduce_alias", "reduce_new_type", "rule_of"]

_DICTS: Final = (collections.OrderedDict, collections.defaultdict, collections.Counter, dict)
_CONTAINERS: Final = (*_DICTS, list, set, collections.deque)
_VALUES: Final = (int, float, complex, str, bytes, tuple, frozenset)
_HOOKS: Final = (
    *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
    *("__getnewargs__", "__getnewargs_ex__"),
)


def rule_of(kind: type) -> Callable[[Any], Any] | None:
    """Return the rule for a class that derives from a built-in type, and does not say how it is pickled.

    Args:
        kind: Any class.
    """
    if kind in (*_CONTAINERS, *_VALUES) or kind in copyreg.dispatch_table:
        return None
    base = next((base for base in kind.__mro__ if base in _CONTAINERS or base in _VALUES), None)
    if base is None or not all(_is_default(kind, base, hook) for hook in _HOOKS):
        return None
    if base in _CONTAINERS:
        return lambda obj: _reduce_container(obj, base)
    own_new = any(_is_own(vars(each).get("__new__")) for each in kind.__mro__)
    return (lambda obj: _reduce_value(obj, base)) if own_new else None


def _is_own(new: Any) -> bool:
    """Return whether a ``__new__`` is written in Python, and not the one of a namedtuple."""
    if not isinstance(new, staticmethod):
        return False
    made_for: str = new.__func__.__globals__.get("__name__", "")
    return not made_for.startswith("namedtuple_")


def _is_default(kind: Any, base: Any, hook: str) -> bool:
    found = getattr(kind, hook, None)
    of_namedtuple = getattr(found, "__globals__", None) is vars(collections)
    return of_namedtuple or found is getattr(base, hook, None)


def _reduce_container(obj: Any, base: Any) -> Any:
    items = list(base.items(obj) if issubclass(base, dict) else base.__iter__(obj))
    content = base, _init_arguments(obj, base), items, _state(obj)
    return _stored.built, (base, type(obj)), content, None, None, _stored.fill


def _init_arguments(obj: Any, base: Any) -> tuple[Any, ...]:
    if base is collections.defaultdict:
        return (vars(base)["default_factory"].__get__(obj),)
    return ((), vars(base)["maxlen"].__get__(obj)) if base is collections.deque else ()


def _reduce_value(obj: Any, base: Any) -> Any:
    plain = (frozenset(frozenset.__iter__(obj)),) if base is frozenset else base.__getnewargs__(obj)
    made = _stored.built, (base, type(obj), *plain)
    state = _state(obj)
    return made if state is None else (*made, state, None, None, _stored.set_state)


def _state(obj: Any) -> Any:
    return object.__getstate__(obj)


def reduce_new_type(made: Any) -> Any:
    """Return the reduce value of a ``typing.NewType``, which pickle would look up by its name."""
    if importable(made):
        return NotImplemented
    return _stored.built, (object, type(made)), vars(made), None, None, _stored.set_state


def reduce_alias(alias: Any) -> Any:
    """Return the reduce value of an alias that a ``type`` statement made."""
    if importable(alias):
        return NotImplemented
    return _stored.type_alias, (alias.__module__, alias.__name__, alias.__value__, alias.__type_params__)
