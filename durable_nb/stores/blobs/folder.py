"""Payloads too large for a row: files named by what is in them, and a protocol for other places."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, Protocol, TypeAlias
from weakref import WeakValueDictionary

import xxhash

from durable_nb import settings
from durable_nb.errors import ResetStep, StepNotRestored, StepNotSaved, StoreUnavailable
from durable_nb.stores.blobs import disk

__all__ = ["DIGEST", "BlobData", "BlobFolder", "Blobs", "MemoryBlobs"]

_Mark: TypeAlias = tuple[bytes, int]
"""A faster hash of bytes than their digest, and how many there are."""

BlobData: TypeAlias = bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview]
"""Bytes in one piece, or in several that are joined without a copy in memory."""

_WRITING: Final = ".writing-"
"""What the name of a file begins with that is not whole yet; its writer holds a lock on it."""

DIGEST: Final = re.compile("[0-9a-f]{64}")
"""What names a blob, and nothing else: no path of somebody's that leads elsewhere."""


class Blobs(Protocol):
    """Keeps bytes under the SHA-256 of themselves. Threads may call it at the same time."""

    def put(self, data: BlobData) -> str:
        """Keep bytes for good; gives their digest, 64 hexadecimal digits."""

    def get(self, digest: str) -> bytes:
        """The bytes of a digest, compared with it; ``StepNotRestored`` where they are missing or damaged."""

    def exists(self, digest: str) -> bool:
        """Whether there are bytes under a digest."""

    def view(self, digest: str, size: int, stamp: str) -> memoryview:
        """The bytes of a digest as memory of the caller's own, which may be written to; best mapped.

        ``StepNotRestored`` where they are missing or damaged. ``stamp`` is what ``stamp`` gave once.
        """

    def stamp(self, digest: str) -> str:
        """How what holds the bytes looks now that ``put`` has given their digest; never empty."""


class BlobFolder:
    """Blobs as files ``ab/<digest>`` of a folder, by default ``<db>.blobs`` beside the database.

    Args:
        folder: The folder; created with mode 0700 when the first blob is put.

    Example:
        >>> blobs = BlobFolder(Path("durable.db.blobs"))
        >>> blobs.get(blobs.put(b"large"))
        b'large'
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[_Mark, str] = {}  # digests by the faster hash of what was put
        self._turns = WeakValueDictionary[_Mark, Lock]()  # equal columns come at the same time
        self._vouched: dict[str, str] = {}  # stamps of files whose bytes this process wrote or compared

    def put(self, data: BlobData) -> str:
        """Keep bytes for good: once it returns, they are on disk under their digest.

        Args:
            data: The bytes, or several buffers to be joined. What is there already is not written again.

        Raises:
            StoreUnavailable: The folder cannot be written, or the disk is full.
            StepNotSaved: Somebody changed the bytes meanwhile.
        """
        with self._translated("written"):
            if not isinstance(data, bytes | bytearray | memoryview):
                return self._write(data)
            mark = _mark(data)
            with self._turn(mark):
                known = self._known.get(mark)
                if known is None or not self._keep_present(known, mark[1]):
                    known = self._write((data,))
                    self._check_unchanged(data, mark, known)
                    self._known[mark] = known
                return known

    def get(self, digest: str) -> bytes:
        """The bytes under a digest, compared with it.

        Args:
            digest: What ``put`` gave.

        Raises:
            StepNotRestored: They are missing or damaged. A damaged file is set aside as ``<digest>.damaged``,
                so that running the step again writes a good one.
            StoreUnavailable: The file cannot be read.
        """
        path = self.path(digest)
        with self._translated("read"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise _not_restored(digest, f"missing: there is no file {str(path)!r}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._damaged(path)
        return data

    def view(self, digest: str, size: int, stamp: str) -> memoryview:
        """The bytes under a digest, mapped: nothing is read before it is touched, writing changes no file.

        Reading all of a large file at each restart to compare it with its digest would cost what mapping
        saves. So it is compared unless its inode and its times of change are those noted when this library
        wrote or compared it, and then once a process. The kernel sets the time of change and no program can
        forge it: a file that was written into, replaced, copied or brought back from a backup is compared.
        What goes unseen is a disk that gives other bytes than were written. Only buffers are mapped; streams
        that could run code are read through ``get``, and compared each time.

        Args:
            digest: What ``put`` gave.
            size: How many bytes there were; a shorter file, once mapped, would kill the process.
            stamp: What ``stamp`` gave then.

        Raises:
            StepNotRestored: They are missing or damaged.
            StoreUnavailable: The file cannot be read.
        """
        path = self.path(digest)
        with self._translated("read"):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise _not_restored(digest, f"missing: there is no file {str(path)!r}") from None
            with file:
                status = os.fstat(file.fileno())
                found = disk.stamp_of(status)
                if status.st_size != size:
                    raise self._damaged(path)
                unknown = found not in (stamp, self._vouched.get(digest))
                if unknown and hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise self._damaged(path)
                self._vouched[digest] = found
                if not size:  # nothing can be mapped of it
                    return memoryview(bytearray())
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def stamp(self, digest: str) -> str:
        """The file's inode and times of change, now that its bytes are known to be right."""
        return self._vouched[digest]

    def sweep(self) -> None:
        """Delete what writers that were killed have left half-written. Others are left alone."""
        with contextlib.suppress(OSError):  # no folder yet, or somebody else was faster
            for path in self.folder.glob(f"{_WRITING}*"):
                if _is_abandoned(path):
                    path.unlink(missing_ok=True)

    def exists(self, digest: str) -> bool:
        """Whether there is a file under a digest; its bytes are not looked at."""
        return self.path(digest).is_file()

    def path(self, digest: str) -> Path:
        """The file of a digest, whether it is there or not.

        Args:
            digest: What ``put`` gave.

        Raises:
            StepNotRestored: It is no digest, and would name a file outside the folder.
        """
        if not DIGEST.fullmatch(digest):
            raise _not_restored(digest, "not to be found: that is no SHA-256")
        return self.folder / digest[:2] / digest

    def _turn(self, mark: _Mark) -> Lock:
        return self._turns.setdefault(mark, Lock())

    def _write(self, parts: Iterable[bytes | bytearray | memoryview]) -> str:
        disk.make_folder(self.folder)
        descriptor, name = tempfile.mkstemp(prefix=_WRITING, dir=self.folder)  # created with mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                disk.lock(descriptor)
                digest, size = disk.copied(parts, file)
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
        self._vouched[digest] = disk.stamp_of(path.stat())

    def _keep_present(self, digest: str, size: int) -> bool:
        path = self.path(digest)
        try:
            status = path.stat()
            if status.st_size != size:
                return False
            if self._vouched.get(digest) != disk.stamp_of(status):
                self.view(digest, size, "")
        except (FileNotFoundError, StepNotRestored):
            return False
        disk.sync_folder(path.parent)  # whoever wrote it may not have come that far
        return True

    def _check_unchanged(self, data: bytes | bytearray | memoryview, mark: _Mark, digest: str) -> None:
        # The digest and the file were made side by side, and another thread may own the memory: if what they
        # saw differs, nobody must take the file's stamp for its digest.
        if not isinstance(data, bytes) and _mark(data) != mark:
            self._vouched.pop(digest, None)
            raise StepNotSaved(
                f"{mark[1]:,} bytes of a large value were changed while they were saved",
                remedy="Have no thread change it before its step has ended, then run it again.",
            )

    def _damaged(self, path: Path) -> StepNotRestored:
        with contextlib.suppress(OSError):
            path.replace(f"{path}.damaged")
        return _not_restored(path.name, f"damaged: {str(path)!r} is not what was written")

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"a large value could not be {verb} in {str(self.folder)!r} ({error.strerror})",
                remedy="Check the permissions and the free space of that folder, then run it again.",
            ) from error


class MemoryBlobs:
    """Blobs of this process, gone when it ends.

    Example:
        >>> blobs = MemoryBlobs()
        >>> blobs.get(blobs.put(b"large"))
        b'large'
    """

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, data: BlobData) -> str:
        """Keep a copy of the bytes; gives their digest."""
        kept = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        digest = hashlib.sha256(kept).hexdigest()
        self._kept.setdefault(digest, kept)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes under a digest; ``StepNotRestored`` where there are none."""
        try:
            return self._kept[digest]
        except KeyError:
            raise _not_restored(digest, "missing: this process never kept it") from None

    def exists(self, digest: str) -> bool:
        """Whether there are bytes under a digest."""
        return digest in self._kept

    def view(self, digest: str, size: int, stamp: str) -> memoryview:  # noqa: ARG002 - nothing can change them
        """A copy of the bytes under a digest."""
        return memoryview(bytearray(self.get(digest)))

    def stamp(self, digest: str) -> str:  # noqa: ARG002 - they all look the same
        """What says that nothing can have changed them."""
        return "memory"


def _mark(data: bytes | bytearray | memoryview) -> _Mark:
    return xxhash.xxh3_128_digest(data), memoryview(data).nbytes


def _is_abandoned(path: Path) -> bool:
    with path.open("rb") as file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        return age > settings.ABANDONED or (age > settings.NEWBORN and disk.lock(file.fileno()))


def _not_restored(digest: str, how: str) -> StepNotRestored:
    return StepNotRestored(
        f"the large value {digest!r} is {how}",
        remedy=("Put the file back from a copy, or run the step again: ", ResetStep()),
    )
