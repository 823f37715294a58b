"""Pickle for what JSON cannot say, with classes and functions of the notebook found again live.

A class or function of ``__main__`` is saved by value, as cloudpickle does, and by name: where the
reading kernel has one of that name, that one is used, so ``isinstance`` and ``except`` hold.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

import cloudpickle
from cloudpickle import cloudpickle as internals

from durable_nb import _stored, settings
from durable_nb.codec import arrays
from durable_nb.codec.locate import locate, type_name
from durable_nb.errors import DurableError, StepNotRestored, StepNotSaved

__all__ = [
    "Unpickler",
    "dump_parts",
    "dumps",
    "keep_qualname",
    "loads",
    "reduce_code",
    "reduce_exception",
    "take",
    "writable",
]

_PROTOCOL: Final = 5
_REMEDY: Final = (
    "Return plain data, or what it can be made from again (a path, a URL), and open it where it is used."
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
        unlinked: An exception whose cause is to be left out, because the caller keeps it elsewhere.
        beside: Takes a large buffer, or gives True for it to stay in the stream.

    Raises:
        StepNotSaved: The value, or something in it, cannot be pickled; it names what and where.

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
    """Pickle a value with its large buffers beside the stream: views of the value's own memory.

    Args:
        value: Any value.

    Raises:
        StepNotSaved: The value, or something in it, cannot be pickled; it names what and where.
    """
    buffers: list[memoryview] = []
    data = dumps(value, beside=lambda buffer: take(buffers, buffer))
    return data, tuple(buffers)


def take(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Put a buffer beside the stream, if it is worth it; gives whether it stays in the stream.

    Args:
        buffers: Where to put it.
        buffer: What the pickler came across.
    """
    view = buffer.raw()
    small = view.nbytes < settings.OUT_OF_BAND
    if not small:
        buffers.append(view)
    return small


def writable(buffers: Iterable[bytes | memoryview | DurableError]) -> Iterator[bytearray | memoryview]:
    """The buffers of a pickle as memory that may be written to; an error among them is raised.

    Args:
        buffers: Views, used in place if they may be written to, and errors of parts that could not be read.
    """
    for buffer in buffers:
        if isinstance(buffer, DurableError):
            raise buffer
        view = memoryview(buffer)
        yield bytearray(view) if view.readonly else view


def loads(data: bytes, parts: Sequence[bytes | memoryview | DurableError] = ()) -> Any:
    """Unpickle what :func:`dumps` gave. This runs code that the bytes name.

    Args:
        data: The bytes.
        parts: The buffers beside them.

    Raises:
        StepNotRestored: A module or a class is gone; other exceptions come as pickle raises them.

    Example:
        >>> loads(dumps(slice(1, 2)))
        slice(1, 2, None)
    """
    try:
        return Unpickler(data, parts).load()
    except ModuleNotFoundError as error:
        raise StepNotRestored(
            f"the saved result needs the module {error.name!r}, which is not installed here",
            remedy=f"Install or bring back {error.name!r}, or reset the step.",
        ) from error
    except AttributeError as error:
        raise StepNotRestored(
            f"the saved result needs what is no longer there ({error})",
            remedy="Bring it back, or reset the step.",
        ) from error


class Unpickler(pickle.Unpickler):
    """Pickle's own, but of this package it takes the stored format alone.

    Args:
        data: The bytes.
        buffers: The buffers beside them; read-only ones are copied, so that arrays come back writable.
    """

    def __init__(
        self, data: bytes | memoryview, buffers: Iterable[bytes | memoryview | DurableError] = ()
    ) -> None:
        super().__init__(io.BytesIO(data), buffers=writable(buffers))

    def find_class(self, module: str, name: str) -> Any:
        """Return what a checkpoint names; pickle calls this for each class and function."""
        _stored.check_name(module, name)
        return super().find_class(module, name)


def _not_saved(value: Any, last: Any, error: Exception) -> StepNotSaved:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        what = f"the result ({type_name(type(value))}) is nested too deeply to be saved"
        return StepNotSaved(what, remedy="Return it flattened, such as a list with indices.")
    path = locate(value, last) if last is not None else None
    kind = type_name(type(last))
    if path is None:
        root = type_name(type(value))
        return StepNotSaved(
            f"the result ({root}) cannot be saved, for something in it ({kind})", remedy=_REMEDY
        )
    where = f"the result's {path.removeprefix(' ')}" if path else "the result"
    return StepNotSaved(f"{where} ({kind}) cannot be saved", remedy=_REMEDY)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """cloudpickle's, but exact: it refuses what would come back as something else."""

    def __init__(
        self,
        file: io.BytesIO,
        unlinked: BaseException | None,
        beside: Callable[[pickle.PickleBuffer], bool] | None,
    ) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=beside)
        self.unlinked = unlinked
        self.last: Any = None  # what was being pickled when it failed

    def reducer_override(self, obj: Any) -> Any:
        """Give the reduction of one object; pickle calls this for all but a few built-in types."""
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
        raise pickle.PicklingError("only memoryviews of plain bytes come back as they were")
    return memoryview, (bytes(view) if view.readonly else bytearray(view),)


_REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {memoryview: _reduce_view, CodeType: reduce_code}


def _refuse_file(file: Any) -> None:
    # cloudpickle would read a text file's content and give back a StringIO.
    if type(file) not in (io.StringIO, io.BytesIO):
        raise pickle.PicklingError("an open file is not a value")


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


def _has_own_reduction(kind: type) -> bool:
    return any(isinstance(hook, FunctionType) for hook in (kind.__reduce__, kind.__reduce_ex__))


def reduce_exception(exc: BaseException, *, linked: bool = True) -> Any:
    """Say how to pickle an exception; NotImplemented where its class says it.

    By default one is rebuilt by its ``__init__``, which often takes other arguments than it passes on:
    loading then fails or, worse, gives other args.

    Args:
        exc: Any exception.
        linked: Whether its cause comes along.
    """
    if _has_own_reduction(type(exc)):
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
