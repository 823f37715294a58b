"""Find secrets in values, without running their code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, Final

from durable_nb.errors.redaction.names import is_secret
from durable_nb.errors.redaction.shapes import HIDDEN
from durable_nb.errors.redaction.text import redacted_message

__all__ = ["HIDES", "SENSITIVE", "hides_value", "secret_in"]

SENSITIVE: Final = "it looks like a secret"
"""Why a value is not saved."""

HIDES: Final = "its class hides its value"
"""Why an object is not saved."""

_MOST: Final = 500
"""Objects looked at in one value."""

_LONGEST: Final = 20_000
"""Characters of a text that are looked at."""


def hides_value(kind: type) -> bool:
    """Return whether a class hides what its instances hold, as pydantic's ``SecretStr`` does.

    Args:
        kind: Any class.

    Example:
        >>> hides_value(str)
        False
    """
    return any(callable(vars(base).get("get_secret_value")) for base in kind.__mro__)


def secret_in(name: str, value: Any) -> str | None:
    """Return where a value holds what looks like a secret, None if it does not; bounded in time.

    Args:
        name: The name it is bound to.
        value: Any value; only containers, the attributes of objects of the notebook, and its own
            attributes are looked at.

    Returns:
        The path to the secret, from the name.

    Example:
        >>> secret_in("config", {"db": {"password": "hush"}})
        "config['db']['password']"
    """
    left: list[tuple[str, object, Any]] = [(name, name, value)]
    for path, key, item in left:
        if _looks_secret(key, item):
            return path
        if len(left) < _MOST:
            left += _inside(path, item, is_root=path == name)
    return None


def _looks_secret(name: object, value: Any) -> bool:
    if type(value) not in (str, bytes) or not value:
        return False
    text = value[:_LONGEST].decode("latin-1") if isinstance(value, bytes) else value[:_LONGEST]
    return text != HIDDEN and (is_secret(name, text) or redacted_message(text) != text)


def _inside(path: str, value: Any, *, is_root: bool) -> Iterator[tuple[str, object, Any]]:
    kind = type(value)
    if kind is dict:
        yield from (
            (f"{path}[{key!r}]", key, value[key])
            for _, key in zip(range(_MOST), value, strict=False)
            if type(key) in (str, int)
        )
    elif kind in (list, tuple):
        yield from ((f"{path}[{at}]", "", item) for at, item in enumerate(value[:_MOST]))
    elif kind is FunctionType:
        yield from ((path, name, item) for name, item in _defaults(value))
        yield from ((path, "", item) for item in value.__code__.co_consts)
    elif is_root or kind.__module__ == "__main__" or dataclasses.is_dataclass(kind):
        yield from ((f"{path}.{name}", name, item) for name, item in _attributes(value))


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    given = function.__defaults__ or ()
    yield from zip(names[len(names) - len(given) :], given, strict=False)
    yield from (function.__kwdefaults__ or {}).items()


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an object, or of a class of the notebook, without running code of theirs."""
    if issubclass(type(value), type):
        return list(vars(value).items()) if value.__module__ == "__main__" else []
    if isinstance(value, ModuleType):
        return []
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return []
    return list(found.items()) if type(found) is dict else []
