"""The history of an open run: rows in memory, steps on demand."""

import gc

import pytest

from durable_nb.engine.history import History
from durable_nb.records import Call, Payload, Step, StepKind, StepStatus
from durable_nb.rows import STEP_COLUMNS, StepRows, read_step, step_row
from durable_nb.stores.memory import MemoryJournal
from durable_nb.stores.redis.journal import RedisJournal
from durable_nb.stores.sqlite.journal import SqliteJournal
from durable_nb.stores.testing.samples import BLOB, JSON, PICKLE, opened, sample_step

NUMBERS, TEXTS = (2, 3, 7, 9), ("c", "n=1", '{"n": "1"}', "[]")
DONE = Step(
    *("r", "load/fetch#1", StepKind.TASK, StepStatus.DONE, *NUMBERS, *TEXTS, True, PICKLE),
    *(1.5, 2.5, "me", "{}"),
)
STEPS = [
    DONE,
    DONE._replace(step_id="load", kind=StepKind.CELL, status=StepStatus.STARTED, payload=None, once=False),
    DONE._replace(step_id="wait", kind=StepKind.SIGNAL, status=StepStatus.FAILED, payload=BLOB),
    Step("r", "bare", StepKind.SLEEP, StepStatus.RESET),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.step_id)
def test_a_row_has_every_value_of_a_step(step):
    row = step_row(step)
    assert len(row) == len(STEP_COLUMNS)
    again = read_step(row)
    assert again == step
    assert list(map(type, again)) == list(map(type, step))


def test_a_history_is_a_mapping_of_steps():
    history = History(STEPS)
    assert (set(history), len(history)) == ({step.step_id for step in STEPS}, 4)
    assert list(history.values()) == STEPS
    assert history["load"] == history.get("load") == STEPS[1]
    assert history.get("other") is None
    assert "load" in history
    assert "other" not in history
    assert history.inside("load") == [DONE]
    assert history.last_seq == 9
    with pytest.raises(KeyError):
        history["other"]


def test_what_is_added_during_an_iteration_does_not_disturb_it():
    history = History(STEPS)
    for number, step in enumerate(history.values()):
        history[f"new#{number}"] = step._replace(step_id=f"new#{number}")
    assert len(history) == 8


def test_a_renamed_step_is_found_by_its_former_name():
    history = History(STEPS)
    assert history.record_of(Call("read", renamed="load")) == STEPS[1]
    assert history.record_of(Call("read")) is None


def test_rows_are_as_good_as_a_tuple_of_steps():
    steps = StepRows.of(STEPS)
    assert StepRows.of(steps) is steps
    assert steps == tuple(STEPS)
    assert (steps[-1], steps[1:3], len(steps)) == (STEPS[-1], STEPS[1:3], 4)
    assert StepRows() == ()
    assert StepRows() != (DONE,)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def journal(request, tmp_path):
    if request.param == "redis":
        return RedisJournal(request.getfixturevalue("redis_server").url)
    return MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "a.db")


@pytest.mark.parametrize("payload", [JSON, PICKLE, None], ids=["json", "pickle", "none"])
async def test_the_garbage_collector_does_not_visit_the_steps_of_a_run(journal, payload: Payload | None):
    await journal.setup()
    try:
        run = await opened(journal)
        history = History(())
        for number in range(10):
            step = sample_step(run, f"s#{number}", payload=payload, started_at=1.5, finished_at=2.5)
            await journal.put_step(step)
            history[step.step_id] = step
        snapshot = await journal.read_run(run.run_id)
    finally:
        await journal.close()
    gc.collect()
    rows = [*snapshot.steps.rows, *StepRows.of(snapshot.steps).rows, *history._rows.values()]
    assert len(rows) == 30
    assert not any(map(gc.is_tracked, rows))
