"""Checksums of rows: each row is checked when it is read, so that no damaged value reaches a run.

A checksum is the CRC-32 of the row's values, which finds every change of one or two bits, combined by
exclusive or with a number for the place that the row belongs to: the database and the run. A store that
renames a run changes that number in each checksum, and need not read the rows. Checksums find damage; they do
not keep out a person who can write to the store. A row from before there were checksums has its values
checked one by one.

Not included are: the signature, which covers the payload itself; the counters and the owner of a run, which
change in place; when a signal was first requested, which stays when the request is written anew. A step that
is reset keeps the checksum that it had.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final
from zlib import crc32

from durable_nb.errors import OpenRun, Remedy, ResetStep, StoreError, StoreUnreadable
from durable_nb.records import (
    Message,
    Run,
    RunStatus,
    Signal,
    SignalRequest,
    Step,
    StepKind,
    StepStatus,
    message_step,
    signal_step,
)
from durable_nb.stores import rows
from durable_nb.stores.rows import ATTEMPT, CREATED, GIVEN, RESULT, STATUS, STEP_PAYLOAD, Row, StepRows
from durable_nb.stores.valid import (
    MESSAGE_RULES,
    REQUEST_RULES,
    RUN_RULES,
    SIGNAL_RULES,
    STEP_RULES,
    Rules,
    first_invalid,
    is_count,
)

__all__ = ["CheckedRows"]

_SEPARATOR: Final = "\x1f"
_MISMATCH: Final = "its checksum does not match"
_SHOWN: Final = 80
_WRONG_TYPES: Final = (TypeError, ValueError, OverflowError, struct.error)

_step_numbers: Final = struct.Struct("<5q2d").pack
_time: Final = struct.Struct("<d").pack


class CheckedRows:
    """Makes the rows of a database, with their checksums, and the records of rows that are not damaged.

    Args:
        database: The id of the database.

    Attributes:
        database: The id of the database.
    """

    def __init__(self, database: str) -> None:
        self.database = database

    def run_row(self, run: Run) -> Row:
        """Return a run as a row.

        Raises:
            StoreError: No store can keep one of its values.
        """
        row = _kept(rows.run_row, run, run.run_id)
        place = self._place(run.run_id)
        made, standing = (_kept(make, row, run.run_id) ^ place for make in (_made_sum, _standing_sum))
        return (*row[:-2], made, standing)

    def step_row(self, step: Step) -> Row:
        """Return a step as a row.

        Raises:
            StoreError: No store can keep one of its values.
        """
        try:
            row = rows.step_row(step)
            return (*row[:-1], _step_sum(row, row[STATUS]) ^ self._place(step.run_id))
        except _WRONG_TYPES as error:
            raise _not_kept(error, step.run_id, step.step_id) from error

    def signal_row(self, signal: Signal) -> Row:
        """Return a signal as a row.

        Raises:
            StoreError: No store can keep one of its values.
        """
        where = signal.run_id, signal_step(signal.name)
        row = _kept(rows.signal_row, signal, *where)
        return (*row[:-1], _kept(_signal_sum, row, *where) ^ self._place(signal.run_id, signal.name))

    def message_row(self, message: Message) -> Row:
        """Return a message as a row; a store that gives it its number changes the checksum by that number.

        Raises:
            StoreError: No store can keep one of its values.
        """
        where = message.run_id, message_step(message.topic)
        row = _kept(rows.message_row, message, *where)
        place = self._place(message.run_id) ^ _number("message", message.topic)
        return (*row[:-1], _kept(_message_sum, row, *where) ^ place)

    def request_row(self, request: SignalRequest) -> Row:
        """Return a request as a row.

        Raises:
            StoreError: No store can keep one of its values.
        """
        where = request.run_id, signal_step(request.name)
        row = _kept(rows.request_row, request, *where)
        return (*row[:-1], _kept(_request_sum, row, *where) ^ self._place(request.run_id, request.name))

    def renamed_run(self, run_id: str, new_id: str) -> int:
        """Return what a run's new id changes in the checksums of its rows, by exclusive or."""
        return self._place(run_id) ^ self._place(new_id)

    def renamed_signal(self, name: str, new_name: str) -> int:
        """Return what a signal's new name changes in its checksum, by exclusive or."""
        return _number("signal", name) ^ _number("signal", new_name)

    def run(self, row: Row) -> Run:
        """Return the run in a row.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        if problem := self._problem(row, RUN_RULES, 1, (_made_sum, _standing_sum)):
            remedy = "Restore a backup of the database, or use another run id."
            raise _damaged("the record of the run", problem, remedy, row[0])
        return rows.read_run(row)

    def run_or_damaged(self, row: Row) -> Run:
        """Return the run in a row; one with the status ``damaged`` if the row cannot be read."""
        try:
            return self.run(row)
        except StoreUnreadable:
            return Run(_as_text(row[0]), _as_text(row[1]), RunStatus.DAMAGED)

    def signal(self, row: Row) -> Signal:
        """Return the signal in a row.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        if problem := self._problem(row, SIGNAL_RULES, 2, (_signal_sum,)):
            remedy = "Deliver it again, or restore a backup of the database."
            raise _damaged("the delivered signal", problem, remedy, row[0], signal_step(_as_text(row[1])))
        return rows.read_signal(row)

    def message(self, row: Row) -> Message:
        """Return the message in a row.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        problem = first_invalid(MESSAGE_RULES, row)
        if not problem:
            expected = _message_sum(row) ^ self._place(row[0]) ^ _number("message", row[1])
            problem = "" if row[-1] == expected else _MISMATCH
        if problem:
            remedy = "Restore a backup of the database."
            raise _damaged("a message", problem, remedy, row[0], message_step(_as_text(row[1])))
        return rows.read_message(row)

    def request(self, row: Row) -> SignalRequest:
        """Return the request in a row.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        if problem := self._problem(row, REQUEST_RULES, 2, (_request_sum,)):
            remedy = ("Resume the run, which asks anew: ", OpenRun())
            raise _damaged(
                "the request for the signal", problem, remedy, row[0], signal_step(_as_text(row[1]))
            )
        return rows.read_request(row)

    def request_or_damaged(self, row: Row) -> SignalRequest:
        """Return the request in a row; one whose prompt says so if the row cannot be read."""
        try:
            return self.request(row)
        except StoreUnreadable as error:
            return SignalRequest(_as_text(row[0]), _as_text(row[1]), f"{error.what}. {error.remedy_text}")

    def steps(self, found: Sequence[Row]) -> StepRows:
        """Return the steps in rows, each of which is checked when it is read."""
        return StepRows(found, self.checked_step)

    def checked_step(self, row: Row) -> Row:
        """Return a step's row if it is not damaged; of a step that was reset, no more than that is needed.

        Raises:
            StoreUnreadable: The row is damaged.
        """
        if self._is_intact(row):
            return row
        if row[STATUS] == StepStatus.RESET:
            return rows.step_row(_bare(row))
        problem = first_invalid(STEP_RULES, row) or _MISMATCH
        step = _as_text(row[1])
        reset: Remedy = ("Restore a backup of the database, or, to run the step again: ", ResetStep())
        remedy = reset if step == row[1] else "Restore a backup of the database."
        raise _damaged("the record of the step", problem, remedy, row[0], step)

    def forgotten(self, row: Row) -> Step | None:
        """Return what remains of a damaged step that is reset; None if its row is not damaged."""
        return None if self._is_intact(row) else _bare(row)

    def _is_intact(self, row: Row) -> bool:
        status, signature, checksum = row[STATUS], row[STEP_PAYLOAD + 3], row[-1]
        if checksum is None:
            return not first_invalid(STEP_RULES, row)
        if not (signature is None or isinstance(signature, bytes)):  # no sum covers it
            return False
        try:
            expected = checksum ^ self._place(row[0])
            if _step_sum(row, status) == expected:
                return True
            return status == StepStatus.RESET and any(_step_sum(row, each) == expected for each in StepStatus)
        except _WRONG_TYPES:
            return False

    def _problem(self, row: Row, rules: Rules, keys: int, sums: Sequence[Callable[[Row], int]]) -> str:
        """Return what is wrong with a row whose last values are checksums; empty if nothing is."""
        if invalid := first_invalid(rules, row):
            return invalid
        place = self._place(*row[:keys])
        found = zip(row[-len(sums) :], sums, strict=True)
        differs = any(recorded is not None and recorded != make(row) ^ place for recorded, make in found)
        return _MISMATCH if differs else ""

    def _place(self, run_id: str, signal: str | None = None) -> int:
        place = _number("run", self.database, run_id)
        return place if signal is None else place ^ _number("signal", signal)


def _step_sum(row: Row, status: str) -> int:
    # Written out: it is computed for every step that is recorded, and for each step of a run that is opened.
    (_, step_id, kind, _, attempt, epoch, called, recorded, code, arguments, shown, lineage, once) = row[:13]
    (form, data, blob, _, started, finished, by, usage, _) = row[13:]
    texts = (step_id, kind, status, code, arguments, shown, lineage, form, blob, by, usage)
    # Not `text or ""`: a list or a number in place of a text raises here.
    joined = _SEPARATOR.join(["" if text is None else text for text in texts])
    ends = -1.0 if finished is None else finished
    numbers = _step_numbers(attempt, epoch, called, recorded, once, started, ends)
    before = crc32(numbers, crc32(joined.encode("utf-8", "surrogatepass")))
    return crc32(b"" if data is None else data, before)


def _made_sum(row: Row) -> int:
    """Return the checksum of what never changes in a run."""
    _, workflow, _, _, _, code, arguments, shown, _, parent, *_ = row
    form, data, blob, _ = row[GIVEN : GIVEN + 4]
    kept = () if form is None else (form, blob)  # before there were any, sums were made without them
    return _sum((workflow, code, arguments, shown, parent, *kept), row[CREATED], data)


def _standing_sum(row: Row) -> int:
    """Return the checksum of a run's status, its result and its last change."""
    status, (form, data, blob, _), updated = row[2], row[RESULT : RESULT + 4], row[CREATED + 1]
    return _sum((status, form, blob), updated, data)


def _signal_sum(row: Row) -> int:
    _, _, form, data, blob, _, by, at, _ = row
    return _sum((form, blob, by), at, data)


def _message_sum(row: Row) -> int:
    _, _, form, data, blob, _, delivery, by, at, number, _ = row
    return _sum((form, blob, delivery, by), at, data) ^ int(number)


def _request_sum(row: Row) -> int:
    return _sum(row[2:7], 0.0)


def _sum(texts: Sequence[str | None], time: float, data: bytes | None = None) -> int:
    joined = _SEPARATOR.join(["" if text is None else text for text in texts])
    sums = crc32(_time(time), crc32(joined.encode("utf-8", "surrogatepass")))
    return crc32(b"" if data is None else data, sums)


@functools.lru_cache(1024)
def _number(*names: str) -> int:
    """Return a number for the names of a place, as large as a checksum."""
    joined = _SEPARATOR.join(names).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=4).digest(), "big")


def _kept(make: Callable[..., Any], record: Any, run_id: str, step: str | None = None) -> Any:
    try:
        return make(record)
    except _WRONG_TYPES as error:
        raise _not_kept(error, run_id, step) from error


def _not_kept(error: Exception, run_id: str, step: str | None) -> StoreError:
    detail = " ".join(str(error).split())
    return StoreError(
        f"no store can keep a value of the record: {detail}",
        run_id=run_id,
        step=step,
        remedy="Nothing was written.",
    )


def _bare(row: Row) -> Step:
    attempt = row[ATTEMPT] if is_count(row[ATTEMPT]) else 0
    return Step(row[0], row[1], StepKind.TASK, StepStatus.RESET, attempt)


def _damaged(
    what: str, problem: str, remedy: Remedy, run_id: object, step: str | None = None
) -> StoreUnreadable:
    return StoreUnreadable(f"{what} is damaged: {problem}", run_id=_as_text(run_id), step=step, remedy=remedy)


def _as_text(value: object) -> str:
    """Return a name for people: one that no person can type is shown as Python writes it."""
    return value if isinstance(value, str) and value.isprintable() else ascii(value)[:_SHOWN]
