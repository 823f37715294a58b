"""A call's arguments as one line to compare and as one to show, and the differences of two such lines."""

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
    """Return the line to compare: ``name=fingerprint`` for each argument, ``name=?`` for one without.

    Args:
        values: The arguments by name.

    Example:
        >>> arguments({"client": object()})
        'client=?'
    """
    return " ".join(f"{name}={value(each) or _UNKNOWN}" for name, each in values.items())


def unknown(recorded: str) -> list[str]:
    """Return the names of the arguments without a fingerprint.

    Args:
        recorded: The output of :func:`arguments`.

    Example:
        >>> unknown("n=1 client=?")
        ['client']
    """
    return [name for name, each in _parsed(recorded).items() if each == _UNKNOWN]


def differ(recorded: str | None, called: str | None) -> bool:
    """Return whether two lines are known to differ; arguments without a fingerprint are not compared.

    Args:
        recorded: The output of :func:`arguments` for one call, None if it is not known.
        called: The output of :func:`arguments` for another call.

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
    """Return the line to show: bounded reprs of the arguments by name, as JSON; None without arguments.

    Args:
        values: The arguments by name.

    Example:
        >>> show({"n": 3})
        '{"n": "3"}'
    """
    return _json(shown(values)) if values else None


def explain(
    recorded: str | None, called: str | None, before: str | None = None, after: str | None = None
) -> str:
    """Return the differences between two outputs of :func:`show`, for a message.

    Args:
        recorded: The output of :func:`show` for one call.
        called: The output of :func:`show` for another call.
        before: The output of :func:`arguments` for the first call: names what differs and is shown alike.
        after: The output of :func:`arguments` for the other call.

    Example:
        >>> explain('{"n": "3", "pw": "…"}', '{"n": "4", "pw": "…"}', "n=ab pw=cd", "n=ef pw=gh")
        'n: 3 → 4; pw: another value'
    """
    old, new = json.loads(recorded or "{}"), json.loads(called or "{}")
    were, are = _parsed(before or ""), _parsed(after or "")
    differ = [name for name in were if were[name] != are.get(name, were[name])]
    alike = [f"{name}: another value" for name in differ if old.get(name) == new.get(name)]
    texts = [difference(old, new), *alike]
    return "; ".join(filter(None, texts))


def _parsed(line: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in line.split())
