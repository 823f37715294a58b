"""NumPy arrays, pandas frames and torch tensors in pickles: their memory beside the stream, a column a part.

Nothing here imports NumPy, pandas or torch before a value of theirs is there.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final

from durable_nb import _stored, settings

__all__ = ["is_array", "reduce", "reduce_array"]

_PLAIN: Final = frozenset("biufcmMSUV")
"""The kinds of dtypes whose arrays are what their bytes are."""

_BLOCKS: Final = 100
"""Blocks beyond which a frame stays in few: pandas warns its users of frames in more pieces than that."""


def is_array(kind: type) -> bool:
    """Whether instances of a class are NumPy arrays; False where NumPy was never imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def reduce(value: Any, kind: type) -> Any:
    """Say how to pickle an array, a frame's blocks or a tensor; NotImplemented where pickle knows best.

    Args:
        value: Any object that is no class and no function.
        kind: Its type.
    """
    if is_array(kind):
        return reduce_array(value)
    module = str(kind.__module__)
    if module == "pandas.core.internals.managers":
        return _reduce_blocks(value)
    return _reduce_torch(value, kind) if module.startswith("torch.") or module == "torch" else NotImplemented


def reduce_array(array: Any) -> Any:
    """Say how to pickle an array with its memory out-of-band, also where NumPy itself would copy it.

    Args:
        array: An array of NumPy's.
    """
    numpy, dtype = sys.modules["numpy"], array.dtype
    small = array.nbytes < settings.OUT_OF_BAND
    if type(array) is not numpy.ndarray or small or dtype.hasobject or dtype.kind not in _PLAIN:
        return NotImplemented
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    whole = array if array.flags.forc else numpy.ascontiguousarray(array)  # a file has no gaps
    flat = whole.reshape(-1, order=order).view(numpy.uint8)
    return _stored.array, (pickle.PickleBuffer(flat), dtype, array.shape, order)


def _reduce_blocks(manager: Any) -> Any:
    """A frame's blocks cut into columns, so that one changed column is one changed part.

    pandas joins and parts its blocks as it likes; which they are is no part of a frame's value.
    """
    blocks = getattr(manager, "blocks", ())
    if not all(hasattr(block, "_split") for block in blocks):
        return NotImplemented
    cut = [list(block._split()) if _is_worth_cutting(block) else [block] for block in blocks]  # noqa: SLF001
    count = sum(map(len, cut))
    if len(blocks) == count or count > _BLOCKS:
        return NotImplemented
    make, (_, axes), *rest = manager.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return make, (tuple(block for part in cut for block in part), axes), *rest


def _is_worth_cutting(block: Any) -> bool:
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
