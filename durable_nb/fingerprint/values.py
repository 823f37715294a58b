"""Fingerprints of values: hashes of a canonical text, in which types count and identity does not."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import (
    BuiltinFunctionType,
    EllipsisType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final
from uuid import UUID

from xxhash import xxh3_128_hexdigest

from durable_nb.fingerprint import code
from durable_nb.lookup import derives, find

__all__ = ["value"]

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_LONG: Final = 400
"""Characters from which a part of the text is replaced by its hash, to bound the length of the text."""

_LONG_INT: Final = 2100
"""Bits from which an int is written in hex, to which no limit of digits applies."""

_MANY_DIGITS: Final = re.compile(r"\d{600}")


_ALIASES: Final = {"memmap": "ndarray"}
"""Types that count as another one: a saved array may be restored as a mapped one."""


class _Unknown(Exception):
    """The value cannot be fingerprinted."""


def value(obj: Any) -> str | None:
    """Return the fingerprint of a value: equal for equal values, in every process.

    Args:
        obj: Plain data, dataclasses, enums, namedtuples, pydantic models, arrays, frames, functions, classes,
            bound methods and partials of them, in any nesting.

    Returns:
        32 hex digits; None if the value, or an object in it, has no stable fingerprint.

    Example:
        >>> value({"a": 1, "b": 2}) == value({"b": 2, "a": 1})
        True
    """
    kind = type(obj)
    if kind in _SCALARS or (kind is tuple and _SCALARS.issuperset(map(type, obj))):
        try:
            # Not repr: the characters it escapes depend on the Python version.
            text = ascii(obj)
        except ValueError:  # an int of thousands of digits
            text = ""
        if 0 < len(text) < _LONG:
            return xxh3_128_hexdigest(text.encode())
    try:
        return xxh3_128_hexdigest(_Canon().write(obj).encode())
    except Exception:  # unknown, nested too deeply, or the user's own code raised
        return None


class _Canon:
    """Writes one value as canonical text."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.done: dict[int, tuple[Any, str]] = {}  # references to the objects, so that no id is reused

    def write(self, obj: Any) -> str:
        kind = type(obj)
        if kind in _SCALARS:
            return _scalar(obj)
        done = self.done.get(id(obj))
        if done is not None:
            return done[1]
        if id(obj) in self.open:
            raise _Unknown  # a cycle
        self.open.add(id(obj))
        name = _ALIASES.get(kind.__name__, kind.__name__)
        text = _short(f"{name}({self._inside(kind, obj)})")
        self.open.discard(id(obj))
        self.done[id(obj)] = (obj, text)
        return text

    def _inside(self, kind: type, obj: Any) -> str:
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, obj)
        for matches, write in _FAMILIES:
            if matches(kind):
                return write(self, obj)
        raise _Unknown

    def items(self, items: Iterable[Any]) -> str:
        items = items if isinstance(items, list | tuple) else list(items)
        if _SCALARS.issuperset(map(type, items)):
            text = _many(items)
            if text is not None:
                return text
        return ",".join(map(self.write, items))

    def unordered(self, items: Iterable[Any]) -> str:
        return ",".join(sorted(map(self.write, items)))

    def mapping(self, found: dict[Any, Any]) -> str:
        return ",".join(sorted(f"{self.write(key)}:{self.write(item)}" for key, item in found.items()))

    def parts(self, *parts: Any) -> str:
        return ",".join(map(self.write, parts))


def _short(text: str) -> str:
    return text if len(text) < _LONG else f"#{xxh3_128_hexdigest(text.encode())}"


def _scalar(obj: Any) -> str:
    kind = type(obj)
    if kind is int:
        return str(obj) if obj.bit_length() < _LONG_INT else _short(hex(obj))
    if kind is str and len(obj) >= _LONG:
        return f"str#{xxh3_128_hexdigest(obj.encode('utf-8', 'surrogatepass'))}"
    if kind is bytes and len(obj) >= _LONG:
        return f"bytes#{xxh3_128_hexdigest(obj)}"
    return ascii(obj)


def _many(items: Any) -> str | None:
    try:
        text = ascii(list(items))
    except ValueError:
        return None
    # The limit of digits differs between processes: items near it are written one by one in all of them.
    return None if _MANY_DIGITS.search(text) else text


def _name(kind: Any) -> str:
    """Return ``module:qualname`` of a class or function that is found under that name."""
    if find(kind.__module__, kind.__qualname__) is not kind:
        raise _Unknown
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _moment(canon: _Canon, obj: Any) -> str:
    zone = obj.tzinfo
    if zone is not None and type(zone) is not timezone and type(zone).__name__ != "ZoneInfo":
        raise _Unknown
    return f"{obj.replace(tzinfo=None).isoformat()} {obj.fold} {canon.write(str(zone))}"


def _enum(canon: _Canon, obj: Any) -> str:
    name = obj._name_
    return f"{_class_name(type(obj))},{canon.write(name if name is not None else int(obj._value_))}"


def _namedtuple(canon: _Canon, obj: Any) -> str:
    if getattr(obj, "__dict__", None):
        raise _Unknown
    return f"{_class_name(type(obj))},{canon.items(tuple(tuple.__iter__(obj)))}"


def _model(canon: _Canon, obj: Any) -> str:
    extra, private = (getattr(obj, f"__pydantic_{name}__", None) for name in ("extra", "private"))
    return f"{_class_name(type(obj))},{canon.parts(dict(vars(obj)), extra or None, private or None)}"


def _is_dataclass(kind: type) -> bool:
    plain = kind.__new__ is object.__new__  # type: ignore[comparison-overlap]
    return dataclasses.is_dataclass(kind) and plain


def _dataclass(canon: _Canon, obj: Any) -> str:
    state = dict(getattr(obj, "__dict__", ()))
    for base in type(obj).__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, MemberDescriptorType) and hasattr(obj, name):
                state[name] = slot.__get__(obj)
    return f"{_class_name(type(obj))},{canon.mapping(state)}"


def _function(canon: _Canon, obj: FunctionType) -> str:
    plain = code.plain_function(obj)
    written = code.function(obj)
    if plain is None or written is None:
        return _name(obj)
    # Functions of the same source differ if they were created with other closures or defaults.
    cells = [cell.cell_contents for cell in plain.__closure__ or ()]
    return f"{written},{canon.parts(cells, plain.__defaults__, plain.__kwdefaults__)}"


def _method(canon: _Canon, obj: MethodType) -> str:
    return canon.parts(obj.__self__, obj.__func__)


def _builtin(canon: _Canon, obj: Any) -> str:
    owner = obj.__self__
    if owner is None or isinstance(owner, ModuleType):
        return f"{obj.__module__}:{obj.__qualname__}"
    return f"{canon.write(owner)},{obj.__name__}"


def _partial(canon: _Canon, obj: functools.partial[Any]) -> str:
    return canon.parts(obj.func, obj.args, obj.keywords)


def _from_loaded(module: str, *names: str) -> Callable[[type], bool]:
    def matches(kind: type) -> bool:
        # No import: a value of a library's type exists only if the library is loaded.
        loaded = sys.modules.get(module)
        return any(kind is getattr(loaded, name, None) for name in names)

    return matches


def _array(canon: _Canon, obj: Any) -> str:
    numpy: Any = sys.modules["numpy"]
    head = f"{obj.dtype.str},{obj.shape}"
    if obj.dtype.names is not None:  # the padding between fields has arbitrary contents
        return ",".join([head, *(f"{name!a}={canon.write(obj[name])}" for name in obj.dtype.names)])
    if obj.dtype.hasobject or obj.dtype.char in "gG":
        return f"{head},{canon.items(obj.ravel().tolist())}"
    flat = numpy.ascontiguousarray(obj).reshape(-1)
    return f"{head},{xxh3_128_hexdigest(flat.view(numpy.uint8) if flat.nbytes else b'')}"


def _numpy_scalar(_canon: _Canon, obj: Any) -> str:
    if obj.dtype.hasobject or obj.dtype.names or obj.dtype.char in "gG":
        raise _Unknown
    return f"{obj.dtype.str},{obj.tobytes().hex()}"


def _column(canon: _Canon, obj: Any) -> str:
    """Write a series or an index: the dtype, the name, the items."""
    numpy: Any = sys.modules["numpy"]
    head = f"{canon.write(str(obj.dtype))},{canon.write(obj.name)}"
    if isinstance(obj.dtype, numpy.dtype):
        return f"{head},{_array(canon, obj.to_numpy())}"
    return f"{head},{canon.items(obj.astype(object).tolist())}"


def _index(canon: _Canon, obj: Any) -> str:
    if obj.nlevels == 1:
        return _column(canon, obj)
    return canon.parts(list(obj.names), [obj.get_level_values(level) for level in range(obj.nlevels)])


def _series(canon: _Canon, obj: Any) -> str:
    return f"{_column(canon, obj)},{_index(canon, obj.index)}"


def _frame(canon: _Canon, obj: Any) -> str:
    columns = (_column(canon, obj.iloc[:, at]) for at in range(obj.shape[1]))
    return ",".join([_index(canon, obj.index), _index(canon, obj.columns), *columns])


def _pandas_scalar(canon: _Canon, obj: Any) -> str:
    return canon.parts(str(obj), getattr(obj, "unit", None), str(getattr(obj, "tzinfo", None)))


_WRITERS: Final[dict[type, Callable[[_Canon, Any], str]]] = {
    list: _Canon.items,
    tuple: _Canon.items,
    set: _Canon.unordered,
    frozenset: _Canon.unordered,
    dict: _Canon.mapping,
    bytearray: lambda _, v: _scalar(bytes(v)),
    complex: lambda c, v: c.parts(v.real, v.imag),
    datetime: _moment,
    time: _moment,
    date: lambda _, v: v.isoformat(),
    timedelta: lambda _, v: f"{v.days},{v.seconds},{v.microseconds}",
    timezone: lambda c, v: c.parts(v.utcoffset(None), str(v)),
    Decimal: lambda c, v: c.parts(*v.as_tuple()) if v.is_finite() else str(v).lower(),
    Fraction: lambda c, v: c.parts(v.numerator, v.denominator),
    UUID: lambda _, v: v.hex,
    range: lambda c, v: c.parts(v.start, v.stop, v.step),
    slice: lambda c, v: c.parts(v.start, v.stop, v.step),
    EllipsisType: lambda _c, _v: "",
    **dict.fromkeys((PurePosixPath, PureWindowsPath, PosixPath, WindowsPath), lambda c, v: c.write(str(v))),
    FunctionType: _function,
    MethodType: _method,
    BuiltinFunctionType: _builtin,
    functools.partial: _partial,
}

_FAMILIES: Final[tuple[tuple[Callable[[type], bool], Callable[[_Canon, Any], str]], ...]] = (
    (lambda kind: isinstance(kind, enum.EnumMeta), _enum),
    (lambda kind: issubclass(kind, tuple) and hasattr(kind, "_fields"), _namedtuple),
    (lambda kind: derives(kind, "pydantic.main", "BaseModel"), _model),
    (_is_dataclass, _dataclass),
    (lambda kind: issubclass(kind, type), lambda _, obj: _name(obj)),
    (_from_loaded("numpy", "ndarray", "memmap"), lambda canon, obj: f"array,{_array(canon, obj)}"),
    (lambda kind: derives(kind, "numpy", "generic"), _numpy_scalar),
    (_from_loaded("pandas", "Series"), _series),
    (_from_loaded("pandas", "DataFrame"), _frame),
    (lambda kind: derives(kind, "pandas", "Index"), _index),
    (_from_loaded("pandas", "Timestamp", "Timedelta"), _pandas_scalar),
    (
        lambda kind: kind.__module__.startswith("pandas.") and kind.__name__ in ("NAType", "NaTType"),
        lambda _c, _v: "",
    ),
)
