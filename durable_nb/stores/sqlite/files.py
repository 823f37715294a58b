"""The files that a commit rests on, and whether they are still in place.

SQLite goes on writing into a file that was deleted or replaced, where those writes are lost. It also deletes
the write-ahead log of a living process, if that process has lost its locks and another one closes the
database. ``Files`` keeps a lock that such a process does not lose, and notices the rest.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

from durable_nb import settings
from durable_nb.stores.sqlite.locks import OWN_DESCRIPTOR, ByteLocks

__all__ = ["Files", "identity"]

_stat = os.stat
_fstat = os.fstat
_pread = os.pread

_SHARED: Final = 0x40000002
"""The first of the 510 bytes of a database that SQLite locks while it has the file open."""

_DEAD_MAN: Final = 128
"""The byte of the shared memory that SQLite locks while it has the file open."""

_SESSIONS: Final = 0x40010000
"""The offset of the sessions' bytes in a database: a lock file can be deleted, the database not unnoticed."""

_INDEX: Final = struct.Struct("=14xHI4x8s8s")
"""The header of the shared memory: the size of a page, the number of frames, a checksum, the salts."""

_HEADER, _FRAME = 32, 24
"""The lengths of the headers of the write-ahead log and of its frames."""

_TICKS: Final = 50_000_000
"""Nanoseconds after which a later change of a folder has another time of change, on every file system."""

_LOOKS: Final = 20
"""How often the write-ahead log is looked at before it counts as damaged."""


def identity(name: str) -> tuple[int, int] | None:
    """Return device and inode of the file that a name leads to; None if there is none."""
    try:
        status = _stat(name)
    except OSError:
        return None
    return status.st_ino, status.st_dev


class Files:
    """The files of one connection: the database, its write-ahead log, and the lock file.

    Made when the connection is open, and has read: before, there is no write-ahead log.

    Args:
        path: The database.
        mode: The journal mode: without a write-ahead log there is less to look after.

    Attributes:
        restarts: How often the write-ahead log was seen to begin anew.

    Raises:
        OSError: A file cannot be opened.
    """

    def __init__(self, path: Path, mode: str) -> None:
        name = str(path)
        self._log_name, self._memory_name = f"{name}-wal", f"{name}-shm"
        self._size, self._head = 0, b""
        self._memory: ByteLocks | None = None
        self._log: int | None = None
        self.restarts = 0
        self._database = ByteLocks(path)
        try:
            if mode == "wal":
                self._memory = ByteLocks(Path(self._memory_name))
                self._log = os.open(self._log_name, os.O_RDONLY | os.O_CLOEXEC)
                self._hold(True)
        except BaseException:
            self.close()
            raise
        names = (name, self._log_name, f"{name}.lock") if mode == "wal" else (name, f"{name}.lock")
        self._folder_name = str(path.parent)
        self._folder: tuple[int, int] | None = None
        self._identities = [(each, identity(each)) for each in names]
        self._memory_identity = identity(self._memory_name)
        self.problem(thorough=True)
        self.restarts = 0

    @property
    def has_log(self) -> bool:
        """True if commits go to a write-ahead log first."""
        return self._log is not None

    def problem(self, *, thorough: bool = False) -> str | None:
        """Return what has happened to a file, if it is no longer in place; else None. Takes microseconds.

        Args:
            thorough: Whether to look into the write-ahead log too.
        """
        # A name that was deleted, made or given to another file changes the time of its folder. So the names
        # are looked at only if that time is another one, or too recent: its clock has ticks.
        if self._folder is None or self._state_of_folder() != self._folder:
            problem = self._problem_of_names()
            if problem is not None:
                return problem
        return self._look_at_log() if thorough or self.is_log_changed() else None

    def is_log_changed(self) -> bool:
        """Return whether the write-ahead log is shorter or begins otherwise; the next commit may hide it."""
        if self._log is None:
            return False
        before, self._size = self._size, _fstat(self._log).st_size
        return self._size < before or _pread(self._log, _HEADER, 0) != self._head

    def _problem_of_names(self) -> str | None:
        folder = self._state_of_folder()
        for name, known in self._identities:
            found = identity(name)
            if found != known:
                return f"{name!r} was {'deleted' if found is None else 'replaced'}"
        is_old = folder is not None and time.time_ns() - folder[0] > _TICKS and self._log is not None
        self._folder = folder if is_old else None
        return None

    def _state_of_folder(self) -> tuple[int, int] | None:
        try:
            status = _stat(self._folder_name)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def is_renewed(self) -> bool:
        """Return whether another process has made a write-ahead log anew, with its shared memory."""
        return identity(self._memory_name) != self._memory_identity

    @property
    def is_database_in_place(self) -> bool:
        """True if the path of the database leads to the file that was opened."""
        name, known = self._identities[0]
        return identity(name) == known

    def note_lock_file(self) -> None:
        """Take the lock file that is there now for the right one."""
        name, _ = self._identities[-1]
        self._identities[-1] = name, identity(name)

    def claim(self, session: int) -> bool:
        """Lock a session's byte in the database itself; return False if another process holds it."""
        return not OWN_DESCRIPTOR or self._database.try_lock(_SESSIONS + session)

    def unclaim(self, session: int) -> None:
        """Unlock a session's byte."""
        if OWN_DESCRIPTOR:
            self._database.unlock(_SESSIONS + session)

    def is_claimed(self, session: int) -> bool:
        """Return whether another process holds a session's byte."""
        return OWN_DESCRIPTOR and self._database.is_locked(_SESSIONS + session)

    def let_go(self) -> None:
        """Unlock what SQLite locks too, so that the last connection can remove the write-ahead log."""
        self._hold(False)

    def close(self) -> None:
        """Close the files; the connection must be closed before, which would lose its locks."""
        self._database.close()
        if self._memory is not None:
            self._memory.close()
        log, self._log = self._log, None
        if log is not None:
            os.close(log)

    def _hold(self, hold: bool) -> None:
        if not OWN_DESCRIPTOR or self._memory is None or self._memory.descriptor is None:
            return
        for file, byte, length in ((self._database, _SHARED, 510), (self._memory, _DEAD_MAN, 1)):
            if hold:
                file.try_lock(byte, shared=True, length=length)
            else:
                file.unlock(byte, length=length)

    def _look_at_log(self) -> str | None:
        """Compare the write-ahead log with its index, which another process may be changing."""
        if self._log is None:
            return None
        for _ in range(_LOOKS):
            if self._is_log_whole():
                return None
            time.sleep(settings.LOCK_POLL)
        return f"{self._log_name!r} was truncated or overwritten"

    def _is_log_whole(self) -> bool:
        assert self._log is not None
        assert self._memory is not None
        assert self._memory.descriptor is not None
        index = _pread(self._memory.descriptor, _INDEX.size, 0)
        head, size = _pread(self._log, _HEADER, 0), _fstat(self._log).st_size
        page, frames, _, salts = _INDEX.unpack(index.ljust(_INDEX.size, b"\0"))
        length = _FRAME + (65536 if page == 1 else page)
        frame = _pread(self._log, _FRAME, _HEADER + (frames - 1) * length) if frames else b""
        whole = not frames or (size >= _HEADER + frames * length and head[16:24] == frame[8:16] == salts)
        if whole:
            self.restarts += head != self._head
            self._head, self._size = head, size
        return whole
