"""A step's failure as data: readable without loading a class, and decoded to the same exception."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any, Final

from durable_nb.codec import pickling
from durable_nb.errors import ResetStep, StepFailed, StepNotRestored, StepNotSaved
from durable_nb.records import Payload

__all__ = ["dumps", "failure_line", "failure_text", "loads"]

_TRACEBACK: Final = 64 * 1024
"""Characters stored of a traceback, counted from its end: about a thousand lines, small enough for a row."""

_PLAIN: Final = ("builtins", "__main__", "durable_nb.errors")

_CAUSES: Final = 50
"""Exceptions stored of a chain of causes."""


def dumps(exc: BaseException) -> Payload:
    """Encode an exception with its notes, its causes and the text of its traceback. This never fails.

    Args:
        exc: Any exception, raised or not.

    Example:
        >>> loads(dumps(ValueError("no"))).args
        ('no',)
    """
    record = _record(exc, _CAUSES)
    record["traceback"] = _traceback(exc)
    return Payload("failure", json.dumps(record, separators=(",", ":")).encode("ascii"))


def loads(data: bytes) -> BaseException:
    """Decode an exception: same class, args, notes and causes, or a StepFailed that describes it.

    Args:
        data: The data of the payload that :func:`dumps` returned.

    Raises:
        StepNotRestored: The data is not that of a failure, or is damaged.

    Example:
        >>> loads(dumps(KeyError("x")).data)
        KeyError('x')
    """
    return _exception(_read(data))


def failure_text(payload: Payload) -> str:
    """Return the traceback of a recorded failure as text, without loading any class.

    Args:
        payload: The output of :func:`dumps`.

    Raises:
        StepNotRestored: The payload does not hold a failure, or is damaged.

    Example:
        >>> failure_text(dumps(ValueError("no")))
        'ValueError: no'
    """
    return str(_read(payload.data).get("traceback", ""))


def failure_line(payload: Payload) -> str:
    """Return class and message of a recorded failure in one line, without loading any class.

    Args:
        payload: The output of :func:`dumps`.

    Raises:
        StepNotRestored: The payload does not hold a failure, or is damaged.

    Example:
        >>> failure_line(dumps(ValueError("no")))
        'ValueError: no'
    """
    record = _read(payload.data)
    message = " ".join(str(record.get("message", "")).split())
    return f"{_class_name(record)}: {message}" if message else _class_name(record)


def _class_name(record: dict[str, Any]) -> str:
    module, _, qualname = record["class"].partition(":")
    return str(qualname if module in _PLAIN else f"{module}.{qualname}")


def _record(exc: BaseException, links: int) -> dict[str, Any]:
    cause = exc.__cause__
    return {
        "class": f"{type(exc).__module__}:{type(exc).__qualname__}",
        "message": _message(exc),
        "notes": [note for note in getattr(exc, "__notes__", ()) if isinstance(note, str)],
        "pickle": _pickle(exc),
        "suppress": exc.__suppress_context__,
        "cause": _record(cause, links - 1) if cause is not None and links else None,
    }


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:
        return f"<str() of the exception failed: {type(error).__name__}>"


def _pickle(exc: BaseException) -> str | None:
    try:
        data = pickling.dumps(exc, unlinked=exc)
    except StepNotSaved:
        return None
    return base64.b64encode(data).decode("ascii")


def _traceback(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(exc)).rstrip("\n")
    except Exception:
        text = f"{type(exc).__qualname__}: {_message(exc)}"
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
    exc = _unpickled(record.get("pickle")) or _stand_in(record)
    cause = record.get("cause")
    if cause is not None:
        exc.__cause__ = _exception(cause)
    exc.__suppress_context__ = bool(record.get("suppress"))
    return exc


def _unpickled(text: str | None) -> BaseException | None:
    if text is None:
        return None
    try:
        exc = pickling.loads(base64.b64decode(text))
    except Exception:
        return None
    return exc if isinstance(exc, BaseException) else None


def _stand_in(record: dict[str, Any]) -> StepFailed:
    exc = StepFailed(
        f"failed with {_class_name(record)}: {record.get('message', '')}",
        remedy="The exception's class cannot be rebuilt in this process; its traceback is on record.",
    )
    for note in record.get("notes", ()):
        exc.add_note(note)
    return exc
