"""Tracebacks as they would be without us: the user's frames, and ours only where the fault may be ours."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from durable_nb.errors import DurableError

__all__ = ["hide_our_frames", "strip", "without_ours"]

_OURS: Final = f"{Path(__file__).parents[1]}{os.sep}"


def hide_our_frames(shell: Any) -> None:
    """Have a shell show no frames of this package, whatever cell the error comes from."""
    shown = shell.InteractiveTB
    structured, chained = shown.structured_traceback, shown.get_parts_of_chained_exception

    @functools.wraps(structured)
    def structured_traceback(kind: Any, error: Any, frames: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(frames, TracebackType):
            frames = without_ours(error, frames)
        return structured(kind, error, frames, *args, **kwargs)

    @functools.wraps(chained)
    def parts_of_chained(error: Any) -> Any:
        parts = chained(error)
        return parts and (*parts[:2], without_ours(parts[1], parts[2]))

    shown.structured_traceback = structured_traceback
    shown.get_parts_of_chained_exception = parts_of_chained


def without_ours(error: object, frames: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package; all of them where an unexpected error ended in one.

    Args:
        error: The error; one of our own says enough by itself.
        frames: Its traceback, which is left as it is.
    """
    entries = []
    entry = frames
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    if entries and _is_ours(entries[-1]) and not isinstance(error, DurableError):
        return frames
    kept = None
    for entry in reversed([one for one in entries if not _is_ours(one)]):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def strip(error: BaseException) -> BaseException:
    """Take our frames out of an error, and out of all that a group of errors holds; gives the error."""
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        strip(inner)
    return error.with_traceback(without_ours(error, error.__traceback__))


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_OURS)
