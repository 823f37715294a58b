"""Several byte strings and a JSON header in one: what a durable cell's checkpoint is made of.

The layout, all numbers big-endian: magic (4 bytes), version (1), number of parts (4), length of the
header (8), length of each part (8 each), the header as UTF-8 JSON, the parts end to end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

from durable_nb.errors import StepNotRestored, StepNotSaved

__all__ = ["pack", "unpack"]

_MAGIC: Final = b"\x93dnb"
_VERSION: Final = 1
_PREFIX: Final = struct.Struct(">4sBIQ")
_REMEDY: Final = "Reset the step so that it runs again."


def pack(header: dict[str, Any], parts: Sequence[bytes | bytearray | memoryview]) -> bytes:
    """Join a header and byte strings into one byte string, copying each part once.

    Args:
        header: What JSON can hold, with string keys.
        parts: Byte strings of any length, kept in order.

    Raises:
        StepNotSaved: The header is not JSON.

    Example:
        >>> unpack(pack({"names": ["x"]}, [b"1"]))[0]
        {'names': ['x']}
    """
    try:
        head = json.dumps(header, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StepNotSaved(f"the checkpoint's header is not JSON ({error})") from error
    views = [memoryview(part) for part in parts]
    lengths = struct.pack(f">{len(views)}Q", *(view.nbytes for view in views))
    return b"".join((_PREFIX.pack(_MAGIC, _VERSION, len(views), len(head)), lengths, head, *views))


def unpack(data: bytes | memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    """Take apart what :func:`pack` joined; the parts are views into ``data``, nothing is copied.

    Args:
        data: The bytes that ``pack`` gave.

    Raises:
        StepNotRestored: The bytes are cut short, are not a bundle, or come from a newer durable_nb.

    Example:
        >>> bytes(unpack(pack({}, [b"ab", b"c"]))[1][1])
        b'c'
    """
    view = memoryview(data).cast("B")
    count, head_length = _prefix(view)
    start = _PREFIX.size + 8 * count
    if start > len(view):
        raise _damaged()
    lengths = struct.unpack_from(f">{count}Q", view, _PREFIX.size)
    ends = list(accumulate((head_length, *lengths), initial=start))
    if ends[-1] != len(view):
        raise _damaged()
    head, *parts = [view[begin:end] for begin, end in pairwise(ends)]
    return _header(head), parts


def _prefix(view: memoryview) -> tuple[int, int]:
    if len(view) < _PREFIX.size or bytes(view[:4]) != _MAGIC:
        raise _damaged()
    _, version, count, head_length = _PREFIX.unpack_from(view)
    if version != _VERSION:
        raise StepNotRestored(
            f"the checkpoint is in version {version} of its format, this durable_nb reads version {_VERSION}",
            remedy="Upgrade with: pip install -U durable_nb",
        )
    return count, head_length


def _header(head: memoryview) -> dict[str, Any]:
    try:
        header = json.loads(bytes(head))
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(header, dict):
        raise _damaged()
    return header


def _damaged() -> StepNotRestored:
    return StepNotRestored(
        "the checkpoint's bytes are damaged, cut short or not a checkpoint", remedy=_REMEDY
    )
