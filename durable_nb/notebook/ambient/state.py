"""State outside the namespace that a cell changed: random streams, the environment, options of libraries.

`take` notes how it is before a cell, `Snapshot.changes` pickles what the cell changed, and `restore` puts it
back: what importing depends on before the names, the rest after them. Only modules that are loaded are
looked at. What cannot be saved or put back is named, and takes nothing else along.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from durable_nb import fingerprint
from durable_nb.errors import DurableError
from durable_nb.notebook.ambient import patches
from durable_nb.notebook.ambient.kinds import KINDS, PATCHES, NotKeptError, secrets
from durable_nb.notebook.namespace.pickling import NamedRef, Saver, load, reason
from durable_nb.notebook.namespace.scan import named_objects

__all__ = ["SavedState", "StateSnapshot", "restore", "take"]

_KINDS: Final = frozenset(kind.name for kind in KINDS)


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a cell changed, as bytes.

    Attributes:
        pickled: By the name of its kind.
        unsaved: Why other state that the cell changed is not saved.
    """

    pickled: dict[str, bytes]
    unsaved: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Describe the parts in what JSON can hold."""
        return {"kinds": list(self.pickled), "unsaved": self.unsaved}

    @property
    def parts(self) -> list[bytes]:
        """The bytes, in the order the header gives."""
        return list(self.pickled.values())

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview | DurableError]) -> Self:
        """Put together what `header` and `parts` took apart; its parts are the last ones."""
        kinds, pickled, unsaved = header["kinds"], {}, dict(header["unsaved"])
        for kind, part in zip(kinds, parts[len(parts) - len(kinds) :], strict=True):
            if isinstance(part, DurableError):
                unsaved[kind] = str(part)
            else:
                pickled[kind] = bytes(part)
        return cls(pickled, unsaved)


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """How the state was before a cell, by the name of its kind."""

    _before: dict[str, Any] = field(repr=False)

    def changes(self, user_ns: dict[str, Any], stored: Collection[tuple[str, ...]] = ()) -> SavedState:
        """Pickle what is not as it was; what cannot be is named.

        Args:
            user_ns: The namespace, which the state refers to where a name is bound to part of it.
            stored: The attributes that the cell stores into, as `patches.set_by` takes them.
        """
        after, unsaved = _look()
        pickled, live = {}, named_objects(user_ns)
        for kind in KINDS:
            if kind.name not in after:
                continue
            before = self._before.get(kind.name)
            before = kind.fresh(sys.modules[kind.module]) if before is None else before
            if before != after[kind.name]:
                saver = Saver(user_ns, {} if kind.before_names else live)
                try:
                    pickled[kind.name], _ = saver.save(kind.change(before, after[kind.name]))
                except Exception as error:
                    unsaved[kind.name] = _why(saver.blamed, error)
        saved = SavedState(pickled, unsaved | secrets(self._before, after))
        if stored:
            _save_patches(saved, user_ns, live, patches.set_by(user_ns, stored))
        return saved


def _save_patches(
    saved: SavedState, user_ns: dict[str, Any], live: dict[int, str], found: Iterable[patches.Patch]
) -> None:
    kept = []
    for patch in found:
        saver = Saver(user_ns, live)
        if f"{patch.module}.{patch.path}" in _KINDS:  # sys.path, which is put back with more care
            continue
        if id(patch.value) in live:
            patch = patch._replace(value=NamedRef(live[id(patch.value)]))
        try:
            if fingerprint.is_secret(patch.path, patch.value):
                raise NotKeptError("by its name it is a secret")
            saver.save(tuple(patch))
            kept.append(tuple(patch))
        except Exception as error:
            saved.unsaved[f"{patch.module}.{patch.path}"] = _why(saver.blamed, error)
    if kept:
        saved.pickled[PATCHES], _ = Saver(user_ns, live).save(kept)


def take() -> StateSnapshot:
    """Note how the state is before a cell; draws from no random stream."""
    return StateSnapshot(_look()[0])


def restore(user_ns: dict[str, Any], saved: SavedState, *, before_names: bool) -> dict[str, str]:
    """Put saved state back; gives why some of it could not be, by kind.

    Args:
        user_ns: The live namespace.
        saved: What `Snapshot.changes` gave.
        before_names: Whether to put back what importing depends on, or the rest.
    """
    failed = {}
    for kind in KINDS:
        if kind.name in saved.pickled and kind.before_names == before_names:
            try:
                kind.put(importlib.import_module(kind.module), load(saved.pickled[kind.name], (), user_ns))
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return failed


def _look() -> tuple[dict[str, Any], dict[str, str]]:
    found, failed = {}, {}
    for kind in KINDS:
        if kind.module in sys.modules:
            try:
                found[kind.name] = kind.look(sys.modules[kind.module])
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return found, failed


def _why(blamed: object, error: Exception) -> str:
    if isinstance(error, NotKeptError) or blamed is None:
        return str(error) if isinstance(error, NotKeptError) else f"{type(error).__name__}: {error}"
    return reason(None, blamed, error)
