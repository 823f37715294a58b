"""Values that name a class: enum members, dataclasses, namedtuples and pydantic models.

The class is stored as ``module:qualname`` and looked up when the value is decoded: in a notebook that is the
class of the running kernel, so that ``isinstance`` holds. Neither ``__init__`` nor validation runs.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import importlib
import sys
from collections.abc import Callable
from types import FunctionType, MemberDescriptorType
from typing import Any, Final

from durable_nb import _stored
from durable_nb.codec.builtin_types import NotExact, Write
from durable_nb.errors import ResetStep, StepNotRestored
from durable_nb.errors.redaction import hides_value
from durable_nb.lookup import derives, find

_MODEL_STATE: Final = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

__all__ = ["READERS", "is_mutable", "reference", "resolve", "write"]


def reference(kind: type) -> str:
    """Return a name of a class from which :func:`resolve` finds it.

    Args:
        kind: Any class.

    Raises:
        NotExact: The class's module does not have it under its name.

    Example:
        >>> reference(dict)
        'builtins:dict'
    """
    if find(kind.__module__, kind.__qualname__) is not kind:
        raise NotExact
    _stored.refuse_internal(kind)
    return f"{kind.__module__}:{kind.__qualname__}"


def resolve(name: str) -> type:
    """Return the class of a name; its module is imported if necessary.

    Args:
        name: The output of :func:`reference`.

    Raises:
        StepNotRestored: The module cannot be imported, or has no such class.

    Example:
        >>> resolve("builtins:dict")
        <class 'dict'>
    """
    module, _, qualname = name.partition(":")
    _stored.check_name(module, qualname)
    try:
        importlib.import_module(module)
    except Exception as error:
        raise StepNotRestored(
            f"cannot restore the saved result: importing module {module!r}, which defines its class "
            f"{qualname!r}, failed ({type(error).__name__}: {error})",
            remedy=(f"Make {module!r} importable, or execute the step again: ", ResetStep()),
        ) from error
    kind = find(module, qualname)
    if isinstance(kind, type):
        return kind
    define = "Run the cell that defines it" if module == "__main__" else f"Define it in {module}"
    raise StepNotRestored(
        f"cannot restore the saved result: module {module!r} has no class {qualname!r}",
        remedy=(f"{define}, or execute the step again: ", ResetStep()),
    )


def is_mutable(kind: type) -> bool:
    """Return whether values of a class must keep their identity: all but enum members and namedtuples."""
    return not issubclass(kind, enum.Enum | tuple)


def write(value: Any, write: Write) -> dict[str, Any]:
    """Convert a value to input for json, with a reference to its class.

    Args:
        value: Any value without a tag of its own.
        write: The writer for nested values.

    Raises:
        NotExact: Its class is none of the four kinds, customizes pickling, or hides its value.

    Example:
        >>> write(Level.HIGH, lambda inner: inner)
        {'$enum': ['__main__:Level', 'HIGH']}
    """
    kind = type(value)
    if hides_value(kind):
        raise NotExact
    for matches, writer in _WRITERS:
        if matches(kind):
            return writer(kind, value, write)
    raise NotExact


def _is_enum(kind: type) -> bool:
    return isinstance(kind, enum.EnumMeta)


def _write_enum(kind: Any, value: Any, write: Write) -> dict[str, Any]:
    name = value._name_  # the user may have overridden .name
    if kind._member_map_.get(name) is value:
        return {"$enum": [reference(kind), write(name)]}
    if issubclass(kind, enum.Flag) and kind._value2member_map_.get(value._value_) is value:
        return {"$flag": [reference(kind), write(value._value_)]}
    raise NotExact


def _read_enum(content: Any) -> Any:
    kind: Any = resolve(content[0])
    members = getattr(kind, "__members__", {})
    if content[1] not in members:
        raise StepNotRestored(
            f"cannot restore the saved result: enum {content[0]!r} has no member {content[1]!r}",
            remedy=("Add the member again, or execute the step again: ", ResetStep()),
        )
    return members[content[1]]


def _read_flag(content: Any) -> Any:
    kind: Any = resolve(content[0])
    return kind(content[1])


def _is_namedtuple(kind: type) -> bool:
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def _write_namedtuple(kind: type, value: Any, write: Write) -> dict[str, Any]:
    if not _pickles_by_default(kind) or getattr(value, "__dict__", None):
        raise NotExact
    return {"$namedtuple": [reference(kind), [write(item) for item in tuple.__iter__(value)]]}


def _read_namedtuple(content: Any) -> Any:
    kind: Any = resolve(content[0])
    if not _is_namedtuple(kind) or len(kind._fields) != len(content[1]):
        raise _changed(content[0])
    return tuple.__new__(kind, content[1])


def _is_model(kind: type) -> bool:
    return derives(kind, "pydantic.main", "BaseModel")


def _write_model(kind: Any, value: Any, write: Write) -> dict[str, Any]:
    hooks = (kind.__getstate__, kind.__setstate__)
    usual = all(isinstance(hook, FunctionType) and hook.__module__.startswith("pydantic.") for hook in hooks)
    if not usual or not _reduces_by_default(kind) or _slots(kind, beyond="pydantic"):
        raise NotExact
    fields, chosen, extra, private = (getattr(value, name, None) for name in _MODEL_STATE)
    if private is not None:
        private = {name: item for name, item in private.items() if not _is_undefined(item)}
    return {"$model": [reference(kind), *map(write, (fields, sorted(chosen or ()), extra, private))]}


def _is_undefined(item: Any) -> bool:
    return item is sys.modules["pydantic_core"].PydanticUndefined


def _read_model(content: Any) -> Any:
    kind: Any = resolve(content[0])
    if not _is_model(kind):
        raise _changed(content[0])
    _, fields, chosen, extra, private = content
    model = kind.__new__(kind)
    for name, part in zip(_MODEL_STATE, (fields, set(chosen), extra, private), strict=True):
        object.__setattr__(model, name, part)
    return model


def _is_dataclass(kind: type) -> bool:
    return dataclasses.is_dataclass(kind)


def _write_dataclass(kind: Any, value: Any, write: Write) -> dict[str, Any]:
    if kind.__new__ is not object.__new__ or not _pickles_by_default(kind):
        raise NotExact
    state = dict(getattr(value, "__dict__", ()))
    slots = {name: slot.__get__(value) for name, slot in _slots(kind).items() if _filled(slot, value)}
    content = [reference(kind), write(state)]
    return {"$object": [*content, write(slots)] if slots else content}


def _read_dataclass(content: Any) -> Any:
    kind: Any = resolve(content[0])
    if not _is_dataclass(kind):
        raise _changed(content[0])
    value = object.__new__(kind)
    try:
        if content[1]:
            value.__dict__.update(content[1])
        for name, item in content[2].items() if len(content) > 2 else ():
            object.__setattr__(value, name, item)
    except (AttributeError, TypeError) as error:
        raise _changed(content[0]) from error
    return value


def _changed(name: str) -> StepNotRestored:
    return StepNotRestored(
        f"cannot restore the saved result: class {name!r} no longer has the fields that were saved",
        remedy=("Restore its fields, or execute the step again: ", ResetStep()),
    )


def _slots(kind: type, beyond: str = "") -> dict[str, Any]:
    """Return the slots of a class and its bases, without bases from the package ``beyond``."""
    slots: dict[str, Any] = {}
    for base in kind.__mro__:
        if beyond and base.__module__.partition(".")[0] == beyond:
            continue
        for name, slot in vars(base).items():
            if isinstance(slot, MemberDescriptorType) and slots.setdefault(name, slot) is not slot:
                raise NotExact  # one slot hides another of the same name
    return slots


def _filled(slot: Any, value: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def _reduces_by_default(kind: Any) -> bool:
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind not in copyreg.dispatch_table
    )


_OWN_STATE: Final = (
    object.__getstate__,
    None,
    getattr(dataclasses, "_dataclass_getstate", None),  # of frozen dataclasses with slots
    getattr(dataclasses, "_dataclass_setstate", None),
)


def _pickles_by_default(kind: Any) -> bool:
    state = (kind.__getstate__, getattr(kind, "__setstate__", None))
    return _reduces_by_default(kind) and all(hook in _OWN_STATE for hook in state)


_WRITERS: Final[tuple[tuple[Callable[[type], bool], Callable[[type, Any, Write], dict[str, Any]]], ...]] = (
    (_is_enum, _write_enum),
    (_is_namedtuple, _write_namedtuple),
    (_is_model, _write_model),
    (_is_dataclass, _write_dataclass),
)

READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$enum": _read_enum,
    "$flag": _read_flag,
    "$namedtuple": _read_namedtuple,
    "$model": _read_model,
    "$object": _read_dataclass,
}
"""The reader of each such tag's content, by tag with its dollar sign."""
