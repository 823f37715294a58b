"""Pickles for exceptions that cannot be pickled, or made again, by their own rules."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from durable_nb import _stored
from durable_nb.codec.locate import message_of
from durable_nb.codec.pickling import Call, dumps
from durable_nb.codec.rules import has_own_reduction, reduce_exception
from durable_nb.codec.without_secrets import cleaned, is_clean

__all__ = ["note_of_loss", "pickles"]


def pickles(exc: BaseException) -> dict[str, str | None]:
    """Return the pickles to load an exception from, in base64: the first one is right that gives its class.

    A class with its own ``__reduce__`` may fail when it is loaded, or return another class. Only loading can
    tell, and it would run the user's code here.

    Args:
        exc: Any exception.
    """
    alone = {id(exc): reduce_exception(exc, linked=False)}
    ways = {"pickle": _base64(lambda: dumps(exc, live=alone))}
    has_own = has_own_reduction(type(exc))
    if has_own or ways["pickle"] is None:
        ways["stand_in"] = _base64(lambda: dumps(_stand_in(exc)))
    if has_own and ways["pickle"] is None:
        ways["reduced"] = _base64(lambda: dumps(_reduced(exc)))
    return ways


def _base64(dump: Callable[[], bytes]) -> str | None:
    try:
        data = dump()
    except Exception:
        return None
    return base64.b64encode(data).decode("ascii") if is_clean(data) else None


def note_of_loss(exc: BaseException) -> str:
    """Return a note that names the attributes of an exception that cannot be pickled, or hold a secret."""
    parts = {"args": exc.args, **vars(exc)}
    lost = [name for name, value in parts.items() if not _can_pickle(value)]
    return f"durable_nb: saved without {', '.join(lost) or 'parts of it'}, which cannot be saved"


def _reduced(exc: BaseException) -> Call:
    """Return the call that an exception is reduced to, with a text for each argument that cannot be pickled.

    This is for classes that cannot be subclassed, such as pydantic's ``ValidationError``.
    """
    reduced: Any = exc.__reduce__()
    function, args, *_ = reduced
    return Call(function, tuple(_replaced(args)))


def _stand_in(exc: BaseException) -> Call:
    """Return the call that makes a stand-in, without the ``__init__`` and the ``__reduce__`` of the class.

    It has the same message. Attributes that cannot be pickled raise when they are read.
    """
    own = {name: value for name, value in vars(exc).items() if name != "__notes__"}
    kept = {name: value for name, value in own.items() if _can_pickle(value)}
    lost = tuple(name for name in own if name not in kept)
    return Call(
        _stored.stand_in, (type(exc), cleaned(message_of(exc)), tuple(_replaced(exc.args)), kept, lost)
    )


def _can_pickle(value: Any) -> bool:
    return _base64(lambda: dumps(value)) is not None


def _replaced(values: Iterable[Any]) -> Iterator[Any]:
    for value in map(cleaned, values):
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
