"""Statements that several methods of a SQLite journal execute, with their values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from durable_nb.records import Message, Payload, Signal, Step
from durable_nb.stores.rows import STEP_ID, payload_row
from durable_nb.stores.sqlite import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from durable_nb.records import Run, SignalRequest
    from durable_nb.stores.checked import CheckedRows
    from durable_nb.stores.rows import Row
    from durable_nb.stores.sqlite.connection import Statement

__all__ = ["deliver", "drop_late", "put_step", "receive", "request", "reset", "send"]

_RECEIVED: Final = Payload("received", b"")
"""Stands in the row of a message for its value, which its step has."""


def put_step(rows: CheckedRows, step: Step) -> list[Statement]:
    """Return the statements that record a step; the result of an earlier attempt is kept."""
    ours = step.run_id, step.epoch
    put = (sql.PUT_STEP, (*rows.step_row(step), *ours))
    keep = (sql.KEEP_VERSION, (step.run_id, step.step_id, step.attempt, *ours))
    return [put] if step.attempt <= 1 else [keep, put]


def reset(rows: CheckedRows, run: Run, found: Sequence[Row]) -> list[Statement]:
    """Return the statements that mark the steps in some rows as ``reset``."""
    # SQLite refuses to change one value of a row in which another has a wrong type.
    damaged = [step for row in found if (step := rows.forgotten(row))]
    replaced = [each for step in damaged for each in put_step(rows, step._replace(epoch=run.epoch))]
    ours = run.run_id, run.epoch
    return [*replaced, *((sql.RESET_STEP, (run.run_id, row[STEP_ID], *ours)) for row in found)]


def request(rows: CheckedRows, asked: SignalRequest, step: Step | None) -> list[Statement]:
    """Return the statements that record a request, read it again, and record the step that waits, if any."""
    fence = (None, None) if step is None else (step.run_id, step.epoch)
    recorded: list[Statement] = [
        (sql.REQUEST_SIGNAL, (*rows.request_row(asked), fence[0], *fence)),
        (sql.GET_REQUEST, (asked.run_id, asked.name)),
    ]
    return recorded if step is None else [*recorded, *put_step(rows, step)]


def deliver(rows: CheckedRows, signal: Signal, ttl: float | None) -> list[Statement]:
    """Return the statements that deliver a signal, after those that delete what has expired."""
    return [*_drop_expired(), (sql.PUT_SIGNAL, (*rows.signal_row(signal), _end(ttl)))]


def send(rows: CheckedRows, message: Message, ttl: float | None) -> list[Statement]:
    """Return the statements that append a message, after those that delete what has expired."""
    *row, _, checksum = rows.message_row(message._replace(number=0))  # its number is the statement's to give
    return [*_drop_expired(), (sql.PUT_MESSAGE, (*row, checksum, _end(ttl)))]


def receive(rows: CheckedRows, message: Message, step: Step) -> list[Statement]:
    """Return the statements that record a step and that it has received a message."""
    *_, checksum = rows.message_row(message._replace(payload=_RECEIVED))
    key = message.run_id, message.topic, message.number, step.run_id, step.epoch
    values = (*payload_row(_RECEIVED), time.time(), checksum, *key)
    return [(sql.RECEIVE, values), *put_step(rows, step)]


def drop_late(run_id: str) -> list[Statement]:
    """Return the statements that delete what had expired when a run was created, in that transaction."""
    return [(each, (run_id, time.time())) for each in sql.DROP_LATE]


def _drop_expired() -> list[Statement]:
    """Return the statements that delete what was sent to runs that did not begin in time."""
    return [(each, (time.time(),)) for each in sql.DROP_EXPIRED]


def _end(ttl: float | None) -> float | None:
    return None if ttl is None else time.time() + ttl
