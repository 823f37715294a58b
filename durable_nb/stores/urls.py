"""URLs of stores, as people may see them."""

from __future__ import annotations

import re

__all__ = ["without_password"]


def without_password(url: str) -> str:
    """A URL without its password.

    Example:
        >>> without_password("redis://ann:secret@host:6379/0")
        'redis://ann:***@host:6379/0'
    """
    hidden = re.sub(r"(://[^/@]*?):[^/]*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:password|passwd|secret|token|key)=)[^&]*", r"\1***", hidden)
