"""What a body changes in place in its arguments: found, kept with its result, and made again on replay.

An object is named by the path that leads to it from the arguments. A replay thus changes the caller's own
objects: what else refers to them sees the change, and the result refers to them where it did.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from durable_nb import fingerprint, settings
from durable_nb.codec.locate import type_name
from durable_nb.codec.parts import Path, children, find_parts, follow
from durable_nb.errors import ResetStep, StepNotRestored
from durable_nb.fingerprint.mutable import IMMUTABLE, Kind, has_attributes, is_fixed, kind_of
from durable_nb.records import Payload

if TYPE_CHECKING:
    from durable_nb.codec.pickling import Saver

__all__ = ["FORMAT", "Changes", "Watch", "restore", "restore_failure"]

FORMAT = "changed"
"""The format of a result that is kept with changes of the arguments."""


class _Noted(NamedTuple):
    obj: Any
    path: Path
    kind: Kind | None
    before: Any


class Watch:
    """The mutable objects to which the arguments of a call lead, as they were before its body.

    Args:
        arguments: The arguments by name.
        unknown: Those without a fingerprint: on replay they may be others than they were.

    Attributes:
        objects: The objects by id.
        unchecked: Why changes of some arguments cannot be found.
        shared: The ids of objects that a step that ran at the same time had too.
    """

    def __init__(self, arguments: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> None:
        self.objects: dict[int, _Noted] = {}
        self.unchecked: dict[str, str] = {}
        self.shared: set[int] = set()
        self._unknown = unknown
        self._left = settings.WATCHED_ITEMS
        for name, value in arguments.items():
            self._note_all(name, value)

    @classmethod
    def of(cls, arguments: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> Watch | None:
        """Return a watch of arguments; None if they are plain immutable values."""
        return None if IMMUTABLE.issuperset(map(type, arguments.values())) else cls(arguments, unknown)

    def _note_all(self, name: str, value: Any) -> None:
        left: deque[tuple[Any, Path]] = deque([(value, (("key", name),))])
        seen = dict[int, Any]()
        while left:
            obj, path = left.popleft()
            cls: type = type(obj)
            if id(obj) in seen or id(obj) in self.objects or is_fixed(cls):
                continue
            seen[id(obj)] = obj
            if self._note(name, obj, path):
                left.extend((child, (*path, step)) for step, child in children(obj))
            if self._left < 0:
                self.unchecked[name] = "it holds too much"
                return

    def _note(self, name: str, obj: Any, path: Path) -> bool:
        """Note an object, and return whether it leads to others that are to be noted."""
        cls: type = type(obj)
        kind, is_tuple = kind_of(obj), isinstance(obj, tuple)
        if kind is None and not is_tuple and not has_attributes(cls):
            self.unchecked.setdefault(name, type_name(cls))
            self.objects[id(obj)] = _Noted(obj, path, None, None)
            return False
        self._left -= 1 if kind is None else 1 + kind.size(obj)
        if self._left < 0:
            return False
        before = kind.note(obj) if kind is not None else None
        if not is_tuple:
            self.objects[id(obj)] = _Noted(obj, path, kind, before)
        if kind is not None and before is None:
            self.unchecked.setdefault(name, type_name(type(obj)))
        return cls.__dictoffset__ != 0 or not _is_flat(before)

    def changes(self) -> Changes | None:
        """Return what has changed since; None if nothing has."""
        found = [
            one
            for one in self.objects.values()
            if one.kind and not one.kind.is_same(one.before, one.kind.note(one.obj))
        ]
        return Changes(self, found) if found else None

    def outline(self, noted: _Noted) -> str | None:
        """Return a fingerprint of what an object held itself, if it may hold something else on replay."""
        if noted.path[0][1] not in self._unknown or type(noted.before) is not list:
            return None
        return _outline(noted.before)


def _is_flat(noted: Any) -> bool:
    """Return whether all that an object holds itself is immutable."""
    if type(noted) is dict:
        return IMMUTABLE.issuperset(map(type, noted)) and IMMUTABLE.issuperset(map(type, noted.values()))
    return type(noted) is list and IMMUTABLE.issuperset(map(type, noted))


def _outline(items: list[Any]) -> str | None:
    return fingerprint.value([each if type(each) in IMMUTABLE else type(each).__qualname__ for each in items])


class Changes:
    """The objects that a body has changed in place, among those that were watched.

    Args:
        watch: The watch.
        found: The objects.

    Attributes:
        lost: Why the changes of some arguments are not kept, by the arguments' names.
        shared: The arguments that were changed while a step that had them too was running.
    """

    def __init__(self, watch: Watch, found: list[_Noted]) -> None:
        self._watch = watch
        self._found = [one for one in found if id(one.obj) not in watch.shared]
        self.lost: dict[str, str] = {}
        self.shared = sorted({_name(one) for one in found if id(one.obj) in watch.shared})

    def encode(self, result: Any) -> Payload | None:
        """Encode a result with the changes; None if no change can be kept."""
        saved = self._saved(result)
        return None if saved is None else Payload(FORMAT, saved[0], parts=saved[1])

    def add_to_failure(self, payload: Payload) -> Payload:
        """Return an encoded failure with the changes."""
        saved = self._saved(None, in_parts=False)
        if saved is None:
            return payload
        record = {**json.loads(payload.data), "changes": base64.b64encode(saved[0]).decode("ascii")}
        return payload._replace(data=json.dumps(record, separators=(",", ":")).encode("ascii"))

    def _saved(self, result: Any, *, in_parts: bool = True) -> tuple[bytes, tuple[memoryview, ...]] | None:
        kept = [one for one in self._found if self._can_be_saved(one)]
        if not kept:
            return None
        changes = [
            (one.path, type_name(type(one.obj)), self._watch.outline(one), _change(one)) for one in kept
        ]
        return self._save((changes, result), in_parts=in_parts)

    def _can_be_saved(self, noted: _Noted) -> bool:
        from durable_nb.codec.pickling import Saver, refusal

        saver = Saver(in_parts=False)
        change = None
        try:
            change = _change(noted)
            self._save(change, saver=saver)
        except Exception as error:
            reason = str(error) if change is None else refusal(change, saver.blamed, error)
            self.lost[_name(noted)] = reason
            return False
        return True

    def _save(
        self, value: Any, *, in_parts: bool = True, saver: Saver | None = None
    ) -> tuple[bytes, tuple[memoryview, ...]]:
        from durable_nb.codec.pickling import Saver, part

        found = find_parts(value, self._watch.objects.keys())
        known = [(obj, part(self._watch.objects[key].path)) for key, (obj, _) in found.items()]
        return (saver or Saver(in_parts=in_parts)).save(value, known=known)


def _change(noted: _Noted) -> Any:
    assert noted.kind is not None
    return noted.kind.change(noted.before, noted.obj)


def _name(noted: _Noted) -> str:
    return str(noted.path[0][1])


def restore(payload: Payload, arguments: Mapping[str, Any], *, only_result: bool = False) -> Any:
    """Make the changes of a recorded call again, and return its result.

    Args:
        payload: The output of ``Changes.encode``.
        arguments: The arguments of the call, by name, which are changed.
        only_result: Leave the arguments as they are: the call on record had others.

    Raises:
        StepNotRestored: The arguments are others than they were, or a class no longer exists.
    """
    return _restore(payload.data, payload.parts, arguments, only_result=only_result)


def restore_failure(payload: Payload, arguments: Mapping[str, Any]) -> None:
    """Make the changes again that a call had made before it failed: see ``restore``."""
    if b'"changes":' in payload.data and (changes := json.loads(payload.data).get("changes")):
        _restore(base64.b64decode(changes), (), arguments)


def _restore(data: bytes, parts: Any, arguments: Mapping[str, Any], *, only_result: bool = False) -> Any:
    from durable_nb.codec.pickling import Unpickler

    unpickler = Unpickler(data, parts, own={"part": lambda *path: follow(arguments, path)})
    try:
        found = unpickler.load()
        if unpickler.has_more():  # what came first are the objects that the arguments lead to
            found = unpickler.load()
        changes, result = found
        if only_result:
            return result
        for obj, change in [(_checked(arguments, *one), one[-1]) for one in changes]:
            kind = kind_of(obj)
            assert kind is not None
            kind.put(obj, change)
    except LookupError as error:
        raise StepNotRestored(
            f"its body changed its arguments in place, and they are others now than before it: {error}",
            remedy=("To run it again: ", ResetStep()),
        ) from error
    return result


def _checked(arguments: Mapping[str, Any], path: Path, type_of: str, outline: str | None, change: Any) -> Any:
    """Return an object that holds what it did before the body, or after it, as in the process that ran it."""
    obj = follow(arguments, path)
    kind = kind_of(obj)
    if kind is None or type_name(type(obj)) != type_of:
        raise LookupError(f"{path[0][1]!r} holds {type_name(type(obj))}, not {type_of}")
    if outline is not None and _outline(kind.note(obj)) not in (outline, _outline(change)):
        raise LookupError(f"{path[0][1]!r} holds something else")
    return obj
