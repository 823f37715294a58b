"""Writing files durably: hash while writing, lock, and sync a file together with its folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment, unused-ignore]

__all__ = ["lock", "make_folder", "open_regular", "stamp_of", "sync_folder", "write_hashed"]

T = TypeVar("T")

_HASH_IN_THREAD: Final = 1024 * 1024
"""Bytes above which a second thread hashes while the first one writes: below, the hop costs as much."""


def write_hashed(parts: Iterable[bytes | bytearray | memoryview], file: BinaryIO) -> tuple[str, int]:
    """Write buffers to a file, and return the SHA-256 of all of them and their size in bytes."""
    views = [memoryview(part).cast("B") for part in parts]
    size = sum(map(len, views))
    with ThreadPoolExecutor(1) as hasher:
        digest = _submitted(hasher, lambda: _digest(views)) if size > _HASH_IN_THREAD else None
        file.writelines(views)
    return digest.result() if digest else _digest(views), size


def _submitted(executor: Executor, work: Callable[[], T]) -> Future[T] | None:
    with contextlib.suppress(RuntimeError):  # the interpreter is shutting down, and starts no thread
        return executor.submit(work)
    return None


def _digest(views: Iterable[memoryview]) -> str:
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    return digest.hexdigest()


def stamp_of(status: os.stat_result) -> str:
    """Return a stamp of a file: its inode and its times of change."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def lock(descriptor: int) -> bool:
    """Lock a file until it is closed; return False if it is locked elsewhere, or cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def open_regular(path: Path) -> BufferedReader | None:
    """Open a file for reading, without waiting; return None if it is not a regular file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def make_folder(folder: Path) -> None:
    """Create a folder with mode 0700, if it does not exist."""
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk."""
    if os.name == "nt":  # Windows cannot open a folder, and does not need this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
