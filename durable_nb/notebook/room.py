"""The room that a database has on its disk: what outgrows it is said before the disk is full."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Room"]

_MOST: Final = 0.9
"""The part of the room on its disk from which on a database without a cap is said to be large."""


class Room:
    """Says once that a database is larger than its cap, or has nearly filled its disk.

    Args:
        location: Where the database is; what is no file has all the room that it needs.
        cap: The bytes that the database and its files may have; None for nine tenths of the room on the disk.
    """

    def __init__(self, location: str, cap: int | None) -> None:
        self._file, self._cap, self._said = Path(location), cap, False
        self._size: int | None = None

    def notice(self, further: int) -> str:
        """Return what is to be said after a step was committed; empty if there is room.

        Args:
            further: The bytes that were committed.
        """
        with suppress(OSError):
            if not self._said and self._file.is_file():
                self._size = sum(self._sizes()) if self._size is None else self._size + further
                free = shutil.disk_usage(self._file.parent).free
                self._said = self._size > (_MOST * (self._size + free) if self._cap is None else self._cap)
                return self._notice(self._size, free) if self._said else ""
        return ""

    def _notice(self, size: int, free: int) -> str:
        cap = "" if self._cap is None else f", more than max_database ({_shown(self._cap)})"
        return (
            f"{self._file.name} and its files have {_shown(size)}{cap}; {_shown(free)} of the disk are free. "
            f"To make room: durable-nb forget {shlex.quote(str(self._file))} --run ID"
        )

    def _sizes(self) -> Iterator[int]:
        log, blobs = (self._file.with_name(f"{self._file.name}{end}") for end in ("-wal", ".blobs"))
        for path in (self._file, log, *blobs.rglob("*")):
            with suppress(OSError):  # it was deleted meanwhile
                yield path.stat().st_size if path.is_file() else 0


def _shown(size: int) -> str:
    return f"{size / 1e6:,.4g} MB" if size < 1e9 else f"{size / 1e9:,.4g} GB"
