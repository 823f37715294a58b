"""Rows: records as plain tuples of texts, numbers and bytes, in the order of a table's columns.

A run may have 100,000 steps. Python's garbage collector stops to look at a plain tuple that holds only such
values, while it would visit as many named tuples, or tuples with members of an enum, again and again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, overload

from durable_nb.errors import StoreUnreadable
from durable_nb.records import (
    Message,
    Payload,
    Run,
    RunStatus,
    Signal,
    SignalRequest,
    Step,
    StepKind,
    StepStatus,
)

__all__ = [
    "ATTEMPT",
    "CALLED_SEQ",
    "CREATED",
    "EPOCH",
    "FINISHED_AT",
    "GIVEN",
    "KIND",
    "KINDS",
    "MESSAGE_COLUMNS",
    "RECORDED_SEQ",
    "REQUEST_COLUMNS",
    "RESULT",
    "RUN_COLUMNS",
    "RUN_STATUSES",
    "SIGNAL_COLUMNS",
    "SIGNAL_PAYLOAD",
    "STATUS",
    "STATUSES",
    "STEP_COLUMNS",
    "STEP_ID",
    "STEP_PAYLOAD",
    "Row",
    "StepRows",
    "message_row",
    "payload_row",
    "read_message",
    "read_payload",
    "read_request",
    "read_run",
    "read_signal",
    "read_step",
    "recorded_at",
    "request_row",
    "run_row",
    "signal_row",
    "step_row",
]

Row: TypeAlias = tuple[Any, ...]
"""A record as a plain tuple."""


def _columns(record: type[Run | Step | Signal | Message | SignalRequest], *checksums: str) -> tuple[str, ...]:
    """Return the names of a row's values: the record's fields, with those of a payload in its place."""
    parts = ("format", "data", "blob", "signature")
    payloads = {name: [f"{name}_{part}" for part in parts] for name in ("payload", "result", "given")}
    return (*(name for field in record._fields for name in payloads.get(field, [field])), *checksums)


RUN_COLUMNS: Final = _columns(Run, "checksum", "standing")
"""The names of the values in a run's row: ``checksum`` is that of what never changes, ``standing`` that of
its status, its result and its last change."""

STEP_COLUMNS: Final = _columns(Step, "checksum")
"""The names of the values in a step's row."""

SIGNAL_COLUMNS: Final = _columns(Signal, "checksum")
"""The names of the values in a signal's row."""

MESSAGE_COLUMNS: Final = _columns(Message, "checksum")
"""The names of the values in a message's row."""

REQUEST_COLUMNS: Final = _columns(SignalRequest, "checksum")
"""The names of the values in a request's row."""

STEP_ID, KIND, STATUS, ATTEMPT, EPOCH, CALLED_SEQ, RECORDED_SEQ, STEP_PAYLOAD, FINISHED_AT = map(
    STEP_COLUMNS.index,
    (
        *("step_id", "kind", "status", "attempt", "epoch", "called_seq", "recorded_seq"),
        *("payload_format", "finished_at"),
    ),
)
RESULT, CREATED, GIVEN = map(RUN_COLUMNS.index, ("result_format", "created_at", "given_format"))
SIGNAL_PAYLOAD = SIGNAL_COLUMNS.index("payload_format")

RUN_STATUSES: Final = {str(status): status for status in RunStatus if status is not RunStatus.DAMAGED}
STATUSES: Final = {str(status): status for status in StepStatus if status is not StepStatus.DAMAGED}
KINDS: Final = {str(kind): kind for kind in StepKind}
"""The statuses of runs and of steps that are stored, and the kinds of steps, by their texts."""


def recorded_at(row: Row) -> tuple[int, str]:
    """Return the place of a step among those of its run; one whose number is damaged is among the first."""
    recorded = row[RECORDED_SEQ]
    return recorded if isinstance(recorded, int) else 0, row[STEP_ID]


def payload_row(payload: Payload | None) -> Row:
    """Return a stored payload, or None, as the values of its four columns."""
    if payload is None:
        return None, None, None, None
    return payload.format, payload.data, payload.blob, payload.signature


def read_payload(columns: Sequence[Any]) -> Payload | None:
    """Return the payload in its four columns, or None; a format alone is none."""
    return None if columns[0] is None or columns[1] is None else Payload(*columns)


def run_row(run: Run, checksum: int | None = None, standing: int | None = None) -> Row:
    """Return a run as a row."""
    run_id, workflow, status, *others, result, created, updated, given, crashes = run
    known = (run_id, workflow, status.value, *others, *payload_row(result), float(created), float(updated))
    return (*known, *payload_row(given), crashes, checksum, standing)


def read_run(row: Row) -> Run:
    """Return the run in a row; the caller has checked it."""
    run_id, workflow, status, *others = row[:RESULT]
    result, given = read_payload(row[RESULT : RESULT + 4]), read_payload(row[GIVEN : GIVEN + 4])
    times, crashes = row[CREATED : CREATED + 2], row[GIVEN + 4] or 0
    return Run._make((run_id, workflow, RUN_STATUSES[status], *others, result, *times, given, crashes))


def step_row(step: Step, checksum: int | None = None) -> Row:
    """Return a step as a row.

    Example:
        >>> step_row(Step("r", "load", StepKind.TASK, StepStatus.DONE))[:4]
        ('r', 'load', 'task', 'done')
    """
    run_id, step_id, kind, status, *others, once, payload, started, finished, by, usage = step
    ends = (float(started), None if finished is None else float(finished), by, usage, checksum)
    return (run_id, step_id, kind.value, status.value, *others, int(once), *payload_row(payload), *ends)


def read_step(row: Row) -> Step:
    """Return the step in a row; the caller has checked it."""
    run_id, step_id, kind, status, *others, once, form, data, blob, signature, start, end, by, usage, _ = row
    payload = None if form is None or data is None else Payload(form, data, blob, signature)
    ends = (start, end, by, usage)
    known = run_id, step_id, KINDS[kind], STATUSES[status]
    return Step._make((*known, *others, bool(once), payload, *ends))


def signal_row(signal: Signal, checksum: int | None = None) -> Row:
    """Return a signal as a row."""
    run_id, name, payload, by, at = signal
    return (run_id, name, *payload_row(payload), by, float(at), checksum)


def read_signal(row: Row) -> Signal:
    """Return the signal in a row; the caller has checked it."""
    return Signal._make((*row[:2], Payload(*row[2:6]), *row[6:8]))


def message_row(message: Message, checksum: int | None = None) -> Row:
    """Return a message as a row."""
    run_id, topic, payload, delivery, by, at, number = message
    return (run_id, topic, *payload_row(payload), delivery, by, float(at), number, checksum)


def read_message(row: Row) -> Message:
    """Return the message in a row; the caller has checked it."""
    return Message._make((*row[:2], Payload(*row[2:6]), *row[6:-1]))


def request_row(request: SignalRequest, checksum: int | None = None) -> Row:
    """Return a request as a row."""
    return (*request[:-1], float(request.asked_at), checksum)


def read_request(row: Row) -> SignalRequest:
    """Return the request in a row; the caller has checked it."""
    return SignalRequest(*row[:-1])


class StepRows(Sequence[Step]):
    """The steps of a run, kept as rows; each step is made when it is asked for.

    Args:
        rows: The rows.
        check: Returns a row that can be read, or raises ``StoreUnreadable``; None for rows of this process.
    """

    __slots__ = ("check", "rows")

    def __init__(self, rows: Sequence[Row] = (), check: Callable[[Row], Row] | None = None) -> None:
        self.rows = rows
        self.check = check

    @classmethod
    def of(cls, steps: Iterable[Step]) -> StepRows:
        """Return steps as rows; those that are rows already are not copied."""
        return steps if isinstance(steps, cls) else cls([step_row(step) for step in steps])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> StepRows: ...
    def __getitem__(self, at: int | slice) -> Step | StepRows:
        return StepRows(self.rows[at], self.check) if isinstance(at, slice) else self.read(self.rows[at])

    def __iter__(self) -> Iterator[Step]:
        return map(self.read, self.rows)

    def intact(self) -> Iterator[Step]:
        """Yield the steps whose rows are not damaged."""
        for row in self.rows:
            with contextlib.suppress(StoreUnreadable):
                yield self.read(row)

    def read(self, row: Row) -> Step:
        """Return the step in one of the rows.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        return read_step(row if self.check is None else self.check(row))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))
