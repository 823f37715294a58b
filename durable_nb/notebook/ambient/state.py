"""State outside the namespace that a cell changes: random generators, the environment, library options.

`snapshot_state` reads the state before a cell, `StateSnapshot.changes` pickles the state that the cell
changed, and `restore_state` restores it: state that imports depend on before the names, the rest after
them. Only loaded modules are read. State that cannot be saved or restored is reported, and does not affect
other state.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from durable_nb.codec.pickling import Call, Saver, refusal
from durable_nb.errors import DurableError
from durable_nb.errors.redaction import SENSITIVE, redacted, secret_in
from durable_nb.notebook.ambient import patches
from durable_nb.notebook.ambient.kinds import KINDS, PATCHES, NotKeptError, secrets
from durable_nb.notebook.namespace.pickling import Stream
from durable_nb.notebook.namespace.scan import named_objects

__all__ = ["SavedState", "StateSnapshot", "restore_state", "snapshot_state"]

_KINDS: Final = frozenset(kind.name for kind in KINDS)


@dataclass(frozen=True, slots=True)
class SavedState:
    """The state that a cell changed, pickled.

    Attributes:
        pickled: The pickles, by the name of the kind.
        unsaved: Why other state that the cell changed is not saved.
    """

    pickled: dict[str, bytes]
    unsaved: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Return a description of the parts that can be written as JSON."""
        return {"kinds": list(self.pickled), "unsaved": self.unsaved}

    @property
    def parts(self) -> list[bytes]:
        """The pickles, in the header's order."""
        return list(self.pickled.values())

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview | DurableError]) -> Self:
        """Rebuild saved state from its header and a list of parts that ends with its own."""
        kinds, pickled, unsaved = header["kinds"], {}, dict(header["unsaved"])
        for kind, part in zip(kinds, parts[len(parts) - len(kinds) :], strict=True):
            if isinstance(part, DurableError):
                unsaved[kind] = str(part)
            else:
                pickled[kind] = bytes(part)
        return cls(pickled, unsaved)


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The state before a cell, by the name of its kind."""

    _before: dict[str, Any] = field(repr=False)

    def changes(self, user_ns: dict[str, Any], stored: Collection[tuple[str, ...]] = ()) -> SavedState:
        """Pickle the state that changed since the snapshot, and report state that cannot be pickled.

        Args:
            user_ns: The namespace; state refers by name to objects that are bound in it.
            stored: The attributes that the cell assigns to, as `patches.set_by` takes them.
        """
        after, unsaved = _read_all()
        pickled, live = {}, functools.cache(lambda: named_objects(user_ns))
        for kind in KINDS:
            if kind.name not in after:
                continue
            before = self._before.get(kind.name)
            before = kind.fresh(sys.modules[kind.module]) if before is None else before
            if before != after[kind.name]:
                saver = Saver(user_ns, {} if kind.before_names else live())
                try:
                    pickled[kind.name], _ = saver.save(kind.change(before, after[kind.name]))
                except Exception as error:
                    unsaved[kind.name] = _why(saver.blamed, error)
        saved = SavedState(pickled, unsaved | secrets(self._before, after))
        if found := list(patches.set_by(user_ns, stored)):
            _save_patches(saved, user_ns, live(), found)
        return saved


def _save_patches(
    saved: SavedState, user_ns: dict[str, Any], live: dict[int, Any], found: Iterable[patches.Patch]
) -> None:
    kept = []
    for patch in found:
        saver = Saver(user_ns, live)
        if f"{patch.module}.{patch.path}" in _KINDS:  # sys.path has a kind of its own
            continue
        if id(patch.value) in live:
            patch = patch._replace(value=Call(*live[id(patch.value)]))
        try:
            if secret_in(patch.path, patch.value):
                raise NotKeptError(SENSITIVE)
            saver.save(tuple(patch))
            kept.append(tuple(patch))
        except Exception as error:
            saved.unsaved[f"{patch.module}.{patch.path}"] = _why(saver.blamed, error)
    if kept:
        saved.pickled[PATCHES], _ = Saver(user_ns, live).save(kept)


def snapshot_state() -> StateSnapshot:
    """Read the state before a cell; does not advance any random generator."""
    return StateSnapshot(_read_all()[0])


def restore_state(user_ns: dict[str, Any], saved: SavedState, *, before_names: bool) -> dict[str, str]:
    """Restore saved state.

    Args:
        user_ns: The live namespace.
        saved: The saved state of a cell.
        before_names: True to restore the state that imports depend on, False to restore the rest.

    Returns:
        Why some state could not be restored, by kind.
    """
    failed = {}
    for kind in KINDS:
        if kind.name in saved.pickled and kind.before_names == before_names:
            try:
                kind.put(
                    importlib.import_module(kind.module), Stream(saved.pickled[kind.name], (), user_ns).load()
                )
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return failed


def _read_all() -> tuple[dict[str, Any], dict[str, str]]:
    found, failed = {}, {}
    for kind in KINDS:
        if kind.module in sys.modules:
            try:
                found[kind.name] = kind.read(sys.modules[kind.module])
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return found, failed


def _why(blamed: object, error: Exception) -> str:
    if isinstance(error, NotKeptError) or blamed is None:
        return str(error) if isinstance(error, NotKeptError) else redacted(f"{type(error).__name__}: {error}")
    return refusal(None, blamed, error)
