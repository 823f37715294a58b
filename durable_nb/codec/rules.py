"""The rules by which values are pickled, by type: those that pickle and cloudpickle refuse or get wrong.

A rule takes an object and returns its reduce value, or NotImplemented to leave it to pickle, or raises.
Results of tasks and names of durable cells are pickled by the same rules.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import copyreg
import ctypes
import io
import logging
import operator
import queue
import re
import subprocess
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from cloudpickle import cloudpickle as internals

from durable_nb import _stored
from durable_nb.codec import arrays, subclasses
from durable_nb.codec.sources import stored_name
from durable_nb.errors.redaction import HIDES, hides_value
from durable_nb.lookup import derives, importable

__all__ = ["Rule", "Rules", "has_own_reduction", "process_objects", "reduce_exception"]

Rule: TypeAlias = Callable[[Any], Any]

_PROTOCOL: Final = 5
_FILENAME: Final = 10
"""The place of a code object's file among the arguments that make it."""


class Rules(dict[type, Rule | None]):
    """The rule for each type, None for most: looked up by exact type first, then by base class.

    Args:
        views: Pickles the arrays.
        first: Rules by exact type that precede the common ones.
    """

    def __init__(self, views: arrays.Views, first: Mapping[type, Rule]) -> None:
        super().__init__(first)
        self._views = views

    def __missing__(self, kind: type) -> Rule | None:
        rule = None if kind in _WITHOUT else _BY_TYPE.get(kind) or self._views.rule_of(kind) or _by_base(kind)
        self[kind] = rule
        return rule


# Rules for exactly these types.


def _reduce_code(code: types.CodeType) -> Any:
    # Only the version of Python that compiled it can execute it.
    arguments = internals._code_reduce(code)[1]  # noqa: SLF001
    if (name := stored_name(code.co_filename)) is not None:
        arguments = *arguments[:_FILENAME], name, *arguments[_FILENAME + 1 :]
    return _stored.code, (sys.version_info[:2], *arguments)


def _reduce_method(method: types.MethodType) -> Any:
    # cloudpickle names the function, and with it the module that a public class of ours is defined in today.
    if type(method.__self__).__module__ not in _stored.PUBLIC:
        return NotImplemented
    return getattr, (method.__self__, method.__name__)


def _reduce_cell(cell: types.CellType) -> Any:
    # Created empty and filled once memoized: a closure may be what its own cell holds.
    try:
        return _stored.cell, (), (cell.cell_contents,), None, None, _stored.fill_cell
    except ValueError:
        return _stored.cell, ()


def _reduce_lock(lock: Any) -> Any:
    if not repr(lock).startswith("<unlocked"):
        raise TypeError("the lock is held")
    return (threading.Lock if type(lock) is _thread.LockType else threading.RLock), ()


def _refuse_file(_file: Any) -> Any:
    raise TypeError("an open file")  # cloudpickle would save a text file's contents, as another type


def _reduce_memoryview(view: memoryview) -> Any:
    whole = memoryview(view.obj)
    if (view.format, view.shape, view.strides) == (whole.format, whole.shape, whole.strides):
        if view.readonly and not whole.readonly:
            return operator.methodcaller("toreadonly"), (whole,)
        return memoryview, (view.obj,)
    if not (view.format == whole.format == "B" and view.ndim == whole.ndim == 1 and view.c_contiguous):
        raise TypeError("a memoryview in another layout than its object")
    if type(view.obj) is bytes:
        return memoryview, (bytes(view),)
    return operator.getitem, (whole, _part_of(whole, view))


def _part_of(whole: memoryview, view: memoryview) -> slice:
    if view.readonly:
        raise TypeError("a read-only memoryview of part of an object")
    if not view.nbytes:
        return slice(0, 0)
    start, first = (ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (view, whole))
    return slice(start - first, start - first + view.nbytes)


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


_FILES: Final = (
    *(io.TextIOWrapper, io.FileIO),
    *(io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair),
)

_OF_ASYNCIO: Final = (
    *(asyncio.Lock, asyncio.Semaphore, asyncio.BoundedSemaphore, asyncio.Event, asyncio.Condition),
    *(asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue),
)

_OF_THREADS: Final = (
    *(queue.Queue, queue.LifoQueue, queue.PriorityQueue),
    *(threading.Event, threading.Semaphore, threading.BoundedSemaphore),
)

_BY_TYPE: Final[dict[type, Rule]] = {
    arrays.Private: arrays.reduce_private,
    types.CodeType: _reduce_code,
    types.CellType: _reduce_cell,
    types.MethodType: _reduce_method,
    _thread.LockType: _reduce_lock,
    type(threading.RLock()): _reduce_lock,
    memoryview: _reduce_memoryview,
    weakref.ref: _reduce_weakref,
    weakref.WeakKeyDictionary: _reduce_weak_dict,
    weakref.WeakValueDictionary: _reduce_weak_dict,
    getattr(typing, "TypeAliasType", typing.NewType): subclasses.reduce_alias,
    typing.NewType: subclasses.reduce_new_type,
    **dict.fromkeys(_FILES, _refuse_file),
    **dict.fromkeys(_OF_ASYNCIO, _reduce_bound_to_loop),
    **dict.fromkeys(_OF_THREADS, _reduce_by_init),
}


# Rules for classes and those that derive from them.


def has_own_reduction(kind: type) -> bool:
    """Return whether a class of exceptions says itself how it is pickled, in Python or in C.

    Args:
        kind: A class of exceptions.
    """
    hooks = ("__reduce__", "__reduce_ex__")
    return next(cls for cls in kind.__mro__ if vars(cls).keys() & hooks).__module__ != "builtins"


def reduce_exception(exc: BaseException, *, linked: bool = True) -> Any:
    """Return the reduce value of an exception, NotImplemented if its class defines its own.

    By default pickle rebuilds an exception by calling its class with ``args``. Many classes take other
    parameters than they pass on to ``Exception``: loading then fails, or sets other ``args``.

    Args:
        exc: Any exception.
        linked: Whether to pickle its cause too.
    """
    if has_own_reduction(type(exc)):
        return NotImplemented
    reduced: Any = exc.__reduce_ex__(_PROTOCOL)
    state = reduced[2] if len(reduced) > 2 else None
    links = (exc.__cause__, exc.__suppress_context__) if linked else None
    made = type(exc), reduced[1]
    return _stored.made_exception, made, (exc.args, state, links), None, None, _stored.settle_exception


def _reduce_file_handler(handler: logging.FileHandler) -> Any:
    # It opens its file at the first write; the file's contents must stay.
    state = {**vars(handler), "stream": None, "mode": re.sub("[wx]", "a", handler.mode)}
    return copyreg.__newobj__, (type(handler),), state  # type: ignore[attr-defined]


def _refuse_future(future: concurrent.futures.Future[Any]) -> Any:
    if not future.done():
        raise TypeError("the future has no result yet")
    return NotImplemented


def _refuse_process(process: subprocess.Popen[Any]) -> Any:
    if process.returncode is None:
        raise TypeError("the process may still be running")
    return NotImplemented


def _refuse_widget(_widget: Any) -> Any:
    raise TypeError("part of a widget's state lives in the front end")


def _refuse_secret(_secret: Any) -> Any:
    raise TypeError(HIDES)


def _is_plain_proxy(kind: type) -> bool:
    hooks = {"__reduce__", "__reduce_ex__", "__setstate__"}
    own = any(not hooks.isdisjoint(vars(base)) for base in kind.__mro__ if base is not object)
    return hasattr(kind, "__getattr__") and not own and kind not in copyreg.dispatch_table


def _reduce_proxy(proxy: Any) -> Any:
    # pickle looks up __setstate__ on the new, still empty object; a __getattr__ that delegates to an
    # attribute would then recurse without end.
    reduced: Any = proxy.__reduce_ex__(_PROTOCOL)
    return NotImplemented if reduced[2] is None else (*reduced, _stored.set_state)


_BY_BASE: Final[tuple[tuple[Callable[[type], bool], Rule], ...]] = (
    (lambda kind: issubclass(kind, BaseException), reduce_exception),
    (lambda kind: issubclass(kind, logging.FileHandler), _reduce_file_handler),
    (lambda kind: issubclass(kind, concurrent.futures.Future), _refuse_future),
    (lambda kind: issubclass(kind, subprocess.Popen), _refuse_process),
    (lambda kind: derives(kind, "ipywidgets", "Widget"), _refuse_widget),
    (hides_value, _refuse_secret),
    (_is_plain_proxy, _reduce_proxy),
)

_WITHOUT: Final[set[type]] = set()
"""Importable types that are known to have no rule: others may be redefined, and are not kept alive."""


def _by_base(kind: type) -> Rule | None:
    for matches, rule in _BY_BASE:
        if matches(kind):
            return rule
    if (of_subclass := subclasses.rule_of(kind)) is not None:
        return of_subclass
    if importable(kind):
        _WITHOUT.add(kind)
    return None


# Objects of which every process has its own.

_PROCESS_OBJECTS: Final = tuple(
    (module, operator.attrgetter(path), (_stored.process_object, (module, path)))
    for module, path in (
        ("os", "environ"),
        ("os", "environb"),
        ("random", "_inst"),  # `from random import choice` binds one of its methods
        ("numpy.random.mtrand", "_rand"),
        ("matplotlib", "rcParams"),
        ("IPython.core.interactiveshell", "InteractiveShell._instance"),
    )
)

_STREAMS: Final = {id(stream): (_stored.stream, (name,)) for name, stream in _stored.STREAMS.items()}


def process_objects() -> dict[int, tuple[Any, tuple[str, ...]]]:
    """Return reduce values, by id, for objects of which every process has its own.

    They are saved as references, never as copies: a copy of the environment would contain every secret, and
    writing to a copy of a stream would have no effect.
    """
    found: dict[int, tuple[Any, tuple[str, ...]]] = dict(_STREAMS)
    for module, read, reduced in _PROCESS_OBJECTS:
        if (loaded := sys.modules.get(module)) is not None:
            try:
                found[id(read(loaded))] = reduced
            except AttributeError:  # the module is still being imported
                continue
    found.pop(id(None), None)
    return found
