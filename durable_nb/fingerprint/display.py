"""Arguments as text for messages: bounded, equal in every process, without secrets."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final

from durable_nb import settings
from durable_nb.errors.redaction import HIDDEN, is_secret, redacted
from durable_nb.lookup import derives

__all__ = ["difference", "shown"]

_ITEMS: Final = 30
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def shown(arguments: Mapping[str, Any]) -> dict[str, str]:
    r"""Return bounded reprs of arguments, without addresses and without secrets.

    Args:
        arguments: The values by name. Large values are not written in full first; a failing repr is no error.

    Returns:
        Texts of at most ``settings.SHOWN_ARGUMENT`` characters by name.

    Example:
        >>> shown({"n": 3, "api_key": "sk-1"})
        {'n': '3', 'api_key': '\u2039hidden\u203a'}
    """
    return {str(name): _shown(name, value) for name, value in arguments.items()}


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return the differences between two outputs of :func:`shown`, bounded for each argument.

    Args:
        old: The texts on record.
        new: The texts of this call.

    Returns:
        The differences, joined by semicolons; empty if no difference is visible.

    Example:
        >>> difference({"n": "3", "path": "'a'"}, {"n": "4", "limit": "5"})
        'n: 3 → 4; added: limit=5; removed: path'
    """
    changed = [
        f"{name}: {' → '.join(_clipped_pair(old[name], text))}"
        for name, text in new.items()
        if name in old and old[name] != text
    ]
    added = [f"added: {name}={_clip(text)}" for name, text in new.items() if name not in old]
    removed = [f"removed: {name}" for name in old if name not in new]
    return "; ".join(changed + added + removed)


def _clip(text: str, start: int = 0) -> str:
    width = settings.SHOWN_ARGUMENT // 2
    begin = max(0, min(start - width // 4, len(text) - width))
    head, tail = "…" if begin else "", "…" if len(text) > begin + width else ""
    return head + text[begin : begin + width] + tail


def _clipped_pair(old: str, new: str) -> tuple[str, str]:
    # The common beginning may fill the available width: start where they differ.
    start = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
    )
    return _clip(old, start), _clip(new, start)


def _shown(name: Any, value: Any) -> str:
    if is_secret(name, value):
        return HIDDEN
    text = _ADDRESS.sub("", redacted(_SHORT.repr(value)))
    width = settings.SHOWN_ARGUMENT
    return text if len(text) <= width else text[: width - 1] + "…"


class _Short(reprlib.Repr):
    """A ``reprlib.Repr`` that hides secrets, shows records by their fields, and survives a bad __repr__."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = _ITEMS
        self.maxdict = self.maxarray = _ITEMS
        self.maxstring = self.maxlong = self.maxother = settings.SHOWN_ARGUMENT
        self.looked_at = 4 * settings.SHOWN_ARGUMENT

    def repr1(self, x: Any, level: int) -> str:
        try:
            if isinstance(x, dict):
                return self.repr_dict(x, level)
            fields = _fields(x)
            return super().repr1(x, level) if fields is None else self._record(x, fields, level)
        except Exception:
            return f"<{type(x).__qualname__}: repr failed>"

    def repr_str(self, x: str, level: int) -> str:
        # Without secrets before it is shortened: part of one has another shape.
        middle = len(x) > 2 * self.looked_at
        return super().repr_str(redacted(x[: self.looked_at] + x[-self.looked_at :] if middle else x), level)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        pairs = [
            f"{self.repr1(key, level - 1)}: {self._item(key, x[key], level)}"
            for _, key in zip(range(_ITEMS), x, strict=False)
        ]
        return f"{{{', '.join(pairs)}{', ...' if len(x) > _ITEMS else ''}}}"

    def repr_set(self, x: set[Any], level: int) -> str:
        return self._unordered(x, level, "{", "}") if x else "set()"

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return self._unordered(x, level, "frozenset({", "})")

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 (reprlib calls it so)
        text = redacted(repr(x)[: self.looked_at])
        return text if len(text) <= self.maxother else text[: self.maxother - 1] + "…"

    def _unordered(self, items: Any, level: int, left: str, right: str) -> str:
        # Sorted by their texts: the order of a set differs between processes.
        texts = sorted(self.repr1(item, level - 1) for _, item in zip(range(1000), items, strict=False))
        more = ", ..." if len(items) > _ITEMS else ""
        return f"{left}{', '.join(texts[:_ITEMS])}{more}{right}"

    def _record(self, x: Any, fields: dict[str, Any], level: int) -> str:
        if level <= 0:
            return f"{type(x).__qualname__}(...)"
        texts = [f"{name}={self._item(name, item, level)}" for name, item in list(fields.items())[:_ITEMS]]
        return f"{type(x).__qualname__}({', '.join(texts)})"

    def _item(self, name: Any, value: Any, level: int) -> str:
        return HIDDEN if is_secret(name, value) else self.repr1(value, level - 1)


_SHORT: Final = _Short()


def _fields(x: Any) -> dict[str, Any] | None:
    """Return the fields that a record's own repr, which does not hide secrets, would show."""
    kind = type(x)
    if dataclasses.is_dataclass(kind):
        return {f.name: getattr(x, f.name, ...) for f in dataclasses.fields(x) if f.repr}
    if isinstance(x, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return dict(zip(kind._fields, x, strict=False))
    return dict(vars(x)) if derives(kind, "pydantic.main", "BaseModel") else None
