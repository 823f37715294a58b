"""The pickler and the unpickler, for results of tasks and for names of durable cells.

The rules for values are in `durable_nb.codec.rules`; here are those for classes and functions. What can be
imported is pickled by name, everything else by value. For what ``__main__`` defines there are two cases:

- The result of a task has it by name too: if the process that loads it defines the name, its definition is
  used, so that ``isinstance`` and ``except`` hold. A function takes the globals that it reads along.
- A durable cell has it on the live namespace, which its functions have as their globals. An object that stays
  bound to a name outside the pickle is referred to by that name.
"""

from __future__ import annotations

import functools
import gc
import io
import pickle
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, NamedTuple, Protocol

import cloudpickle
from cloudpickle import cloudpickle as internals

from durable_nb import _stored, settings
from durable_nb.codec.arrays import Views
from durable_nb.codec.locate import locate, message_of, type_name
from durable_nb.codec.rules import Rule, Rules, process_objects
from durable_nb.codec.second_pass import Identified, Named, Owners, holds_nan, nan_of
from durable_nb.errors import DurableError, ResetStep, StepNotRestored, StepNotSaved
from durable_nb.errors.redaction import HIDES, redacted
from durable_nb.lookup import LRU_CACHE, importable, in_main

__all__ = ["Call", "Pickler", "Saver", "Unpickler", "dump_parts", "dumps", "loads", "part", "refusal"]

_PROTOCOL: Final = 5
_MESSAGE: Final = 200
"""Characters of an exception's message that are kept in the reason why a value was not saved."""

_COPIED: Final = 1 << 16
"""Bytes of a stream whose memo is copied without a look at the stream first."""

_NONE: Final[Mapping[Any, Any]] = {}

_FUNCTION_SLOTS: Final = (
    "__defaults__",
    "__kwdefaults__",
    "__qualname__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__type_params__",
    "__dict__",
)


def dumps(value: Any, *, live: Mapping[int, Any] = _NONE) -> bytes:
    """Pickle a value.

    Args:
        value: Any value.
        live: Reduce values by id, as `Pickler` takes them.

    Raises:
        StepNotSaved: The value, or an object in it, cannot be pickled; the message names it and where it is.

    Example:
        >>> loads(dumps({1, 2}))
        {1, 2}
    """
    return _saved(value, Saver(live=live, in_parts=False))[0]


def dump_parts(value: Any) -> tuple[bytes, tuple[memoryview, ...]]:
    """Pickle a value with its large buffers out of band.

    Args:
        value: Any value.

    Returns:
        The pickle stream, and the buffers in order: views of the value's own memory, not copies.

    Raises:
        StepNotSaved: The value, or an object in it, cannot be pickled; the message names it and where it is.

    Example:
        >>> dump_parts([1, 2])[1]
        ()
    """
    return _saved(value, Saver())


def loads(data: bytes, parts: Sequence[bytes | memoryview | DurableError] = ()) -> Any:
    """Unpickle the output of :func:`dumps`. This runs code that the bytes name.

    Args:
        data: The pickle stream.
        parts: Its out-of-band buffers.

    Raises:
        StepNotRestored: A module or a class no longer exists. Other exceptions of pickle are not converted.

    Example:
        >>> loads(dumps(slice(1, 2)))
        slice(1, 2, None)
    """
    try:
        return Unpickler(data, parts).load()
    except ModuleNotFoundError as error:
        raise StepNotRestored(
            f"cannot restore the saved result: module {error.name!r} is not installed",
            remedy=(f"Install {error.name!r}, or execute the step again: ", ResetStep()),
        ) from error
    except AttributeError as error:
        raise StepNotRestored(
            f"cannot restore the saved result: a class or function in it no longer exists ({error})",
            remedy=("Define it again, or execute the step again: ", ResetStep()),
        ) from error


def refusal(value: Any, blamed: Any, error: BaseException) -> str:
    """Return why a value cannot be saved, naming the object that cannot be pickled, and where it is.

    Args:
        value: The value to save; None if it is not known in which of several values the object is.
        blamed: The object at which pickling stopped.
        error: The exception that pickling raised.
    """
    for each in (error, error.__cause__):
        if isinstance(each, MemoryError):  # what comes below needs some as well
            return "there is not enough memory to save it"
        if isinstance(each, RecursionError):
            return "it is nested too deeply to be saved"
    kind, path = type_name(type(blamed)), locate(value, blamed)
    at = f" at {path.strip()}" if path else ""
    what = f"{kind} cannot be saved" if path == "" else f"it contains {kind}{at}, which cannot be saved"
    return f"{what} ({type(error).__name__}: {redacted(message_of(error))[:_MESSAGE]})"


def _saved(value: Any, saver: Saver) -> tuple[bytes, tuple[memoryview, ...]]:
    try:
        return saver.save(value)
    except Exception as error:
        reason = refusal(value, saver.blamed, error)
        raise StepNotSaved(
            f"cannot save the result ({type_name(type(value))}): {reason}", remedy=_remedy(reason)
        ) from error


def _remedy(reason: str) -> str:
    if reason.startswith("it is nested"):
        return "Flatten it, for example to a list with indices."
    if HIDES in reason:
        return "Return the name of an environment variable that has it, and read it where it is used."
    if reason.startswith("there is not enough memory"):
        return "Free memory or return less, for example the path of a file that the step wrote."
    return "Return plain data, or what to create it from (a path, a URL), and create it where it is used."


class _File(Protocol):
    @property
    def write(self) -> Callable[[bytes], object]: ...


class Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """cloudpickle's pickler, made exact by the rules for types and by its own for classes and functions.

    Args:
        file: Where the stream is written.
        beside: Pickle's ``buffer_callback``.
        namespace: The globals of a notebook, for a durable cell; None for the result of a task.
        live: Reduce values by id, for objects that are referred to or pickled in a way of their own.
        rules: Rules by exact type that precede the common ones.

    Attributes:
        blamed: The last object that was visited; after a failure, the one that caused it.
        by_value: Ids of the classes and functions that were pickled by value.
        views: The arrays that were pickled.
        bases: The metaclasses and importable bases of the classes that were pickled by value.
    """

    memo: Any

    def __init__(
        self,
        file: _File,
        beside: Callable[[pickle.PickleBuffer], object] | None,
        *,
        namespace: dict[str, Any] | None = None,
        live: Mapping[int, Any] = _NONE,
        rules: Mapping[type, Rule] = _NONE,
    ) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=beside)
        self.namespace = namespace
        self.live = live
        self.process_objects = process_objects()
        self.views = Views()
        self.rules = Rules(self.views, rules)
        self.blamed: Any = None
        self.by_value: set[int] = set()
        self.bases: set[type] = set()

    @property
    def kinds(self) -> set[type]:
        """The types of the objects that were pickled, apart from those that pickle itself knows."""
        return {*self.rules, *self.bases} - {Call}

    def reducer_override(self, obj: Any) -> Any:
        """Return the reduce value of one object; pickle calls this for all but a few built-in types."""
        self.blamed = obj
        found = self.live.get(id(obj))
        if found is None:
            found = self.process_objects.get(id(obj))
        if found is not None:
            return found
        kind = type(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is FunctionType or kind is LRU_CACHE:
            return self._reduce_function(obj)
        rule = self.rules[kind]
        return NotImplemented if rule is None else rule(obj)

    def check(self, obj: Any) -> None:
        """Refuse a class or function that may not stand in a checkpoint."""
        _stored.refuse_internal(obj)

    def _reduce_class(self, cls: Any) -> Any:
        self.check(cls)
        if importable(cls):
            return NotImplemented
        if (found := self._nested(cls)) is not None:
            return found
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented or cls.__module__ == "builtins":
            return reduced
        self.by_value.add(id(cls))
        self.bases.update(each for each in (type(cls), *cls.__mro__) if each.__module__ != "__main__")
        if reduced[0] is internals._make_skeleton_class:  # noqa: SLF001
            if "__slots__" in vars(cls) and NamedTuple not in vars(cls).get("__orig_bases__", ()):
                reduced[1][3]["__slots__"] = cls.__slots__
            reduced[1][3]["__qualname__"] = cls.__qualname__
            reduced[2][0].pop("__slotnames__", None)  # added by pickle itself at the first instance
            reduced = _stored.make_class, *reduced[1:]
        return self._named(cls, reduced)

    def _reduce_function(self, function: Any) -> Any:
        self.check(function)
        own = type(function) is FunctionType and function.__globals__ is self.namespace
        if not own and importable(function):
            return NotImplemented
        if (found := self._nested(function)) is not None:
            return found
        self.by_value.add(id(function))
        if type(function) is LRU_CACHE:
            return self._named(function, _reduce_cached(function))
        home = "" if own else _home(function)
        if home is None:
            return self._named(function, self._with_globals(function))
        arguments = (home, function.__code__, function.__name__, function.__closure__)
        state = {slot: value for slot in _FUNCTION_SLOTS if (value := getattr(function, slot, None))}
        return _stored.function, arguments, state, None, None, _stored.set_attributes

    def _with_globals(self, function: FunctionType) -> Any:
        make, arguments, state, *rest = super().reducer_override(function)
        state[1]["__closure__"] = None  # cloudpickle would copy its cells, which other functions may share
        return make, (*arguments[:-1], function.__closure__), state, *rest

    def _named(self, obj: Any, reduction: Any) -> Any:
        """Return the reduce value of what is pickled by value: by name too, if ``__main__`` has the name."""
        named = (_path(obj), isinstance(obj, type))
        if self.namespace is not None or obj.__module__ != "__main__" or in_main(*named) is not obj:
            return reduction
        make, args, state, _, _, settle = reduction
        made, state = (*named, make, args), (*named, settle, state)
        return _stored.live_or_made, made, state, None, None, _stored.settle_unless_live

    def _nested(self, obj: Any) -> Any:
        """Return the reduce value of an attribute of a class that is referred to by name; None for others."""
        first, *path = _path(obj).split(".")
        root: Any = self.namespace.get(first) if path and self.namespace else None
        if id(root) not in self.live or not issubclass(type(root), type):
            return None
        *outer, name = path
        for each in outer:
            root = getattr(root, each, None)
        return (getattr, (root, name)) if getattr(root, name, None) is obj else None


class Call:
    """An object whose pickle is the call of a function: loading it returns the function's result.

    Args:
        function: The function.
        arguments: Its arguments.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...] = ()) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def part(path: tuple[Any, ...]) -> Call:
    """Return what stands for an object inside what is known where a pickle is loaded, by a path to it."""
    return Call(_stored.part, path)


class Saver(Pickler):
    """Pickles one value; large buffers are returned as views, not copied.

    Args:
        namespace: The globals of a notebook, for a durable cell; None for the result of a task.
        live: Reduce values by id, as `Pickler` takes them.
        in_parts: Whether large buffers are kept out of the stream.
        texts: Names of the namespace to look up immutable values under, by their ids, where this is loaded.

    Attributes:
        files: The files, or cells, whose code was pickled.
    """

    def __init__(
        self,
        namespace: dict[str, Any] | None = None,
        live: Mapping[int, Any] = _NONE,
        *,
        in_parts: bool = True,
        texts: Named | None = None,
    ) -> None:
        self._texts = texts or Named()
        self._stream = io.BytesIO()
        self._buffers: list[memoryview] = []
        self.files: set[str] = set()
        beside = functools.partial(_take, self._buffers) if in_parts else None
        super().__init__(self._stream, beside, namespace=namespace, live=live)
        self.rules = self._owners = Owners(self.views)

    def save(
        self, *values: Any, known: Sequence[tuple[Any, Call]] = (), own: Container[str] = ()
    ) -> tuple[bytes, tuple[memoryview, ...]]:
        """Return the pickle stream and its out-of-band buffers; the errors of pickling propagate.

        Args:
            values: The values, to be loaded one after another; they may share objects.
            known: Objects that exist where the pickle is loaded, and calls that return them there. The stream
                begins with an object of its own for them.
            own: Names that are among the values, and are not looked up.
        """
        self.views.refer(obj for obj, _ in known)
        self._write(values, known)
        if self._needs_second_pass(known, own):
            self._stream.seek(0)
            self._stream.truncate()
            self._buffers.clear()
            self.clear_memo()
            self.globals_ref.clear()
            self._write(values, known)
        return self._stream.getvalue(), tuple(self._buffers)

    def _needs_second_pass(self, known: Sequence[tuple[Any, Call]], own: Container[str]) -> bool:
        self.files = {code.co_filename for code in self._owners.code}
        owners, reduced = self._owners.shared({id(obj) for obj, _ in known}, self._pickled)
        owners |= self._owners.modules()
        self.live = {**self.live, **reduced}
        texts = self._named_texts(own)
        identified = bool(owners) or bool(texts) or holds_nan(self._stream.getbuffer())
        if identified:
            self.persistent_id = Identified(self.namespace, owners, texts).id_of
        return identified or bool(reduced) or bool(self.views.found())

    def _pickled(self) -> list[Any]:
        return [obj for _, obj in self.memo.copy().values()]

    def _named_texts(self, own: Container[str]) -> dict[int, tuple[str, Any]]:
        """Return the values that were pickled and that names which are not `own` are bound to, by id."""
        names, stream = self._texts, self._stream.getbuffer()
        if not names or (len(stream) > _COPIED and not names.in_much(bytes(stream), self.namespace or {})):
            return {}
        held = [obj for obj in self._pickled() if obj is not self.namespace]
        held += gc.get_referents(*held)  # pickle does not remember numbers
        found = {id(value): value for value in held if id(value) in names}
        return {key: (names[key], value) for key, value in found.items() if names[key] not in own}

    def _write(self, values: Sequence[Any], known: Sequence[tuple[Any, Call]]) -> None:
        if self.namespace is not None:
            marker = Call(_stored.namespace)
            self._put_first(marker, [(self.namespace, marker)])
        if known:
            self._put_first([call for _, call in known], known)
        for value in values:
            self.dump(value)

    def _put_first(self, markers: Any, known: Iterable[tuple[Any, Call]]) -> None:
        # Loading replaces a marker by a live object, so the memo treats them as one: the object is not
        # traversed, and a `globals()` kept in a list is the live namespace again.
        self.dump(markers)
        memo = self.memo.copy()
        for obj, marker in known:
            index, _ = memo.pop(id(marker))
            memo[id(obj)] = index, obj
        self.memo = memo


class Unpickler(pickle.Unpickler):
    """An unpickler that refuses names of durable_nb which are not part of the stored format.

    Args:
        data: The pickle stream.
        buffers: Its out-of-band buffers: a writable view is used in place, everything else is copied, so that
            restored arrays are writable. An error stands for a part that could not be read.
        own: Functions for stored names, in place of those of `durable_nb._stored`. Names of ``__main__`` are
            looked up by the one for ``live``.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        buffers: Iterable[bytes | memoryview | DurableError] = (),
        own: Mapping[str, Callable[..., Any]] = _NONE,
    ) -> None:
        self._file = io.BytesIO(data)
        super().__init__(self._file, buffers=_writable(buffers))
        self._own = own
        self._nans: dict[str, float] = {}

    def persistent_load(self, pid: str | tuple[Any, ...]) -> Any:
        """Return what pickle would have copied; it calls this for each id that `Identified` gave."""
        if type(pid) is tuple:
            return (
                object.__getattribute__(pid[1], "__dict__")
                if pid[0] == "attributes"
                else self._text(*pid[1:])
            )
        return nan_of(str(pid), self._nans, self._own.get("nan"))

    def _text(self, name: str, value: Any) -> Any:
        return self._own["text"](name, value) if "text" in self._own else value

    def has_more(self) -> bool:
        """Return whether objects are left in the stream."""
        return self._file.tell() < len(self._file.getbuffer())

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that a checkpoint names; pickle calls this for each class and function."""
        if module == _stored.__name__ and name in self._own:
            return self._own[name]
        if module == "__main__" and "live" in self._own:
            first, *rest = name.split(".")
            return functools.reduce(getattr, rest, self._own["live"](first))
        _stored.check_name(module, name)
        return super().find_class(module, name)


def _take(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    view = buffer.raw()
    small = view.nbytes < settings.OUT_OF_BAND
    if not small:
        buffers.append(view)
    return small  # and it stays in the stream


def _writable(buffers: Iterable[bytes | memoryview | DurableError]) -> Iterator[bytearray | memoryview]:
    for buffer in buffers:
        if isinstance(buffer, DurableError):
            raise buffer
        view = memoryview(buffer)
        yield bytearray(view) if view.readonly else view


def _reduce_cached(cached: Any) -> Any:
    options, state = cached.cache_parameters(), vars(cached)
    made = cached.__wrapped__, options["maxsize"], options["typed"]
    return _stored.cached, made, state, None, None, _stored.set_attributes


def _path(obj: Any) -> str:
    return str(getattr(obj, "__qualname__", ""))  # a wrapped partial has none


def _home(function: FunctionType) -> str | None:
    """Return the name of the module whose globals a function has; None for other globals."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    return name if module is not None and vars(module) is function.__globals__ else None
