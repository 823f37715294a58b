"""Locks on single bytes of a file, which the kernel drops when their process dies.

On Linux these are open file description locks. They belong to the descriptor that took them: code of the
user that opens, reads and closes the same file, to copy it, drops none. Elsewhere they are POSIX record locks
(``fcntl.lockf``), which a process loses when it closes *any* descriptor of the file. Both kinds conflict with
each other between processes, and with the locks that SQLite takes.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import weakref
from pathlib import Path
from typing import Any, ClassVar, Final

from durable_nb.concurrency.forking import in_forked_child
from durable_nb.errors import StoreUnavailable

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: a database is refused there
    fcntl = None

__all__ = ["OWN_DESCRIPTOR", "ByteLocks"]

OWN_DESCRIPTOR: Final = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
"""True if locks belong to their descriptor, so that closing another one does not drop them."""

_FLOCK: Final = struct.Struct("hhqqi0q")


class ByteLocks:
    """A file, opened once, and the locks of this process on its bytes.

    Args:
        path: The file.
        create: Whether to create it, with mode 0600, if it does not exist.

    Attributes:
        descriptor: The descriptor that holds the locks.

    Raises:
        StoreUnavailable: The path leads to something other than a regular file.
        OSError: The file cannot be opened.
    """

    _open: ClassVar[weakref.WeakSet[ByteLocks]] = weakref.WeakSet()

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
        try:
            self.descriptor: int | None = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _irregular(path, "a symbolic link") from error
            raise
        self._open.add(self)
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            self.close()
            raise _irregular(path, "a special file")

    def try_lock(self, byte: int, *, shared: bool = False, length: int = 1) -> bool:
        """Lock bytes against other processes, without waiting.

        Args:
            byte: The offset of the first byte.
            shared: Whether other processes may hold a shared lock on them too.
            length: The number of bytes.

        Returns:
            False if another process holds them; True also if this process held them already.

        Raises:
            OSError: The file cannot be locked.
        """
        try:
            self._set(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, byte, length)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, byte: int, *, length: int = 1) -> None:
        """Unlock bytes.

        Args:
            byte: The offset of the first byte.
            length: The number of bytes.
        """
        self._set(fcntl.F_UNLCK, byte, length)

    def is_locked(self, byte: int) -> bool:
        """Return whether another process holds a byte; of a byte that this object holds, do not ask.

        Args:
            byte: The offset of the byte.
        """
        # Try a shared lock, so that two processes that ask at the same time do not mistake each other for the
        # owner. (F_GETLK would ask without locking, but ``lockf`` does not offer it.)
        if not self.try_lock(byte, shared=True):
            return True
        self.unlock(byte)
        return False

    def close(self) -> None:
        """Close the file, which drops the locks; calling it again is harmless."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @classmethod
    def close_all(cls) -> None:
        """Close every file in a forked child: a descriptor left open would keep its parent's locks alive."""
        for each in list(cls._open):
            each.close()

    def _set(self, kind: int, byte: int, length: int) -> None:
        if self.descriptor is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if OWN_DESCRIPTOR:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, length, 0))
            return
        flags = {fcntl.F_RDLCK: fcntl.LOCK_SH, fcntl.F_WRLCK: fcntl.LOCK_EX}.get(kind)
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN if flags is None else flags | fcntl.LOCK_NB, length, byte)


def _irregular(path: Path, what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{str(path)!r} is {what}, where a regular file was expected",
        remedy=f"Find out what made it, delete it with rm {str(path)!r}, and run again.",
    )


in_forked_child(ByteLocks.close_all)
