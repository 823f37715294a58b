"""Fingerprints of the small values that a durable cell reads, to detect new values from unchanged code."""

from __future__ import annotations

import dataclasses
import sys
import sysconfig
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from durable_nb import fingerprint

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
        name: The name it is bound to; secrets are not stored, not even as fingerprints.
        value: The value.
    """
    try:
        return None if fingerprint.is_secret(name, value) else _fingerprint(value)
    except Exception:  # raised by the user's code or a placeholder: the step must not fail because of it
        return None


def _fingerprint(value: Any) -> str | None:
    if isinstance(value, ModuleType):
        return _own_module(value)
    if isinstance(value, FunctionType | type):
        return None if value.__module__ == "__main__" else _own_module(sys.modules.get(value.__module__))
    return fingerprint.value(value) if _is_small(value) else None


def _own_module(module: ModuleType | None) -> str | None:
    """Fingerprint the source of a module that is neither installed nor part of Python."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or _installed(Path(file)):
        return None
    try:
        return fingerprint.source(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _installed(file: Path) -> bool:
    places = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    package = Path(fingerprint.__file__).parents[1]
    return any(file.is_relative_to(place) for place in (*places, package))


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
