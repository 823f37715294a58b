"""Blobs elsewhere: in whatever fsspec reaches, such as S3, for runs that several machines share."""

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
"""What names where blobs are kept: a folder, a URL, or an object of one's own."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE)


def blobs_at(place: BlobPlace) -> Blobs:
    """The blobs of a place. A folder, a ``file://`` one too, has our own writer, which is atomic.

    Args:
        place: A folder, a URL such as ``s3://bucket/path``, or an object that keeps blobs.

    Raises:
        InvalidOption: fsspec is not installed, or knows no such URL.

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
    """Blobs in a folder of any file system of fsspec's; verified when they are read.

    Args:
        url: The folder. Its options, such as a key, come from the environment or fsspec's configuration.

    Raises:
        InvalidOption: fsspec is not installed, or knows no such URL.

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
                f"blobs={url!r} cannot be used ({error})",
                remedy="pip install 'durable_nb[blobs]', and what fsspec names for it, such as s3fs.",
            ) from error
        self._url = url

    def put(self, data: BlobData) -> str:
        """Keep bytes for good; gives their digest. What is there already is not sent again."""
        whole = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        digest = hashlib.sha256(whole).hexdigest()
        name = self._name(digest)
        try:
            if not (self._is_there(name) and self._files.size(name) == len(whole)):
                self._write(name, whole)
        except Exception as error:  # each file system has exceptions of its own
            raise self._unavailable("written", error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes under a digest, compared with it.

        Raises:
            StepNotRestored: They are missing or damaged. What is damaged is kept as ``<digest>.damaged``, so
                that running the step again writes it anew.
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
            raise _not_restored(digest, f"damaged in {self._url!r}: it is not what was written")
        return data

    def exists(self, digest: str) -> bool:
        """Whether there are bytes under a digest; they are not looked at."""
        name = self._name(digest)
        try:
            return self._is_there(name)
        except Exception as error:
            raise self._unavailable("looked for", error) from error

    def view(self, digest: str, size: int, stamp: str) -> memoryview:  # noqa: ARG002 - they are read anyway
        """The bytes of a digest as memory of the caller's own, which may be written to."""
        return memoryview(bytearray(self.get(digest)))

    def stamp(self, digest: str) -> str:  # noqa: ARG002 - each reading is compared with the digest
        """What never changes: bytes that were damaged do not go unnoticed."""
        return "remote"

    def _is_there(self, name: str) -> bool:
        self._files.invalidate_cache()  # another machine may have deleted it
        return bool(self._files.exists(name))

    def _write(self, name: str, whole: bytes) -> None:
        try:
            self._files.pipe_file(name, whole)
        except FileNotFoundError:  # where folders are real; making one in a bucket may not be permitted
            self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(name, whole)

    def _name(self, digest: str) -> str:
        if not DIGEST.fullmatch(digest):
            raise _not_restored(digest, "not to be found: that is no SHA-256")
        return f"{self._folder}/{digest[:2]}/{digest}"

    def _unavailable(self, verb: str, error: Any) -> StoreUnavailable:
        said = " ".join(str(error).split()) or type(error).__name__
        return StoreUnavailable(
            f"a large value could not be {verb} in {self._url!r} ({said})",
            remedy="Check that it can be reached, and your permissions there, then run it again.",
        )


def _not_restored(digest: str, how: str) -> StepNotRestored:
    return StepNotRestored(
        f"the large value {digest!r} is {how}",
        remedy=("Put it back from a copy, or run the step again: ", ResetStep()),
    )
