"""Whether the names to whose objects a checkpoint refers still have the values that they had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable_nb import fingerprint
from durable_nb.errors.redaction import is_credential
from durable_nb.notebook.lineage import drift
from durable_nb.notebook.namespace.placeholder import reason_of

__all__ = ["changed_since", "mark"]


def mark(name: str, value: Any) -> str | None:
    """Return a fingerprint by which another value is known in another process; None if there is none."""
    if type(value) in (str, bytes) and not is_credential(name, value):
        return fingerprint.value(value)
    return drift.portable(name, value)


def changed_since(marks: Mapping[str, str | None], user_ns: Mapping[str, Any]) -> set[str]:
    """Return the names that are missing or have another value than the one that was marked.

    Args:
        marks: The marks, by name.
        user_ns: The names and their values now.
    """
    absent = {name for name in marks if name not in user_ns or reason_of(user_ns[name]) is not None}
    known = {name: text for name, text in marks.items() if text is not None and name not in absent}
    return absent | {name for name, text in known.items() if mark(name, user_ns[name]) != text}
