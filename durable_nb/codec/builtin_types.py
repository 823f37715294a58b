"""The table of built-in types that JSON cannot say by itself: type, tag, to JSON, from JSON.

A tagged value is an object with one key, such as ``{"$tuple": [1, 2]}``. A type is matched exactly,
never a subclass of it.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import EllipsisType
from typing import Any, Final
from uuid import UUID, SafeUUID

__all__ = ["READERS", "TAGS", "NotExact", "Tag", "Write", "plain_float", "plain_int", "plain_str"]

Write = Callable[[Any], Any]
"""Turns a value inside a value into what json.dumps takes."""

_LONG_INT: Final = 2100
"""Bits from which an int is written in hex: below, it has fewer than the 640 digits any Python parses."""

_LONG_BYTES: Final = 64 * 1024
"""Bytes from which base64 inside JSON costs more than its readability is worth: pickle takes them."""


class NotExact(Exception):
    """The value cannot be said in JSON without losing something."""


@dataclass(frozen=True, slots=True)
class Tag:
    """How one type is written and read.

    Attributes:
        kind: The exact type.
        name: Its tag, without the dollar sign.
        write: Takes the value and the writer for what is inside it; gives the tag's content.
        read: Takes the content, its insides already read; gives the value.
        mutable: Whether the same object in two places must come back as one.
    """

    kind: type
    name: str
    write: Callable[[Any, Write], Any]
    read: Callable[[Any], Any]
    mutable: bool = False


def plain_int(value: int) -> Any:
    """Write an int as itself, a very long one in hex, which no digit limit applies to."""
    return value if value.bit_length() <= _LONG_INT else {"$int": hex(value)}


def plain_float(value: float) -> Any:
    """Write a finite float as itself, the others by name, or by their bits where the name is not enough."""
    if math.isfinite(value):
        return value
    bits = struct.pack(">d", value)
    same = struct.pack(">d", float(repr(value))) == bits
    return {"$float": repr(value) if same else "0x" + bits.hex()}


def plain_str(value: str) -> Any:
    """Write a string as itself, or escaped where it holds what UTF-8 cannot say."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": value.encode("unicode_escape").decode("ascii")}
    return value


def _read_float(text: str) -> float:
    if text.startswith("0x"):
        return float(struct.unpack(">d", bytes.fromhex(text[2:]))[0])
    return float(text)


def _write_items(value: Any, write: Write) -> list[Any]:
    return [write(item) for item in value]


def _write_bytes(value: bytes | bytearray, _write: Write) -> str:
    if len(value) > _LONG_BYTES:
        raise NotExact
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.days, offset.seconds, offset.microseconds, *name]
    if type(zone).__module__.partition(".")[0] == "zoneinfo":
        return _write_zoneinfo(zone)
    raise NotExact


def _write_zoneinfo(zone: Any) -> str:
    from zoneinfo import ZoneInfo

    # Equality of zones is identity: only the cached one of that key is what ZoneInfo(key) gives back.
    if type(zone) is not ZoneInfo or zone.key is None or ZoneInfo(zone.key) is not zone:
        raise NotExact
    return zone.key


def _read_zone(content: Any) -> tzinfo | None:
    if content is None:
        return None
    if isinstance(content, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(content)
    days, seconds, microseconds, *name = content
    return timezone(timedelta(days, seconds, microseconds), *name)


def _write_moment(value: Any, write: Write) -> Any:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    if value.tzinfo is None and not value.fold:
        return naive
    zone = _write_zone(value.tzinfo)
    return [naive, value.fold, write(zone)]


def _moment_reader(kind: type[datetime] | type[time]) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        if isinstance(content, str):
            return kind.fromisoformat(content)
        text, fold, zone = content
        return kind.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))

    return read


def _write_timezone(value: timezone, write: Write) -> Any:
    return write(_write_zone(value))


def _write_uuid(value: UUID, _write: Write) -> Any:
    return str(value) if value.is_safe is SafeUUID.unknown else [str(value), value.is_safe.value]


def _read_uuid(content: Any) -> UUID:
    return UUID(content) if isinstance(content, str) else UUID(content[0], is_safe=SafeUUID(content[1]))


def _path_tag(kind: type[PurePath]) -> Tag:
    def write_path(value: PurePath, write: Write) -> Any:
        if kind(str(value)) != value:  # some Windows paths do not parse back from their text
            raise NotExact
        return write(str(value))

    return Tag(kind, kind.__name__, write_path, kind)


TAGS: Final[dict[type, Tag]] = {
    tag.kind: tag
    for tag in (
        Tag(tuple, "tuple", _write_items, tuple),
        Tag(set, "set", _write_items, set, mutable=True),
        Tag(frozenset, "frozenset", _write_items, frozenset),
        Tag(bytes, "bytes", _write_bytes, _read_bytes),
        Tag(bytearray, "bytearray", _write_bytes, lambda text: bytearray(_read_bytes(text)), mutable=True),
        Tag(complex, "complex", lambda v, w: [w(v.real), w(v.imag)], lambda pair: complex(*pair)),
        Tag(datetime, "datetime", _write_moment, _moment_reader(datetime)),
        Tag(time, "time", _write_moment, _moment_reader(time)),
        Tag(date, "date", lambda v, _: v.isoformat(), date.fromisoformat),
        Tag(
            timedelta,
            "timedelta",
            lambda v, _: [v.days, v.seconds, v.microseconds],
            lambda parts: timedelta(*parts),
        ),
        Tag(timezone, "timezone", _write_timezone, _read_zone),
        Tag(Decimal, "decimal", lambda v, _: str(v), Decimal),
        Tag(Fraction, "fraction", lambda v, w: [w(v.numerator), w(v.denominator)], lambda p: Fraction(*p)),
        Tag(UUID, "uuid", _write_uuid, _read_uuid),
        Tag(range, "range", lambda v, w: [w(v.start), w(v.stop), w(v.step)], lambda p: range(*p)),
        Tag(slice, "slice", lambda v, w: [w(v.start), w(v.stop), w(v.step)], lambda p: slice(*p)),
        Tag(EllipsisType, "ellipsis", lambda _v, _w: None, lambda _: ...),
        *map(_path_tag, (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)),
    )
}
"""Every built-in type with a tag, by type."""

READERS: Final[dict[str, Callable[[Any], Any]]] = {
    **{f"${tag.name}": tag.read for tag in TAGS.values()},
    "$int": lambda text: int(text, 16),
    "$float": _read_float,
    "$str": lambda text: text.encode("ascii").decode("unicode_escape"),
    "$dict": dict,
}
"""From a tag, dollar sign included, to what reads its content. None of them runs code of the user's."""
