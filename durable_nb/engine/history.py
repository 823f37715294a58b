"""The recorded steps of an open run, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from durable_nb.records import KEY, Call, Step, StepKind, joining_scopes, scope_of
from durable_nb.rows import (
    CALLED_SEQ,
    EPOCH,
    FINISHED_AT,
    KIND,
    RECORDED_SEQ,
    STEP_ID,
    Row,
    StepRows,
    read_step,
    step_row,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["History"]


class History(Mapping[str, Step]):
    """The recorded steps of a run, by their ids. They are kept as rows; each look-up makes a new ``Step``.

    The caller's thread reads while the loop thread adds steps: an iteration goes over a copy.

    Args:
        steps: The steps.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._rows: dict[str, Row] = {row[STEP_ID]: row for row in StepRows.of(steps).rows}

    def __getitem__(self, step_id: str) -> Step:
        return read_step(self._rows[step_id])

    def __setitem__(self, step_id: str, step: Step) -> None:
        self._rows[step_id] = step_row(step)

    def __contains__(self, step_id: object) -> bool:
        return step_id in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_seq(self) -> int:
        """The highest sequence number of the run's steps; 0 if there are none."""
        return max((max(row[CALLED_SEQ], row[RECORDED_SEQ]) for row in self._rows.values()), default=0)

    def record_of(self, call: Call) -> Step | None:
        """Return the record of a call, also if it is under the name that its step had before."""
        row = self._rows.get(call.step_id) or self._rows.get(call.renamed)
        return None if row is None else read_step(row)

    def inside(self, step_id: str) -> list[Step]:
        """Return the steps inside a step, at any depth."""
        return [self[known] for known in self if known.startswith(f"{step_id}/")]

    def seq_at(self, moment: float) -> int:
        """Return the sequence number of the last result that was recorded before a moment."""
        rows = list(self._rows.values())
        ended = (row for row in rows if row[KIND] != StepKind.SLEEP and (row[FINISHED_AT] or moment) < moment)
        return max((row[RECORDED_SEQ] for row in ended), default=0)

    def continued_after(self, recorded: Step, *, same_pass: bool = False) -> bool:
        """Return whether the run continued after a step: called another in its scope or one that joined it.

        Calls from other threads, which their arguments name, do not count: they may have been made without
        regard to how the recorded step ended.

        Args:
            recorded: The step.
            same_pass: Count the steps of its own pass alone.
        """
        scopes = set(joining_scopes(recorded.step_id))
        return any(
            row[CALLED_SEQ] > recorded.recorded_seq
            and scope_of(row[STEP_ID]) in scopes
            and not _is_keyed(row[STEP_ID])
            and (row[EPOCH] == recorded.epoch or not same_pass)
            for row in list(self._rows.values())
        )


def _is_keyed(step_id: str) -> bool:
    return KEY in step_id.rpartition("/")[2]
