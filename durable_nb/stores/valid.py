"""The values that each column of a row may have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from durable_nb.stores.rows import (
    KINDS,
    MESSAGE_COLUMNS,
    REQUEST_COLUMNS,
    RUN_COLUMNS,
    RUN_STATUSES,
    SIGNAL_COLUMNS,
    STATUSES,
    STEP_COLUMNS,
    Row,
)

__all__ = [
    "CHUNKS",
    "LATEST",
    "MESSAGE_RULES",
    "REQUEST_RULES",
    "RUN_RULES",
    "SIGNAL_RULES",
    "STEP_RULES",
    "Rules",
    "first_invalid",
    "is_count",
]

LATEST: Final = 253402300800.0
"""The end of the year 9999, in seconds since 1970: no recorded time is later."""

CHUNKS: Final = "chunks/"
"""The beginning of the blob of a payload that is kept in chunks, which the store joins before it is read."""

_LARGEST: Final = 2**53
_SHOWN: Final = 40
_VERSION: Final = re.compile(r"\d{1,3}\.\d{1,3}")

Rules: TypeAlias = Mapping[str, Callable[[Any], bool]]
"""For each column, in order, a function that returns whether it may have a value."""


def first_invalid(columns: Rules, row: Row) -> str:
    """Return a description of the first value of a row that its column may not have; empty if there is none.

    Example:
        >>> first_invalid(STEP_RULES, ("r", "load", "chore"))
        "its kind is 'chore'"
    """
    for (name, is_valid), value in zip(columns.items(), row, strict=False):
        if not is_valid(value):
            return f"its {name} is {value!r:.{_SHOWN}}"
    return ""


def is_count(value: Any) -> bool:
    """Return whether a value is a number that counts something."""
    return isinstance(value, int) and 0 <= value <= _LARGEST


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LATEST


def _version(value: Any) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def _bytes(value: Any) -> bool:
    return isinstance(value, bytes)


def _blob(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith(CHUNKS)


def _optional(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _one_of(values: Mapping[str, Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


def _json(kind: type, item: Callable[[Any], bool] = lambda _: True) -> Callable[[Any], bool]:
    """Return the rule for the JSON of an object or a list, and of its items."""

    def is_valid(text: Any) -> bool:
        try:
            value = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            return False
        items = value.values() if isinstance(value, dict) else value
        return type(value) is kind and all(map(item, items))

    return is_valid


def _rules(columns: Sequence[str], **special: Callable[[Any], bool]) -> Rules:
    """Return the rules of a table: columns that are not named may hold a text or nothing."""
    return {name: special.get(name, _optional(_text)) for name in columns}


_ARGUMENTS: Final = _optional(_json(dict, _text))
_COUNTERS: Final = ("attempt", "epoch", "passes", "crashes", "called_seq", "recorded_seq", "number")
_PAYLOADS: Final = ("payload", "result", "given")
_EVERYWHERE: Final[Rules] = {
    **dict.fromkeys(("run_id", "step_id", "name", "workflow", "topic", "delivery", "sent_by"), _text),
    **dict.fromkeys(_COUNTERS, is_count),
    **dict.fromkeys(("created_at", "updated_at", "started_at", "delivered_at", "asked_at", "sent_at"), _time),
    **dict.fromkeys(
        (f"{name}_{part}" for name in _PAYLOADS for part in ("data", "signature")), _optional(_bytes)
    ),
    **dict.fromkeys(("checksum", "standing"), _optional(is_count)),
    **dict.fromkeys((f"{name}_blob" for name in _PAYLOADS), _optional(_blob)),
    "arguments_repr": _ARGUMENTS,
    "python": _optional(_version),
    "finished_at": _optional(_time),
}

RUN_RULES: Final = _rules(RUN_COLUMNS, **{**_EVERYWHERE, "status": _one_of(RUN_STATUSES)})
"""The rules of ``RUN_COLUMNS``."""

STEP_RULES: Final = _rules(
    STEP_COLUMNS,
    **{
        **_EVERYWHERE,
        "kind": _one_of(KINDS),
        "status": _one_of(STATUSES),
        "once": lambda value: value in (0, 1),
        "lineage": _optional(_json(dict)),
        "usage": _optional(_json(dict, is_count)),
    },
)
"""The rules of ``STEP_COLUMNS``."""

SIGNAL_RULES: Final = _rules(
    SIGNAL_COLUMNS,
    **{**_EVERYWHERE, "payload_format": _text, "payload_data": _bytes, "delivered_by": _text},
)
"""The rules of ``SIGNAL_COLUMNS``."""

MESSAGE_RULES: Final = _rules(
    MESSAGE_COLUMNS, **{**_EVERYWHERE, "payload_format": _text, "payload_data": _bytes}
)
"""The rules of ``MESSAGE_COLUMNS``."""

REQUEST_RULES: Final = _rules(
    REQUEST_COLUMNS,
    **{**_EVERYWHERE, "schema": _optional(_json(dict)), "choices": _optional(_json(list)), "asked_by": _text},
)
"""The rules of ``REQUEST_COLUMNS``."""
