"""What a body does to its agent run besides returning: recorded with its result, and done again on replay."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from pydantic_ai.tools import RunContext

__all__ = ["Effects", "current", "entered", "repeat"]

_current: ContextVar[Effects | None] = ContextVar("durable_nb_effects", default=None)


class Effects:
    """The usage that one attempt of a body added, the events it emitted, the messages it enqueued.

    Usage is counted on a copy: parallel tools share one object, where before and after say nothing.
    """

    def __init__(self) -> None:
        self._emitted: list[Any] = []
        self._enqueued: list[Any] = []
        self._usage: Any = None
        self._before: Any = None

    def context(self, ctx: RunContext[Any]) -> RunContext[Any]:
        """The context that the body gets instead of its run's own."""
        if self._usage is None:
            self._before, self._usage = copy.deepcopy(ctx.usage), copy.deepcopy(ctx.usage)
        events = ctx._event_stream_buffer  # noqa: SLF001 - the one place that all emitted events pass
        return replace(
            ctx,
            usage=self._usage,
            pending_messages=self._enqueued,
            _event_stream_buffer=None if events is None else _Tee(events, self._emitted),
        )

    def recorded(self) -> dict[str, Any]:
        """What there is to be recorded."""
        delta = None if self._usage is None else self._usage - self._before
        found = {
            "usage": delta if delta is not None and delta.has_values() else None,
            "emitted": self._emitted,
            "enqueued": list(self._enqueued),
        }
        return {name: value for name, value in found.items() if value}


class _Tee(list[Any]):
    """Hands events on as they come, and keeps copies: whoever gets one may change it."""

    def __init__(self, events: list[Any], copies: list[Any]) -> None:
        super().__init__()
        self._events, self._copies = events, copies

    def append(self, event: Any) -> None:
        self._copies.append(copy.deepcopy(event))
        self._events.append(event)


def current() -> Effects | None:
    """The effects of the attempt that this code is part of."""
    return _current.get()


@contextmanager
def entered() -> Iterator[Effects]:
    """Collect the effects of what is done inside."""
    effects = Effects()
    token = _current.set(effects)
    try:
        yield effects
    finally:
        _current.reset(token)


def repeat(recorded: dict[str, Any], ctx: RunContext[Any], *, executed: bool) -> None:
    """Do to a run what was recorded; events of a body that was executed just now have been seen already."""
    if "usage" in recorded:
        ctx.usage.incr(recorded["usage"])
    for message in recorded.get("enqueued", ()):
        if ctx.pending_messages is not None:
            ctx.pending_messages.append(message)
    events = ctx._event_stream_buffer  # noqa: SLF001
    if events is not None and not executed:
        events.extend(recorded.get("emitted", ()))
