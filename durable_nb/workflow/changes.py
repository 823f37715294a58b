"""Changes that the body of a task makes in its arguments: kept with its result, named where they are not."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from durable_nb import codec, fingerprint
from durable_nb.engine import in_place
from durable_nb.engine.unkept import Unkept, unkept_of, with_unkept
from durable_nb.errors import DurableNotice, ResetStep, StepNotRestored

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller, StepHandle
    from durable_nb.engine.passes import Pass
    from durable_nb.records import Payload

__all__ = ["pack", "pack_failure", "say_what_is_lost", "unpack", "unpack_failure", "watching"]

_INSTEAD: Final = "Return the new value from the task instead"
_lock: Final = threading.Lock()


@contextmanager
def watching(
    caller: Caller, handle: StepHandle, arguments: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Watch the arguments of a call in a block, which is its body.

    Args:
        caller: The caller.
        handle: The step.
        arguments: The values to watch, by name; by default the call's arguments.
    """
    arguments = handle.arguments if arguments is None else arguments
    watch = in_place.Watch.of(arguments, _unknown(handle)) if arguments else None
    if watch is None:
        yield
        return
    handle.watch = watch
    using = handle.call.step_id, watch
    _begin(caller.current, *using)
    try:
        yield
    finally:
        _end(caller.current, *using)


def _begin(current: Pass, step_id: str, watch: in_place.Watch) -> None:
    """Note which objects a step has, and which of them steps that run at the same time have too."""
    with _lock:
        for key in watch.objects:
            users = current.in_use.setdefault(key, [])
            for other_id, other in users:
                if not f"{step_id}/".startswith(f"{other_id}/"):  # a step inside another is part of it
                    watch.shared.add(key)
                    other.shared.add(key)
            users.append((step_id, watch))


def _end(current: Pass, step_id: str, watch: in_place.Watch) -> None:
    with _lock:
        for key in watch.objects:
            current.in_use[key].remove((step_id, watch))
            if not current.in_use[key]:
                del current.in_use[key]


def _unknown(handle: StepHandle) -> frozenset[str]:
    return frozenset(fingerprint.unknown(handle.call.arguments or ""))


def pack(handle: StepHandle, value: Any, *, is_local: bool) -> Payload:
    """Encode the result of a body, with what it changed in its arguments.

    Args:
        handle: The step, whose lineage names the arguments that may have been changed without that.
        value: The result.
        is_local: Whether the body was executed here: elsewhere it changes nothing here.
    """
    changes = handle.watch.changes() if handle.watch else None
    payload = changes.encode(value) if changes else None
    if payload is not None:  # it has the objects of the arguments that the result holds too
        _note(handle, changes, is_local=is_local)
        return payload
    returned = handle.watch.returned(value) if handle.watch and is_local else []
    _note(handle, changes, returned, is_local=is_local)
    return codec.encode(value)


def pack_failure(handle: StepHandle, failure: Exception, *, is_local: bool) -> Payload:
    """Encode the failure of a body, with what it changed in its arguments before: see ``pack``."""
    payload = codec.encode_failure(failure)
    changes = handle.watch.changes() if handle.watch else None
    if changes:
        payload = changes.add_to_failure(payload)
    _note(handle, changes, is_local=is_local)
    say_what_is_lost(handle)
    return payload


def _note(
    handle: StepHandle, changes: in_place.Changes | None, returned: Sequence[Any] = (), *, is_local: bool
) -> None:
    unchecked = handle.watch.unchecked if handle.watch and is_local else {}
    lost, shared = (changes.lost, changes.shared) if changes else ({}, [])
    handle.step = with_unkept(handle.step, Unkept(lost, shared, unchecked, [*returned]))


def say_what_is_lost(handle: StepHandle) -> None:
    """Warn that the body of a step has changed arguments, and that the changes are not kept."""
    unkept = unkept_of(handle.step)
    where = _where(handle)
    for name, reason in unkept.lost.items():
        what = f"its body changed {name!r} in place, and the change cannot be saved: {reason}"
        _warn(f"{where}: {what}. A replay of the step will be refused. {_INSTEAD}")
    for name in unkept.shared:
        what = f"its body changed {name!r} in place while another step that has it was running"
        _warn(f"{where}: {what}. A replay will not make the change again. {_INSTEAD}")


def unpack(current: Pass, handle: StepHandle, payload: Payload) -> Any:
    """Return a recorded result, and make the changes of the arguments again that are kept with it."""
    unkept = _checked(current, handle)
    arguments = handle.arguments or {}
    changed = fingerprint.differ(handle.step.arguments, handle.call.arguments)
    if payload.format == in_place.FORMAT:
        return in_place.restore(payload, arguments, only_result=changed)
    value, returned = codec.decode(payload), unkept.returned
    return in_place.with_returned(value, returned, arguments) if returned and not changed else value


def unpack_failure(current: Pass, handle: StepHandle, payload: Payload) -> BaseException:
    """Return a recorded failure, and make the changes of the arguments again that are kept with it."""
    _checked(current, handle)
    if not fingerprint.differ(handle.step.arguments, handle.call.arguments):
        in_place.restore_failure(payload, handle.arguments or {})
    return codec.decode_failure(payload)


def _checked(current: Pass, handle: StepHandle) -> Unkept:
    """Return what of the arguments a step does not keep, if its replay may go on without it."""
    unkept = unkept_of(handle.step)
    for name, reason in unkept.lost.items():
        raise StepNotRestored(
            f"its body changed {name!r} in place, and the change could not be saved: {reason}",
            remedy=("Return the new value from the task instead, and run it again: ", ResetStep()),
        )
    if unkept.shared:
        names = ", ".join(map(repr, unkept.shared))
        _warn(f"{_where(handle)}: replayed without its changes of {names}, which other steps were using")
    if unkept.unchecked and _is_first(current, handle):
        names = ", ".join(f"{name!r} ({reason})" for name, reason in unkept.unchecked.items())
        what = f"replayed; whether its body changes {names} in place cannot be checked"
        _warn(f"{_where(handle)}: {what}, and a replay changes nothing there")
    return unkept


def _is_first(current: Pass, handle: StepHandle) -> bool:
    """Return whether no step of the same task has been replayed in this pass with such a notice."""
    before = len(current.noticed)
    current.noticed.add(handle.call.code or handle.call.step_id)
    return len(current.noticed) > before


def _where(handle: StepHandle) -> str:
    return f"run {handle.step.run_id!r}, step {handle.call.step_id!r}"


def _warn(message: str) -> None:
    warnings.warn(message, DurableNotice, stacklevel=4)
