"""A step as text: its call, its result or failure, and what a cell showed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from durable_nb import codec
from durable_nb.engine.status import format_duration, format_time
from durable_nb.errors import DurableError
from durable_nb.notebook.cell import FORMAT
from durable_nb.records import Payload, Step, StepStatus

__all__ = ["step_text"]

_LONGEST: Final = 4_000
"""Characters that are shown of a result."""


def step_text(step: Step, payload: Payload | DurableError | None) -> str:
    """Return a step as text of several lines.

    Args:
        step: The step.
        payload: Its result or failure, with its bytes, or why it cannot be read; None if it has none.
    """
    facts = {
        "step": step.step_id,
        "kind": step.kind,
        "status": step.status,
        "attempts": step.attempt,
        "started": format_time(step.started_at),
        "took": format_duration(step.seconds) if step.finished_at else "",
        "answered by": step.delivered_by,
        "usage": step.usage,
    }
    lines = [f"{name:<12}{value}" for name, value in facts.items() if value]
    lines += [f"{'argument':<12}{name} = {shown}" for name, shown in _arguments(step)]
    return "\n".join([*lines, *_outcome(step, payload)])


def _arguments(step: Step) -> list[tuple[str, str]]:
    found = json.loads(step.arguments_repr or "{}")
    return list(found.items()) if isinstance(found, dict) else []


def _outcome(step: Step, payload: Payload | DurableError | None) -> Iterator[str]:
    if payload is None:
        return
    try:
        if isinstance(payload, DurableError):
            raise payload
        if step.status in (StepStatus.FAILED, StepStatus.CAUGHT):
            yield f"{'error':<12}{codec.failure_line(payload)}"
        elif payload.format == FORMAT:
            yield from _of_cell(json.loads(payload.data))
        else:
            yield f"{'result':<12}{repr(codec.decode(payload))[:_LONGEST]}"
    except DurableError as error:
        yield f"{'result':<12}not shown: {error}"
    except Exception as error:  # raised by the class of a result, or by its repr
        yield f"{'result':<12}not shown: {type(error).__name__}: {error}"


def _of_cell(header: dict[str, Any]) -> Iterator[str]:
    names = [name for group in header["namespace"]["groups"] for name in group["names"]]
    yield f"{'saved':<12}{', '.join(name for name in names if not name.startswith('<'))}"
    yield from (f"{'not saved':<12}{name}: {why}" for name, why in header["namespace"]["unsaved"].items())
    yield from filter(None, map(_shown, header["outputs"]))


def _shown(output: dict[str, Any]) -> str:
    """Return the text of an output, as `recorder` keeps it."""
    content = output["content"]
    return str(content.get("text") or content.get("data", {}).get("text/plain", "")).rstrip("\n")
