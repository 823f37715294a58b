"""Writing a payload to a store and reading it: large parts go to blobs; signatures are made and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from durable_nb import codec, settings
from durable_nb.codec import bundle, signing
from durable_nb.errors import DurableError, ResetStep, StepNotRestored
from durable_nb.records import Payload
from durable_nb.stores.blobs.folder import Blobs

__all__ = ["HasBlobs", "fetch", "is_at_hand", "keep", "moved", "preload"]


class HasBlobs(Protocol):
    """The part of a journal that is used here."""

    @property
    def location(self) -> str:
        """The place of the journal, for people."""

    @property
    def identity(self) -> str:
        """The id of the database, which signatures cover."""

    @property
    def blobs(self) -> Blobs | None:
        """The place of large payloads."""


def preload() -> None:
    """Load what saving a failure takes, in a process whose descriptors or memory may run out later."""
    codec.preload()
    signing.preload()


def is_at_hand(payload: Payload) -> bool:
    """Return whether a stored payload can be decoded as it is, without ``fetch``."""
    return payload.blob is None and payload.format not in codec.RUNS_CODE


async def keep(home: HasBlobs, payload: Payload, run_id: str, step: str) -> Payload:
    """Return a payload as a row can hold it; large parts are written to blobs first.

    Args:
        home: The journal it is written to.
        payload: The payload that the codec made.
        run_id: The run it belongs to.
        step: The step it is the result of; empty for the result of the run.
    """
    blobs = home.blobs
    pieces: list[bytes | memoryview] = [payload.data]
    if payload.format in codec.PARTED:
        parts = await _put_parts(blobs, payload.parts)
        pieces = bundle.pack(payload.data, parts)
    if blobs is not None and sum(map(_size, pieces)) > settings.BLOB_THRESHOLD:
        digest = await asyncio.to_thread(blobs.put, pieces[0] if len(pieces) == 1 else pieces)
        payload = payload._replace(data=b"", blob=digest, parts=())
    elif payload.format in codec.PARTED:
        payload = payload._replace(data=b"".join(pieces), parts=())
    return signing.signed(payload, run_id, step, database=home.identity)


async def fetch(home: HasBlobs, payload: Payload, run_id: str, step: str) -> Payload:
    """Return a stored payload as the codec takes it, with its bytes; a lost part is an error in ``parts``.

    Args:
        home: The journal it is read from.
        payload: The payload that ``keep`` returned.
        run_id: The run it belongs to.
        step: The step it is the result of; empty for the result of the run.

    Raises:
        UntrustedCheckpoint: It would run code when loaded, and has no trusted signature.
        StepNotRestored: Its blob is missing or damaged.
    """
    signing.check(payload, run_id, step, home.location, database=home.identity)
    blobs = home.blobs
    if blobs is not None and payload.blob is not None:
        data = await asyncio.to_thread(blobs.get, payload.blob)
        payload = payload._replace(data=data, blob=None)
    if payload.format not in codec.PARTED:
        return payload
    head, stored = bundle.unpack(payload.data)
    parts = await asyncio.to_thread(_read_parts, blobs, stored)
    return payload._replace(data=bytes(head), parts=parts)


def moved(home: HasBlobs, payload: Payload, old: tuple[str, str], new: tuple[str, str]) -> Payload:
    """Return a stored payload for a step that was renamed or forked: checked, and signed for the new step.

    Args:
        home: The journal it is kept in.
        payload: The payload that ``keep`` returned.
        old: The run and the step it was the result of.
        new: The run and the step it will be the result of.

    Raises:
        UntrustedCheckpoint: It would run code when loaded, and has no trusted signature.
    """
    signing.check(payload, *old, home.location, database=home.identity)
    return signing.signed(payload, *new, database=home.identity)


async def _put_parts(
    blobs: Blobs | None, parts: Sequence[bytes | memoryview | DurableError]
) -> list[bytes | memoryview | bundle.Reference]:
    """Write the large parts to blobs concurrently, so that the disk syncs them together."""
    whole: list[bytes | memoryview] = []
    for part in parts:
        if isinstance(part, DurableError):
            raise part
        whole.append(part)
    return [*whole] if blobs is None else await _put_large(blobs, whole)


async def _put_large(
    blobs: Blobs, parts: Sequence[bytes | memoryview]
) -> list[bytes | memoryview | bundle.Reference]:
    large = {n: part for n, part in enumerate(parts) if _size(part) > settings.BLOB_THRESHOLD}
    putting = [asyncio.to_thread(_put, blobs, part) for part in large.values()]
    stored: list[bytes | memoryview | bundle.Reference] = [*parts]
    # Wait for all, also after a failure: none may read the user's memory once the user's code continues.
    for n, put in zip(large, await asyncio.gather(*putting, return_exceptions=True), strict=True):
        if isinstance(put, BaseException):
            raise put
        stored[n] = put
    return stored


def _put(blobs: Blobs, part: bytes | memoryview) -> bundle.Reference:
    digest = blobs.put(part)
    return bundle.Reference(digest, _size(part), "" if isinstance(part, bytes) else blobs.stamp(digest))


def _read_parts(
    blobs: Blobs | None, stored: Sequence[memoryview | bundle.Reference]
) -> tuple[bytes | memoryview | DurableError, ...]:
    return tuple(_read(blobs, part) if isinstance(part, bundle.Reference) else part for part in stored)


def _read(blobs: Blobs | None, part: bundle.Reference) -> bytes | memoryview | DurableError:
    if blobs is None:
        return StepNotRestored(
            "a part of the result is a blob, and this store has no blobs",
            remedy=("To run the step again: ", ResetStep()),
        )
    try:
        return blobs.view(*part) if part.stamp else blobs.get(part.digest)
    except StepNotRestored as error:
        return error


def _size(piece: bytes | memoryview) -> int:
    return memoryview(piece).nbytes
