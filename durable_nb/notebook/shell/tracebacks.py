"""Tracebacks without the frames of this package, except where an unexpected error was raised in one."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from durable_nb import errors

__all__ = ["hide_package_frames", "strip", "without_package_frames"]

_PACKAGE: Final = f"{Path(errors.__file__).parents[1]}{os.sep}"


def hide_package_frames(shell: Any) -> None:
    """Make a shell hide this package's frames in the tracebacks of all cells."""
    shown = shell.InteractiveTB
    structured, chained = shown.structured_traceback, shown.get_parts_of_chained_exception

    @functools.wraps(structured)
    def structured_traceback(kind: Any, error: Any, frames: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(frames, TracebackType):
            frames = without_package_frames(error, frames)
        return structured(kind, error, frames, *args, **kwargs)

    @functools.wraps(chained)
    def parts_of_chained(error: Any) -> Any:
        parts = chained(error)
        return parts and (*parts[:2], without_package_frames(parts[1], parts[2]))

    shown.structured_traceback = structured_traceback
    shown.get_parts_of_chained_exception = parts_of_chained


def without_package_frames(error: object, frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this package; unchanged if an unexpected error ended in one.

    Args:
        error: The error; a ``DurableError`` is never unexpected.
        frames: Its traceback, which is not modified.
    """
    entries = []
    entry = frames
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    if entries and _in_package(entries[-1]) and not isinstance(error, errors.DurableError):
        return frames
    kept = None
    for entry in reversed([one for one in entries if not _in_package(one)]):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def strip(error: BaseException) -> BaseException:
    """Remove this package's frames from an error, and from the errors of an exception group; return it."""
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        strip(inner)
    return error.with_traceback(without_package_frames(error, error.__traceback__))


def _in_package(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)
