"""Bytes on their way to disk: hashed beside, locked, synced with the folder that names them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment, unused-ignore]

__all__ = ["copied", "lock", "make_folder", "stamp_of", "sync_folder"]

T = TypeVar("T")

_WORTH_A_THREAD: Final = 1024 * 1024
"""Bytes from which a second thread hashes while the first writes: below that, the hop costs as much."""


def copied(parts: Iterable[bytes | bytearray | memoryview], file: BinaryIO) -> tuple[str, int]:
    """Write buffers to a file; gives the SHA-256 of all of them and how many bytes they are."""
    views = [memoryview(part).cast("B") for part in parts]
    size = sum(map(len, views))
    with ThreadPoolExecutor(1) as beside:
        digest = _begun(beside, lambda: _digest(views)) if size > _WORTH_A_THREAD else None
        file.writelines(views)
    return digest.result() if digest else _digest(views), size


def _begun(beside: Executor, work: Callable[[], T]) -> Future[T] | None:
    with contextlib.suppress(RuntimeError):  # Python is on its way out and starts no thread
        return beside.submit(work)
    return None


def _digest(views: Iterable[memoryview]) -> str:
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    return digest.hexdigest()


def stamp_of(status: os.stat_result) -> str:
    """How a file looks from outside: its inode and its times of change."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def lock(descriptor: int) -> bool:
    """Lock a file as long as it is open here; False if another process has it locked, or nobody can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def make_folder(folder: Path) -> None:
    """Make a folder with mode 0700, if it is not there."""
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    if os.name == "nt":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
