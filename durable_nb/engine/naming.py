"""What can name a run, a step or a signal."""

from __future__ import annotations

import unicodedata

from durable_nb import settings
from durable_nb.errors import DurableError, InvalidRunId

__all__ = ["check_name", "check_run_id"]

_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, lone surrogates, line and paragraph separators: they break a line, or have no UTF-8."""


def check_name(name: object, role: str, kind: type[DurableError]) -> str:
    """Give back what can name a run, a step or a signal: any printable text that is not too long.

    Args:
        name: The name.
        role: What it is to name.
        kind: The error to raise.
    """
    remedy = f"Give a string of at most {settings.LONGEST_NAME} characters, without control characters."
    if not isinstance(name, str) or not name.strip():
        raise kind(f"{name!r:.60} cannot name {role}", remedy=remedy)
    if len(name) > settings.LONGEST_NAME:
        raise kind(f"{name[:40]!r}… cannot name {role}: it has {len(name)} characters", remedy=remedy)
    if bad := next((char for char in name if unicodedata.category(char) in _UNFIT), None):
        raise kind(f"{name[:40]!r} cannot name {role}: it has a {bad!r} in it", remedy=remedy)
    return name


def check_run_id(run_id: str) -> str:
    """Give back a run id that can name a run.

    Raises:
        InvalidRunId: It is no string, empty, longer than a name can be, or has control characters in it.
    """
    return check_name(run_id, "a run", InvalidRunId)
