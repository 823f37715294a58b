"""What pickling the names of a notebook adds: digests of their values, and loading on the live namespace."""

from __future__ import annotations

import functools
import io
import math
import pickle
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import xxhash

from durable_nb import _stored
from durable_nb.codec.parts import Path, follow
from durable_nb.codec.pickling import Call, Pickler, Saver, Unpickler
from durable_nb.codec.rules import Rule
from durable_nb.codec.second_pass import holds_nan
from durable_nb.errors import DurableError, StepNotRestored
from durable_nb.lookup import find
from durable_nb.notebook.namespace.in_place import update
from durable_nb.notebook.namespace.placeholder import reason_of
from durable_nb.notebook.namespace.salvage import salvaged
from durable_nb.notebook.namespace.sharing import CONTAINERS

__all__ = [
    "Fingerprinter",
    "OverBudget",
    "PlainSaver",
    "Reference",
    "Stream",
    "check_stream",
    "reference",
    "stand_ins",
]

Part: TypeAlias = bytes | memoryview | DurableError
"""A stream or a buffer, or the error that explains why it is lost."""

_NONE: Final[Mapping[Any, Any]] = {}

_MADE: Final[dict[str, float]] = {}
"""Floats that are not a number, by the name that is about to be bound to them."""


def reference(name: str) -> tuple[Callable[[object], Any], tuple[str]]:
    """Return the reduce value of an object that is referred to by a name of the namespace.

    Args:
        name: The name.
    """
    return _stored.live, (name,)


class Reference(NamedTuple):
    """An object that another name holds, and where.

    Attributes:
        name: The name.
        path: The path to the object in its value.
        obj: The object.
    """

    name: str
    path: Path
    obj: Any


def stand_ins(references: Mapping[int, Reference]) -> list[tuple[Any, Call]]:
    """Return the objects of references, and the calls that return them on a namespace."""
    roots = {each.name: Call(*reference(each.name)) for each in references.values()}
    return [(each.obj, Call(_stored.part, (roots[each.name], each.path))) for each in references.values()]


class PlainSaver:
    """Pickles names that are bound to plain data, as `Saver` would, without making one for each name.

    Args:
        user_ns: The namespace.
        texts: Names that are bound to immutable values, by the ids of these.
    """

    def __init__(self, user_ns: dict[str, Any], texts: Mapping[int, str]) -> None:
        saver = Saver(user_ns)
        self._head, _ = saver.save()
        self._memo = saver.memo.copy()
        self._texts = texts
        self._stream = io.BytesIO()
        self._pickler = pickle.Pickler(self._stream, protocol=pickle.HIGHEST_PROTOCOL)

    def save(self, values: dict[str, Any]) -> bytes | None:
        """Return the pickle of one name; None if there are others, or if its value takes a `Saver`."""
        ((name, value), *others) = values.items()
        parts = None if others else _parts(value)
        if parts is None or any(self._texts.get(id(each), name) != name for each in parts):
            return None
        self._stream.seek(0)
        self._stream.truncate()
        self._pickler.memo = self._memo
        self._pickler.dump(values)
        pickled = self._stream.getvalue()
        return None if holds_nan(pickled) else self._head + pickled


_PLAIN: Final = frozenset({bool, bytes, float, int, str, type(None)})
_FEW: Final = 100
"""Parts of a value from which on making a `Saver` for it is not what takes the time."""


def _parts(value: Any) -> list[Any] | None:
    """Return the plain data that a value consists of, at any depth; None for others, and for many."""
    found, left = list[Any](), [value]
    while left:
        item = left.pop()
        found.append(item)
        if (kind := type(item)) in CONTAINERS:
            left += (*item, *item.values()) if kind is dict else item
        elif kind not in _PLAIN:
            return None
        if len(left) + len(found) > _FEW:
            return None
    return found


class OverBudget(Exception):
    """The time budget for fingerprints is used up."""


class Fingerprinter(Pickler):
    """Hashes values by pickling them without storing the stream. The digests are valid in this process only.

    Args:
        user_ns: The namespace, which is never traversed.
        live: Ids of objects that are bound to a name: inside others they are compared by identity.
        kept: Collects objects whose ids occur in digests, so that these ids are not reused.

    Attributes:
        until: Monotonic time at which to stop with OverBudget; None for never.
        size: The bytes of the last value's pickle.
    """

    fast: bool
    size = 0
    until: float | None = None

    def __init__(
        self, user_ns: dict[str, Any], live: Iterable[int], kept: list[object] | None = None
    ) -> None:
        self._hash = xxhash.xxh3_128()
        self.kept: list[object] = [] if kept is None else kept
        self._live = {key: (_stored.live, (key,)) for key in live}
        super().__init__(
            _Sink(self._update),
            lambda buffer: self._update(buffer.raw()),
            namespace=user_ns,
            live=self._live,
            rules=_compared(self.kept),
        )

    def fingerprint(self, value: object, *, flat: bool = False) -> bytes:
        """Return the digest of a value; errors raised by its pickling propagate.

        Args:
            value: Any object.
            flat: Whether it is a container of atoms, which needs no memo: that is twice as fast.
        """
        self.fast = flat
        self._hash.reset()
        self.size = 0
        self.by_value.clear()
        self.blamed = None
        self.views.forget()
        self.memo = {id(self.namespace): (0, self.namespace)}
        own = self._live.pop(id(value), None)
        try:
            self.dump(value)
        finally:
            if own is not None:
                self._live[id(value)] = own
        return self._hash.digest()

    def _update(self, data: bytes | memoryview) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise OverBudget
        self.size += len(data)
        self._hash.update(data)

    def check(self, obj: Any) -> None:
        """Accept any class and function: nothing is written."""

    def forget(self) -> None:
        """Release the last value."""
        self.memo = {}
        self.blamed = None
        self.views.forget()

    def ids(self) -> set[int]:
        """Return the ids of the objects inside the last value that pickle remembers."""
        return {*self.memo.copy()}

    def visited(self) -> Iterable[tuple[int, object]]:
        """Return the entries of the memo for the last value: all objects with an identity inside it."""
        memo = self.memo.copy()
        for key in (id(self.namespace), *self.process_objects):
            memo.pop(key, None)
        values: Iterable[tuple[int, object]] = memo.values()
        return values


def _compared(kept: list[object]) -> dict[type, Rule]:
    """Return the rules for objects that are compared otherwise than they are saved."""

    def by_identity(code: types.CodeType) -> Any:
        kept.append(code)  # otherwise another code object could get its id
        return int, (id(code),)

    rules: dict[type, Rule] = {types.CodeType: by_identity}
    if registry := find("matplotlib.cbook", "CallbackRegistry"):
        rules[registry] = lambda _: (int, (0,))  # pickling it increments a counter in it
    return rules


class Stream:
    """The pickles of a durable cell, or of its ambient state, on the live namespace.

    Args:
        data: The pickle stream.
        buffers: Its buffers; read-only ones are copied, so that arrays are writable.
        user_ns: The namespace on which functions are rebuilt and names are looked up.
        instead: Values that are looked up before those of the namespace.
        referring: Whether the stream begins with references.

    Raises:
        StepNotRestored: The stream is lost.
        LookupError: It refers to a name, or a part of one, that does not exist.
    """

    def __init__(
        self,
        data: Part,
        buffers: Sequence[Part],
        user_ns: dict[str, Any],
        instead: Mapping[str, Any] = _NONE,
        *,
        referring: bool = False,
    ) -> None:
        if isinstance(data, DurableError):
            raise data
        self._missing: dict[str, str] = {}
        self._own = _on(user_ns, instead, self._missing)
        self._data, self._buffers, self._before = data, buffers, 2 if referring else 1
        self._unpickler = Unpickler(data, buffers, self._own)
        for _ in range(self._before):
            self.load()

    def load(self) -> Any:
        """Return the next object.

        Raises:
            StepNotRestored: One of its buffers is lost, or it needs a name that a placeholder has.
        """
        try:
            return self._unpickler.load()
        except Exception as error:
            for name, why in self._missing.items():  # such as the class of what it was to make
                raise StepNotRestored(f"it needs `{name}`, which could not be restored: {why}") from error
            raise

    def has_more(self) -> bool:
        """Return whether objects are left."""
        return self._unpickler.has_more()

    def salvaged(self) -> tuple[dict[str, Any], dict[str, Exception]]:
        """Return the names that can be loaded from the beginning, and why others cannot."""
        return salvaged(self._data, self._buffers, self._own, self._before)


def _on(
    user_ns: dict[str, Any], instead: Mapping[str, Any], missing: dict[str, str]
) -> dict[str, Callable[..., Any]]:
    """Return the functions that load stored names on a namespace, and collect what placeholders stand for."""

    def live(name: str) -> Any:
        if name in instead:
            return instead[name]
        if name not in user_ns:
            raise LookupError(
                f"it refers to `{name}`, which is not defined now; run the cell that defines it"
            )
        value = user_ns[name]
        if (why := reason_of(value)) is not None:
            missing[name] = why
        return value

    function = functools.partial(_stored.function, into=user_ns)
    own: dict[str, Callable[..., Any]] = {"live": live, "namespace": lambda: user_ns, "function": function}
    identified = {"nan": functools.partial(_nan, user_ns), "text": functools.partial(_text, user_ns)}
    return {**own, "part": follow, "update": update, **identified}


def _nan(user_ns: Mapping[str, Any], name: str) -> float:
    """Return the float that is not a number to which a name is bound, or will be."""
    value: Any = user_ns.get(name)
    if type(value) is float and math.isnan(value):
        return value
    return _MADE.setdefault(name, float("nan"))


def _text(user_ns: Mapping[str, Any], name: str, value: Any) -> Any:
    """Return the immutable value to which a name is bound; the recorded one if that differs."""
    found = user_ns.get(name)
    if type(found) is not type(value) or found != value:
        return value
    # Zeros of both signs are equal, and so are ranges with the same numbers.
    return found if isinstance(value, (str, bytes)) or repr(found) == repr(value) else value


class _Sink:
    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


def check_stream(stream: bytes | memoryview) -> None:
    """Refuse a stream of a durable cell that is not in the stored format. Reads only its first object.

    Args:
        stream: The pickles of a group of names or of ambient state; the first one is the namespace.

    Raises:
        StepNotRestored: The checkpoint was written by a development version, or it is forged.
    """
    try:
        _FirstObject(io.BytesIO(memoryview(stream)[:_FIRST_OBJECT])).load()
    except StepNotRestored:
        raise
    except Exception:  # noqa: S110 - damaged: the reader of the whole stream says which names are lost
        pass


_FIRST_OBJECT: Final = 1024
"""Bytes that the first object of a stream has at most."""


class _FirstObject(pickle.Unpickler):
    """Checks names, but resolves none."""

    def find_class(self, module: str, name: str) -> Any:
        _stored.check_name(module, name)
        return tuple
