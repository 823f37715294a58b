"""Payloads too large for a row: files named by the digest of their bytes, and a protocol for other places."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, Protocol, TypeAlias
from weakref import WeakValueDictionary

import xxhash

from durable_nb import settings
from durable_nb.errors import ResetStep, StepNotRestored, StepNotSaved, StoreUnavailable
from durable_nb.stores.blobs import disk

__all__ = ["DIGEST", "BlobData", "BlobFolder", "Blobs", "MemoryBlobs"]

_QuickHash: TypeAlias = tuple[bytes, int]
"""A hash of bytes that is faster than their digest, and their number."""

BlobData: TypeAlias = bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview]
"""Bytes in one buffer, or in several that are joined without a copy in memory."""

_WRITING: Final = ".writing-"
"""The prefix of incomplete files; the writer of each holds a lock on it."""

DIGEST: Final = re.compile("[0-9a-f]{64}")
"""The only valid names of blobs, so that no name in a database leads to another file."""


class Blobs(Protocol):
    """Keeps bytes under their SHA-256. Safe to call from several threads at the same time."""

    def put(self, data: BlobData) -> str:
        """Write bytes durably, and return their digest, 64 hexadecimal digits."""

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest, verified; ``StepNotRestored`` if they are missing or damaged."""

    def exists(self, digest: str) -> bool:
        """Return whether a blob of this digest exists."""

    def view(self, digest: str, size: int, stamp: str) -> memoryview:
        """Return the bytes of a digest as writable memory of the caller, mapped if possible.

        Args:
            digest: The digest that ``put`` returned.
            size: The number of bytes.
            stamp: The stamp that ``stamp`` returned after ``put``.

        Raises:
            StepNotRestored: The bytes are missing or damaged.
        """

    def stamp(self, digest: str) -> str:
        """Return a text that identifies the state of the blob after ``put``; never empty."""


class BlobFolder:
    """Blobs as files ``ab/<digest>`` of a folder, by default ``<db>.blobs`` beside the database.

    Args:
        folder: The folder; it is created with mode 0700 when the first blob is written.

    Example:
        >>> blobs = BlobFolder(Path("durable.db.blobs"))
        >>> blobs.get(blobs.put(b"large"))
        b'large'
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[_QuickHash, str] = {}  # of blobs that this process has written
        self._locks = WeakValueDictionary[_QuickHash, Lock]()  # equal columns are written at the same time
        self._verified: dict[str, str] = {}  # stamps of files that this process wrote or compared

    def put(self, data: BlobData) -> str:
        """Write bytes, and return their digest once they are on disk. An existing blob is not written again.

        Args:
            data: The bytes, or several buffers to be joined.

        Raises:
            StoreUnavailable: The folder cannot be written, or the disk is full.
            StepNotSaved: Another thread changed the bytes meanwhile.
        """
        with self._translated("written"):
            if not isinstance(data, bytes | bytearray | memoryview):
                return self._write(data)
            quick_hash = _quick_hash(data)
            with self._locks.setdefault(quick_hash, Lock()):
                digest = self._digests.get(quick_hash)
                if digest is None or not self._keep_present(digest, quick_hash[1]):
                    digest = self._write((data,))
                    self._check_unchanged(data, quick_hash, digest)
                    self._digests[quick_hash] = digest
                return digest

    def get(self, digest: str, *, set_aside: bool = True) -> bytes:
        """Return the bytes of a digest, verified.

        Args:
            digest: The digest that ``put`` returned.
            set_aside: Whether a damaged file is renamed to ``<digest>.damaged``, so that running the step
                again writes a good one.

        Raises:
            StepNotRestored: They are missing, damaged, or more than fit into memory.
            StoreUnavailable: The file cannot be read.
        """
        path = self.path(digest)
        with self._opened(path) as file:
            try:
                data = file.read()
            except MemoryError:
                raise _not_restored(digest, f"too large for memory: {_size_of(file):,} bytes") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._damaged(path, set_aside=set_aside)
        return data

    def verify(self, digest: str) -> None:
        """Compare the bytes of a digest with it; change nothing.

        Args:
            digest: The digest that ``put`` returned.

        Raises:
            StepNotRestored: They are missing or damaged.
            StoreUnavailable: The file cannot be read.
        """
        path = self.path(digest)
        with self._opened(path) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise self._damaged(path, set_aside=False)

    def view(self, digest: str, size: int, stamp: str) -> memoryview:
        """Map the bytes of a digest as private memory: pages are read on access, writing changes no file.

        Comparing a large file with its digest at each restart would cost as much as mapping saves. So it is
        compared, once per process, only if its inode or its times of change differ from those recorded when
        this library wrote or compared it. The kernel sets the time of change, and no program can forge it: a
        file that was modified, replaced, copied or restored from a backup is compared. A disk that returns
        other bytes than were written goes unnoticed. Only buffers are mapped; streams that could run code are
        read by ``get``, which compares them each time.

        Args:
            digest: The digest that ``put`` returned.
            size: The number of bytes; a file that is shorter than its mapping would kill the process.
            stamp: The stamp that ``stamp`` returned after ``put``.

        Raises:
            StepNotRestored: They are missing or damaged.
            StoreUnavailable: The file cannot be read.
        """
        path = self.path(digest)
        with self._opened(path) as file:
            status = os.fstat(file.fileno())
            found = disk.stamp_of(status)
            if status.st_size != size:
                raise self._damaged(path)
            changed = found not in (stamp, self._verified.get(digest))
            if changed and hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise self._damaged(path)
            self._verified[digest] = found
            if not size:  # an empty file cannot be mapped
                return memoryview(bytearray())
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def stamp(self, digest: str) -> str:
        """Return the inode and times of change of a file that this process wrote or compared."""
        return self._verified[digest]

    def sweep(self) -> None:
        """Delete incomplete files whose writers were killed."""
        with contextlib.suppress(
            OSError
        ):  # the folder does not exist yet, or another process deleted the file
            for path in self.folder.glob(f"{_WRITING}*"):
                if _is_abandoned(path):
                    path.unlink(missing_ok=True)

    def exists(self, digest: str) -> bool:
        """Return whether the file of a digest exists; its bytes are not read."""
        return self.path(digest).is_file()

    def path(self, digest: str) -> Path:
        """Return the path of a digest, whether the file exists or not.

        Args:
            digest: The digest that ``put`` returned.

        Raises:
            StepNotRestored: It is not a digest, and might name a file outside the folder.
        """
        if not DIGEST.fullmatch(digest):
            raise _not_restored(digest, "invalid: its name is no SHA-256")
        return self.folder / digest[:2] / digest

    def _write(self, parts: Iterable[bytes | bytearray | memoryview]) -> str:
        disk.make_folder(self.folder)
        descriptor, name = tempfile.mkstemp(prefix=_WRITING, dir=self.folder)  # created with mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                disk.lock(descriptor)
                digest, size = disk.write_hashed(parts, file)
                if not self._keep_present(digest, size):
                    self._name(file, temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def _name(self, file: BinaryIO, temporary: Path, digest: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        path = self.path(digest)
        disk.make_folder(path.parent)
        temporary.replace(path)
        disk.sync_folder(path.parent)
        self._verified[digest] = disk.stamp_of(path.stat())

    def _keep_present(self, digest: str, size: int) -> bool:
        path = self.path(digest)
        try:
            status = path.stat()
            if status.st_size != size:
                return False
            if self._verified.get(digest) != disk.stamp_of(status):
                self.view(digest, size, "")
        except (FileNotFoundError, StepNotRestored):
            return False
        disk.sync_folder(path.parent)  # its writer may have been killed before this
        return True

    def _check_unchanged(
        self, data: bytes | bytearray | memoryview, quick_hash: _QuickHash, digest: str
    ) -> None:
        # One thread hashed the memory while another wrote it. If the user's code changed it meanwhile, digest
        # and file may differ, and the stamp must not vouch for the file.
        if not isinstance(data, bytes) and _quick_hash(data) != quick_hash:
            self._verified.pop(digest, None)
            raise StepNotSaved(
                f"a large value of {quick_hash[1]:,} bytes was changed by another thread while it was saved",
                remedy="Do not change the value in another thread before its step has ended, and run again.",
            )

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[BufferedReader]:
        """Open a blob for reading; raise ``StepNotRestored`` if it is missing, or no regular file."""
        with self._translated("read"):
            try:
                file = disk.open_regular(path)
            except FileNotFoundError:
                raise _not_restored(path.name, f"missing: there is no file {str(path)!r}") from None
            if file is None:
                raise _not_restored(path.name, f"damaged: {str(path)!r} is no regular file")
            with file:
                yield file

    def _damaged(self, path: Path, *, set_aside: bool = True) -> StepNotRestored:
        with contextlib.suppress(OSError):
            if set_aside:
                path.replace(f"{path}.damaged")
        return _not_restored(path.name, f"damaged: the contents of {str(path)!r} have changed")

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"a large value could not be {verb} in {str(self.folder)!r} ({error.strerror})",
                remedy="Check the permissions and the free space of that folder, and run again.",
            ) from error


class MemoryBlobs:
    """Blobs in the memory of this process.

    Example:
        >>> blobs = MemoryBlobs()
        >>> blobs.get(blobs.put(b"large"))
        b'large'
    """

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, data: BlobData) -> str:
        """Keep a copy of the bytes, and return their digest."""
        copy = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        digest = hashlib.sha256(copy).hexdigest()
        self._blobs.setdefault(digest, copy)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest; raise ``StepNotRestored`` if there are none."""
        try:
            return self._blobs[digest]
        except KeyError:
            raise _not_restored(digest, "missing: this process has not written it") from None

    def exists(self, digest: str) -> bool:
        """Return whether a blob of this digest exists."""
        return digest in self._blobs

    def view(self, digest: str, size: int, stamp: str) -> memoryview:  # noqa: ARG002 - nothing can change them
        """Return a copy of the bytes of a digest."""
        return memoryview(bytearray(self.get(digest)))

    def stamp(self, digest: str) -> str:  # noqa: ARG002 - all have the same one
        """Return a constant: blobs in memory do not change."""
        return "memory"


def _quick_hash(data: bytes | bytearray | memoryview) -> _QuickHash:
    return xxhash.xxh3_128_digest(data), memoryview(data).nbytes


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _is_abandoned(path: Path) -> bool:
    file = disk.open_regular(path)
    if file is None:
        return False
    with file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        return age > settings.ABANDONED or (age > settings.NEWBORN and disk.lock(file.fileno()))


def _not_restored(digest: str, how: str) -> StepNotRestored:
    return StepNotRestored(
        f"the large value {digest!r} is {how}",
        remedy=("Restore the file from a backup, or run the step again: ", ResetStep()),
    )
