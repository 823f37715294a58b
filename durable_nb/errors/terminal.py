"""Texts that reach a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return a text that controls no terminal: characters that could, or that hide, are escaped.

    Every text of the package that reaches a terminal passes through it: another user may have written it.

    Example:
        >>> printable("step \x1b[2J")
        'step \\x1b[2J'
    """
    return text if text.isprintable() else _UNUSUAL.sub(_escaped, text)


_UNUSUAL: Final = re.compile("[^ -~\n\t\xad\u200c\u200d]")
"""All but ASCII, and harmless: soft hyphen, and the joiners that Persian and emoji are written with."""


def _escaped(found: re.Match[str]) -> str:
    controls = unicodedata.category(found[0]) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return found[0].encode("unicode_escape").decode() if controls else found[0]
