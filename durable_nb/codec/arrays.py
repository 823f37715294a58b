"""Pickling of NumPy arrays, pandas frames and torch tensors, with their memory out of band.

This module imports neither NumPy nor pandas nor torch: their values exist only if they are imported.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final

from durable_nb import _stored, settings

__all__ = ["is_array", "reduce", "reduce_array"]

_PLAIN: Final = frozenset("biufcmMSUV")
"""Kinds of dtypes whose arrays are defined by their bytes alone."""

_MAX_BLOCKS: Final = 100
"""Blocks beyond which a frame is not split: pandas warns of frames with more."""


def is_array(kind: type) -> bool:
    """Return whether instances of a class are NumPy arrays; False if NumPy is not imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def reduce(value: Any, kind: type) -> Any:
    """Return the reduction of an array, a frame's blocks or a tensor; NotImplemented for other values.

    Args:
        value: Any object except a class or a function.
        kind: Its type.
    """
    if is_array(kind):
        return reduce_array(value)
    module = str(kind.__module__)
    if module == "pandas.core.internals.managers":
        return _reduce_blocks(value)
    return _reduce_torch(value, kind) if module.startswith("torch.") or module == "torch" else NotImplemented


def reduce_array(array: Any) -> Any:
    """Return the reduction of an array with its memory out of band, also where NumPy itself would copy it.

    Args:
        array: A NumPy array. For small arrays, subclasses and arrays of objects NotImplemented is returned.
    """
    numpy, dtype = sys.modules["numpy"], array.dtype
    small = array.nbytes < settings.OUT_OF_BAND
    if type(array) is not numpy.ndarray or small or dtype.hasobject or dtype.kind not in _PLAIN:
        return NotImplemented
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # Strided memory is copied without its gaps.
    whole = array if array.flags.forc else numpy.ascontiguousarray(array)
    flat = whole.reshape(-1, order=order).view(numpy.uint8)
    return _stored.array, (pickle.PickleBuffer(flat), dtype, array.shape, order)


def _reduce_blocks(manager: Any) -> Any:
    """Return the reduction of a frame's blocks, split into columns: one changed column is one changed part.

    How pandas groups columns into blocks is not part of a frame's value.
    """
    blocks = getattr(manager, "blocks", ())
    if not all(hasattr(block, "_split") for block in blocks):
        return NotImplemented
    split = [list(block._split()) if _is_worth_splitting(block) else [block] for block in blocks]  # noqa: SLF001
    count = sum(map(len, split))
    if len(blocks) == count or count > _MAX_BLOCKS:
        return NotImplemented
    make, (_, axes), *rest = manager.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return make, (tuple(block for part in split for block in part), axes), *rest


def _is_worth_splitting(block: Any) -> bool:
    values = getattr(block.values, "_ndarray", block.values)
    if not is_array(type(values)) or values.ndim != 2 or values.dtype.hasobject:
        return False
    return bool(values.flags.c_contiguous) and values[:1].nbytes > settings.BLOB_THRESHOLD


def _reduce_torch(value: Any, kind: type) -> Any:
    torch = sys.modules["torch"]
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
