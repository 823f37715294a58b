"""The pickler and unpickler for the names of a notebook.

Stock cloudpickle freezes a function's globals and copies its closure cells. Here functions of the notebook
are rebuilt on the live namespace, closures share their cells, and objects that stay bound to a name outside
the pickle are referred to by that name.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import cloudpickle
import xxhash

from durable_nb import _stored
from durable_nb._stored import importable
from durable_nb.codec.locate import type_name
from durable_nb.codec.pickling import Unpickler, keep_qualname, take
from durable_nb.errors import DurableError, StepNotRestored
from durable_nb.notebook.namespace import arrays
from durable_nb.notebook.namespace.placeholder import reason_of
from durable_nb.notebook.namespace.reducers import process_objects, reducer_of

__all__ = ["Fingerprinter", "NamedRef", "OverBudget", "Saver", "load", "reason"]

Part: TypeAlias = bytes | memoryview | DurableError
"""A stream or a buffer, or the error that explains why it is lost."""

_REASON_LENGTH: Final = 200
"""Characters of an exception's message that are kept in the reason why a name was not saved."""

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


class OverBudget(Exception):
    """The time budget for fingerprints is used up."""


class NamedRef:
    """A value that is pickled as a reference to the name it is bound to, whatever its type.

    Args:
        name: A name of the namespace.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return _stored.live, (self.name,)


class _Globals:
    """Stands for the namespace itself, as the first object of every stream."""

    def __reduce__(self) -> tuple[object, ...]:
        return _stored.namespace, ()


class _NamespacePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """The common base of fingerprinting and saving.

    Attributes:
        blamed: The last object that was visited; after a failure, the one that caused it.
        by_value: Ids of the classes and functions that were pickled by value in the last dump.
    """

    memo: Any
    fast: bool

    def __init__(
        self,
        write: Callable[[bytes], object],
        buffer: Callable[[pickle.PickleBuffer], object],
        user_ns: dict[str, Any],
        live: Mapping[int, object],
    ) -> None:
        super().__init__(_Sink(write), protocol=5, buffer_callback=buffer)
        self.user_ns = user_ns
        self.live = live
        self.process_objects = process_objects()
        self._reducers: dict[type, Callable[[Any], Any] | None] = {}
        self.shared: frozenset[int] = frozenset()
        self.top: object = None
        self.blamed: object = None
        self.by_value: set[int] = set()

    def reducer_override(self, obj: Any) -> Any:
        self.blamed = obj
        key = self.live.get(id(obj))
        if key is not None and obj is not self.top:
            return _stored.live, (key,)
        if id(obj) in self.process_objects:
            return self.process_objects[id(obj)]
        kind = type(obj)
        if kind is types.FunctionType:
            return self._reduce_function(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind not in self._reducers:
            self._reducers[kind] = reducer_of(kind)
        reduce = self._reducers[kind]
        if reduce is not None:
            return reduce(obj)
        return arrays.reduce(obj, kind, self.shared)

    def _reduce_class(self, cls: type) -> Any:
        if importable(cls):
            return NotImplemented
        reduced = super().reducer_override(cls)
        if reduced is not NotImplemented and cls.__module__ != "builtins":
            self.by_value.add(id(cls))
        if type(reduced) is tuple and reduced[0] is cloudpickle.cloudpickle._make_skeleton_class:  # noqa: SLF001
            keep_qualname(cls, reduced)
            reduced[2][0].pop("__slotnames__", None)  # added by pickle itself at the first instance
            return _stored.make_class, *reduced[1:]
        return reduced

    def _reduce_function(self, function: types.FunctionType) -> Any:
        home = _home(function, self.user_ns)
        if home != "" and importable(function):
            return NotImplemented
        self.by_value.add(id(function))
        if home is None:
            return super().reducer_override(function)
        arguments = (home, function.__code__, function.__name__, function.__closure__)
        state = {slot: value for slot in _FUNCTION_SLOTS if (value := getattr(function, slot, None))}
        return _stored.function, arguments, state, None, None, _stored.set_attributes


class Fingerprinter(_NamespacePickler):
    """Hashes values by pickling them without storing the stream. The digests are valid in this process only.

    Args:
        user_ns: The namespace, which is never traversed.
        live: Ids of objects that are bound to a name: inside others they are compared by identity.
        kept: Collects objects whose ids occur in digests, so that these ids are not reused.

    Attributes:
        until: Monotonic time at which to stop with OverBudget; None for never.
    """

    until: float | None = None

    def __init__(
        self, user_ns: dict[str, Any], live: Iterable[int], kept: list[object] | None = None
    ) -> None:
        self._hash = xxhash.xxh3_128()
        self.kept: list[object] = [] if kept is None else kept
        super().__init__(
            self._update, lambda buffer: self._update(buffer.raw()), user_ns, {key: key for key in live}
        )

    def fingerprint(self, value: object, *, flat: bool = False) -> bytes:
        """Return the digest of a value; errors raised by its pickling propagate.

        Args:
            value: Any object.
            flat: Whether it is a container of atoms, which needs no memo: that is twice as fast.
        """
        self.fast = flat
        self._hash.reset()
        self.by_value.clear()
        self.memo = {id(self.user_ns): (0, self.user_ns)}
        self.top = value
        self.dump(value)
        return self._hash.digest()

    def _update(self, data: bytes | memoryview) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise OverBudget
        self._hash.update(data)

    def forget(self) -> None:
        """Release the last value."""
        self.memo = {}
        self.top = self.blamed = None

    def visited(self) -> Iterable[tuple[int, object]]:
        """Return the entries of the memo for the last value: all objects with an identity inside it."""
        memo = self.memo.copy()
        for key in (id(self.user_ns), *self.process_objects):
            memo.pop(key, None)
        values: Iterable[tuple[int, object]] = memo.values()
        return values

    def reducer_override(self, obj: Any) -> Any:  # noqa: D102 - as in pickle
        if type(obj) is types.CodeType:
            self.kept.append(obj)  # otherwise another code object could get its id
            return int, (id(obj),)
        if type(obj).__qualname__ == "CallbackRegistry" and type(obj).__module__ == "matplotlib.cbook":
            return int, (0,)  # pickling it increments a counter in it: every figure would look changed
        return super().reducer_override(obj)


class Saver(_NamespacePickler):
    """Pickles one group of names; large buffers are returned as views, not copied.

    Args:
        user_ns: The namespace on which functions are rebuilt.
        live: Names of the objects that are referred to by name, by id.
        shared: Ids of the arrays whose memory is viewed by several arrays of the group.
    """

    def __init__(
        self, user_ns: dict[str, Any], live: Mapping[int, str], shared: frozenset[int] = frozenset()
    ) -> None:
        self._stream = io.BytesIO()
        self._buffers: list[memoryview] = []
        super().__init__(self._stream.write, functools.partial(take, self._buffers), user_ns, live)
        self.shared = shared

    def _reduce_class(self, cls: type) -> Any:
        _stored.refuse_internal(cls)
        return super()._reduce_class(cls)

    def _reduce_function(self, function: types.FunctionType) -> Any:
        _stored.refuse_internal(function)
        return super()._reduce_function(function)

    def save(self, values: object) -> tuple[bytes, tuple[memoryview, ...]]:
        """Return the pickle stream and its out-of-band buffers."""
        self._put_namespace_first()
        self.dump(values)
        return self._stream.getvalue(), tuple(self._buffers)

    def _put_namespace_first(self) -> None:
        # Loading replaces the marker by the live namespace, so the memo treats them as one: the namespace is
        # not traversed, and a `globals()` kept in a list is the live namespace again.
        marker = _Globals()
        self.dump(marker)
        memo = self.memo.copy()
        index, _ = memo.pop(id(marker))
        self.memo = {**memo, id(self.user_ns): (index, self.user_ns)}


def load(data: Part, buffers: Sequence[Part], user_ns: dict[str, Any]) -> Any:
    """Load the values that a Saver wrote, on the live namespace.

    Args:
        data: The pickle stream.
        buffers: Its buffers; read-only ones are copied, so that arrays are writable.
        user_ns: The namespace on which functions are rebuilt and names are looked up.

    Raises:
        StepNotRestored: The stream or one of its buffers is lost, or it needs a name that a placeholder has.
    """
    if isinstance(data, DurableError):
        raise data
    unpickler = _Unpickler(data, buffers, user_ns)
    unpickler.load()
    try:
        return unpickler.load()
    except Exception as error:
        for name, why in unpickler.missing.items():  # such as the class of what it was to make
            raise StepNotRestored(f"it needs `{name}`, which could not be restored: {why}") from error
        raise


class _Unpickler(Unpickler):
    def __init__(self, data: bytes | memoryview, buffers: Sequence[Part], user_ns: dict[str, Any]) -> None:
        super().__init__(data, buffers)
        self.missing: dict[str, str] = {}
        self._user_ns = user_ns
        self._ours = {"live": self._live, "namespace": lambda: user_ns, "function": self._function}

    def find_class(self, module: str, name: str) -> Any:
        if module == _stored.__name__ and name in self._ours:
            return self._ours[name]
        if module == "__main__":
            first, *rest = name.split(".")
            return functools.reduce(getattr, rest, self._live(first))
        return super().find_class(module, name)

    def _live(self, name: str) -> Any:
        if name not in self._user_ns:
            raise LookupError(
                f"it refers to `{name}`, which is not defined now; run the cell that defines it"
            )
        value = self._user_ns[name]
        if (why := reason_of(value)) is not None:
            self.missing[name] = why
        return value

    def _function(self, home: str, code: types.CodeType, name: str, closure: Any) -> types.FunctionType:
        if home:
            __import__(home)
        return types.FunctionType(
            code, vars(sys.modules[home]) if home else self._user_ns, name, None, closure
        )


def reason(value: object, blamed: object, error: BaseException) -> str:
    """Return why a value cannot be saved, naming the type of the object that cannot be pickled.

    Args:
        value: The value to save.
        blamed: The object inside it at which pickling stopped.
        error: The exception that pickling raised.
    """
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested too deeply to be saved"
    culprit = type_name(type(blamed))
    what = (
        f"{culprit} cannot be saved" if blamed is value else f"it contains {culprit}, which cannot be saved"
    )
    try:
        message = str(error)[:_REASON_LENGTH]
    except Exception:
        message = ""
    return f"{what} ({type(error).__name__}: {message})"


def _home(function: types.FunctionType, user_ns: dict[str, Any]) -> str | None:
    """Return the module whose globals a function has: its name, "" for the notebook, None for others."""
    if function.__globals__ is user_ns:
        return ""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    return name if module is not None and vars(module) is function.__globals__ else None


class _Sink:
    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
