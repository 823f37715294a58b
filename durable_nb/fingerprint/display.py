"""Arguments as text for messages: bounded, equal in every process, without secrets."""

from __future__ import annotations

import dataclasses
import functools
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final

from durable_nb import settings
from durable_nb.lookup import derives

__all__ = ["difference", "is_secret", "shown"]

_HIDDEN: Final = "\u2039hidden\u203a"
_ITEMS: Final = 30
_SECRET: Final = re.compile(
    r"pass(word|wd|phrase)|secret|credential|bearer|cookie|api_?key|token$|tokens$|token_|(^|_)pwd"
    r"|(^|_)(auth|authorization)($|_)|(private|session|access|signing|encryption|secret|auth)_?key"
)
_NUMBER_OF_TOKENS: Final = re.compile(r"tokens$|token_?(count|limit|budget)s?$")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_URL_PASSWORD: Final = re.compile(r"(://[^/:@\s]*:)[^/@\s]+(?=@)")


def shown(arguments: Mapping[str, Any]) -> dict[str, str]:
    r"""Return bounded reprs of arguments, without addresses; secrets, recognized by name, are hidden.

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
        return _HIDDEN
    text = _ADDRESS.sub("", _URL_PASSWORD.sub(r"\1" + _HIDDEN, _SHORT.repr(value)))
    width = settings.SHOWN_ARGUMENT
    return text if len(text) <= width else text[: width - 1] + "…"


def is_secret(name: object, value: object = None) -> bool:
    """Return whether a name is likely to be that of a secret, which is neither shown nor stored.

    Args:
        name: The name.
        value: Its value: a name such as ``max_tokens`` with a number is not a secret.

    Example:
        >>> is_secret("api_key"), is_secret("max_tokens", 500)
        (True, False)
    """
    if type(name) is not str:
        return False
    secret, tokens = _sounds_like(name)
    return secret and not (tokens and type(value) in (int, float))


@functools.lru_cache
def _sounds_like(name: str) -> tuple[bool, bool]:
    """Return whether a name is like that of a secret, and whether it is like that of a number of tokens."""
    plain = _WORD_START.sub("_", name).replace("-", "_").replace(" ", "_").lower()
    return _SECRET.search(plain) is not None, _NUMBER_OF_TOKENS.search(plain) is not None


class _Short(reprlib.Repr):
    """A ``reprlib.Repr`` that hides secrets, shows records by their fields, and survives a bad __repr__."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = _ITEMS
        self.maxdict = self.maxarray = _ITEMS
        self.maxstring = self.maxlong = self.maxother = settings.SHOWN_ARGUMENT

    def repr1(self, x: Any, level: int) -> str:
        try:
            if isinstance(x, dict):
                return self.repr_dict(x, level)
            fields = _fields(x)
            return super().repr1(x, level) if fields is None else self._record(x, fields, level)
        except Exception:
            return f"<{type(x).__qualname__}: repr failed>"

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
        text = repr(x)
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
        return _HIDDEN if is_secret(name, value) else self.repr1(value, level - 1)


_SHORT: Final = _Short()


def _fields(x: Any) -> dict[str, Any] | None:
    """Return the fields that a record's own repr, which does not hide secrets, would show."""
    kind = type(x)
    if dataclasses.is_dataclass(kind):
        return {f.name: getattr(x, f.name, ...) for f in dataclasses.fields(x) if f.repr}
    if isinstance(x, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return dict(zip(kind._fields, x, strict=False))
    return dict(vars(x)) if derives(kind, "pydantic.main", "BaseModel") else None
