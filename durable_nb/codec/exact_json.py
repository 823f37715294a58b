"""Exact JSON, the formats ``json`` and ``objects``: a value is restored exactly, or refused.

Values that JSON represents exactly are plain JSON; others are tagged. Each tag begins with a dollar sign, so
a text without ``"$`` has no tags and is read by the C scanner alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from durable_nb.codec import builtin_types, class_types
from durable_nb.codec.builtin_types import NotExact
from durable_nb.errors import StepNotRestored
from durable_nb.records import Payload

__all__ = ["NotExact", "dumps", "loads"]

_ATOMS: Final = frozenset({type(None), bool, int, float, str})
_STR: Final = frozenset({str})
_BOXES: Final = frozenset({list, dict})
_DEPTH: Final = 100
"""Levels of nesting beyond which pickle is used: it reads any depth, json only what the stack allows."""

_PLAIN: Final = json.JSONDecoder()


def dumps(value: Any) -> Payload:
    """Encode a value as exact JSON.

    Args:
        value: Any value.

    Raises:
        NotExact: JSON cannot represent the value exactly.

    Example:
        >>> dumps({"a": (1, 2)}).data
        b'{"a":{"$tuple":[1,2]}}'
    """
    if _is_plain(value):
        try:
            data = _text(value).encode()
        except ValueError:  # NaN, an int of thousands of digits, a lone surrogate
            data = b'"$'
        if b'"$' not in data:
            return Payload("json", data)
    writer = _Writer()
    data = _text(writer.write(value)).encode()
    return Payload("objects" if writer.names_classes else "json", data)


def loads(format: str, data: bytes) -> Any:
    """Decode the output of :func:`dumps`; the format ``json`` never looks up a class.

    Args:
        format: ``json`` or ``objects``.
        data: The bytes.

    Raises:
        StepNotRestored: A tag is unknown, or a class that the bytes name no longer exists.
        ValueError: The bytes are damaged.

    Example:
        >>> loads("json", b'{"$tuple":[1,2]}')
        (1, 2)
    """
    text = str(data, "utf-8")
    if '"$' not in text:
        try:
            value, end = _PLAIN.raw_decode(text)
        except ValueError:
            pass  # damaged, or an int with more digits than this process may parse: the other reader decides
        else:
            if end == len(text):
                return value
    return _READERS[format].decode(text)


def _encoder() -> Callable[[Any], str]:
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    # JSONEncoder.encode builds this again for each call, which takes half of its time.
    quote = json.encoder.encode_basestring
    pieces = make(None, _refuse, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(pieces(value, 0))


def _refuse(_value: Any) -> Any:
    raise NotExact


_text: Final = _encoder()


def _is_plain(value: Any) -> bool:
    """Return whether JSON represents a value exactly, apart from a few strings and numbers."""
    kind = type(value)
    if kind is list:
        return _ATOMS.issuperset(map(type, value)) or _is_plain_tree(value)
    if kind is dict and _STR.issuperset(map(type, value)):
        return _ATOMS.issuperset(map(type, value.values())) or _is_plain_tree(value)
    return kind in _ATOMS


def _is_plain_tree(value: Any) -> bool:
    """Return whether a value consists of lists and string-keyed dicts of atoms, none of them used twice."""
    level, seen, count = [value], {id(value)}, 1
    for _ in range(_DEPTH):
        if not _BOXES.issuperset(map(type, level)):
            return False
        inner: list[Any] = []
        for box in level:
            if type(box) is dict and not _STR.issuperset(map(type, box)):
                return False
            items = box.values() if type(box) is dict else box
            if not _ATOMS.issuperset(map(type, items)):
                inner += [item for item in items if type(item) not in _ATOMS]
        if not inner:
            return True
        count += len(inner)
        seen.update(map(id, inner))
        if len(seen) != count:
            return False
        level = inner
    return False


class _Writer:
    """Converts one value to input for json, and records which mutable objects it has visited."""

    __slots__ = ("depth", "names_classes", "seen")

    def __init__(self) -> None:
        self.depth = 0
        self.names_classes = False
        self.seen: dict[int, Any] = {}  # references to the objects, so that no id is reused

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind is bool or value is None:
            return value
        if self.depth > _DEPTH:
            raise NotExact
        self.depth += 1
        content = self._content(kind, value)
        self.depth -= 1
        return content

    def _content(self, kind: type, value: Any) -> Any:
        plain = _PLAIN_WRITERS.get(kind)
        if plain is not None:
            return plain(self, value)
        tag = builtin_types.TAGS.get(kind)
        if tag is None:
            self.names_classes = True
            if class_types.is_mutable(kind):
                self.once(value)
            return class_types.write(value, self.write)
        if tag.mutable:
            self.once(value)
        return {f"${tag.name}": tag.write(value, self.write)}

    def once(self, value: Any) -> None:
        if id(value) in self.seen:
            raise NotExact
        self.seen[id(value)] = value

    def list_(self, value: list[Any]) -> list[Any]:
        self.once(value)
        return [self.write(item) for item in value]

    def dict_(self, value: dict[Any, Any]) -> dict[str, Any]:
        self.once(value)
        if all(type(key) is str and not key.startswith("$") and _is_text(key) for key in value):
            return {key: self.write(item) for key, item in value.items()}
        return {"$dict": [[self.write(key), self.write(item)] for key, item in value.items()]}


def _is_text(key: str) -> bool:
    return builtin_types.plain_str(key) is key


_PLAIN_WRITERS: Final[dict[type, Callable[[_Writer, Any], Any]]] = {
    int: lambda _, value: builtin_types.plain_int(value),
    float: lambda _, value: builtin_types.plain_float(value),
    str: lambda _, value: builtin_types.plain_str(value),
    list: _Writer.list_,
    dict: _Writer.dict_,
}


def _hook(readers: dict[str, Callable[[Any], Any]]) -> Callable[[dict[str, Any]], Any]:
    def read(found: dict[str, Any]) -> Any:
        if len(found) != 1:
            return found
        ((key, content),) = found.items()
        if not key.startswith("$"):
            return found
        reader = readers.get(key)
        if reader is None:
            raise StepNotRestored(
                f"cannot decode the checkpoint: this version of durable_nb does not know the tag {key!r}",
                remedy="Upgrade with: pip install -U durable_nb",
            )
        return reader(content)

    return read


_LONGEST_INT: Final = 50_000
"""Digits above which a number takes seconds to read: the time grows with the square of their number."""


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # sys.set_int_max_str_digits is lower in this process than in the one that wrote it
        if len(text) > _LONGEST_INT:
            raise StepNotRestored(
                f"cannot decode the saved result: it has a number of {len(text):,} digits",
                remedy="If you trust who wrote it, allow it: sys.set_int_max_str_digits(0).",
            ) from None
        return int(Decimal(text))


_READERS: Final = {
    "json": json.JSONDecoder(object_hook=_hook(builtin_types.READERS), parse_int=_int),
    "objects": json.JSONDecoder(
        object_hook=_hook({**builtin_types.READERS, **class_types.READERS}), parse_int=_int
    ),
}
