"""The placeholder for a value that could not be saved: its repr says why, and any use raises."""

from __future__ import annotations

import shlex
from typing import Any, Final, NoReturn

from durable_nb.errors import StepNotRestored

__all__ = ["Placeholder", "name_of", "placeholder", "reason_of", "step_of"]

_ALLOWED: Final = frozenset({"__class__", "__repr__", "__str__", "__format__", "__doc__", "__sizeof__"})
"""Attributes that tracebacks, ``%whos`` and displays read; reading any other one raises."""

_BINARY: Final = "add sub mul matmul truediv floordiv mod pow lshift rshift and xor or"
_OTHERS: Final = """
    divmod rdivmod lt le eq ne gt ge hash bool neg pos abs invert round trunc floor ceil
    int float complex index bytes fspath array len length_hint iter next reversed contains
    getitem setitem delitem call setattr delattr dir get enter exit
    await aiter anext aenter aexit copy deepcopy reduce reduce_ex
"""
_USES: Final = [*_OTHERS.split(), *(prefix + name for name in _BINARY.split() for prefix in ("", "r", "i"))]


class Placeholder:
    """An object that raises StepNotRestored on any use except being displayed.

    Args:
        name: The name it is bound to.
        step: The step that could not save the value.
        reason: Why the value could not be saved.
    """

    __slots__ = ("_name", "_reason", "_step")

    def __init__(self, name: str, step: str, reason: str) -> None:
        for slot, value in zip(Placeholder.__slots__, (name, reason, step), strict=True):
            object.__setattr__(self, slot, value)

    def __getattribute__(self, attribute: str) -> Any:
        if attribute in _ALLOWED:
            return object.__getattribute__(self, attribute)
        return _refuse(self)

    def __repr__(self) -> str:
        name, step, reason = _described(self)
        return f"<{name}: not restored by durable step {step!r}: {reason}>"


def _described(placeholder: Placeholder) -> tuple[str, str, str]:
    name, reason, step = (object.__getattribute__(placeholder, slot) for slot in Placeholder.__slots__)
    return name, step, reason


def _refuse(placeholder: Placeholder, *_: Any, **__: Any) -> NoReturn:
    name, step, reason = _described(placeholder)
    reset = f"%durable_reset {shlex.quote(step or 'STEP')}"
    raise StepNotRestored(
        f"`{name}` could not be restored: {reason}",
        step=step or None,
        remedy=f"Create `{name}` in an ordinary cell, which runs every time, or run the step again: {reset}",
    )


for _use in _USES:
    setattr(Placeholder, f"__{_use}__", _refuse)


def placeholder(name: str, step: str, reason: str) -> Any:
    """Return the placeholder for a name whose value a step could not save.

    Args:
        name: The name it will be bound to.
        step: The step that could not save the value.
        reason: Why not, for example "sqlite3.Connection cannot be saved".

    Example:
        >>> placeholder("con", "load", "sqlite3.Connection cannot be saved")
        <con: not restored by durable step 'load': sqlite3.Connection cannot be saved>
    """
    return Placeholder(name, step, reason)


def reason_of(value: object) -> str | None:
    """Return why a value was not restored if a placeholder stands in for it; None for any other value.

    Args:
        value: Any object.
    """
    return _described(value)[2] if type(value) is Placeholder else None


def step_of(value: Placeholder) -> str:
    """Return the id of the step that could not save the value."""
    return _described(value)[1]


def name_of(value: Placeholder) -> str:
    """Return the name to which a placeholder was bound."""
    return _described(value)[0]
