"""Rows: records as plain tuples of texts, numbers and bytes, in the order of a table's columns.

A run may have 100,000 steps. Python's garbage collector stops to look at a plain tuple that holds only such
values, while it would visit as many named tuples, or tuples with members of an enum, again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, overload

from durable_nb.records import Payload, Step, StepKind, StepStatus

__all__ = [
    "CALLED_SEQ",
    "EPOCH",
    "FINISHED_AT",
    "KIND",
    "PAYLOAD_BLOB",
    "RECORDED_SEQ",
    "STEP_COLUMNS",
    "STEP_ID",
    "Row",
    "StepRows",
    "payload_row",
    "read_payload",
    "read_step",
    "step_row",
]

Row: TypeAlias = tuple[Any, ...]
"""A record as a plain tuple."""

STEP_COLUMNS: Final = (
    *Step._fields[: Step._fields.index("payload")],
    *("payload_format", "payload_data", "payload_blob", "payload_signature"),
    *Step._fields[Step._fields.index("payload") + 1 :],
)
"""The names of the values in a step's row: the record's fields, with the payload's in its place."""

STEP_ID, KIND, EPOCH, CALLED_SEQ, RECORDED_SEQ, PAYLOAD_BLOB, FINISHED_AT = map(
    STEP_COLUMNS.index,
    ("step_id", "kind", "epoch", "called_seq", "recorded_seq", "payload_blob", "finished_at"),
)

_STATUSES = {str(status): status for status in StepStatus}
_KINDS = {str(kind): kind for kind in StepKind}


def payload_row(payload: Payload | None) -> Row:
    """Return a stored payload, or None, as the values of its four columns."""
    if payload is None:
        return None, None, None, None
    return payload.format, payload.data, payload.blob, payload.signature


def read_payload(columns: Sequence[Any]) -> Payload | None:
    """Return the payload in its four columns, or None."""
    return None if columns[0] is None else Payload(*columns)


def step_row(step: Step) -> Row:
    """Return a step as a row.

    Example:
        >>> step_row(Step("r", "load", StepKind.TASK, StepStatus.DONE))[:4]
        ('r', 'load', 'task', 'done')
    """
    run_id, step_id, kind, status, *others, payload, started, finished, by, usage = step
    ends = (started, finished, by, usage)
    return (run_id, step_id, kind.value, status.value, *others, *payload_row(payload), *ends)


def read_step(row: Row) -> Step:
    """Return the step in a row."""
    kind, status, once = _KINDS[row[2]], _STATUSES[row[3]], bool(row[12])
    return Step._make((*row[:2], kind, status, *row[4:12], once, read_payload(row[13:17]), *row[17:]))


class StepRows(Sequence[Step]):
    """The steps of a run, kept as rows; each step is made when it is asked for.

    Args:
        rows: The rows.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = rows

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
        return StepRows(self.rows[at]) if isinstance(at, slice) else read_step(self.rows[at])

    def __iter__(self) -> Iterator[Step]:
        return map(read_step, self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))
