"""A call's arguments as one line each for machines and for people, and whether two such lines differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from durable_nb.fingerprint.display import difference, shown
from durable_nb.fingerprint.values import value

__all__ = ["arguments", "differ", "explain", "show", "unknown"]

_UNKNOWN = "?"
_json = json.JSONEncoder(ensure_ascii=False).encode


def arguments(values: Mapping[str, Any]) -> str:
    """One ``name=fingerprint`` for each argument, ``name=?`` for one that has none.

    Example:
        >>> arguments({"client": object()})
        'client=?'
    """
    return " ".join(f"{name}={value(each) or _UNKNOWN}" for name, each in values.items())


def unknown(recorded: str) -> list[str]:
    """The names of the arguments that have no fingerprint."""
    return [name for name, each in _parsed(recorded).items() if each == _UNKNOWN]


def differ(recorded: str | None, called: str | None) -> bool:
    """Whether two lines are known to differ: what has no fingerprint is not compared.

    Example:
        >>> differ("n=1 client=?", "n=2 client=?"), differ("n=1 client=?", "n=1 client=ab")
        (True, False)
    """
    if recorded == called or recorded is None or called is None:
        return False
    before, after = _parsed(recorded), _parsed(called)
    if before.keys() != after.keys():
        return True
    return any(before[name] != after[name] and _UNKNOWN not in (before[name], after[name]) for name in before)


def show(values: Mapping[str, Any] | None) -> str | None:
    """Bounded reprs of arguments, by name, as JSON; None without arguments."""
    return _json(shown(values)) if values else None


def explain(recorded: str | None, called: str | None) -> str:
    """What differs between two results of ``show``, for people."""
    return difference(json.loads(recorded or "{}"), json.loads(called or "{}"))


def _parsed(line: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in line.split())
