"""NumPy arrays and pandas objects in a namespace's pickles: views stay views, frames stay independent."""

from __future__ import annotations

import copyreg
import sys
from typing import Any, Final

from durable_nb import _stored
from durable_nb.codec import arrays
from durable_nb.codec.arrays import is_array

__all__ = ["Private", "is_array", "is_frozen", "owner", "reduce"]

_FROZEN_OF_TORCH: Final = frozenset({"device", "dtype", "layout", "memory_format", "Size"})
_FROZEN_MODULES: Final = ("pandas._libs.missing", "pandas._libs.tslibs", "pyarrow.")


class Private:
    """An array that is pickled for one pandas object alone, even if other objects view its memory.

    pandas copies on write and tracks which objects share memory. Two frames restored as views of one buffer,
    without that tracking, would write into each other.
    """

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


def is_frozen(kind: type) -> bool:
    """Return whether a library's class is immutable, so that names may share its instances safely."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas.api.extensions")
    if numpy is not None and issubclass(kind, (numpy.dtype, numpy.generic)):
        return True
    if pandas is not None and issubclass(kind, (sys.modules["pandas"].Index, pandas.ExtensionDtype)):
        return True
    if kind.__module__ == "torch":
        return kind.__name__ in _FROZEN_OF_TORCH
    return str(kind.__module__).startswith(_FROZEN_MODULES)


def owner(array: Any) -> Any:
    """Return the array at the end of a chain of views, which owns the memory."""
    while is_array(type(base := _base(array))):
        array = base
    return array


def _base(array: Any) -> Any:
    base = array.base
    # as_strided and sliding_window_view put an object in between.
    return base.base if type(base).__name__ == "DummyArray" else base


def reduce(value: Any, kind: type, shared: frozenset[int]) -> Any:
    """Return the reduce value of an array or pandas object; NotImplemented to leave it to pickle.

    Args:
        value: Any object except a class or function.
        kind: Its type.
        shared: Ids of the owners whose memory several arrays of one pickle view.
    """
    if kind is Private:
        return _reduce_private(value.array)
    if is_array(kind):
        return _reduce_array(value, kind, shared)
    if _is_pandas(kind):
        reduced = arrays.reduce(value, kind)
        return _made_private(value.__reduce_ex__(5) if reduced is NotImplemented else reduced)
    return arrays.reduce(value, kind)


def _is_pandas(kind: type) -> bool:
    module = str(kind.__module__)
    return module == "pandas" or module.startswith("pandas.")


def _reduce_private(array: Any) -> Any:
    if is_array(type(array)):
        reduced = arrays.reduce_array(array)
        return array.__reduce_ex__(5) if reduced is NotImplemented else reduced
    reduced = array.__reduce_ex__(5)
    create, *rest = _made_private(reduced)
    # pickle requires that copyreg's own function creates an object of the class being pickled.
    return _stored.new if create is copyreg.__newobj__ else create, *rest  # type: ignore[attr-defined]


def _made_private(part: Any, known: dict[int, Private] | None = None) -> Any:
    """Wrap the arrays in a pandas object's reduce value, so that the memo does not share them."""
    known = {} if known is None else known  # a Series refers to its values twice
    kind, extensions = type(part), sys.modules.get("pandas.api.extensions")
    if is_array(kind) or (extensions is not None and issubclass(kind, extensions.ExtensionArray)):
        return known.setdefault(id(part), Private(part))
    if kind in (tuple, list):
        return kind(_made_private(item, known) for item in part)
    if kind is dict:
        return {key: _made_private(item, known) for key, item in part.items()}
    return part


def _reduce_array(array: Any, kind: type, shared: frozenset[int]) -> Any:
    numpy, base = sys.modules["numpy"], owner(array)
    mapped = kind is numpy.memmap
    if mapped and base is array:
        return _reduce_memmap(array)
    if base is array or not (mapped or (id(base) in shared and _may_be_view(numpy, array, kind))):
        return arrays.reduce_array(array)
    if not base.flags.forc:
        return arrays.reduce_array(array)
    layout = array.shape, _address(array) - _address(base), array.strides, array.flags.writeable
    state = vars(array) if kind is not numpy.ndarray and not mapped else None
    return _stored.array_view, (base, kind, array.dtype, *layout), state, None, None, _stored.set_array_state


def _may_be_view(numpy: Any, array: Any, kind: type) -> bool:
    """Return whether an array is fully described by its memory and attributes, as for most classes."""
    plain = kind.__reduce__ in (numpy.ndarray.__reduce__, numpy.ma.MaskedArray.__reduce__)
    return kind is numpy.ndarray or (plain and hasattr(array, "__dict__") and not array.dtype.hasobject)


def _reduce_memmap(array: Any) -> Any:
    if array.filename is None or array.mode == "c":
        raise TypeError("a memmap without a file of its own")
    mode = "r" if array.mode == "r" else "r+"
    order = "C" if array.flags.c_contiguous else "F"
    return _stored.memory_map, (str(array.filename), array.dtype, mode, array.offset, array.shape, order)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])
