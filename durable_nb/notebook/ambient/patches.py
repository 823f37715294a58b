"""Attributes that a cell set on modules and library classes: `config.DEBUG = True`, `json.dumps = mine`."""

from __future__ import annotations

import importlib
import itertools
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from durable_nb import _stored
from durable_nb.lookup import importable

__all__ = ["Patch", "put", "set_by"]


class Patch(NamedTuple):
    """One attribute that a cell set.

    Attributes:
        module: The module's name.
        path: The attribute's name; for a class, preceded by the class's name: ``DataFrame.shape``.
        value: Its new value.
    """

    module: str
    path: str
    value: Any


def set_by(user_ns: Mapping[str, Any], stored: Iterable[tuple[str, ...]]) -> Iterator[Patch]:
    """Yield the attributes of modules and library classes that a cell's assignments set.

    Args:
        user_ns: The namespace, after the cell.
        stored: The assigned attributes: ``("config", "DEBUG")`` for `config.DEBUG = True`.
    """
    yield from _streams()
    for name, *between, attribute in stored:
        holder: Any = user_ns.get(name)
        for part in between:
            holder = vars(holder).get(part) if isinstance(holder, ModuleType) else None
        if isinstance(holder, ModuleType) and holder.__name__ != "__main__" and hasattr(holder, attribute):
            yield Patch(holder.__name__, attribute, getattr(holder, attribute))
        elif issubclass(type(holder), type) and attribute in vars(holder) and importable(holder):
            yield Patch(holder.__module__, f"{holder.__qualname__}.{attribute}", vars(holder)[attribute])


def _streams() -> Iterator[Patch]:
    """Yield the streams in place of the process's own: the cell may have written to one, and changed it."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not _stored.STREAMS[name] and type(stream).__module__.partition(".")[0] != "ipykernel":
            yield Patch("sys", name, stream)


def put(_module: ModuleType, patches: Iterable[tuple[str, str, Any]]) -> None:
    """Set attributes again; a failure does not affect the others.

    Args:
        patches: The fields of each ``Patch``.

    Raises:
        LookupError: Some attributes could not be set.
    """
    failed = []
    for patch in itertools.starmap(Patch, patches):
        try:
            _set(*patch)
        except Exception as error:
            failed.append(f"{patch.module}.{patch.path} ({type(error).__name__}: {error})")
    if failed:
        raise LookupError(", ".join(failed))


def _set(module: str, path: str, value: object) -> None:
    *holder, attribute = path.split(".")
    found: Any = importlib.import_module(module)
    setattr(operator.attrgetter(".".join(holder))(found) if holder else found, attribute, value)
