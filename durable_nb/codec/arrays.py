"""Pickling of NumPy arrays, pandas objects and torch tensors: memory out of band, views stay views.

This module imports neither NumPy nor pandas nor torch: their values exist only if they are imported.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final

from durable_nb import _stored, settings
from durable_nb.lookup import derives

__all__ = ["Private", "Views", "is_array", "owner", "reduce_private"]

_PLAIN: Final = frozenset("biufcmMSUV")
"""Kinds of dtypes whose arrays are defined by their bytes alone."""

_MAX_BLOCKS: Final = 100
"""Blocks beyond which a frame is not split: pandas warns of frames with more."""


def is_array(kind: type) -> bool:
    """Return whether instances of a class are NumPy arrays; False if NumPy is not imported."""
    return derives(kind, "numpy", "ndarray")


def owner(array: Any) -> Any:
    """Return the array at the end of a chain of views, which owns the memory."""
    while is_array(type(base := _base(array))):
        array = base
    return array


def _base(array: Any) -> Any:
    base = array.base
    # as_strided and sliding_window_view put an object in between.
    return base.base if type(base).__name__ == "DummyArray" else base


class Views:
    """The arrays of one pickle. Those that overlap in memory are views of one array again when it is loaded.

    A first pickling finds out which arrays overlap, a second one pickles them as views.
    """

    def __init__(self) -> None:
        self._seen: dict[int, list[Any]] = {}
        self._shared: set[int] = set()
        self._referred: set[int] = set()

    def refer(self, known: Iterable[Any]) -> None:
        """Pickle arrays as views of these objects where one of them owns their memory."""
        self._referred = {id(obj) for obj in known if is_array(type(obj))}
        self._shared |= self._referred

    def found(self) -> bool:
        """Return whether some of the arrays overlap: from now on they are pickled as views."""
        overlapping = {owner for owner, arrays in self._seen.items() if _overlap(arrays)}
        self._shared = overlapping | self._referred
        return bool(overlapping)

    def forget(self) -> None:
        """Release the arrays."""
        self._seen.clear()

    def rule_of(self, kind: type) -> Callable[[Any], Any] | None:
        """Return the rule for arrays, pandas objects and tensors of a type; None for other types.

        Args:
            kind: Any type except those of functions and classes.
        """
        module = str(kind.__module__)
        if is_array(kind):
            return self._reduce_array
        if module == "pandas.core.internals.managers":
            return _reduce_manager
        if module == "pandas" or module.startswith("pandas."):
            return _reduce_pandas
        return _reduce_torch if module == "torch" or module.startswith("torch.") else None

    def _reduce_array(self, array: Any) -> Any:
        numpy, kind = sys.modules["numpy"], type(array)
        base = array if array.base is None else owner(array)
        mapped = kind is numpy.memmap
        if mapped and base is array:
            return _reduce_memmap(array)
        if mapped or (_may_be_view(numpy, array, kind) and self._shares(array, base)):
            return _reduce_view(numpy, array, base)
        return _reduce_memory(array)

    def _shares(self, array: Any, base: Any) -> bool:
        self._seen.setdefault(id(base), []).append(array)
        return base is not array and id(base) in self._shared


def _overlap(arrays: list[Any]) -> bool:
    spans = sorted(_span(array) for array in arrays if array.size) if len(arrays) > 1 else []
    return any(start < end for (_, end), (start, _) in pairwise(spans))


def _span(array: Any) -> tuple[int, int]:
    """Return the addresses of an array's first byte and of the one behind its last."""
    reach = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    start = _address(array) + sum(each for each in reach if each < 0)
    return start, start + sum(map(abs, reach)) + array.itemsize


def _may_be_view(numpy: Any, array: Any, kind: type) -> bool:
    """Return whether an array is fully described by its memory and attributes, as for most classes."""
    if kind is numpy.ndarray:
        return True
    plain = kind.__reduce__ in (numpy.ndarray.__reduce__, numpy.ma.MaskedArray.__reduce__)
    return plain and hasattr(array, "__dict__") and not array.dtype.hasobject


def _reduce_view(numpy: Any, array: Any, base: Any) -> Any:
    kind = type(array)
    if not base.flags.forc:
        return _reduce_memory(array)
    layout = array.shape, _address(array) - _address(base), array.strides, array.flags.writeable
    state = vars(array) if kind not in (numpy.ndarray, numpy.memmap) else None
    return _stored.array_view, (base, kind, array.dtype, *layout), state, None, None, _stored.set_array_state


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _reduce_memory(array: Any) -> Any:
    """Return the reduce value of an array with its memory out of band, also where NumPy would copy it.

    For small arrays, subclasses and arrays of objects it is NotImplemented.
    """
    if array.nbytes < settings.OUT_OF_BAND:
        return NotImplemented
    numpy, dtype = sys.modules["numpy"], array.dtype
    if type(array) is not numpy.ndarray or dtype.hasobject or dtype.kind not in _PLAIN:
        return NotImplemented
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # Strided memory is copied without its gaps.
    whole = array if array.flags.forc else numpy.ascontiguousarray(array)
    flat = whole.reshape(-1, order=order).view(numpy.uint8)
    return _stored.array, (pickle.PickleBuffer(flat), dtype, array.shape, order)


def _reduce_memmap(array: Any) -> Any:
    if array.filename is None or array.mode == "c":
        raise TypeError("a memmap without a file of its own")
    mode = "r" if array.mode == "r" else "r+"
    order = "C" if array.flags.c_contiguous else "F"
    return _stored.memory_map, (str(array.filename), array.dtype, mode, array.offset, array.shape, order)


class Private:
    """An array that is pickled for one pandas object alone, even if other objects view its memory.

    pandas copies on write and tracks which objects share memory. Two frames restored as views of one buffer,
    without that tracking, would write into each other.
    """

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


def reduce_private(private: Private) -> Any:
    """Return the reduce value of the array of a pandas object."""
    array = private.array
    reduced = _reduce_memory(array) if is_array(type(array)) else NotImplemented
    if reduced is not NotImplemented:
        return reduced
    create, *rest = array.__reduce_ex__(5)
    if is_array(type(array)):
        return create, *rest
    # pickle requires that copyreg's own function creates an object of the class being pickled.
    return _stored.new if create is copyreg.__newobj__ else create, *_made_private(rest)  # type: ignore[attr-defined]


def _made_private(part: Any, known: dict[int, Private] | None = None) -> Any:
    """Wrap the arrays in a pandas object's reduce value, so that the memo does not share them."""
    known = {} if known is None else known  # a Series refers to its values twice
    kind = type(part)
    if kind in (tuple, list):
        return kind([_made_private(item, known) for item in part])
    if kind is dict:
        return {key: _made_private(item, known) for key, item in part.items()}
    if kind is str or not (is_array(kind) or derives(kind, "pandas.api.extensions", "ExtensionArray")):
        return part
    return known.setdefault(id(part), Private(part))


def _reduce_pandas(value: Any) -> Any:
    return _made_private(value.__reduce_ex__(5))


def _reduce_manager(manager: Any) -> Any:
    """Return the reduce value of a frame's blocks, split into columns: one changed column changes one part.

    How pandas groups columns into blocks is not part of a frame's value.
    """
    reduced = manager.__reduce_ex__(5)
    blocks = getattr(manager, "blocks", ())
    if all(hasattr(block, "_split") for block in blocks):
        split = [list(block._split()) if _is_worth_splitting(block) else [block] for block in blocks]  # noqa: SLF001
        if len(blocks) < sum(map(len, split)) <= _MAX_BLOCKS:
            make, (_, axes), *rest = reduced
            reduced = make, (tuple(block for part in split for block in part), axes), *rest
    return _made_private(reduced)


def _is_worth_splitting(block: Any) -> bool:
    values = getattr(block.values, "_ndarray", block.values)
    if not is_array(type(values)) or values.ndim != 2 or values.dtype.hasobject:
        return False
    return bool(values.flags.c_contiguous) and values[:1].nbytes > settings.BLOB_THRESHOLD


def _reduce_torch(value: Any) -> Any:
    torch, kind = sys.modules["torch"], type(value)
    if kind is torch.UntypedStorage and value.device.type == "cpu":
        return _stored.torch_storage, (pickle.PickleBuffer(_bytes_of(torch, value)),)
    if kind not in (torch.Tensor, torch.nn.Parameter) or not _is_plain_tensor(torch, value):
        return NotImplemented
    layout = value.storage_offset(), tuple(value.size()), value.stride()
    made = value.untyped_storage(), value.dtype, *layout, value.requires_grad, kind is torch.nn.Parameter
    return _stored.torch_tensor, made, value.grad, None, None, _stored.set_grad


def _is_plain_tensor(torch: Any, tensor: Any) -> bool:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.is_leaf
    special = tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or vars(tensor)
    return plain and not special and not tensor._backward_hooks  # noqa: SLF001 - torch has no public name


def _bytes_of(torch: Any, storage: Any) -> Any:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
