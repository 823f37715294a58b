"""The files that a step used, as its record names them, and how they differ from that record now."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from durable_nb import settings
from durable_nb.fingerprint.files import (
    FileState,
    absolute,
    describe,
    digest_of,
    is_same,
    shown_path,
    state_of,
)
from durable_nb.stores.errors import damaged_lineage

if TYPE_CHECKING:
    from durable_nb.records import Step

__all__ = ["FilesUsed", "Writers", "changes", "files_of", "not_on_record", "unrecorded", "with_files"]

_SECTION: Final = "files"


class FilesUsed(NamedTuple):
    """The files that a step used, by their paths, each in its state after the step; None if it was deleted.

    Attributes:
        read: The files that existed before and were read, or are only mentioned.
        wrote: The files that were written, renamed or deleted.
        appended: The files that were appended to alone, such as logs: if they are gone, no result is.
    """

    read: dict[str, FileState | None]
    wrote: dict[str, FileState | None]
    appended: dict[str, FileState | None]


def with_files(step: Step, cwd: str, used: FilesUsed, more: int) -> Step:
    """Return a step whose lineage names the files that it used, instead of those that it named before.

    Args:
        step: The step.
        cwd: The working directory in which it was called: paths below are recorded relative to it.
        used: The files.
        more: The number of further files, which are not named.
    """
    known = json.loads(step.lineage) if step.lineage and (any(used) or _section(step)) else None
    if known is None and not any(used):
        return step
    written: dict[str, Any] = {**(known or {})}
    written.pop(_SECTION, None)
    if any(used):
        folder = os.path.join(cwd, "")
        named = {
            use: {path.removeprefix(folder): state for path, state in files.items()}
            for use, files in used._asdict().items()
        }
        written[_SECTION] = {"cwd": cwd, **named, "more": more}
    return step._replace(lineage=json.dumps(written) if written else None)


def _section(step: Step) -> dict[str, Any]:
    if not step.lineage or f'"{_SECTION}"' not in step.lineage:
        return {}
    found = json.loads(step.lineage).get(_SECTION)
    return found if isinstance(found, dict) else {}


def files_of(step: Step) -> FilesUsed:
    """Return the files that a recorded step used, by their paths now.

    A path that was below the working directory is looked for below the one of now first: a project may have
    been moved.
    """
    try:
        return _files_of(_section(step))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged_lineage(step) from error


def _files_of(section: dict[str, Any]) -> FilesUsed:
    def files(use: str) -> Iterator[tuple[str, FileState | None]]:
        for name, state in section.get(use, {}).items():
            here = absolute(name)
            path = here if os.path.exists(here) else os.path.join(section["cwd"], name)
            yield path, state and FileState(*state)

    return FilesUsed(*(dict(files(use)) for use in FilesUsed._fields))


def unrecorded(step: Step) -> int:
    """Return how many files a step has used beyond those on record."""
    more = _section(step).get("more", 0)
    return more if isinstance(more, int) else 0


def not_on_record(further: int) -> str:
    """Return a notice about the files that a step has used beyond those on record.

    Example:
        >>> not_on_record(1)
        'used 1 more file than the 1,000 on record; a replay does not say if it changes'
    """
    files, change = ("file", "it changes") if further == 1 else ("files", "they change")
    most = f"the {settings.FILES_ON_RECORD:,} on record"
    return f"used {further:,} more {files} than {most}; a replay does not say if {change}"


class Writers:
    """The steps of a run that wrote each file last, with its state after that.

    Args:
        steps: The recorded steps.
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._last: dict[str, tuple[int, FileState | None]] = {}
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        """Note the files that a step wrote."""
        used = files_of(step)
        for path, state in (used.wrote | used.appended).items():
            if self._last.get(path, (0,))[0] <= step.recorded_seq:
                self._last[path] = step.recorded_seq, state

    def after(self, step: Step, path: str) -> tuple[FileState | None] | None:
        """Return the state in which a later step left a file or its folder; None if no later step did."""
        while path not in self._last and (folder := os.path.dirname(path)) != path:
            path = folder
        seq, state = self._last.get(path, (0, None))
        return (state,) if seq > step.recorded_seq else None


def changes(step: Step, writers: Callable[[], Writers]) -> list[str]:
    """Return for each input of a step that has changed, and each output that is gone, how it differs now.

    Args:
        step: The step as recorded.
        writers: Returns the steps that wrote each file last; called only if a file differs.

    Example:
        >>> changes(step, Writers)
        ['data.csv has changed since (1.2 MB, 12 Nov 10:03; now 1.3 MB)']
    """
    read, wrote, _ = files_of(step)
    gone = {path: state for path, state in wrote.items() if state and not os.path.exists(path)}
    found = list[str]()
    for path, recorded in {**read, **gone}.items():
        now = state_of(path)
        if not _is_same(path, recorded, now) and not _was_left_so(step, path, now, writers()):
            found.append(describe(shown_path(path), recorded, now))
    return found


def _was_left_so(step: Step, path: str, now: FileState | None, writers: Writers) -> bool:
    """Return whether a later step of the run left a file as it is now."""
    later = writers.after(step, path)
    return later is not None and _is_same(path, later[0], now)


def _is_same(path: str, recorded: FileState | None, now: FileState | None) -> bool:
    return is_same(recorded, now, lambda: digest_of(path))
