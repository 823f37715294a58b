"""Pickling of values that exact JSON cannot represent.

A class or function of ``__main__`` is saved by value, as cloudpickle does, and by name: if the process that
loads it defines the name, its definition is used, so that ``isinstance`` and ``except`` hold.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

import cloudpickle
from cloudpickle import cloudpickle as internals

from durable_nb import _stored, settings
from durable_nb.codec import arrays
from durable_nb.codec.locate import locate, type_name
from durable_nb.errors import DurableError, ResetStep, StepNotRestored, StepNotSaved

__all__ = [
    "Unpickler",
    "dump_parts",
    "dumps",
    "has_own_reduction",
    "keep_qualname",
    "loads",
    "reduce_code",
    "reduce_exception",
    "reduce_method",
    "take",
    "writable",
]

_PROTOCOL: Final = 5
_REMEDY: Final = (
    "Return plain data, or what to create it from (a path, a URL), and create it where it is used."
)


def dumps(
    value: Any,
    *,
    unlinked: BaseException | None = None,
    beside: Callable[[pickle.PickleBuffer], bool] | None = None,
) -> bytes:
    """Pickle a value.

    Args:
        value: Any value.
        unlinked: An exception to pickle without its cause, because the caller saves the cause separately.
        beside: Pickle's ``buffer_callback``: returns False for a buffer that it has taken out of the stream,
            True for one that stays in it.

    Raises:
        StepNotSaved: The value, or an object in it, cannot be pickled; the message names it and where it is.

    Example:
        >>> loads(dumps({1, 2}))
        {1, 2}
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, unlinked, beside)
    try:
        pickler.dump(value)
    except Exception as error:
        raise _not_saved(value, pickler.last, error) from error
    return buffer.getvalue()


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
    buffers: list[memoryview] = []
    data = dumps(value, beside=lambda buffer: take(buffers, buffer))
    return data, tuple(buffers)


def take(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Append a buffer of at least ``settings.OUT_OF_BAND`` bytes to a list.

    Args:
        buffers: The list to append to.
        buffer: The buffer that the pickler found.

    Returns:
        True if the buffer is too small and stays in the stream, False if it was appended.
    """
    view = buffer.raw()
    small = view.nbytes < settings.OUT_OF_BAND
    if not small:
        buffers.append(view)
    return small


def writable(buffers: Iterable[bytes | memoryview | DurableError]) -> Iterator[bytearray | memoryview]:
    """Yield the out-of-band buffers of a pickle as writable memory.

    Args:
        buffers: Bytes and views; a writable view is used in place, everything else is copied. An error stands
            for a part that could not be read.

    Raises:
        DurableError: An error found among the buffers.
    """
    for buffer in buffers:
        if isinstance(buffer, DurableError):
            raise buffer
        view = memoryview(buffer)
        yield bytearray(view) if view.readonly else view


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


class Unpickler(pickle.Unpickler):
    """An unpickler that refuses names of durable_nb which are not part of the stored format.

    Args:
        data: The pickle stream.
        buffers: Its out-of-band buffers; read-only ones are copied, so that restored arrays are writable.
    """

    def __init__(
        self, data: bytes | memoryview, buffers: Iterable[bytes | memoryview | DurableError] = ()
    ) -> None:
        super().__init__(io.BytesIO(data), buffers=writable(buffers))

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that a checkpoint names; pickle calls this for each class and function."""
        _stored.check_name(module, name)
        return super().find_class(module, name)


def _not_saved(value: Any, last: Any, error: Exception) -> StepNotSaved:
    message = f"cannot save the result ({type_name(type(value))})"
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return StepNotSaved(
            f"{message}: it is nested too deeply", remedy="Flatten it, for example to a list with indices."
        )
    kind = type_name(type(last))
    path = locate(value, last) if last is not None else None
    if path is None:
        reason = f"it contains an object of type {kind}, which cannot be pickled"
    elif path:
        reason = f"result{path} ({kind}) cannot be pickled"
    else:
        reason = "it cannot be pickled"
    return StepNotSaved(f"{message}: {reason}", remedy=_REMEDY)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """cloudpickle's pickler, made exact: it refuses objects that would be restored as something else."""

    def __init__(
        self,
        file: io.BytesIO,
        unlinked: BaseException | None,
        beside: Callable[[pickle.PickleBuffer], bool] | None,
    ) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=beside)
        self.unlinked = unlinked
        self.last: Any = None  # the object that was being pickled when an error was raised

    def reducer_override(self, obj: Any) -> Any:
        """Return the reduction of one object; pickle calls this for all but a few built-in types."""
        self.last = obj
        kind = type(obj)
        if kind in _REDUCERS:
            return _REDUCERS[kind](obj)
        if issubclass(kind, io.IOBase):
            _refuse_file(obj)
        if issubclass(kind, BaseException):
            reduction = reduce_exception(obj, linked=obj is not self.unlinked)
        else:
            reduction = arrays.reduce(obj, kind)
        if reduction is not NotImplemented:
            return reduction
        if kind is FunctionType or issubclass(kind, type):
            _stored.refuse_internal(obj)
        reduction = super().reducer_override(obj)
        if issubclass(kind, type):
            keep_qualname(obj, reduction)
        if kind is FunctionType or issubclass(kind, type):
            return _live_reduction(obj, reduction)
        return reduction


def keep_qualname(cls: type, reduction: Any) -> None:
    """Add the qualified name of a class to its reduce value, which cloudpickle leaves out.

    Args:
        cls: A class.
        reduction: What cloudpickle reduces it to.
    """
    if isinstance(reduction, tuple) and reduction[0] is internals._make_skeleton_class:  # noqa: SLF001
        reduction[1][3]["__qualname__"] = cls.__qualname__  # among what its namespace has from the start


def reduce_code(code: CodeType) -> Any:
    """Return the reduce value of a code object, with the version of Python that alone can execute it.

    Args:
        code: Any code object.
    """
    return _stored.code, (sys.version_info[:2], *internals._code_reduce(code)[1])  # noqa: SLF001


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    if view.format != "B" or view.ndim != 1:
        raise pickle.PicklingError("only one-dimensional memoryviews of bytes can be restored exactly")
    return memoryview, (bytes(view) if view.readonly else bytearray(view),)


def _refuse_file(file: Any) -> None:
    # cloudpickle would read a text file's content and restore it as a StringIO.
    if type(file) not in (io.StringIO, io.BytesIO):
        raise pickle.PicklingError("an open file cannot be pickled")


def _live_reduction(obj: Any, reduction: Any) -> Any:
    named = (obj.__qualname__, isinstance(obj, type))
    by_value = isinstance(reduction, tuple) and len(reduction) == 6
    if not by_value or obj.__module__ != "__main__" or _stored.in_main(*named) is not obj:
        return reduction
    make, args, state, _, _, settle = reduction
    return (
        _stored.live_or_made,
        (*named, make, args),
        (*named, settle, state),
        None,
        None,
        _stored.settle_unless_live,
    )


def has_own_reduction(kind: type) -> bool:
    """Return whether a class of exceptions says itself how it is pickled, in Python or in C.

    Args:
        kind: A class of exceptions.
    """
    hooks = ("__reduce__", "__reduce_ex__")
    return next(cls for cls in kind.__mro__ if vars(cls).keys() & hooks).__module__ != "builtins"


def reduce_method(method: MethodType) -> Any:
    """Return how to pickle a bound method: by its object and name where its class is a public one of ours.

    cloudpickle names the function, and with it the module that the class is defined in today.

    Args:
        method: Any bound method.
    """
    if type(method.__self__).__module__ not in _stored.PUBLIC:
        return NotImplemented
    return getattr, (method.__self__, method.__name__)


def reduce_exception(exc: BaseException, *, linked: bool = True) -> Any:
    """Return the reduction of an exception, NotImplemented if its class defines its own.

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
    return (
        _stored.made_exception,
        (type(exc), reduced[1]),
        (exc.args, state, links),
        None,
        None,
        _stored.settle_exception,
    )


_REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    memoryview: _reduce_view,
    CodeType: reduce_code,
    MethodType: reduce_method,
}
