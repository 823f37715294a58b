"""Which names are valid for a run, a step or a signal."""

from __future__ import annotations

import re
import unicodedata

from durable_nb import settings
from durable_nb.errors import DurableError, InvalidRunId

__all__ = ["check_name", "check_run_id", "check_same_everywhere"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")
"""The end of the text of an object, function or method that has none of its own."""

_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, line and paragraph separators, which break a line; surrogates, which have no UTF-8."""


def check_name(name: object, role: str, kind: type[DurableError]) -> str:
    """Return the name of a run, a step or a signal: any printable text that is not too long.

    Args:
        name: The name.
        role: What it names, for the message, such as ``a run``.
        kind: The class of the error.

    Raises:
        DurableError: The name is no string, blank, too long, or contains a control character.
    """
    remedy = f"Use a string of at most {settings.LONGEST_NAME} characters, without control characters."
    if not isinstance(name, str) or not name.strip():
        raise kind(f"{name!r:.60} cannot name {role}", remedy=remedy)
    if len(name) > settings.LONGEST_NAME:
        raise kind(f"{name[:40]!r}… cannot name {role}: it has {len(name)} characters", remedy=remedy)
    if bad := next((char for char in name if unicodedata.category(char) in _UNFIT), None):
        raise kind(f"{name[:40]!r} cannot name {role}: it contains {bad!r}", remedy=remedy)
    return name


def check_run_id(run_id: str) -> str:
    """Return a run id that is valid.

    Raises:
        InvalidRunId: The id is no string, blank, too long, or contains a control character.
    """
    return check_name(run_id, "a run", InvalidRunId)


def check_same_everywhere(run_id: str) -> str:
    """Return a run id that was made of values, if another process makes the same one of them.

    Raises:
        InvalidRunId: It contains the memory address of an object: the run would not be found again.
    """
    if _ADDRESS.search(run_id):
        raise InvalidRunId(
            f"{run_id!r} cannot name a run: it contains a memory address, which differs in each process"
        )
    return run_id
