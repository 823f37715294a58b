"""Reducers for objects that pickle and cloudpickle refuse or get wrong: cells, locks, caches, streams."""

from __future__ import annotations

import _thread
import asyncio
import copyreg
import functools
import io
import logging
import queue
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

from durable_nb import _stored
from durable_nb._stored import importable
from durable_nb.codec.pickling import reduce_code, reduce_exception

__all__ = ["LRU_CACHE", "process_objects", "reducer_of"]

LRU_CACHE: Final = type(functools.lru_cache(len))
"""The type of functions wrapped by `functools.lru_cache`, which has no public name."""


# Reducers for exactly these types.


def _reduce_cell(cell: types.CellType) -> Any:
    # Created empty and filled once memoized: a closure may be what its own cell holds.
    try:
        return _stored.cell, (), (cell.cell_contents,), None, None, _stored.fill_cell
    except ValueError:
        return _stored.cell, ()


def _reduce_lock(lock: Any) -> Any:
    if not repr(lock).startswith("<unlocked"):
        return NotImplemented
    return (threading.Lock if type(lock) is _thread.LockType else threading.RLock), ()


def _reduce_cached(cached: Any) -> Any:
    if importable(cached):
        return NotImplemented
    settings = cached.cache_parameters()
    return _stored.cached, (cached.__wrapped__, settings["maxsize"], settings["typed"]), vars(cached)


def _refuse_file(_file: io.TextIOWrapper) -> Any:
    raise TypeError("an open file")  # cloudpickle would save its contents, as another type


def _reduce_memoryview(view: memoryview) -> Any:
    whole = memoryview(view.obj)
    if (view.format, view.shape, view.strides) != (whole.format, whole.shape, whole.strides):
        raise TypeError("a memoryview of part of an object")
    return memoryview, (view.obj,)


def _reduce_weakref(ref: Any) -> Any:
    if ref.__callback__ is not None:
        return NotImplemented
    target = ref()
    return (_stored.dead_ref, ()) if target is None else (weakref.ref, (target,))


def _reduce_weak_dict(weak: Any) -> Any:
    return type(weak), (), None, None, iter(list(weak.items()))


def _reduce_bound_to_loop(made: Any) -> Any:
    """Reduce an asyncio object without its event loop, which it remembers once a task has waited for it."""
    if isinstance(made, asyncio.Lock) and made.locked():
        raise TypeError("the lock is held")
    state = {name: value for name, value in vars(made).items() if name != "_loop"}
    return type(made), (), state


def _reduce_by_init(made: Any) -> Any:
    # Called rather than only created: a later Python gives it further attributes, such as is_shutdown.
    return type(made), (), vars(made)


_OF_ASYNCIO: Final = (
    *(asyncio.Lock, asyncio.Semaphore, asyncio.BoundedSemaphore, asyncio.Event, asyncio.Condition),
    *(asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue),
)

_OF_THREADS: Final = (
    *(queue.Queue, queue.LifoQueue, queue.PriorityQueue),
    *(threading.Event, threading.Semaphore, threading.BoundedSemaphore),
)

_REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    types.CodeType: reduce_code,
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
    **dict.fromkeys(_OF_THREADS, _reduce_by_init),
}
"""By exact type: functions that return a reduce value, or NotImplemented to leave it to pickle, or raise."""


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """Return the reducer for objects of a type, registered for it or for a base class; None for most types.

    Args:
        kind: Any type except those of functions and classes.
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
    raise TypeError("part of a widget's state lives in the front end")


def _is_plain_proxy(kind: type) -> bool:
    hooks = {"__reduce__", "__reduce_ex__", "__setstate__"}
    own = any(not hooks.isdisjoint(vars(base)) for base in kind.__mro__ if base is not object)
    return hasattr(kind, "__getattr__") and not own and kind not in copyreg.dispatch_table


def _reduce_proxy(proxy: Any) -> Any:
    # pickle looks up __setstate__ on the new, still empty object; a __getattr__ that delegates to an
    # attribute would then recurse without end.
    reduced: Any = proxy.__reduce_ex__(5)
    return NotImplemented if reduced[2] is None else (*reduced, _stored.set_state)


def _reduce_file_handler(handler: logging.FileHandler) -> Any:
    # It opens its file at the first write; the file's contents must stay.
    state = {**vars(handler), "stream": None, "mode": re.sub("[wx]", "a", handler.mode)}
    return copyreg.__newobj__, (type(handler),), state  # type: ignore[attr-defined]


# Objects of which every process has its own.

_PROCESS_OBJECTS: Final = (
    ("os", "environ"),
    ("os", "environb"),
    ("random", "_inst"),  # `from random import choice` binds one of its methods
    ("numpy.random.mtrand", "_rand"),
    ("matplotlib", "rcParams"),
    ("IPython.core.interactiveshell", "InteractiveShell._instance"),
)


def process_objects() -> dict[int, tuple[Any, tuple[str, ...]]]:
    """Return reduce values, by id, for objects of which every process has its own.

    They are saved as references, never as copies: a copy of the environment would contain every secret, and
    writing to a copy of a stream would have no effect.
    """
    found: dict[int, tuple[Any, tuple[str, ...]]] = {
        id(stream): (_stored.stream, (name,)) for name, stream in _stored.STREAMS.items()
    }
    for module, path in _PROCESS_OBJECTS:
        if module in sys.modules:
            try:
                found[id(_stored.process_object(module, path))] = _stored.process_object, (module, path)
            except AttributeError:  # the module is still being imported
                continue
    found.pop(id(None), None)
    return found
