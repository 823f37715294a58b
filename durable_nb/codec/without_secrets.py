"""Exceptions as they are kept: without the secrets in their messages and attributes."""

from __future__ import annotations

import pickletools
from typing import Any, Final

from durable_nb.codec.locate import message_of
from durable_nb.errors.redaction import HIDDEN, is_secret, redacted, secret_in
from durable_nb.errors.redaction.shapes import is_opaque

__all__ = ["cleaned", "copy_of", "is_clean"]

_DEPTH: Final = 4
"""Containers in one another whose texts are looked at."""


def copy_of(exc: BaseException) -> BaseException:
    """Return an exception of the same class without secrets; the exception itself if it holds none.

    Where the class makes no copy, the exception is returned; `is_clean` finds the secrets in its pickle.

    Args:
        exc: Any exception.
    """
    own = {name: cleaned(value, name) for name, value in vars(exc).items()}
    args = tuple(cleaned(value) for value in exc.args)
    if all(a is b for a, b in zip((*own.values(), *args), (*vars(exc).values(), *exc.args), strict=True)):
        return exc
    try:
        copy = type(exc).__new__(type(exc), *args)
        copy.args = args
        vars(copy).update(own)
    except Exception:
        return exc
    copy.__cause__, copy.__suppress_context__ = exc.__cause__, exc.__suppress_context__
    usual = type(exc).__str__ is BaseException.__str__
    return copy if usual or cleaned(message_of(exc)) == message_of(copy) else exc


def cleaned(value: Any, name: object = "", depth: int = _DEPTH) -> Any:
    """Return a value without secrets in its texts; the value itself if there are none.

    Args:
        value: Any value; of its objects, only built-in containers are looked at.
        name: Its name.
        depth: How deep to look.
    """
    if type(value) is str:
        found = HIDDEN if value and is_secret(name, value) else redacted(value)
        return value if found == value else found
    if type(value) in (list, tuple) and depth:
        items = [cleaned(item, "", depth - 1) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    if type(value) is dict and depth:
        entries = {key: cleaned(item, key, depth - 1) for key, item in value.items()}
        return value if all(entries[key] is value[key] for key in value) else entries
    return value


def is_clean(pickled: bytes) -> bool:
    """Return whether no text in a pickle holds a secret, or is like one and follows the name of one.

    Args:
        pickled: The stream.
    """
    name = ""
    for code, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str | bytes):
            if secret_in("", argument) or (is_secret(name, argument) and is_opaque(str(argument))):
                return False
            name = argument if isinstance(argument, str) else ""
        elif code.name != "MEMOIZE":
            name = ""
    return True
