"""Load what can be loaded of a group of names: what fails takes no name along but those that hold it."""

from __future__ import annotations

import gc
import io
import pickle
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from durable_nb.codec.pickling import Unpickler
from durable_nb.errors import DurableError, StepNotRestored
from durable_nb.lookup import importable
from durable_nb.notebook.namespace.placeholder import Placeholder, name_of, reason_of

__all__ = ["salvaged"]


def salvaged(
    data: bytes | memoryview,
    buffers: Sequence[bytes | memoryview | DurableError],
    own: Mapping[str, Callable[..., Any]],
    skipped: int,
) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Load a stream of which some objects cannot be loaded.

    Args:
        data: The pickle stream.
        buffers: Its buffers, and errors in place of those that are lost.
        own: Functions for stored names, as `Unpickler` takes them.
        skipped: How many objects precede those that hold the names.

    Returns:
        The names whose values are whole, and why the others are not.
    """
    loader = _Lenient(data, buffers, own)
    for _ in range(skipped):
        loader.load()
    names: dict[str, Any] = {}
    while loader.has_more():
        names |= loader.load()
    found = {name: loader.damage(value) for name, value in names.items()}
    failed = {name: error for name, error in found.items() if error is not None}
    return {name: value for name, value in names.items() if name not in failed}, failed


class _Lost:
    """Stands for an object that could not be made.

    Args:
        error: Why not.
        of: The object that is incomplete for it, if it was to be set up.
    """

    def __init__(self, error: Exception, of: Any = None) -> None:
        self.error, self.of = error, of


_Base: Any = pickle._Unpickler  # type: ignore[attr-defined, unused-ignore]  # noqa: SLF001 - in Python, with hooks
_Load = Callable[[Any], None]


class _Lenient(_Base):  # type: ignore[misc]
    """Puts a `_Lost` in place of what fails. Not fast: it is used only after loading failed."""

    def __init__(
        self,
        data: bytes | memoryview,
        buffers: Sequence[bytes | memoryview | DurableError],
        own: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._file = io.BytesIO(data)
        super().__init__(self._file, buffers=map(_writable, buffers))
        self._names = Unpickler(b"", (), own)
        self._incomplete: list[tuple[Any, Exception]] = []  # kept alive, so that no id is used twice

    def has_more(self) -> bool:
        """Return whether objects are left in the stream."""
        return self._file.tell() < len(self._file.getbuffer())

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that the stream names."""
        return self._tried(self._names.find_class, module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Return an object that is identified rather than pickled."""
        of = pid[1] if type(pid) is tuple else None
        return of if type(of) is _Lost else self._names.persistent_load(pid)

    def damage(self, value: Any) -> Exception | None:
        """Return why an object is not whole; None if it is."""
        incomplete = {id(each): error for each, error in self._incomplete}
        left, seen = [value], dict[int, Any]()
        while left:
            item = left.pop()
            if type(item) is _Lost:
                return item.error
            if id(item) in incomplete:
                return incomplete[id(item)]
            if id(item) not in seen:
                seen[id(item)] = item
                left += _parts(item)
        return None

    def _tried(self, function: Any, *arguments: Any) -> Any:
        of = arguments[0] if len(arguments) == 2 else None
        for each in (function, *arguments):
            if type(each) is _Lost:
                return _Lost(each.error, of)
        try:
            return function(*arguments)
        except Exception as error:
            return _Lost(_because_of(error, (function, *arguments)), of)

    def _settled(self, load: _Load, made: int = -1) -> None:
        """Let the base class change an object on the stack, and note if that failed."""
        obj = self.stack[made]
        try:
            load(self)
        except Exception as error:
            self._incomplete.append((obj, _because_of(error, (obj,))))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._tried(self.stack[-1], *arguments)

    def load_newobj(self) -> None:
        cls, arguments = self.stack[-2:]
        self.stack[-2:] = [self._tried(_new, cls, arguments, {})]

    def load_newobj_ex(self) -> None:
        cls, arguments, keywords = self.stack[-3:]
        self.stack[-3:] = [self._tried(_new, cls, arguments, keywords)]

    def load_build(self) -> None:
        obj, state = self.stack[-2:]
        if type(state) is _Lost or not gc.is_tracked(obj):  # such as an array of objects
            error = self.damage(state)
            if error is not None:
                self._incomplete.append((obj, error))
        self._settled(_Base.load_build, -2)

    def load_append(self) -> None:
        self._settled(_Base.load_append, -2)

    def load_setitem(self) -> None:
        self._settled(_Base.load_setitem, -3)

    def _load_many(self, load: _Load) -> None:
        obj = self.metastack[-1][-1]
        try:
            load(self)
        except Exception as error:
            self._incomplete.append((obj, error))

    def load_appends(self) -> None:
        self._load_many(_Base.load_appends)

    def load_setitems(self) -> None:
        self._load_many(_Base.load_setitems)

    def load_additems(self) -> None:
        self._load_many(_Base.load_additems)

    def load_pop(self) -> None:
        lost = self.stack[-1] if self.stack else None
        if type(lost) is _Lost and lost.of is not None:
            self._incomplete.append((lost.of, lost.error))
        _Base.load_pop(self)

    dispatch: ClassVar = {
        **_Base.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.POP[0]: load_pop,
    }


def _new(cls: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]) -> Any:
    return cls.__new__(cls, *arguments, **keywords)


def _writable(buffer: bytes | memoryview | DurableError) -> Any:
    if isinstance(buffer, DurableError):
        return _Lost(buffer)
    view = memoryview(buffer)
    return bytearray(view) if view.readonly else view


def _because_of(error: Exception, used: Iterable[Any]) -> Exception:
    """Return the reason for a failure: a placeholder that was used, or the error itself."""
    for each in used:
        if type(each) is Placeholder:
            why = f"it needs `{name_of(each)}`, which could not be restored: {reason_of(each)}"
            return StepNotRestored(why)
    return error


def _parts(item: Any) -> list[Any]:
    if isinstance(item, types.ModuleType | Placeholder):
        return []
    if type(item) is types.FunctionType:
        return [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
    if issubclass(type(item), type) and (item.__module__ != "__main__" or importable(item)):
        return []
    if type(item).__name__ == "ndarray":
        return list(item.flat) if item.dtype.hasobject else []
    return gc.get_referents(item)
