"""A step's failure as data: readable without loading a class, and decoded to the same exception."""

from __future__ import annotations

import base64
import importlib
import json
import operator
import traceback
from collections.abc import Callable
from typing import Any, Final

from durable_nb import _stored
from durable_nb.codec import pickling
from durable_nb.codec.rules import has_own_reduction, reduce_exception
from durable_nb.codec.stand_ins import dumps_reduced, dumps_stand_in, message_of, note_of_loss
from durable_nb.errors import ResetStep, StepFailed, StepNotRestored
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
    """Decode an exception: same class, args, notes and causes.

    Where its class cannot make it again, it is an instance of a subclass with the same message. Where its
    class is gone, it is a StepFailed that describes it.

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
    cause, pickles = exc.__cause__, _pickles(exc)
    notes = [note for note in getattr(exc, "__notes__", ()) if isinstance(note, str)]
    if pickles["pickle"] is None:
        notes.append(note_of_loss(exc))
    return {
        "class": _class_of(exc),
        "message": message_of(exc),
        "notes": notes,
        **pickles,
        "suppress": exc.__suppress_context__,
        "cause": _record(cause, links - 1) if cause is not None and links else None,
    }


def _class_of(exc: BaseException) -> str:
    return f"{type(exc).__module__}:{type(exc).__qualname__}"


def _pickles(exc: BaseException) -> dict[str, str | None]:
    """Return the pickles to load the exception from, the first that succeeds: see ``_loaded``.

    A class with its own ``__reduce__`` may fail when it is loaded, or return another class. Only loading can
    tell, and it would run the user's code here.
    """
    ways = {
        "pickle": _base64(lambda: pickling.dumps(exc, live={id(exc): reduce_exception(exc, linked=False)}))
    }
    has_own = has_own_reduction(type(exc))
    if has_own or ways["pickle"] is None:
        ways["stand_in"] = _base64(lambda: dumps_stand_in(exc))
    if has_own and ways["pickle"] is None:
        ways["reduced"] = _base64(lambda: dumps_reduced(exc))
    return ways


def _base64(dump: Callable[[], bytes]) -> str | None:
    try:
        return base64.b64encode(dump()).decode("ascii")
    except Exception:
        return None


def _traceback(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(exc)).rstrip("\n")
    except Exception:
        text = f"{type(exc).__qualname__}: {message_of(exc)}"
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
