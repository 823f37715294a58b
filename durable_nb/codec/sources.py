"""The source of code that was typed, not read from a file: known to ``linecache`` under a name of its own."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Iterable, Mapping
from typing import Any

import xxhash

from durable_nb.errors.redaction import redacted_source

__all__ = ["remember", "stored_name", "texts"]


def stored_name(file: str) -> str | None:
    """Return the name of a cell's code that is equal in every process; None for code of another origin.

    Args:
        file: The name under which the code was compiled, with the process's id for a kernel.
    """
    known: Any = linecache.cache.get(file)
    text = _text(file) if known is not None and len(known) > 1 and known[1] is None else ""
    return f"<cell {xxhash.xxh3_64_hexdigest(text.encode())}>" if text else None


def texts(files: Iterable[str]) -> dict[str, str]:
    """Return the source of cells, without secrets, by their stored names.

    Args:
        files: The names under which code was compiled.
    """
    named = ((stored_name(file), file) for file in files)
    return {name: redacted_source(_text(file)) for name, file in sorted(named, key=str) if name is not None}


def remember(sources: Mapping[str, str]) -> None:
    """Make the source of cells known to tracebacks and to ``inspect.getsource``.

    Args:
        sources: What `texts` returned.
    """
    for name, text in sources.items():
        linecache.cache.setdefault(name, (len(text), None, text.splitlines(keepends=True), name))


@functools.lru_cache(maxsize=256)
def _text(file: str) -> str:
    return "".join(linecache.getlines(file))
