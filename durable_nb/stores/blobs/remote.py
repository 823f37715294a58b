"""Blobs in a file system of fsspec, such as S3, for runs that several machines share."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any, TypeAlias

from durable_nb.errors import InvalidOption, ResetStep, StepNotRestored, StoreUnavailable
from durable_nb.stores.blobs.folder import DIGEST, BlobData, BlobFolder, Blobs

__all__ = ["BlobPlace", "RemoteBlobs", "blobs_at"]

BlobPlace: TypeAlias = Blobs | str | Path
"""The type of ``blobs`` arguments: a folder, a URL, or an object of the user."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE)


def blobs_at(place: BlobPlace) -> Blobs:
    """Return the blobs of a place. Folders, also as ``file://`` URLs, are written atomically.

    Args:
        place: A folder, a URL such as ``s3://bucket/path``, or an object that implements ``Blobs``.

    Raises:
        InvalidOption: fsspec is not installed, or does not support the URL.

    Example:
        >>> blobs_at("/mnt/shared/blobs")
        <durable_nb.stores.blobs.folder.BlobFolder object at …>
    """
    if not isinstance(place, str | Path):
        return place
    url = _URL.fullmatch(str(place))
    if url is None:
        return BlobFolder(Path(place).expanduser().resolve())
    if url["scheme"].lower() == "file":
        return BlobFolder(Path(url["rest"]))
    return RemoteBlobs(str(place))


class RemoteBlobs:
    """Blobs in a folder of a file system of fsspec; verified when they are read.

    Args:
        url: The folder. Options such as a key come from the environment or from fsspec's configuration.

    Raises:
        InvalidOption: fsspec is not installed, or does not support the URL.

    Example:
        >>> blobs = RemoteBlobs("memory://durable")
        >>> blobs.get(blobs.put(b"large"))
        b'large'
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, self._folder = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidOption(
                f"cannot use blobs={url!r} ({error})",
                remedy="pip install 'durable_nb[blobs]', and the package for this URL, such as s3fs.",
            ) from error
        self._url = url

    def put(self, data: BlobData) -> str:
        """Write bytes, and return their digest. An existing blob is not sent again."""
        whole = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        digest = hashlib.sha256(whole).hexdigest()
        name = self._name(digest)
        try:
            if not (self._is_there(name) and self._files.size(name) == len(whole)):
                self._write(name, whole)
        except Exception as error:  # each file system raises exceptions of its own
            raise self._unavailable("written", error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest, verified.

        Raises:
            StepNotRestored: They are missing or damaged. A damaged file is renamed to ``<digest>.damaged``,
                so that running the step again writes a good one.
            StoreUnavailable: The place cannot be reached.
        """
        name = self._name(digest)
        try:
            data: bytes = self._files.cat_file(name)
        except FileNotFoundError:
            raise _not_restored(digest, f"missing in {self._url!r}") from None
        except Exception as error:
            raise self._unavailable("read", error) from error
        if hashlib.sha256(data).hexdigest() != digest:
            with contextlib.suppress(Exception):
                self._files.mv(name, f"{name}.damaged")
            raise _not_restored(digest, f"damaged in {self._url!r}: its contents have changed")
        return data

    def exists(self, digest: str) -> bool:
        """Return whether the file of a digest exists; its bytes are not read."""
        name = self._name(digest)
        try:
            return self._is_there(name)
        except Exception as error:
            raise self._unavailable("looked for", error) from error

    def view(self, digest: str, size: int, stamp: str) -> memoryview:  # noqa: ARG002 - they are read anyway
        """Return the bytes of a digest as writable memory of the caller."""
        return memoryview(bytearray(self.get(digest)))

    def stamp(self, digest: str) -> str:  # noqa: ARG002 - each read is verified
        """Return a constant: the bytes are compared with their digest at each read."""
        return "remote"

    def _is_there(self, name: str) -> bool:
        self._files.invalidate_cache()  # another machine may have deleted it
        return bool(self._files.exists(name))

    def _write(self, name: str, whole: bytes) -> None:
        try:
            self._files.pipe_file(name, whole)
        except (
            FileNotFoundError
        ):  # a file system with real folders; creating one in a bucket may be forbidden
            self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(name, whole)

    def _name(self, digest: str) -> str:
        if not DIGEST.fullmatch(digest):
            raise _not_restored(digest, "invalid: its name is no SHA-256")
        return f"{self._folder}/{digest[:2]}/{digest}"

    def _unavailable(self, verb: str, error: Any) -> StoreUnavailable:
        detail = " ".join(str(error).split()) or type(error).__name__
        return StoreUnavailable(
            f"a large value could not be {verb} in {self._url!r} ({detail})",
            remedy="Check the connection and your permissions there, and run again.",
        )


def _not_restored(digest: str, how: str) -> StepNotRestored:
    return StepNotRestored(
        f"the large value {digest!r} is {how}",
        remedy=("Restore it from a backup, or run the step again: ", ResetStep()),
    )
