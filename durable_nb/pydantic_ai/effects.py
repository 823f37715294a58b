"""The effects of a body on its agent run besides its result: recorded with it, and applied on replay."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from pydantic_ai.tools import RunContext

__all__ = ["Effects", "apply", "collected", "current"]

_current: ContextVar[Effects | None] = ContextVar("durable_nb_effects", default=None)


class Effects:
    """The usage that one attempt of a body added, the events it emitted, the messages it enqueued.

    Also whether it has cancelled the agent run, with ``ctx.cancel()``.

    Usage is counted on a copy, because parallel tools add to one shared object.
    """

    def __init__(self) -> None:
        self._emitted: list[Any] = []
        self._enqueued: list[Any] = []
        self._usage: Any = None
        self._before: Any = None
        self._cancellation: Any = None

    def context(self, ctx: RunContext[Any]) -> RunContext[Any]:
        """Return the context to pass to the body in place of the agent run's own."""
        if self._usage is None:
            self._before, self._usage = copy.deepcopy(ctx.usage), copy.deepcopy(ctx.usage)
        events = ctx._event_stream_buffer  # noqa: SLF001 - all emitted events pass through it
        changes: dict[str, Any] = {}
        if (cancellation := vars(ctx).get("_cancellation")) is not None:  # not in all versions of pydantic-ai
            self._cancellation = changes["_cancellation"] = _Cancellation(cancellation)
        return replace(
            ctx,
            usage=self._usage,
            pending_messages=self._enqueued,
            _event_stream_buffer=None if events is None else _Tee(events, self._emitted),
            **changes,
        )

    def pass_on_cancellation(self) -> None:
        """Cancel the agent run if the body has asked for that and it has not happened yet."""
        if self._cancellation is not None:
            self._cancellation.pass_on()

    def recorded(self) -> dict[str, Any]:
        """Return the effects to record by name, without those that are empty."""
        delta = None if self._usage is None else self._usage - self._before
        found = {
            "usage": delta if delta is not None and delta.has_values() else None,
            "emitted": self._emitted,
            "enqueued": list(self._enqueued),
            "cancelled": getattr(self._cancellation, "cancel_requested", False),
        }
        return {name: value for name, value in found.items() if value}


class _Cancellation:
    """The cancellation of an agent run, as the body of a step sees it.

    A body on the run's loop is interrupted at its next ``await``. One in another thread continues to its end,
    so that the run is cancelled only then: otherwise its result would be lost, and a resume execute it again.
    """

    def __init__(self, cancellation: Any) -> None:
        self._cancellation = cancellation
        self._thread = threading.get_ident()
        self._requested = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cancellation, name)

    @property
    def cancel_requested(self) -> bool:
        return self._requested or self._cancellation.cancel_requested

    def cancel(self) -> None:
        self._requested = True
        if threading.get_ident() == self._thread:
            self._cancellation.cancel()

    def pass_on(self) -> None:
        if self._requested:
            self._cancellation.cancel()


class _Tee(list[Any]):
    """Passes events on and keeps copies of them, since a consumer may change an event."""

    def __init__(self, events: list[Any], copies: list[Any]) -> None:
        super().__init__()
        self._events, self._copies = events, copies

    def append(self, event: Any) -> None:
        self._copies.append(copy.deepcopy(event))
        self._events.append(event)


def current() -> Effects | None:
    """Return the effects of the current attempt, None outside an attempt."""
    return _current.get()


@contextmanager
def collected() -> Iterator[Effects]:
    """Collect the effects of the code in the block."""
    effects = Effects()
    token = _current.set(effects)
    try:
        yield effects
    except BaseException:
        effects.pass_on_cancellation()
        raise
    finally:
        _current.reset(token)


def apply(recorded: dict[str, Any], ctx: RunContext[Any], *, executed: bool) -> None:
    """Apply recorded effects to an agent run.

    Args:
        recorded: The recorded values by name.
        ctx: The agent run's context.
        executed: Whether the body was executed by this call: its events were emitted already.
    """
    if "usage" in recorded:
        ctx.usage.incr(recorded["usage"])
    for message in recorded.get("enqueued", ()):
        if ctx.pending_messages is not None:
            ctx.pending_messages.append(message)
    if "cancelled" in recorded:
        ctx.cancel()  # on replay too, which takes the same branch
    events = ctx._event_stream_buffer  # noqa: SLF001
    if events is not None and not executed:
        events.extend(recorded.get("emitted", ()))
