"""Values to bytes and back, exactly: a decoded value equals the encoded one, in type too.

The formats are ``json``, readable and harmless; ``objects``, JSON that names classes; ``bytes``, long bytes
unchanged; ``pickle``, all other values; ``buffers``, a pickle with its large buffers as separate parts;
``cell``, the effects of a durable cell; ``changed``, a result with changes of arguments; ``failure``, an
exception. ``RUNS_CODE`` lists the formats that are
loaded only if they are signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from durable_nb.codec import exact_json
from durable_nb.codec.exceptions import decode_failure, encode_failure, failure_line, failure_text
from durable_nb.codec.locate import message_of
from durable_nb.errors import DurableError, ResetStep, StepNotRestored
from durable_nb.records import Payload

__all__ = [
    "FORGOTTEN",
    "PARTED",
    "RUNS_CODE",
    "decode",
    "decode_failure",
    "encode",
    "encode_failure",
    "failure_line",
    "failure_text",
    "forgotten",
    "preload",
]

RUNS_CODE: Final = frozenset({"objects", "pickle", "failure", "buffers", "cell", "changed"})
"""Formats that import modules or run code when they are decoded."""

PARTED: Final = frozenset({"buffers", "cell", "changed"})
"""Formats whose bytes are in several parts."""

FORGOTTEN: Final = "forgotten"
"""The format of a payload whose value the user had removed: it is never decoded."""

_RAW_BYTES: Final = 4096
"""Size in bytes from which a result of type bytes is stored unchanged, without base64 and without a copy."""


def encode(value: Any) -> Payload:
    """Encode a value.

    Args:
        value: Any value. Its large buffers become parts, which are views of its memory until they are stored.

    Raises:
        StepNotSaved: The value cannot be saved; the message names the object at fault and where it is.

    Example:
        >>> encode({"n": 3}).data
        b'{"n":3}'
    """
    if type(value) is bytes and len(value) >= _RAW_BYTES:
        return Payload("bytes", value)
    try:
        return exact_json.dumps(value)
    except Exception:
        # Not exact in JSON, nested too deeply, or the user's own code raised: pickle decides, and reports.
        from durable_nb.codec import pickling

        data, parts = pickling.dump_parts(value)
        return Payload("buffers" if parts else "pickle", data, parts=parts)


def preload() -> None:
    """Import what is imported late: once descriptors or memory have run out, nothing can be imported."""
    from durable_nb.codec import exceptions, pickling, stand_ins  # noqa: F401


def decode(payload: Payload) -> Any:
    """Decode a value.

    Args:
        payload: The output of :func:`encode`, or the payload fetched from a store.

    Raises:
        StepNotRestored: A class or module no longer exists, the format is unknown, or the bytes are damaged.

    Example:
        >>> decode(encode((1, {2: b"3"})))
        (1, {2: b'3'})
    """
    try:
        if payload.format == "json" or payload.format == "objects":
            return exact_json.loads(payload.format, payload.data)
        return _reader(payload.format)(payload)
    except DurableError:
        raise
    except MemoryError as error:
        raise StepNotRestored(
            "there is not enough memory to restore the saved result",
            remedy="Free memory, or use a machine with more, and start the run again: the result is kept.",
        ) from error
    except Exception as error:
        raise StepNotRestored(
            f"cannot decode the saved result ({type(error).__name__}: {message_of(error)[:200]}): its bytes "
            "are damaged, or its classes have changed",
            remedy=("To execute the step again: ", ResetStep()),
        ) from error


def _reader(format: str) -> Callable[[Payload], Any]:
    if format == "bytes":
        return lambda payload: bytes(payload.data)
    if format in ("pickle", "buffers"):
        from durable_nb.codec import pickling

        return lambda payload: pickling.loads(payload.data, payload.parts)
    if format == FORGOTTEN:
        raise forgotten()
    raise StepNotRestored(
        f"cannot decode the saved result: this version of durable_nb does not know its format, {format!r}",
        remedy="Upgrade with: pip install -U durable_nb",
    )


def forgotten() -> StepNotRestored:
    """Return the error for a value that the user had removed."""
    return StepNotRestored(
        "its value was removed for good by `durable-nb forget`",
        remedy=("To execute the step again: ", ResetStep()),
    )
