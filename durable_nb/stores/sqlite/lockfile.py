"""The file ``<db>.lock``: locks on single bytes, which the kernel drops when their process dies.

These are POSIX record locks (``fcntl.lockf``). Two of their properties shape everything below:

- A process does not conflict with itself. Locking a byte that the process has locked already succeeds, and
  may turn an exclusive lock into a shared one. So the threads of a process exclude each other by another
  lock, and the bytes that the process holds are noted in ``claimed``.
- Closing *any* descriptor of a file drops *all* locks that the process has on that file, those taken through
  other descriptors included. So a process must have one descriptor per lock file, and close it last.

Byte 0 is the mutex around write transactions. Byte N is held for as long as session N lives.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from durable_nb import settings
from durable_nb.errors import StoreUnavailable

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: a database is refused there
    fcntl = None

__all__ = ["LockFile"]


class LockFile:
    """The lock file of one path in this process. Use ``LockFile.shared`` instead of the constructor.

    There is one object, with one descriptor, per process and file; it counts its users.

    Args:
        path: The lock file; it is created with mode 0600 when the first byte is locked.

    Attributes:
        claimed: The bytes that this process holds until ``unclaim``.

    Example:
        >>> lock = LockFile.shared(Path("durable.db.lock"))
        >>> with lock.mutex(timeout=60.0): ...
    """

    _objects: ClassVar[dict[Path, LockFile]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._users = 0
        self._descriptor: int | None = None
        self._mutex = threading.Lock()
        self.claimed: set[int] = set()

    @classmethod
    def shared(cls, path: Path) -> LockFile:
        """Return this process's object for a path; the caller must ``release`` it.

        Args:
            path: The lock file.

        Raises:
            StoreUnavailable: The platform has no POSIX record locks.
        """
        if fcntl is None:
            raise StoreUnavailable(
                f"cannot open {path.stem!r}: this platform lacks the POSIX file locks that protect its runs",
                remedy="Use WSL on Windows; to try things out, keep runs in memory: db=InMemoryStore().",
            )
        with cls._guard:
            # Looking up, creating and counting are one critical section with release(): otherwise a caller
            # could get an object whose descriptor is about to be closed.
            lock = cls._objects.get(path)
            # A lock file that was deleted, renamed or replaced is another inode. Other processes open the new
            # one by its path, and locks on the old one do not stop them: start with a new object. The old one
            # stays with its users; closing it later drops locks on the old inode alone.
            if lock is None or lock.is_deleted():
                lock = cls._objects[path] = cls(path)
            lock._users += 1
            return lock

    def release(self) -> None:
        """Release the object; the last user closes the file, which drops all locks of this process on it."""
        with self._guard:
            self._users -= 1
            if self._users > 0:
                return
            # Not necessarily self: the file may have been replaced, and have a new object since.
            if self._objects.get(self.path) is self:
                del self._objects[self.path]
            # Close last, and with the guard still held. If another thread could open the file before this
            # close, its fresh locks would be dropped by it: see the second property above.
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def try_lock(self, byte: int) -> bool:
        """Lock a byte against other processes, without waiting.

        Args:
            byte: The offset of the byte.

        Returns:
            False if another process holds it; True also if this process held it already.

        Raises:
            OSError: The file cannot be created or locked.
        """
        return self._try(fcntl.LOCK_EX, byte)

    def unlock(self, byte: int) -> None:
        """Unlock a byte.

        Args:
            byte: The offset of the byte.
        """
        fcntl.lockf(self._open(), fcntl.LOCK_UN, 1, byte)

    def claim(self, byte: int) -> bool:
        """Lock a byte that this process does not hold yet, and keep it until ``unclaim``.

        Args:
            byte: The offset of the byte.

        Returns:
            False if this process or another one holds it.
        """
        if byte in self.claimed or not self.try_lock(byte):
            return False
        self.claimed.add(byte)
        return True

    def unclaim(self, byte: int) -> None:
        """Unlock a claimed byte.

        Args:
            byte: The offset of the byte.
        """
        self.claimed.discard(byte)
        self.unlock(byte)

    def is_locked(self, byte: int) -> bool:
        """Return whether a living process holds a byte, this one included.

        Args:
            byte: The offset of the byte.
        """
        # Before any lock call: trying our own byte would succeed, turn our exclusive lock into a shared one,
        # and the unlock below would then give it up. Session bytes are claimed before their rows are
        # committed, so that no thread asks for a byte while another one is claiming it.
        if byte in self.claimed:
            return True
        # Try a shared lock, so that two processes that ask at the same time do not mistake each other for the
        # owner. (F_GETLK would ask without locking, but ``lockf`` does not offer it.)
        if not self._try(fcntl.LOCK_SH, byte):
            return True
        self.unlock(byte)
        return False

    @contextlib.contextmanager
    def mutex(self, timeout: float) -> Iterator[Self]:
        """Hold byte 0 inside a ``with`` block, against other processes and other threads of this one.

        Args:
            timeout: Seconds to wait for it at most.

        Raises:
            StoreUnavailable: Another process or thread held it all that time.
            OSError: The file cannot be created or locked.
        """
        deadline = time.monotonic() + timeout
        # The thread lock comes first: two threads of a process would both get the byte.
        if not self._mutex.acquire(timeout=timeout):
            raise self._timeout_error(timeout)
        try:
            # Poll: a blocking lockf has no time limit, and only a signal could interrupt it.
            while not self.try_lock(0):
                if time.monotonic() >= deadline:
                    raise self._timeout_error(timeout)
                time.sleep(settings.LOCK_POLL)
            try:
                yield self
            finally:
                # The byte goes first, in reverse order of acquisition. With the thread lock released first,
                # the next thread could "lock" the byte that we still hold, and we would unlock it for both.
                self.unlock(0)
        finally:
            self._mutex.release()

    @classmethod
    def forget(cls) -> None:
        """Forget all objects in a forked child, which inherits none of its parent's record locks."""
        # The descriptors stay open: inherited objects may refer to them, and they do the parent no harm:
        # record locks belong to a process, and the child cannot drop its parent's. The guard is a new one,
        # since another thread of the parent may have held the old one at the moment of the fork; that thread
        # does not exist in the child, and would never release it.
        cls._objects = {}
        cls._guard = threading.Lock()

    def _try(self, kind: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._open(), kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError) as error:
            if error.filename is not None:  # os.open raised it, not lockf: the file itself is not accessible
                raise
            return False
        return True

    def _open(self) -> int:
        # Opened at the first lock, not in the constructor: the folder of the database may not exist yet.
        if self._descriptor is None:
            with self._guard:
                # Checked again: a second descriptor would drop our locks as soon as it is closed. O_CLOEXEC
                # keeps it from the programs that a user starts.
                if self._descriptor is None:
                    self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def is_deleted(self) -> bool:
        """Return whether the path no longer leads to this file: other processes would lock another one."""
        if self._descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return True

    def _timeout_error(self, timeout: float) -> StoreUnavailable:
        return StoreUnavailable(
            f"another process held the lock {str(self.path)!r} for more than {timeout:g} s",
            remedy="End or resume that process, or wait, and run again.",
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LockFile.forget)
