"""Values to bytes and back, exactly: what comes back equals what went in, in type too.

The formats: ``json``, readable and harmless; ``objects``, the same, but it names classes; ``bytes``, long
bytes as they are; ``pickle``, the rest; ``buffers``, a pickle with large buffers as parts of its own;
``cell``, what a durable cell did; ``failure``, an exception. ``RUNS_CODE`` says which to load only when they
are signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from durable_nb.codec import exact_json
from durable_nb.errors import DurableError, StepNotRestored
from durable_nb.records import Payload

__all__ = [
    "PARTED",
    "RUNS_CODE",
    "decode",
    "decode_failure",
    "encode",
    "encode_failure",
    "failure_line",
    "failure_text",
]

RUNS_CODE: Final = frozenset({"objects", "pickle", "failure", "buffers", "cell"})
"""Formats that import modules or run code when they are read."""

PARTED: Final = frozenset({"buffers", "cell"})
"""Formats whose bytes are in several parts."""

_RAW_BYTES: Final = 4096
"""Bytes from which a result of type bytes is kept as it is, without base64 and without a copy."""


def encode(value: Any) -> Payload:
    """Turn a value into bytes.

    Args:
        value: Any value. Large buffers in it become parts that are views of it, until they are stored.

    Raises:
        StepNotSaved: It cannot be saved; the error names the type and place.

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


def decode(payload: Payload) -> Any:
    """Turn bytes back into the value.

    Args:
        payload: What :func:`encode` gave, or what was fetched of it.

    Raises:
        StepNotRestored: A class or module is gone, the format is unknown, or the bytes are damaged.

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
    except Exception as error:
        raise StepNotRestored(
            f"the saved result cannot be read back ({type(error).__name__}: {_said(error)})",
            remedy="Its bytes are damaged or its classes have changed: reset the step to run it again.",
        ) from error


def encode_failure(exc: BaseException) -> Payload:
    """Turn an exception into bytes, with its notes, causes and the text of its traceback; never fails.

    Args:
        exc: Any exception.

    Example:
        >>> encode_failure(ValueError("no")).format
        'failure'
    """
    from durable_nb.codec import exceptions

    return exceptions.dumps(exc)


def decode_failure(payload: Payload) -> BaseException:
    """Give back the exception: same class, args, notes and causes, or StepFailed with its name and message.

    Args:
        payload: What :func:`encode_failure` gave.

    Raises:
        StepNotRestored: The bytes are not those of a failure.

    Example:
        >>> decode_failure(encode_failure(KeyError("x")))
        KeyError('x')
    """
    from durable_nb.codec import exceptions

    return exceptions.loads(payload.data)


def failure_line(payload: Payload) -> str:
    """Give class and message of a recorded failure in one line, without loading any class.

    Args:
        payload: What :func:`encode_failure` gave.

    Raises:
        StepNotRestored: The bytes are not those of a failure.

    Example:
        >>> failure_line(encode_failure(ValueError("no")))
        'ValueError: no'
    """
    from durable_nb.codec import exceptions

    return exceptions.failure_line(payload)


def failure_text(payload: Payload) -> str:
    """Give the traceback of a recorded failure as text, without loading any class.

    Args:
        payload: What :func:`encode_failure` gave.

    Raises:
        StepNotRestored: The bytes are not those of a failure.

    Example:
        >>> failure_text(encode_failure(ValueError("no")))
        'ValueError: no'
    """
    from durable_nb.codec import exceptions

    return exceptions.failure_text(payload)


def _reader(format: str) -> Callable[[Payload], Any]:
    if format == "bytes":
        return lambda payload: bytes(payload.data)
    if format in ("pickle", "buffers"):
        from durable_nb.codec import pickling

        return lambda payload: pickling.loads(payload.data, payload.parts)
    raise StepNotRestored(
        f"the saved result is in the format {format!r}, which this durable_nb does not read",
        remedy="Upgrade with: pip install -U durable_nb",
    )


def _said(error: Exception) -> str:
    try:
        return str(error)[:200]
    except Exception:
        return "no message"
