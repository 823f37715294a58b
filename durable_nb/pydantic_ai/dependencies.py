"""What a body changes in the dependencies of its agent: named, since dependencies are never saved."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from durable_nb.engine.unkept import Unkept, unkept_of, with_unkept
from durable_nb.errors import DurableNotice

if TYPE_CHECKING:
    from durable_nb.engine.caller import StepHandle
    from durable_nb.engine.passes import Pass

__all__ = ["WATCHED", "note", "say_what_is_lost", "say_what_was_lost"]

WATCHED: Final = "ctx.deps"
"""The name of the dependencies in messages: what a tool calls them."""

_SHOWN: Final = 3
"""Changed places that a message names."""

_INSTEAD: Final = "Return the value from the tool instead, or keep it where another process finds it"


def note(handle: StepHandle) -> None:
    """Note in the record of a step what its body has changed in the dependencies.

    Args:
        handle: The step, whose body has ended.
    """
    places, is_shared = handle.watch.changed_places() if handle.watch else ([], False)
    shown, more = places[:_SHOWN], len(places) - _SHOWN
    if more > 0:
        shown.append(f"{more} more")
    whose = "its body, or that of a step that ran at the same time," if is_shared else "its body"
    handle.step = with_unkept(handle.step, Unkept(lost=dict.fromkeys(shown, whose)))


def say_what_is_lost(current: Pass, handle: StepHandle) -> None:
    """Warn that a body has changed the dependencies; once for each tool in a pass."""
    lost = unkept_of(handle.step).lost
    if lost and _is_first(current, handle):
        what = f"{next(iter(lost.values()))} changed {', '.join(lost)}, and dependencies are not kept"
        _warn(handle, f"{what}: a replay will not make the change again. {_INSTEAD}")


def say_what_was_lost(current: Pass, handle: StepHandle) -> None:
    """Warn that a step replays without what its body has changed in the dependencies: see above."""
    lost = unkept_of(handle.step).lost
    if lost and _is_first(current, handle):
        what = f"replayed without its changes of {', '.join(lost)}, since dependencies are not kept"
        _warn(handle, f"{what}. {_INSTEAD}")


def _is_first(current: Pass, handle: StepHandle) -> bool:
    key = f"{WATCHED}:{handle.call.code or handle.call.step_id.partition('#')[0]}"
    is_first = key not in current.noticed
    current.noticed.add(key)
    return is_first


def _warn(handle: StepHandle, message: str) -> None:
    where = f"run {handle.step.run_id!r}, step {handle.call.step_id!r}"
    warnings.warn(f"{where}: {message}", DurableNotice, stacklevel=5)
