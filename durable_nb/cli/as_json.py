"""Runs, steps and requests as JSON, for programs: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from durable_nb.engine.status import Status
from durable_nb.records import Progress, Run, SignalRequest, Step

__all__ = ["of_request", "of_run", "of_status"]


def of_run(run: Run, progress: Progress) -> str:
    """Return a run as a line of JSON; times are seconds since 1970, UTC."""
    return _line(
        run_id=run.run_id,
        workflow=run.workflow,
        status=run.status,
        passes=run.passes,
        done=progress.done,
        waits_for=list(progress.waits_for),
        parent=run.parent,
        owner=run.owner,
        created_at=run.created_at,
        updated_at=run.updated_at,
    )


def of_status(found: Status) -> Iterator[str]:
    """Yield a run, and then each of its steps, as lines of JSON."""
    yield of_run(found.run, found.progress)
    yield from map(_of_step, found.steps)


def of_request(request: SignalRequest, status: str) -> str:
    """Return a request for a signal as a line of JSON."""
    return _line(
        run_id=request.run_id,
        signal=request.name,
        run_status=status,
        prompt=request.prompt,
        choices=_read(request.choices),
        schema=_read(request.schema),
        refused=request.refused,
        asked_at=request.asked_at,
    )


def _of_step(step: Step) -> str:
    return _line(
        step_id=step.step_id,
        kind=step.kind,
        status=step.status,
        attempt=step.attempt,
        arguments=_read(step.arguments_repr),
        started_at=step.started_at,
        finished_at=step.finished_at,
        seconds=step.seconds,
        delivered_by=step.delivered_by,
        usage=_read(step.usage),
    )


def _line(**facts: Any) -> str:
    return json.dumps(facts)  # in ASCII: no text from a database controls the terminal


def _read(text: str | None) -> Any:
    """Return what a recorded JSON text says; a damaged one as text."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text
