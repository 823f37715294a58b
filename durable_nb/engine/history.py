"""The recorded steps of an open run, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from durable_nb.engine.files import Writers
from durable_nb.errors import StoreUnreadable
from durable_nb.records import Call, Step, StepKind, StepStatus, is_keyed, joining_scopes, scope_of
from durable_nb.stores.rows import (
    CALLED_SEQ,
    EPOCH,
    FINISHED_AT,
    KIND,
    RECORDED_SEQ,
    STATUS,
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

    The caller's thread reads while the loop thread adds steps: an iteration goes over a copy. An iteration
    leaves damaged records out; a look-up of one raises ``StoreUnreadable``.

    Args:
        steps: The steps.

    Attributes:
        damaged: The rows of damaged records, by the ids of their steps, until these are reset.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        found = StepRows.of(steps)
        self._check = found.check or _unchecked
        self._rows: dict[str, Row] = {}
        self._writers: Writers | None = None
        self.damaged: dict[str, Row] = {}
        for row in found.rows:
            try:
                self._rows[row[STEP_ID]] = self._check(row)
            except StoreUnreadable as error:
                self.damaged[error.step or ""] = row

    def __getitem__(self, step_id: str) -> Step:
        if step_id in self.damaged:
            return read_step(self._check(self.damaged[step_id]))
        return read_step(self._rows[step_id])

    def __setitem__(self, step_id: str, step: Step) -> None:
        self._rows[step_id] = step_row(step)
        self.damaged.pop(step_id, None)
        if self._writers is not None:
            self._writers.add(step)

    @property
    def writers(self) -> Writers:
        """The steps that wrote each file last; found once, when a file first differs from its record."""
        if self._writers is None:
            self._writers = Writers()  # before the steps are read: one that is added meanwhile is not lost
            for step in self.values():
                self._writers.add(step)
        return self._writers

    def __contains__(self, step_id: object) -> bool:
        return step_id in self._rows or step_id in self.damaged

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_seq(self) -> int:
        """The highest sequence number of the run's steps; 0 if there are none."""
        return max((max(row[CALLED_SEQ], row[RECORDED_SEQ]) for row in self._rows.values()), default=0)

    def record_of(self, call: Call) -> Step | None:
        """Return the record of a call, also if it is under the name that its step had before.

        Raises:
            StoreUnreadable: The record is damaged, or the call has none, and a damaged one may be its own.
        """
        row = self._rows.get(call.step_id) or self._rows.get(call.renamed)
        if row is not None:
            return read_step(row)
        if self.damaged:
            return self._damaged_record_of(call)
        return None

    def _damaged_record_of(self, call: Call) -> Step:
        if call.step_id in self.damaged:
            return self[call.step_id]
        other = next(iter(self.damaged))
        try:
            return self[other]
        except StoreUnreadable as error:
            raise StoreUnreadable(
                f"the call has no record, and the damaged record of step {other!r} may be its own",
                run_id=error.run_id,
                step=call.step_id,
                remedy=error.remedy_text,
            ) from None

    def reset(self, step_id: str) -> None:
        """Note that a step was reset; its record may be damaged."""
        row = self._rows.get(step_id) or self.damaged[step_id]
        self._rows[step_id] = self._check((*row[:STATUS], str(StepStatus.RESET), *row[STATUS + 1 :]))
        self.damaged.pop(step_id, None)

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
            and not is_keyed(row[STEP_ID])
            and (row[EPOCH] == recorded.epoch or not same_pass)
            for row in list(self._rows.values())
        )


def _unchecked(row: Row) -> Row:
    return row
