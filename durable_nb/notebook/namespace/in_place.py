"""Classes and functions that a cell changed in place: the change is saved, and made again on the live object.

Instances of a class, and what refers to a function, thus need not be saved with it.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found, unused-ignore]
import abc
import types
from collections.abc import Mapping
from typing import Any, Final

from durable_nb import _stored

__all__ = ["Updated", "attributes_of", "update"]

_CONSTANT: Final = (
    *(bool, bytes, complex, float, int, str, tuple, frozenset, type, type(None), property),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.BuiltinFunctionType, types.GenericAlias),
)
_SLOTS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)
_FUNCTIONS: Final = (types.FunctionType, staticmethod, classmethod)
_NOT_ATTRIBUTES: Final = frozenset({"__dict__", "__weakref__", "__slotnames__", "_abc_impl"})
_OF_FUNCTIONS: Final = ("__defaults__", "__kwdefaults__", "__doc__", "__annotations__", "__dict__")


class Updated:
    """Stands for a class or function that a cell changed in place: loading it changes the live one.

    Args:
        name: The name it is bound to.
        value: The class or function.
        before: A class's attributes before the cell, as `attributes_of` returned them.
    """

    def __init__(self, name: str, value: Any, before: Mapping[str, Any]) -> None:
        self._name = name
        self._state = _of_class(value, before) if isinstance(value, type) else _of_function(value)

    def __reduce__(self) -> tuple[object, ...]:
        return _stored.live, (self._name,), self._state, None, None, _stored.update


def attributes_of(cls: type) -> dict[str, Any]:
    """Return the attributes of a class, by name."""
    return {name: value for name, value in vars(cls).items() if name not in _NOT_ATTRIBUTES}


def update(value: Any, state: dict[str, Any]) -> None:
    """Change a class or function as a cell did.

    Args:
        value: The live class or function.
        state: What `Updated` saved.
    """
    assign, drop = (type.__setattr__, type.__delattr__) if isinstance(value, type) else (setattr, delattr)
    for name in state.get("deleted", ()):
        if name in vars(value):
            drop(value, name)
    for name, attribute in state["set"].items():
        assign(value, name, attribute)
    for place, contents in state.get("cells", {}).items():
        value.__closure__[place].cell_contents = contents
    for name, inner in state.get("classes", {}).items():
        update(vars(value)[name], inner)
    for subclass in state.get("registered", ()):
        abc.ABCMeta.register(value, subclass)


def _of_class(cls: type, before: Mapping[str, Any]) -> dict[str, Any]:
    now = attributes_of(cls)
    classes = {
        name: value
        for name, value in now.items()
        if _is_inner(cls, value) and before.get(name, value) is value
    }
    same = {name for name, value in now.items() if before.get(name, now) is value and not _may_differ(value)}
    left_out = {*classes, *(name for name, value in now.items() if isinstance(value, _SLOTS))}
    changed = {name: value for name, value in now.items() if name not in same | left_out}
    state: dict[str, Any] = {"set": changed, "deleted": [name for name in before if name not in now]}
    state["classes"] = {name: _of_class(each, {}) for name, each in classes.items()}
    if isinstance(cls, abc.ABCMeta):
        found = (ref() for ref in _abc._get_dump(cls)[0])  # noqa: SLF001 - as cloudpickle reads it
        state["registered"] = [subclass for subclass in found if subclass is not None]
    return state


def _is_inner(cls: type, value: Any) -> bool:
    """Return whether a class is defined in the body of another one: its instances refer to it there."""
    return isinstance(value, type) and value.__qualname__ == f"{cls.__qualname__}.{value.__name__}"


def _may_differ(value: Any) -> bool:
    """Return whether the same object may have changed in place."""
    if isinstance(value, _FUNCTIONS):
        return bool(vars(value.__func__ if hasattr(value, "__func__") else value))
    return not isinstance(value, _CONSTANT)


def _of_function(function: types.FunctionType) -> dict[str, Any]:
    cells = dict[int, Any]()
    for place, cell in enumerate(function.__closure__ or ()):
        try:
            cells[place] = cell.cell_contents
        except ValueError:
            continue
    return {"set": {name: getattr(function, name) for name in _OF_FUNCTIONS}, "cells": cells}
