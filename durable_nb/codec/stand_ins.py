"""Pickles for exceptions that cannot be pickled, or made again, by their own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from durable_nb import _stored
from durable_nb.codec.pickling import Call, dumps
from durable_nb.errors import StepNotSaved

__all__ = ["dumps_reduced", "dumps_stand_in", "message_of", "note_of_loss"]


def message_of(exc: BaseException) -> str:
    """Return the message of an exception, whatever its ``__str__`` does."""
    try:
        return str(exc)
    except Exception as error:
        return f"<str() of the exception failed: {type(error).__name__}>"


def dumps_stand_in(exc: BaseException) -> bytes:
    """Pickle an exception so that loading calls neither its ``__init__`` nor its ``__reduce__``.

    What is loaded has the same message. Attributes that cannot be pickled raise when they are read.

    Args:
        exc: The exception.

    Raises:
        StepNotSaved: Its class cannot be pickled.
    """
    return dumps(_stand_in(exc))


def dumps_reduced(exc: BaseException) -> bytes:
    """Pickle an exception by its ``__reduce__``, with a text in place of each part that cannot be pickled.

    This is for classes that cannot be subclassed, such as pydantic's ``ValidationError``.

    Args:
        exc: The exception.

    Raises:
        Exception: It cannot be reduced, or its class cannot be pickled.
    """
    reduced: Any = exc.__reduce__()
    function, args, *_ = reduced
    return dumps(Call(function, tuple(_replaced(args))))


def note_of_loss(exc: BaseException) -> str:
    """Return a note that names the attributes of an exception that cannot be pickled."""
    parts = {"args": exc.args, **vars(exc)}
    lost = [name for name, value in parts.items() if not _can_pickle(value)]
    return f"durable_nb: saved without {', '.join(lost) or 'parts of it'}, which cannot be pickled"


def _stand_in(exc: BaseException) -> Call:
    own = {name: value for name, value in vars(exc).items() if name != "__notes__"}
    kept = {name: value for name, value in own.items() if _can_pickle(value)}
    lost = tuple(name for name in own if name not in kept)
    return Call(_stored.stand_in, (type(exc), message_of(exc), tuple(_replaced(exc.args)), kept, lost))


def _can_pickle(value: Any) -> bool:
    try:
        dumps(value)
    except StepNotSaved:
        return False
    return True


def _replaced(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if _can_pickle(value):
            yield value
        elif isinstance(value, BaseException):  # of a group
            yield _stand_in(value)
        elif isinstance(value, tuple | list):
            yield (list if isinstance(value, list) else tuple)(_replaced(value))
        elif isinstance(value, dict):
            yield dict(zip(value, _replaced(value.values()), strict=True))
        else:
            yield f"<{type(value).__qualname__}, which could not be saved>"
