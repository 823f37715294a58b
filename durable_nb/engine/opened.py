"""Noting the files that a step uses while it is in progress.

One audit hook a process, installed when the first step runs, notes what is opened, renamed and deleted by the
step in progress: in its context, in the thread of its executor, or in another thread while no other step is
in progress. Readers that are not written in Python pass no audit event: files whose paths a step mentions are
on record as if it had opened them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.util import source_from_cache
from typing import TYPE_CHECKING, Any, Final

from durable_nb import settings
from durable_nb.engine.files import FilesUsed, files_of, with_files
from durable_nb.fingerprint.files import (
    FileState,
    absolute,
    digest_of,
    is_noticed,
    is_users,
    state_of,
    unnoticed,
    working_directory,
)

if TYPE_CHECKING:
    from durable_nb.records import Step

__all__ = ["Recording", "current_recording", "include_replayed", "recording", "recording_here"]

_CLOCK: Final = 20_000_000
"""Nanoseconds by which the time of a file may be earlier than the clock."""

_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR

_current: ContextVar[Recording | None] = ContextVar("durable_nb_files", default=None)
_here = threading.local()
_in_progress: list[Recording] = []
_installing = threading.Lock()
_installed = False


@dataclass(slots=True)
class _Seen:
    """A file that a step has used: its state before that, and how it was used."""

    before: FileState | None
    reads: bool = False
    writes: bool = False
    appends: bool = False

    def use(self, *, reads: bool, writes: bool, appends: bool) -> None:
        """Note a further use of the file; what the step itself has written is no input."""
        self.reads |= reads and not self.writes
        self.writes |= writes
        self.appends |= appends


class Recording:
    """Notes the files that one step uses.

    Args:
        own: The path of the run's database: files whose paths begin with it are not the user's.
        outer: The recording of the step that this one was called in, if there is one.
    """

    __slots__ = ("_began", "_cwd", "_further", "_missing", "_own", "_seen", "outer")

    def __init__(self, own: str | None, outer: Recording | None = None) -> None:
        self.outer = outer
        self._own = own
        self._cwd = ""
        self._began = time.time_ns() - _CLOCK
        self._seen: dict[str, _Seen] = {}
        self._missing: set[str] = set()
        self._further: set[int] = set()

    def note(self, path: Any, *, reads: bool = False, writes: bool = False, appends: bool = False) -> None:
        """Note that a file is about to be read, written or appended to, or that the step mentions it."""
        place = absolute(os.fsdecode(path))
        seen = self._seen.get(place)
        if seen is not None:
            seen.use(reads=reads, writes=writes, appends=appends)
        elif self._counts(place):
            self._add(place, _Seen(state_of(place), reads, writes, appends))

    def _counts(self, path: str) -> bool:
        return is_users(path) and not (self._own and path.startswith(self._own))

    def note_afterwards(self, path: str) -> None:
        """Note that the step has made a path: of a file that it has read, or of one that it has written."""
        place = absolute(path)
        if place not in self._seen and self._counts(place):
            state = state_of(place)
            is_new = state is not None and state.mtime >= self._began
            self._add(place, _Seen(None if is_new else state, writes=is_new))

    def note_directory(self) -> None:
        """Note the working directory, before it is changed or a relative path is used."""
        self._cwd = self._cwd or working_directory()

    def _add(self, path: str, seen: _Seen) -> None:
        if path in self._seen:
            self._seen[path].use(reads=seen.reads, writes=seen.writes, appends=seen.appends)
        elif seen.before is None and not (seen.writes or seen.appends):
            if len(self._missing) < settings.FILES_ON_RECORD:
                self._missing.add(path)
        elif len(self._seen) < settings.FILES_ON_RECORD:
            self.note_directory()
            self._seen[path] = seen
        else:
            self._further.add(hash(path))

    def include(self, step: Step) -> None:
        """Note the files of a step inside this one that was replayed, in the states on record."""
        read, wrote, appended = files_of(step)
        for path, state in read.items():
            self._add(path, _Seen(state, reads=True))
        for path in wrote:
            self._add(path, _Seen(state_of(path), writes=True))
        for path in appended:
            self._add(path, _Seen(state_of(path), appends=True))

    def merge(self, inner: Recording) -> None:
        """Note the files of a step inside this one that was executed."""
        for path, seen in list(inner._seen.items()):
            self._add(path, replace(seen))
        self._missing |= inner._missing
        self._further |= inner._further

    def record_on(self, step: Step) -> Step:
        """Return a step with the files that it has used on record."""
        if not (self._seen or self._missing or step.lineage):
            return step
        return with_files(step, self._cwd or working_directory(), self._used(), len(self._further))

    def _used(self) -> FilesUsed:
        """Return the files that were used, each in its state after the step."""
        made = {path: _Seen(None, writes=True) for path in self._missing}
        left, used = settings.FILES_DIGESTED, FilesUsed({}, {}, {})
        for path, seen in {**made, **self._seen}.items():  # a copy: a thread may outlive the step
            state, written = _outcome(path, seen)
            if state is not None and state.size <= left and state == state_of(path):
                state = state._replace(digest=digest_of(path))
                left -= state.size
            if written and (state or seen.before):
                appended = seen.appends and not seen.writes
                (used.appended if appended else used.wrote)[path] = state
            if state and seen.before and (seen.reads or not written):
                used.read[path] = state
        return used


def _outcome(path: str, seen: _Seen) -> tuple[FileState | None, bool]:
    """Return the state of a file to record, and whether the step has written the file.

    Of a file that was only read, that is its state when it was first opened: another process may have changed
    the file since. One that was only mentioned was written if it has changed.
    """
    now = state_of(path)
    before = seen.before
    changed = before is None or (not seen.reads and before[:2] != (now or ())[:2])
    written = seen.writes or seen.appends or changed
    return (now if written else before), written


def _opened(recording: Recording, path: Any, _mode: Any, flags: int) -> None:
    if isinstance(path, int):
        return
    name = os.fsdecode(path)
    if name.endswith(".pyc"):  # a module is imported
        recording.note(source_from_cache(name), reads=True)
        return
    access = flags & _ACCESS
    appends = bool(flags & os.O_APPEND) and access != os.O_RDONLY
    reads = access == os.O_RDONLY or (access == os.O_RDWR and not flags & (os.O_TRUNC | os.O_APPEND))
    writes = access != os.O_RDONLY and not appends
    if not (reads and name.endswith(".py") and _is_loaded(absolute(name))):
        recording.note(name, reads=reads, writes=writes, appends=appends)


def _is_loaded(path: str) -> bool:
    """Return whether a module of that file was imported: its source is read to be shown, not executed."""
    modules = (getattr(module, "__dict__", {}) for module in list(sys.modules.values()))
    loaded = (each.get("__spec__") for each in modules if each.get("__file__") == path)
    return any(not getattr(spec, "_initializing", False) for spec in loaded)


def _removed(recording: Recording, path: Any, folder: int | None = None) -> None:
    if folder in (None, -1):
        recording.note(path, writes=True)


def _renamed(recording: Recording, old: Any, new: Any, *folders: int) -> None:
    if all(folder == -1 for folder in folders):
        recording.note(old, writes=True)
        recording.note(new, writes=True)


def _connected(recording: Recording, path: Any) -> None:
    recording.note(path, reads=True, writes=True)


def _changing_directory(recording: Recording, _path: Any) -> None:
    recording.note_directory()


_EVENTS: Final[Mapping[str, Callable[..., None]]] = {
    "open": _opened,
    "os.chdir": _changing_directory,
    "os.remove": _removed,
    "os.rename": _renamed,
    "shutil.rmtree": _removed,
    "sqlite3.connect": _connected,
}


def _hook(event: str, args: tuple[Any, ...], events: Mapping[str, Callable[..., None]] = _EVENTS) -> None:
    # Python calls it for every event, such as each id(): the first line alone decides about nearly all. The
    # events are a default, since Python removes this module's names at exit, and then opens files still.
    if event in events and _in_progress and is_noticed():
        with unnoticed(), suppress(Exception):  # the user's call would raise it
            found = current_recording() or _only_one()
            if found is not None:
                events[event](found, *args)


def current_recording() -> Recording | None:
    """Return the recording of the innermost step that the caller's code is part of; None outside steps."""
    return _current.get() or getattr(_here, "recording", None)


def _only_one() -> Recording | None:
    """Return the recording of the only step in progress, for a thread that may be working for it.

    The threads of the kernel and of this package are daemons; those of executors are not.
    """
    thread = threading.current_thread()
    if thread.daemon or thread is threading.main_thread():
        return None
    known = list(_in_progress)
    outer = [each.outer for each in known]
    innermost = [each for each in known if each not in outer]
    return innermost[0] if len(innermost) == 1 else None


@contextmanager
def recording(own: str | None, mentioned: Callable[[], Iterable[str]]) -> Iterator[Recording]:
    """Record the files that the block uses, in its context.

    Args:
        own: The path of the run's database.
        mentioned: Returns the paths that the step mentions.
    """
    _install_hook()
    outer = current_recording()
    found = Recording(own, outer)
    with suppress(Exception):  # raised by an object of the user's that was looked at
        for path in mentioned():
            found.note(path)
    _in_progress.append(found)
    token = _current.set(found)
    try:
        yield found
    finally:
        _in_progress.remove(found)
        with suppress(ValueError):  # a generator that is thrown away half-way is closed in another context
            _current.reset(token)
        if outer is not None:
            outer.merge(found)


def include_replayed(step: Step) -> None:
    """Note the files of a step that was replayed, if it was called inside a step that is in progress."""
    outer = current_recording()
    if outer is not None and step.lineage:
        outer.include(step)


@contextmanager
def recording_here(found: Recording | None) -> Iterator[None]:
    """Record what this thread opens in the block, whatever its context is."""
    _here.recording = found
    try:
        yield
    finally:
        _here.recording = None


def _install_hook() -> None:
    global _installed
    if not _installed:
        with _installing:
            if not _installed:
                is_users(os.sep)  # finds out which files are not the user's, and opens some itself
                sys.addaudithook(_hook)
                _installed = True
