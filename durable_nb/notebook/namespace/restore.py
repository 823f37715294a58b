"""Restore the names of a durable cell, in another process or pass.

Names come back in two turns, over all groups: functions, classes, modules and plain data first, since
loading an object may call or read them. A name that cannot be loaded is bound to a placeholder, and so is a
name whose value holds the object that failed; other names of its group are restored.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from durable_nb.codec.sources import remember
from durable_nb.errors import DurableError, spelled
from durable_nb.errors.redaction import redacted
from durable_nb.notebook.namespace.marks import changed_since
from durable_nb.notebook.namespace.pickling import Stream
from durable_nb.notebook.namespace.placeholder import placeholder
from durable_nb.notebook.namespace.saved import Group, SavedNames
from durable_nb.notebook.namespace.scan import RESULT
from durable_nb.notebook.namespace.unnamed import is_unnamed, put_unnamed, unnamed

__all__ = ["NO_RESULT", "RestoredNames", "restore_names"]

NO_RESULT: Final = object()
"""Stands for the last value of a cell that has none."""


@dataclass(frozen=True, slots=True)
class RestoredNames:
    """The names that were restored.

    Attributes:
        names: The names that were bound.
        result: The cell's last value; NO_RESULT if it has none or it could not be saved.
        failed: Why other names could not be loaded; they are bound to placeholders.
    """

    names: tuple[str, ...]
    result: Any
    failed: dict[str, str]


def restore_names(user_ns: dict[str, Any], saved: SavedNames, step: str = "") -> RestoredNames:
    """Bind and delete the names of a saved cell; names that fail are bound to placeholders.

    Args:
        user_ns: The live namespace.
        saved: The saved changes of the cell.
        step: The step's id, named in placeholders.
    """
    for name in saved.deleted:
        user_ns.pop(name, None)
    _bind_placeholders(user_ns, saved.unsaved, step)
    remember(saved.sources)
    others = _Others(user_ns, saved)
    loads = [_GroupLoad(group, others) for group in saved.groups]
    values, failed = dict[str, Any](), dict[str, str]()
    for turn in (_GroupLoad.load_first, _GroupLoad.load_rest):
        for load in loads:
            found = turn(load)
            values |= found
            user_ns.update({name: value for name, value in found.items() if _is_in_namespace(name)})
            failed |= {name: _why(error, step) for name, error in load.failed.items()}
    failed |= put_unnamed(user_ns, values, saved.deleted)
    _bind_placeholders(user_ns, failed, step)
    names = tuple(name for group in saved.groups for name in group.names if name in values and name != RESULT)
    return RestoredNames(names, values.get(RESULT, NO_RESULT), failed)


class _Others:
    """The names outside a cell's groups to whose objects these refer: the live ones, or the copies beside.

    Args:
        user_ns: The live namespace.
        saved: The saved names of the cell.
    """

    def __init__(self, user_ns: dict[str, Any], saved: SavedNames) -> None:
        self._user_ns, self._beside = user_ns, saved.beside
        self._changed = changed_since(saved.marks, {**user_ns, **unnamed(user_ns)})

    def stream(self, group: Group) -> Stream:
        """Return the stream of a group, on the names to which it refers."""
        if self._changed.isdisjoint(group.refers):
            try:
                return self._on(group, unnamed(self._user_ns))
            except LookupError:
                if self._beside is None or not group.refers:
                    raise
        return self._on(group, self._copies)

    def _on(self, group: Group, instead: Mapping[str, Any]) -> Stream:
        return Stream(group.data, group.buffers, self._user_ns, instead, referring=bool(group.refers))

    @functools.cached_property
    def _copies(self) -> Mapping[str, Any]:
        return _loaded_whole(self._on(self._beside, {})) if self._beside else {}


def _loaded_whole(stream: Stream) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while stream.has_more():
        found |= stream.load()
    return found


class _GroupLoad:
    """Loads a group of names in two turns.

    Args:
        group: The group.
        others: The names to which it refers.

    Attributes:
        failed: Why some of its names could not be loaded.
    """

    def __init__(self, group: Group, others: _Others) -> None:
        self._group, self._others = group, others
        self._stream: Stream | None = None
        self.failed: dict[str, Exception] = {}

    def load_first(self) -> dict[str, Any]:
        """Return the values that others may need while they are loaded, by name."""
        return self._loaded(self._group.first)

    def load_rest(self) -> dict[str, Any]:
        """Return the other values, by name."""
        return self._loaded(len(self._group.names) - self._group.first)

    def _loaded(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            while len(found) < count and not self.failed:
                self._stream = self._stream or self._others.stream(self._group)
                found |= self._stream.load()
        except Exception as error:
            return self._salvaged(error)
        return found

    def _salvaged(self, error: Exception) -> dict[str, Any]:
        try:
            found, self.failed = self._others.stream(self._group).salvaged()
        except Exception:
            found, self.failed = {}, {}
        lost = [name for name in self._group.names if name not in found and name not in self.failed]
        self.failed |= dict.fromkeys(lost if lost or self.failed else self._group.names, error)
        return found


def _is_in_namespace(name: str) -> bool:
    return name != RESULT and not is_unnamed(name)


def _why(error: Exception, step: str) -> str:
    if isinstance(error, DurableError):  # the reason stands where the step is named already
        return f"{error.what}. {spelled(error.remedy or '', step=step)}".rstrip(" .")
    return redacted(f"{type(error).__name__}: {error}")


def _bind_placeholders(user_ns: dict[str, Any], reasons: dict[str, str], step: str) -> None:
    user_ns.update(
        {name: placeholder(name, step, reasons[name]) for name in filter(_is_in_namespace, reasons)}
    )
