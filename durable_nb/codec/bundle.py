"""A head and its parts in one byte string: the contents of a row whose value is stored in several parts.

The layout, all numbers big-endian: magic (4 bytes), version (1), length of the table (8), length of the head
(8), the table as JSON, the head, the small parts one after another. The table holds for each part its length,
or the blob that contains it: digest, length and stamp.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from durable_nb.errors import ResetStep, StepNotRestored

__all__ = ["Reference", "pack", "unpack"]

_MAGIC: Final = b"\x93dnb"
_VERSION: Final = 2
_PREFIX: Final = struct.Struct(">4sBQQ")


class Reference(NamedTuple):
    """A part that is stored as a blob.

    Attributes:
        digest: The blob's SHA-256.
        size: Its length in bytes.
        stamp: The state of its file when its bytes were last verified; empty for a part that is code, which
            is compared with its digest each time it is read.
    """

    digest: str
    size: int
    stamp: str = ""


def pack(head: bytes, parts: Sequence[bytes | memoryview | Reference]) -> list[bytes | memoryview]:
    """Return the pieces whose concatenation is the byte string; none of them is copied.

    Args:
        head: The bytes that describe the parts.
        parts: Bytes to include, and references to blobs, in order.

    Example:
        >>> bytes(unpack(b"".join(pack(b"names", [b"1"])))[0])
        b'names'
    """
    entries = [list(part) if isinstance(part, Reference) else memoryview(part).nbytes for part in parts]
    table = json.dumps(entries, separators=(",", ":")).encode()
    held = [part for part in parts if not isinstance(part, Reference)]
    return [_PREFIX.pack(_MAGIC, _VERSION, len(table), len(head)), table, head, *held]


def unpack(data: bytes | memoryview) -> tuple[memoryview, list[memoryview | Reference]]:
    """Split the output of :func:`pack` into head and parts: views into ``data``, nothing is copied.

    Args:
        data: The bytes.

    Raises:
        StepNotRestored: The bytes are truncated, are not a bundle, or have another version's format.

    Example:
        >>> bytes(unpack(b"".join(pack(b"", [b"ab", b"c"])))[1][1])
        b'c'
    """
    view = memoryview(data).cast("B")
    table_length, head_length = _prefix(view)
    offset = _PREFIX.size + table_length
    entries = _table(view[_PREFIX.size : offset])
    head, offset = view[offset : offset + head_length], offset + head_length
    parts: list[memoryview | Reference] = []
    for entry in entries:
        if isinstance(entry, Reference):
            parts.append(entry)
        else:
            parts.append(view[offset : offset + entry])
            offset += entry
    if offset != len(view):
        raise _damaged()
    return head, parts


def _prefix(view: memoryview) -> tuple[int, int]:
    if len(view) < _PREFIX.size or bytes(view[:4]) != _MAGIC:
        raise _damaged()
    _, version, table_length, head_length = _PREFIX.unpack_from(view)
    if version != _VERSION:
        raise StepNotRestored(
            f"the checkpoint has format version {version}, but this durable_nb reads version {_VERSION}",
            remedy="Upgrade with: pip install -U durable_nb",
        )
    return table_length, head_length


def _table(data: memoryview) -> list[int | Reference]:
    try:
        entries: Any = json.loads(bytes(data))
        if not isinstance(entries, list):
            raise _damaged()
        return [Reference(*entry) if type(entry) is list else _length(entry) for entry in entries]
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged() from error


def _length(entry: object) -> int:
    if type(entry) is not int or entry < 0:
        raise ValueError(entry)
    return entry


def _damaged() -> StepNotRestored:
    return StepNotRestored(
        "the checkpoint's bytes are damaged or truncated", remedy=("To execute the step again: ", ResetStep())
    )
