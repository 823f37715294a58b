"""Checksums of rows: every change of a value is found, whichever field it is in."""

import random
from contextlib import suppress

import pytest

from durable_nb.errors import StoreError, StoreUnreadable
from durable_nb.records import Payload, Run, RunStatus, Signal, SignalRequest, Step, StepKind, StepStatus
from durable_nb.stores import rows
from durable_nb.stores.checked import CheckedRows

CHECKED = CheckedRows("one")
PAYLOAD = Payload("json", b'{"a": 1}', None, b"\x01\x02")
STEP = Step(
    *("r", "load", StepKind.TASK, StepStatus.DONE, 2, 3, 7, 9, "c", "n=1", '{"n": "1"}', "{}", True),
    *(PAYLOAD, 1.5, 2.5, "me", '{"requests": 1}'),
)
RUN = Run(
    *("r", "w", RunStatus.DONE, 3, 2, "c", "n=1", '{"n": "1"}', "3.11", "p", "me"),
    *(PAYLOAD, 1.5, 2.5, PAYLOAD, 3),
)
SIGNAL = Signal("r", "go", PAYLOAD, "me", 1.5)
REQUEST = SignalRequest("r", "go", "Ship?", '{"type": "integer"}', "[1, 2]", "no", "me", 1.5)
TABLES = {
    "run": (CHECKED.run_row(RUN), CHECKED.run, RUN, rows.RUN_COLUMNS),
    "step": (CHECKED.step_row(STEP), lambda row: CHECKED.steps([row])[0], STEP, rows.STEP_COLUMNS),
    "signal": (CHECKED.signal_row(SIGNAL), CHECKED.signal, SIGNAL, rows.SIGNAL_COLUMNS),
    "request": (CHECKED.request_row(REQUEST), CHECKED.request, REQUEST, rows.REQUEST_COLUMNS),
}
NOT_COVERED = {
    *("epoch", "passes", "python", "owner", "crashes"),  # of a run: they change in place
    *("payload_signature", "result_signature", "given_signature", "asked_at"),
}
FIELDS = [
    (table, number, name)
    for table, (row, *_, names) in TABLES.items()
    for number, (name, value) in enumerate(zip(names, row, strict=True))
    if value is not None and ((table == "step" and name == "epoch") or name not in NOT_COVERED)
]
fields = pytest.mark.parametrize(("table", "number", "name"), FIELDS, ids=lambda value: str(value))


def flipped(value, bit):
    """A value with another bit, in what a store would write for it."""
    if isinstance(value, str):
        data = bytearray(value.encode("utf-16-le"))
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return data.decode("utf-16-le", "surrogatepass")
    if isinstance(value, bytes):
        data = bytearray(value)
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return bytes(data)
    return value + 2**-20 * (bit + 1) if isinstance(value, float) else value ^ (1 << bit % 32)


@pytest.mark.parametrize("table", TABLES)
def test_an_undamaged_row_is_the_record(table):
    row, read, record, names = TABLES[table]
    assert len(row) == len(names)
    assert read(row) == record


@fields
def test_each_flipped_bit_is_found(table, number, name):
    row, read, _, _ = TABLES[table]
    for bit in random.Random(number).sample(range(64), 16):
        damaged = (*row[:number], flipped(row[number], bit), *row[number + 1 :])
        with pytest.raises(StoreUnreadable):
            read(damaged)


@fields
@pytest.mark.parametrize(
    "value", ["", "paused", "\ud800", 0, -1, 2**70, 1e300, float("nan"), b"", None, [], {}]
)
def test_each_other_value_is_found_or_is_no_other(table, number, name, value):
    """What else a damaged or a foreign store may hold: an error of ours, with the run and what to type."""
    row, read, _, _ = TABLES[table]
    damaged = (*row[:number], value, *row[number + 1 :])
    if value == row[number] or (name in ("checksum", "standing") and value is None):
        return
    with pytest.raises(StoreUnreadable) as caught:
        read(damaged)
    assert caught.value.run_id is not None
    assert caught.value.remedy_text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("value", ["paused", "[", '{"a": {}}', 0.5, -1, 2**70, 1e300, b"\xff", None, [], {}])
def test_a_row_from_before_checksums_is_checked_value_by_value(table, value):
    row, read, record, names = TABLES[table]
    row = tuple(None if name in ("checksum", "standing") else at for name, at in zip(names, row, strict=True))
    assert read(row) == record
    for number in range(len(row)):
        damaged = (*row[:number], value, *row[number + 1 :])
        with suppress(StoreUnreadable):  # no other error; some of these are values that a column may have
            assert type(read(damaged)) is type(record)


def test_a_row_is_bound_to_its_database_and_its_run():
    row = CHECKED.step_row(STEP)
    with pytest.raises(StoreUnreadable):
        CheckedRows("two").steps([row])[0]
    with pytest.raises(StoreUnreadable):
        CHECKED.steps([("other", *row[1:])])[0]
    moved = ("other", *row[1:-1], row[-1] ^ CHECKED.renamed_run("r", "other"))
    assert CHECKED.steps([moved])[0] == STEP._replace(run_id="other")


def test_rows_of_two_steps_are_not_mixed():
    one, two = CHECKED.step_row(STEP), CHECKED.step_row(STEP._replace(step_id="save", attempt=3, code="d"))
    for number in range(1, len(one)):
        if one[number] != two[number]:
            with pytest.raises(StoreUnreadable):
                CHECKED.steps([(*one[:number], two[number], *one[number + 1 :])])[0]


def test_what_a_renamed_signal_changes():
    row = CHECKED.signal_row(SIGNAL)
    moved = ("r", "gone", *row[2:-1], row[-1] ^ CHECKED.renamed_signal("go", "gone"))
    assert CHECKED.signal(moved) == SIGNAL._replace(name="gone")


def test_a_step_that_was_reset_needs_no_more_than_its_name():
    row = CHECKED.step_row(STEP)
    reset = (*row[:3], "reset", *row[4:])
    assert CHECKED.steps([reset])[0] == STEP._replace(status=StepStatus.RESET)
    damaged = (*reset[:8], "other code", *reset[9:])
    bare = Step("r", "load", StepKind.TASK, StepStatus.RESET, attempt=2)
    assert CHECKED.steps([damaged])[0] == bare


def test_a_list_marks_what_is_damaged():
    row = CHECKED.run_row(RUN)
    assert CHECKED.run_or_damaged(row) == RUN
    found = CHECKED.run_or_damaged((*row[:2], "paused", *row[3:]))
    assert (found.run_id, found.workflow, found.status) == ("r", "w", RunStatus.DAMAGED)
    request = CHECKED.request_or_damaged(
        (*CHECKED.request_row(REQUEST)[:3], "{}", *CHECKED.request_row(REQUEST)[4:])
    )
    assert request.prompt.startswith("the request for the signal is damaged")


@pytest.mark.parametrize(
    "changes", [{"attempt": 2**70}, {"code": 5}, {"called_seq": "three"}, {"started_at": "now"}]
)
def test_what_no_store_can_keep_is_refused(changes):
    with pytest.raises(StoreError, match="no store can keep") as caught:
        CHECKED.step_row(STEP._replace(**changes))
    assert (caught.value.run_id, caught.value.step) == ("r", "load")
