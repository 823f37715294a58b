"""The file ``<db>.lock``: byte locks between processes that end with the process that holds them."""

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
    """One process's hold on a lock file. Take it with ``LockFile.shared``, never with the constructor.

    POSIX drops all locks of a process on a file as soon as it closes *any* descriptor of that file, so there
    is exactly one object, and one descriptor, per process and path, shared and counted.

    Args:
        path: The lock file; created with mode 0600 when it is first needed.

    Attributes:
        claimed: The bytes that this process has locked for good.

    Example:
        >>> lock = LockFile.shared(Path("durable.db.lock"))
        >>> with lock.mutex(timeout=60.0): ...
    """

    _known: ClassVar[dict[Path, LockFile]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._users = 0
        self._descriptor: int | None = None
        self._thread = threading.Lock()
        self.claimed: set[int] = set()

    @classmethod
    def shared(cls, path: Path) -> LockFile:
        """The process's one object for ``path``; to be given back with ``release``.

        Raises:
            StoreUnavailable: The platform has no locks that end with their process.
        """
        if fcntl is None:
            raise StoreUnavailable(
                f"this platform has no locks that tell whether the owner of a run in {path.stem!r} lives",
                remedy="Use WSL on Windows; to try things out, keep runs in memory: db=InMemoryStore().",
            )
        with cls._guard:
            lock = cls._known.get(path)
            if lock is None or lock.is_deleted():
                lock = cls._known[path] = cls(path)
            lock._users += 1
            return lock

    def release(self) -> None:
        """Give the object back; the last one closes the file and with it drops every lock."""
        with self._guard:
            self._users -= 1
            if self._users > 0:
                return
            if self._known.get(self.path) is self:
                del self._known[self.path]
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def take(self, byte: int) -> bool:
        """Lock one byte against other processes without waiting.

        Args:
            byte: Which; byte 0 is the mutex round write transactions.

        Returns:
            False if another process holds it.

        Raises:
            OSError: The file cannot be created or locked.
        """
        return self._try(fcntl.LOCK_EX, byte)

    def drop(self, byte: int) -> None:
        """Unlock one byte.

        Args:
            byte: Which.
        """
        fcntl.lockf(self._open(), fcntl.LOCK_UN, 1, byte)

    def claim(self, byte: int) -> bool:
        """Lock a byte that this process has not locked yet, to keep it.

        Args:
            byte: Which.

        Returns:
            False if this process or another one holds it.
        """
        if byte in self.claimed or not self.take(byte):
            return False
        self.claimed.add(byte)
        return True

    def unclaim(self, byte: int) -> None:
        """Give back what was claimed.

        Args:
            byte: Which.
        """
        self.claimed.discard(byte)
        self.drop(byte)

    def is_taken(self, byte: int) -> bool:
        """Whether a process that lives holds a byte: this one or another.

        Args:
            byte: Which.
        """
        if byte in self.claimed:
            return True
        # Shared, so that two who look at once do not take each other for the owner.
        if not self._try(fcntl.LOCK_SH, byte):
            return True
        self.drop(byte)
        return False

    @contextlib.contextmanager
    def mutex(self, timeout: float) -> Iterator[Self]:
        """Hold byte 0, against other processes and against other threads of this one.

        Args:
            timeout: Seconds to wait for it at most.

        Raises:
            StoreUnavailable: Another process held it all that time.
            OSError: The file cannot be created or locked.
        """
        deadline = time.monotonic() + timeout
        if not self._thread.acquire(timeout=timeout):
            raise self._late(timeout)
        try:
            while not self.take(0):
                if time.monotonic() >= deadline:
                    raise self._late(timeout)
                time.sleep(settings.LOCK_POLL)  # a blocking lockf could not be given a time limit
            try:
                yield self
            finally:
                self.drop(0)
        finally:
            self._thread.release()

    @classmethod
    def forget(cls) -> None:
        """In a forked child: the locks are the parent's, and so are the objects."""
        cls._known = {}
        cls._guard = threading.Lock()

    def _try(self, kind: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._open(), kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError) as error:
            if error.filename is not None:  # not the lock but the file itself was refused
                raise
            return False
        return True

    def _open(self) -> int:
        if self._descriptor is None:
            with self._guard:
                if self._descriptor is None:
                    self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def is_deleted(self) -> bool:
        """Whether the file is gone from its path: other processes would lock another one."""
        if self._descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return True

    def _late(self, timeout: float) -> StoreUnavailable:
        return StoreUnavailable(
            f"another process held the lock {str(self.path)!r} for more than {timeout:g} s",
            remedy="End or resume that process, or wait and run it again.",
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LockFile.forget)
