"""What a body changes in place in its arguments: found, kept with its result, and made again on replay.

An object is named by the path that leads to it from the arguments. A replay thus changes the caller's own
objects: what else refers to them sees the change, and the result refers to them where it did.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from durable_nb import fingerprint, settings
from durable_nb.codec.locate import type_name
from durable_nb.codec.parts import Path, children, find_parts, follow
from durable_nb.errors import ResetStep, StepNotRestored
from durable_nb.fingerprint.mutable import IMMUTABLE, Kind, has_attributes, is_fixed, kind_of
from durable_nb.records import Payload

if TYPE_CHECKING:
    from durable_nb.codec.pickling import Saver

__all__ = ["FORMAT", "Changes", "Watch", "restore", "restore_failure", "with_returned"]

FORMAT = "changed"
"""The format of a result that is kept with changes of the arguments."""

_MOST_RETURNED: Final = 100
"""Items of a tuple that are looked at for objects of the arguments."""


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
        found = self._changed()
        return Changes(self, found) if found else None

    def returned(self, result: Any) -> list[tuple[int | None, Path]]:
        """Return which objects of the arguments a result is or, as a short tuple, holds, with their paths."""
        items: list[tuple[int | None, Any]] = [(None, result)]
        if type(result) is tuple:
            items = [*enumerate(result)] if len(result) <= _MOST_RETURNED else []
        found = [(place, self.objects[id(item)].path) for place, item in items if id(item) in self.objects]
        return [(place, path) for place, path in found if self._is_found_again(path)]

    def _is_found_again(self, path: Path) -> bool:
        """Return whether a path leads to an equal object on replay, and can be written as JSON."""
        plain = all(type(where) in (str, int) for step in path for where in step)
        return plain and path[0][1] not in self._unknown

    def changed_places(self) -> tuple[list[str], bool]:
        """Return what has changed since, as code names it, and whether another step may have done it."""
        found = self._changed()
        names = dict.fromkeys(name for one in found for name in _place_names(one))
        return [*names], any(id(one.obj) in self.shared for one in found)

    def _changed(self) -> list[_Noted]:
        return [
            one
            for one in self.objects.values()
            if one.kind and not one.kind.is_same(one.before, one.kind.note(one.obj))
        ]

    def outline(self, noted: _Noted) -> str | None:
        """Return a fingerprint of what an object held itself, if it may hold something else on replay."""
        if noted.path[0][1] not in self._unknown or type(noted.before) is not list:
            return None
        return _outline(noted.before)


def _place_names(noted: _Noted) -> list[str]:
    """Return what has changed in an object as code names it: ``ctx.deps.total``, ``ctx.deps['rows']``."""
    (_, name), *path = noted.path
    text = str(name) + "".join(map(_step_text, path))
    assert noted.kind is not None
    now = noted.kind.note(noted.obj)
    if type(now) is not dict or type(noted.before) is not dict:
        return [text]
    changed = [key for key in {**noted.before, **now} if noted.before.get(key, now) is not now.get(key, now)]
    kind = "key" if isinstance(noted.obj, dict) and path[-1:] != [("attributes",)] else "attribute"
    return [text + _step_text((kind, key)) for key in changed] or [text]


def _step_text(step: tuple[Any, ...]) -> str:
    kind, *where = step
    if kind in ("attribute", "slot"):
        return f".{where[0]}"
    if kind in ("key", "item"):
        return f"[{where[0]!r:.40}]"
    return "" if kind == "attributes" else "[…]"


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


def with_returned(result: Any, returned: list[tuple[int | None, Any]], arguments: Mapping[str, Any]) -> Any:
    """Return a recorded result in which what was an object of the arguments is that of the caller.

    Args:
        result: The result.
        returned: The output of ``Watch.returned``, also as JSON gives it back.
        arguments: The arguments of the call, by name, equal to those on record.
    """
    own = {place: follow(arguments, tuple(map(tuple, path))) for place, path in returned}
    if None in own:
        return own[None]
    return tuple(own.get(place, item) for place, item in enumerate(result))


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
