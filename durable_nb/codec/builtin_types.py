"""The table of built-in types that JSON lacks: type, tag, conversion to JSON and from JSON.

A tagged value is an object with one key, such as ``{"$tuple": [1, 2]}``. Types are matched exactly, without
their subclasses.
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
"""Converts a nested value to input for json.dumps."""

_LONG_INT: Final = 2100
"""Bits above which an int is written in hex: any Python parses the 640 digits of shorter ones."""

_LONG_BYTES: Final = 64 * 1024
"""Size in bytes above which bytes are pickled, because base64 in JSON takes too long."""


class NotExact(Exception):
    """JSON cannot represent the value exactly."""


@dataclass(frozen=True, slots=True)
class Tag:
    """Conversion of one type to JSON and back.

    Attributes:
        kind: The exact type.
        name: The tag, without the dollar sign.
        write: Takes the value and the writer for nested values, and returns the tag's content.
        read: Takes the content, its nested values already converted, and returns the value.
        mutable: Whether an object that occurs twice must be restored as one object.
    """

    kind: type
    name: str
    write: Callable[[Any, Write], Any]
    read: Callable[[Any], Any]
    mutable: bool = False


def plain_int(value: int) -> Any:
    """Return an int itself; a very long one tagged, in hex, to which no limit of digits applies."""
    return value if value.bit_length() <= _LONG_INT else {"$int": hex(value)}


def plain_float(value: float) -> Any:
    """Return a finite float itself; others tagged, by name, or by their bits if the name is ambiguous."""
    if math.isfinite(value):
        return value
    bits = struct.pack(">d", value)
    same = struct.pack(">d", float(repr(value))) == bits
    return {"$float": repr(value) if same else "0x" + bits.hex()}


def plain_str(value: str) -> Any:
    """Return a string itself; one that UTF-8 cannot encode tagged, with escapes."""
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

    # Equality of zones is identity: only the object that ZoneInfo(key) returns can be restored.
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
"""The reader of each tag's content, by tag with its dollar sign. None of them runs the user's code."""
