"""A step's failure as data: readable without loading a class, and decoded to the same exception."""

from __future__ import annotations

import base64
import importlib
import json
import operator
import traceback
from typing import Any, Final

from durable_nb import _stored
from durable_nb.codec.locate import message_of
from durable_nb.errors import ResetStep, StepFailed, StepNotRestored
from durable_nb.errors.redaction import redacted
from durable_nb.records import Payload

__all__ = ["decode_failure", "encode_failure", "failure_line", "failure_text"]

_TRACEBACK: Final = 64 * 1024
"""Characters stored of a traceback, counted from its end: about a thousand lines, small enough for a row."""

_PLAIN: Final = ("builtins", "__main__", "durable_nb.errors")

_CAUSES: Final = 50
"""Exceptions stored of a chain of causes."""


def encode_failure(exc: BaseException) -> Payload:
    """Encode an exception with its notes, its causes and the text of its traceback. This never fails.

    Secrets in its texts are not kept.

    Args:
        exc: Any exception.

    Example:
        >>> encode_failure(ValueError("no")).format
        'failure'
    """
    record = _record(exc, _CAUSES)
    record["traceback"] = _traceback(exc)
    return Payload("failure", json.dumps(record, separators=(",", ":")).encode("ascii"))


def decode_failure(payload: Payload) -> BaseException:
    """Decode an exception.

    Args:
        payload: The output of :func:`encode_failure`.

    Returns:
        An exception with the same class, args, notes and causes; if its class cannot make it again, one of a
        subclass, with the same message; if its class is gone, a StepFailed with its name and the message.

    Raises:
        StepNotRestored: The payload does not hold a failure, or is damaged.

    Example:
        >>> decode_failure(encode_failure(KeyError("x")))
        KeyError('x')
    """
    return _exception(_read(payload.data))


def failure_text(payload: Payload) -> str:
    """Return the traceback of a recorded failure as text, without loading any class.

    Args:
        payload: The output of :func:`encode_failure`.

    Raises:
        StepNotRestored: The payload does not hold a failure, or is damaged.

    Example:
        >>> failure_text(encode_failure(ValueError("no")))
        'ValueError: no'
    """
    return redacted(str(_read(payload.data).get("traceback", "")))


def failure_line(payload: Payload) -> str:
    """Return class and message of a recorded failure in one line, without loading any class.

    Args:
        payload: The output of :func:`encode_failure`.

    Raises:
        StepNotRestored: The payload does not hold a failure, or is damaged.

    Example:
        >>> failure_line(encode_failure(ValueError("no")))
        'ValueError: no'
    """
    record = _read(payload.data)
    message = " ".join(redacted(str(record.get("message", ""))).split())
    return f"{_class_name(record)}: {message}" if message else _class_name(record)


def _class_name(record: dict[str, Any]) -> str:
    module, _, qualname = record["class"].partition(":")
    return str(qualname if module in _PLAIN else f"{module}.{qualname}")


def _record(exc: BaseException, links: int) -> dict[str, Any]:
    from durable_nb.codec import stand_ins, without_secrets

    cause, kept = exc.__cause__, without_secrets.copy_of(exc)
    pickles = stand_ins.pickles(kept)
    notes = [redacted(note) for note in getattr(exc, "__notes__", ()) if isinstance(note, str)]
    if pickles["pickle"] is None:
        notes.append(stand_ins.note_of_loss(kept))
    return {
        "class": _class_of(exc),
        "message": redacted(message_of(exc)),
        "notes": notes,
        **pickles,
        "suppress": exc.__suppress_context__,
        "cause": _record(cause, links - 1) if cause is not None and links else None,
    }


def _class_of(exc: BaseException) -> str:
    return f"{type(exc).__module__}:{type(exc).__qualname__}"


def _traceback(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(exc)).rstrip("\n")
    except Exception:
        text = f"{type(exc).__qualname__}: {message_of(exc)}"
    text = redacted(text[-2 * _TRACEBACK :])
    return text if len(text) <= _TRACEBACK else "…\n" + text[-_TRACEBACK:]


def _read(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(record, dict) or not isinstance(record.get("class"), str):
        raise _damaged()
    return record


def _damaged() -> StepNotRestored:
    return StepNotRestored(
        "the recorded failure is damaged", remedy=("To execute the step again: ", ResetStep())
    )


def _exception(record: dict[str, Any]) -> BaseException:
    exc = _restored(record)
    for note in record.get("notes", ()):
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
    cause = record.get("cause")
    if cause is not None:
        exc.__cause__ = _exception(cause)
    exc.__suppress_context__ = bool(record.get("suppress"))
    return exc


def _restored(record: dict[str, Any]) -> BaseException:
    """Return the exception from the first pickle that gives its class, or what is closest to it."""
    found = []
    for way in ("pickle", "stand_in", "reduced"):
        exc = _unpickled(record.get(way))
        if exc is not None and _class_of(exc) == record["class"]:
            return exc
        found.append(exc)
    closest = (exc for exc in (*found, _named(record)) if exc is not None)
    return next(closest, _step_failed(record))


def _unpickled(text: str | None) -> BaseException | None:
    if text is None:
        return None
    from durable_nb.codec import pickling

    try:
        exc = pickling.loads(base64.b64decode(text))
    except Exception:
        return None
    return exc if isinstance(exc, BaseException) else None


def _named(record: dict[str, Any]) -> BaseException | None:
    """Return an exception with the recorded class and message alone."""
    module, _, qualname = record["class"].partition(":")
    message = record.get("message", "")
    try:
        kind = operator.attrgetter(qualname)(importlib.import_module(module))
        exc = _stored.stand_in(kind, message, (message,), {}, ())
    except Exception:
        return None
    exc.add_note("durable_nb: only the class and the message of this exception could be restored")
    return exc


def _step_failed(record: dict[str, Any]) -> StepFailed:
    return StepFailed(
        f"failed with {_class_name(record)}: {record.get('message', '')}",
        remedy="The exception's class cannot be rebuilt in this process; its traceback is on record.",
    )
