"""Payloads too large for a row: files named by what is in them, and a protocol for other places."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from durable_nb import settings
from durable_nb.errors import StepNotRestored, StoreUnavailable
from durable_nb.records import Payload

__all__ = ["BlobData", "BlobFolder", "Blobs", "MemoryBlobs", "fetch", "spill"]

BlobData: TypeAlias = bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview]
"""Bytes in one piece, or in several that are joined without a copy in memory."""

_DIGEST = re.compile("[0-9a-f]{64}")


class Blobs(Protocol):
    """Keeps bytes under the SHA-256 of themselves. Threads may call it at the same time."""

    def put(self, data: BlobData) -> str:
        """Keep bytes for good; gives their digest, 64 hexadecimal digits."""

    def get(self, digest: str) -> bytes:
        """The bytes of a digest, compared with it; ``StepNotRestored`` where they are missing or damaged."""

    def exists(self, digest: str) -> bool:
        """Whether there are bytes under a digest."""

    def path(self, digest: str) -> Path | None:
        """The local file that holds them, to map it into memory; None where there is none."""


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

    def put(self, data: BlobData) -> str:
        """Keep bytes for good: once it returns, they are on disk under their digest.

        Args:
            data: The bytes, or several buffers to be joined. What is there already is not written again.

        Raises:
            StoreUnavailable: The folder cannot be written, or the disk is full.
        """
        with self._translated("written"):
            if isinstance(data, bytes | bytearray | memoryview):
                digest, size = hashlib.sha256(data).hexdigest(), memoryview(data).nbytes
                if self._keep_present(digest, size):
                    return digest
                data = (data,)
            return self._write(data)

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
            with contextlib.suppress(OSError):
                path.replace(f"{path}.damaged")
            raise _not_restored(digest, f"damaged: {str(path)!r} is not what was written")
        return data

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
        if not _DIGEST.fullmatch(digest):
            raise _not_restored(digest, "not to be found: that is no SHA-256")
        return self.folder / digest[:2] / digest

    def _write(self, parts: Iterable[bytes | bytearray | memoryview]) -> str:
        _make_folder(self.folder)
        descriptor, name = tempfile.mkstemp(prefix=".writing-", dir=self.folder)  # created with mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest, size = _copy(parts, file)
                if not self._keep_present(digest, size):
                    self._name(file, temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def _name(self, file: BinaryIO, temporary: Path, digest: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        path = self.path(digest)
        _make_folder(path.parent)
        temporary.replace(path)
        _sync_folder(path.parent)

    def _keep_present(self, digest: str, size: int) -> bool:
        path = self.path(digest)
        try:
            present = path.stat().st_size == size
        except FileNotFoundError:
            return False
        if present:
            _sync_folder(path.parent)  # whoever wrote it may not have come that far
        return present

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

    def path(self, digest: str) -> None:
        """None: no file holds them."""


async def spill(blobs: Blobs | None, payload: Payload) -> Payload:
    """A payload as a row can hold it: bytes above the threshold are put into a blob first."""
    if blobs is None or len(payload.data) <= settings.BLOB_THRESHOLD:
        return payload
    digest = await asyncio.to_thread(blobs.put, payload.data)
    return replace(payload, data=b"", blob=digest)


async def fetch(blobs: Blobs | None, payload: Payload) -> Payload:
    """A payload with its bytes, read from the blob if they are in one."""
    if blobs is None or payload.blob is None:
        return payload
    data = await asyncio.to_thread(blobs.get, payload.blob)
    return replace(payload, data=data, blob=None)


def _copy(parts: Iterable[bytes | bytearray | memoryview], file: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += file.write(part)
    return digest.hexdigest(), size


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_restored(digest: str, how: str) -> StepNotRestored:
    return StepNotRestored(
        f"the large value {digest!r} is {how}",
        remedy="Put the file back from a copy, or reset the step (%durable_reset STEP) to compute it again.",
    )
