"""Fingerprints of small values that a durable cell read: whether the same code merely gave another one."""

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

_ITEMS: Final = 2000
"""Items of a value beyond which it is not fingerprinted: that would be felt at every cell."""

_BYTES: Final = 1 << 20
"""Bytes of a text or an array, likewise."""

_LIBRARIES: Final = frozenset({"numpy", "pandas", "polars"})


def small_values(user_ns: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Fingerprint what some names are bound to, where that is small and the same in every process."""
    found = {name: portable(name, user_ns[name]) for name in names if name in user_ns}
    return {name: value for name, value in found.items() if value is not None}


def drifted(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names that are known to have another value than the one on record."""
    return sorted(name for name, value in recorded.items() if now.get(name, value) != value)


def portable(name: str, value: Any) -> str | None:
    """Fingerprint one value; of a module of the user's own its source counts, other modules have none.

    Args:
        name: What it is bound to: secrets are not stored, not even their fingerprints.
        value: The value.
    """
    try:
        return None if fingerprint.is_secret(name, value) else _fingerprint(value)
    except Exception:  # the user's own code raised, or a placeholder: a finished step is not lost for that
        return None


def _fingerprint(value: Any) -> str | None:
    if isinstance(value, ModuleType):
        return _own_module(value)
    if isinstance(value, FunctionType | type):
        return None if value.__module__ == "__main__" else _own_module(sys.modules.get(value.__module__))
    return fingerprint.value(value) if _is_small(value) else None


def _own_module(module: ModuleType | None) -> str | None:
    """Fingerprint the source of a module that is neither installed nor Python's own."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or _installed(Path(file)):
        return None
    try:
        return fingerprint.source(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _installed(file: Path) -> bool:
    places = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    ours = Path(__file__).parents[1]
    return any(file.is_relative_to(place) for place in (*places, ours))


def _is_small(value: Any) -> bool:
    left, items = [value], 0
    while left:
        one = left.pop()
        inner = _inside(one)
        items += 1 + len(inner)
        if items > _ITEMS or _weight(one) > _BYTES:
            return False
        left += inner
    return True


def _inside(value: Any) -> Collection[Any]:
    """What a container holds; a dict stands for its values, as its keys are as many."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return getattr(value, "__dict__", {}).values()
    return ()


def _weight(value: Any) -> int:
    """About how many bytes one object has, without what it holds."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return len(value)
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        sizes = (getattr(value, "nbytes", None), getattr(value, "size", None))  # or columns of that name
        return max((size for size in sizes if type(size) is int), default=_BYTES + 1)
    return 0
