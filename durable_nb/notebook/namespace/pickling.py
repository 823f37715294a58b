"""What pickling the names of a notebook adds: digests of their values, and loading on the live namespace."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import xxhash

from durable_nb import _stored
from durable_nb.codec.pickling import Pickler, Unpickler
from durable_nb.codec.rules import Rule
from durable_nb.errors import DurableError, StepNotRestored
from durable_nb.lookup import find
from durable_nb.notebook.namespace.placeholder import reason_of

__all__ = ["Fingerprinter", "OverBudget", "load", "reference"]

Part: TypeAlias = bytes | memoryview | DurableError
"""A stream or a buffer, or the error that explains why it is lost."""


def reference(name: str) -> tuple[Callable[[object], Any], tuple[str]]:
    """Return the reduce value of an object that is referred to by a name of the namespace.

    Args:
        name: The name.
    """
    return _stored.live, (name,)


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
    """

    fast: bool
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
        self.by_value.clear()
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
        self._hash.update(data)

    def check(self, obj: Any) -> None:
        """Accept any class and function: nothing is written."""

    def forget(self) -> None:
        """Release the last value."""
        self.memo = {}
        self.blamed = None
        self.views.forget()

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


def load(data: Part, buffers: Sequence[Part], user_ns: dict[str, Any]) -> Any:
    """Load the values of a durable cell, or its ambient state, on the live namespace.

    Args:
        data: The pickle stream.
        buffers: Its buffers; read-only ones are copied, so that arrays are writable.
        user_ns: The namespace on which functions are rebuilt and names are looked up.

    Raises:
        StepNotRestored: The stream or one of its buffers is lost, or it needs a name that a placeholder has.
    """
    if isinstance(data, DurableError):
        raise data
    missing: dict[str, str] = {}
    unpickler = Unpickler(data, buffers, _on(user_ns, missing))
    unpickler.load()
    try:
        return unpickler.load()
    except Exception as error:
        for name, why in missing.items():  # such as the class of what it was to make
            raise StepNotRestored(f"it needs `{name}`, which could not be restored: {why}") from error
        raise


def _on(user_ns: dict[str, Any], missing: dict[str, str]) -> dict[str, Callable[..., Any]]:
    """Return the functions that load stored names on a namespace, and collect what placeholders stand for."""

    def live(name: str) -> Any:
        if name not in user_ns:
            raise LookupError(
                f"it refers to `{name}`, which is not defined now; run the cell that defines it"
            )
        value = user_ns[name]
        if (why := reason_of(value)) is not None:
            missing[name] = why
        return value

    function = functools.partial(_stored.function, into=user_ns)
    return {"live": live, "namespace": lambda: user_ns, "function": function}


class _Sink:
    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
