"""The file ``<db>.lock``: the locks between the processes that use a database, and its high-water mark.

Two properties of the locks (``locks.py``) shape everything below:

- A process does not conflict with itself. Locking a byte that the process has locked already succeeds, and
  may turn an exclusive lock into a shared one. So the threads of a process exclude each other by another
  lock, and the bytes that the process holds are noted in ``claimed``.
- Outside Linux, closing *any* descriptor of a file drops *all* locks that the process has on that file, those
  taken through other descriptors included. So a process must have one descriptor per lock file, and close it
  last.

Byte 0 is the mutex around write transactions. Byte N is held for as long as session N lives. The contents of
the file are the high-water mark (``mark.py``).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Self

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.errors import DurableNotice, StoreUnavailable
from durable_nb.stores.host import lock_holder
from durable_nb.stores.sqlite.locks import ByteLocks, fcntl

__all__ = ["LockFile"]

_MARK_LENGTH: Final = 256
"""Bytes read of the high-water mark: more than it has."""


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
        self._file: ByteLocks | None = None
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
            if self._file is not None:
                self._file.close()
                self._file = None

    def try_lock(self, byte: int) -> bool:
        """Lock a byte against other processes, without waiting.

        Args:
            byte: The offset of the byte.

        Returns:
            False if another process holds it; True also if this process held it already.

        Raises:
            OSError: The file cannot be created or locked.
        """
        return self._open().try_lock(byte)

    def unlock(self, byte: int) -> None:
        """Unlock a byte.

        Args:
            byte: The offset of the byte.
        """
        self._open().unlock(byte)

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
        # and the unlock after it would then give it up. Session bytes are claimed before their rows are
        # committed, so that no thread asks for a byte while another one is claiming it.
        return byte in self.claimed or self._open().is_locked(byte)

    @contextlib.contextmanager
    def mutex(self, timeout: float) -> Iterator[Self]:
        """Hold byte 0 inside a ``with`` block, against other processes and other threads of this one.

        Args:
            timeout: Seconds to wait for it at most.

        Raises:
            StoreUnavailable: Another process or thread held it all that time.
            OSError: The file cannot be created or locked.
        """
        self.acquire_mutex(timeout)
        try:
            yield self
        finally:
            self.release_mutex()

    def acquire_mutex(self, timeout: float) -> None:
        """Lock byte 0, against other processes and other threads of this one; see ``mutex``."""
        # The thread lock comes first: two threads of a process would both get the byte.
        if not self._mutex.acquire(timeout=timeout):
            raise self._timeout_error(timeout)
        try:
            if not self.try_lock(0):
                self._wait_for_mutex(timeout)
        except BaseException:
            self._mutex.release()
            raise

    def release_mutex(self) -> None:
        """Unlock byte 0."""
        # The byte goes first, in reverse order of acquisition. With the thread lock released first, the next
        # thread could "lock" the byte that we still hold, and we would unlock it for both.
        try:
            self.unlock(0)
        finally:
            self._mutex.release()

    def _wait_for_mutex(self, timeout: float) -> None:
        # Poll: a blocking lock call has no time limit, and only a signal could interrupt it.
        deadline, notice = time.monotonic() + timeout, time.monotonic() + settings.LOCK_NOTICE
        while not self.try_lock(0):
            now = time.monotonic()
            if now >= deadline:
                raise self._timeout_error(timeout)
            if now >= notice:
                notice = deadline
                message = f"{self._holder()} holds the lock {str(self.path)!r}: waiting up to {timeout:g} s"
                warnings.warn(message, DurableNotice, stacklevel=2)
            time.sleep(settings.LOCK_POLL)

    @classmethod
    def forget(cls) -> None:
        """Forget all objects in a forked child, which inherits none of its parent's locks."""
        # ``ByteLocks`` has closed their files. The guard is a new one, since another thread of the parent may
        # have held the old one at the moment of the fork; that thread does not exist in the child, and would
        # never release it.
        cls._objects = {}
        cls._guard = threading.Lock()

    def read_mark(self) -> bytes:
        """Return the contents of the file, the high-water mark; empty if there is no file yet."""
        if self._file is None and not self.path.exists():
            return b""
        try:
            return os.pread(self._descriptor, _MARK_LENGTH, 0)
        except OSError:
            return b""  # SQLite says better what is not permitted

    def write_mark(self, mark: bytes) -> None:
        """Write the high-water mark, without a sync of its own: a commit has been synced before."""
        os.pwrite(self._descriptor, mark, 0)

    def reopen(self) -> None:
        """Open the file again after it was deleted or replaced, and lock the claimed bytes in the new one.

        Raises:
            StoreUnavailable: Another process has locked one of them meanwhile.
            OSError: The file cannot be created or locked.
        """
        with self._guard:
            new = ByteLocks(self.path, create=True)
            if not all(new.try_lock(byte) for byte in self.claimed):
                new.close()
                raise StoreUnavailable(
                    f"{str(self.path)!r} was deleted or replaced, and another process uses the new one",
                    remedy="End the other processes that use the database, and run again.",
                )
            old, self._file = self._file, new
            self._objects[self.path] = self
        if old is not None:
            old.close()

    def is_deleted(self) -> bool:
        """Return whether the path no longer leads to this file: other processes would lock another one."""
        if self._file is None or self._file.descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file.descriptor), self.path.lstat())
        except FileNotFoundError:
            return True

    @property
    def _descriptor(self) -> int:
        descriptor = self._open().descriptor
        assert descriptor is not None
        return descriptor

    def _open(self) -> ByteLocks:
        # Opened at the first lock, not in the constructor: the folder of the database may not exist yet.
        if self._file is None:
            with self._guard:
                # Checked again: outside Linux a second descriptor drops our locks as soon as it is closed.
                if self._file is None:
                    self._file = ByteLocks(self.path, create=True)
        return self._file

    def _timeout_error(self, timeout: float) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._holder()} held the lock {str(self.path)!r} for more than {timeout:g} s",
            remedy="End or resume that process, or wait, and run again.",
        )

    def _holder(self) -> str:
        return lock_holder(self.path, 0) or "another process"


in_forked_child(LockFile.forget)
