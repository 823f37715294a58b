"""Fingerprints of the small values that a durable cell reads, to detect new values from unchanged code."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from durable_nb import fingerprint
from durable_nb.errors.redaction import is_credential
from durable_nb.fingerprint import mentions

__all__ = ["drifted", "portable", "small_values"]

_MAX_ITEMS: Final = 2000
"""Values with more items than this are not fingerprinted: it would slow down every cell."""

_MAX_BYTES: Final = 1 << 20
"""Strings and arrays with more bytes than this are not fingerprinted."""

_LIBRARIES: Final = frozenset({"numpy", "pandas", "polars"})


def small_values(user_ns: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Fingerprint the values of names, skipping those that are large or have no stable fingerprint."""
    found = {name: portable(name, user_ns[name]) for name in names if name in user_ns}
    return {name: value for name, value in found.items() if value is not None}


def drifted(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names whose value is known to differ from the recorded one."""
    return sorted(name for name, value in recorded.items() if now.get(name, value) != value)


def portable(name: str, value: Any) -> str | None:
    """Return a fingerprint of a value that is equal in every process; None if there is none.

    A module of the user's own is identified by its source; installed modules have no fingerprint.

    Args:
        name: The name it is bound to; keys and passwords are not stored, not even as fingerprints.
        value: The value.
    """
    try:
        return None if is_credential(name, value) else _fingerprint(value)
    except Exception:  # the user's code, a placeholder, a file: the step must not fail because of it
        return None


def _fingerprint(value: Any) -> str | None:
    if isinstance(value, ModuleType | FunctionType | type):
        module = mentions.module_of(value)
        return None if module is None else fingerprint.source(Path(str(module.__file__)).read_text("utf-8"))
    return fingerprint.value(value) if _is_small(value) else None


def _is_small(value: Any) -> bool:
    left, items = [value], 0
    while left:
        one = left.pop()
        inner = _inside(one)
        items += 1 + len(inner)
        if items > _MAX_ITEMS or _size(one) > _MAX_BYTES:
            return False
        left += inner
    return True


def _inside(value: Any) -> Collection[Any]:
    """Return the items of a container; for a dict its values, since it has as many keys."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return getattr(value, "__dict__", {}).values()
    return ()


def _size(value: Any) -> int:
    """Estimate the bytes of one object, without the objects it contains."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return len(value)
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        sizes = (getattr(value, "nbytes", None), getattr(value, "size", None))  # or columns of that name
        return max((size for size in sizes if type(size) is int), default=_MAX_BYTES + 1)
    return 0
