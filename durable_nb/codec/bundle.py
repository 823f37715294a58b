"""A head and its parts in one byte string: what a row holds of a value that is kept in several pieces.

The layout, all numbers big-endian: magic (4 bytes), version (1), length of the table (8), length of the head
(8), the table as JSON, the head, the small parts end to end. The table has, for each part, its length, or the
blob that it was put into: digest, length and stamp.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from durable_nb.errors import StepNotRestored

__all__ = ["Reference", "pack", "unpack"]

_MAGIC: Final = b"\x93dnb"
_VERSION: Final = 2
_PREFIX: Final = struct.Struct(">4sBQQ")
_REMEDY: Final = "Reset the step so that it runs again."


class Reference(NamedTuple):
    """A part that is a blob of its own.

    Attributes:
        digest: The blob's SHA-256.
        size: Its bytes.
        stamp: How its file looked when its bytes were known to be right; empty for a part that is code, and
            so is compared with its digest at each reading.
    """

    digest: str
    size: int
    stamp: str = ""


def pack(head: bytes, parts: Sequence[bytes | memoryview | Reference]) -> list[bytes | memoryview]:
    """Give the pieces that make up the byte string, end to end; none of them is copied.

    Args:
        head: What says what the parts are.
        parts: Byte strings to hold, and references to blobs, kept in order.

    Example:
        >>> bytes(unpack(b"".join(pack(b"names", [b"1"])))[0])
        b'names'
    """
    entries = [list(part) if isinstance(part, Reference) else memoryview(part).nbytes for part in parts]
    table = json.dumps(entries, separators=(",", ":")).encode()
    held = [part for part in parts if not isinstance(part, Reference)]
    return [_PREFIX.pack(_MAGIC, _VERSION, len(table), len(head)), table, head, *held]


def unpack(data: bytes | memoryview) -> tuple[memoryview, list[memoryview | Reference]]:
    """Take apart what :func:`pack` gave; head and parts are views into ``data``, nothing is copied.

    Args:
        data: The bytes.

    Raises:
        StepNotRestored: The bytes are cut short, are not a bundle, or come from another durable_nb.

    Example:
        >>> bytes(unpack(b"".join(pack(b"", [b"ab", b"c"])))[1][1])
        b'c'
    """
    view = memoryview(data).cast("B")
    table_length, head_length = _prefix(view)
    place = _PREFIX.size + table_length
    entries = _table(view[_PREFIX.size : place])
    head, place = view[place : place + head_length], place + head_length
    parts: list[memoryview | Reference] = []
    for entry in entries:
        if isinstance(entry, Reference):
            parts.append(entry)
        else:
            parts.append(view[place : place + entry])
            place += entry
    if place != len(view):
        raise _damaged()
    return head, parts


def _prefix(view: memoryview) -> tuple[int, int]:
    if len(view) < _PREFIX.size or bytes(view[:4]) != _MAGIC:
        raise _damaged()
    _, version, table_length, head_length = _PREFIX.unpack_from(view)
    if version != _VERSION:
        raise StepNotRestored(
            f"the checkpoint is in version {version} of its format, this durable_nb reads version {_VERSION}",
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
        "the checkpoint's bytes are damaged, cut short or not a checkpoint", remedy=_REMEDY
    )
