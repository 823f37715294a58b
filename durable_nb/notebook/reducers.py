"""How to pickle what pickle and cloudpickle refuse or get wrong: cells, locks, caches, streams."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import copyreg
import functools
import importlib
import io
import logging
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, Final, cast

from cloudpickle import cloudpickle as internals

from durable_nb.codec.pickled import reduce_exception

__all__ = ["LRU_CACHE", "importable", "make_class", "reducer_of", "set_attributes"]

LRU_CACHE: Final = type(functools.lru_cache(len))
"""The type of what `functools.lru_cache` gives, which has no public name."""


def importable(value: Any) -> bool:
    """Whether a class or function is found under its own name in a module other than the notebook."""
    name = getattr(value, "__module__", None)
    module = _home(name) if isinstance(name, str) and name != "__main__" else None
    path = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, types.ModuleType) or not isinstance(path, str):
        return False
    first, *rest = path.split(".")  # looked up in the dict: a module's own __getattr__ may import things
    try:
        return functools.reduce(getattr, rest, vars(module).get(first)) is value
    except AttributeError:
        return False


def _home(name: str) -> types.ModuleType | None:
    if name not in sys.modules and name.startswith("numpy."):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)  # numpy says of classes that they live where it has not looked yet
    return sys.modules.get(name)


def set_attributes(obj: Any, state: dict[str, Any]) -> None:
    """Set attributes one by one: a state setter for objects that have no other.

    Args:
        obj: Any object.
        state: Values by attribute.
    """
    for name, value in state.items():
        setattr(obj, name, value)


def _code(version: tuple[int, int], *arguments: Any) -> types.CodeType:
    if version != sys.version_info[:2]:  # it would be accepted, and do something else
        raise TypeError("code that was compiled by Python {}.{}".format(*version))
    return types.CodeType(*arguments)


def _cell() -> types.CellType:
    return types.CellType()


def _fill(cell: types.CellType, contents: tuple[Any]) -> None:
    (cell.cell_contents,) = contents


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


class _Gone:
    """What nobody holds."""


def _dead_ref() -> weakref.ref[Any]:
    return weakref.ref(_Gone())


def make_class(
    kind: type, name: str, bases: tuple[Any, ...], attributes: dict[str, Any], tracker: str, extra: object
) -> type:
    """Create a class without its attributes, as cloudpickle does, but run no metaclass or hook of the user's.

    Those ran when the class was defined, and what they did (entries in a registry) is saved like everything.

    Args:
        kind: Its metaclass.
        name: Its name.
        bases: Its bases.
        attributes: Those that a class must have from the start, such as ``__slots__``.
        tracker: cloudpickle's id of it: a class that this process has already is used again.
        extra: What cloudpickle keeps for later versions of itself.
    """
    resolved = types.resolve_bases(bases)
    users = {cls for base in resolved for cls in base.__mro__ if "__init_subclass__" in vars(cls)}
    hooks = {cls: vars(cls)["__init_subclass__"] for cls in users if not importable(cls)}
    library = next(meta for meta in kind.__mro__ if importable(meta))
    try:
        for cls in hooks:
            type.__setattr__(cls, "__init_subclass__", classmethod(_do_nothing))
        if library is kind:
            return cast("type", internals._make_skeleton_class(kind, name, bases, attributes, tracker, extra))  # noqa: SLF001
        original = {} if resolved is bases else {"__orig_bases__": bases}
        made: type = library.__new__(kind, name, resolved, {**attributes, **original})
        return cast("type", internals._lookup_class_or_track(tracker, made))  # noqa: SLF001
    finally:
        for cls, hook in hooks.items():
            type.__setattr__(cls, "__init_subclass__", hook)


def _do_nothing(*_: object, **__: object) -> None:
    return None


# How to reduce objects of exactly these types.


def _reduce_code(code: types.CodeType) -> Any:
    return _code, (sys.version_info[:2], *internals._code_reduce(code)[1])  # noqa: SLF001


def _reduce_cell(cell: types.CellType) -> Any:
    # Created empty and filled once memoized: a closure may be what its own cell holds.
    try:
        return _cell, (), (cell.cell_contents,), None, None, _fill
    except ValueError:
        return _cell, ()


def _reduce_lock(lock: Any) -> Any:
    if not repr(lock).startswith("<unlocked"):
        return NotImplemented
    return (threading.Lock if type(lock) is _thread.LockType else threading.RLock), ()


def _reduce_cached(cached: Any) -> Any:
    if importable(cached):
        return NotImplemented
    settings = cached.cache_parameters()
    return _cached, (cached.__wrapped__, settings["maxsize"], settings["typed"]), vars(cached)


def _refuse_file(_file: io.TextIOWrapper) -> Any:
    raise TypeError("an open file")  # cloudpickle would give its contents, in another type


def _reduce_memoryview(view: memoryview) -> Any:
    whole = memoryview(view.obj)
    if (view.format, view.shape, view.strides) != (whole.format, whole.shape, whole.strides):
        raise TypeError("a memoryview of a part of something")
    return memoryview, (view.obj,)


def _reduce_weakref(ref: Any) -> Any:
    if ref.__callback__ is not None:
        return NotImplemented
    target = ref()
    return (_dead_ref, ()) if target is None else (weakref.ref, (target,))


def _reduce_weak_dict(weak: Any) -> Any:
    return type(weak), (), None, None, iter(list(weak.items()))


def _reduce_bound_to_loop(made: Any) -> Any:
    """Of asyncio: what has made somebody wait knows its event loop, which is another one then."""
    if isinstance(made, asyncio.Lock) and made.locked():
        raise TypeError("the lock is held")
    state = {name: value for name, value in vars(made).items() if name != "_loop"}
    return copyreg.__newobj__, (type(made),), state  # type: ignore[attr-defined]


_OF_ASYNCIO: Final = (
    *(asyncio.Lock, asyncio.Semaphore, asyncio.BoundedSemaphore, asyncio.Event, asyncio.Condition),
    *(asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue),
)

_REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    types.CodeType: _reduce_code,
    types.CellType: _reduce_cell,
    _thread.LockType: _reduce_lock,
    type(threading.RLock()): _reduce_lock,
    LRU_CACHE: _reduce_cached,
    io.TextIOWrapper: _refuse_file,
    memoryview: _reduce_memoryview,
    weakref.ref: _reduce_weakref,
    weakref.WeakKeyDictionary: _reduce_weak_dict,
    weakref.WeakValueDictionary: _reduce_weak_dict,
    **dict.fromkeys(_OF_ASYNCIO, _reduce_bound_to_loop),
}
"""By exact type: what gives a reduce value, NotImplemented to leave it to pickle, or raises."""


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """What gives a reduce value for objects of a type, of its own or by what it derives from; None for most.

    Args:
        kind: Any type but those of functions and classes.
    """
    if kind in _REDUCERS:
        return _REDUCERS[kind]
    if issubclass(kind, BaseException):
        return reduce_exception
    if issubclass(kind, logging.FileHandler):
        return _reduce_file_handler
    widgets = sys.modules.get("ipywidgets")
    if widgets is not None and issubclass(kind, getattr(widgets, "Widget", ())):
        return _refuse_widget
    return _reduce_proxy if _is_plain_proxy(kind) else None


def _refuse_widget(_widget: Any) -> Any:
    raise TypeError("half of a widget lives in the front end")


def _is_plain_proxy(kind: type) -> bool:
    hooks = {"__reduce__", "__reduce_ex__", "__setstate__"}
    own = any(not hooks.isdisjoint(vars(base)) for base in kind.__mro__ if base is not object)
    return hasattr(kind, "__getattr__") and not own and kind not in copyreg.dispatch_table


def _reduce_proxy(proxy: Any) -> Any:
    # pickle asks the new, still empty object for its __setstate__; a __getattr__ that passes everything on
    # to an attribute then asks itself without end.
    reduced: Any = proxy.__reduce_ex__(5)
    return NotImplemented if reduced[2] is None else (*reduced, _set_state)


def _set_state(obj: Any, state: Any) -> None:
    attributes, slots = state if type(state) is tuple else (state, {})
    if attributes:
        vars(obj).update(attributes)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)


def _reduce_file_handler(handler: logging.FileHandler) -> Any:
    # It opens its file when it has something to write; what is in there already must stay.
    state = {**vars(handler), "stream": None, "mode": re.sub("[wx]", "a", handler.mode)}
    return copyreg.__newobj__, (type(handler),), state  # type: ignore[attr-defined]
