"""Many runs are listed, and many steps recorded and read, in a time that grows with their number alone."""

import asyncio
import time

import pytest

from durable_nb import settings
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine import status
from durable_nb.errors import StoreUnavailable
from durable_nb.records import Run
from durable_nb.stores.sqlite.journal import SqliteJournal
from durable_nb.stores.testing import sample_step

TOGETHER = 500
ALLOWED = 3  # linear is 1, and quadratic 8


def on_loop(work):
    return run_blocking(SYNC.store(work))


def cpu(work):
    """The CPU time of this process for some work: other processes do not count. The least of three."""
    times = []
    for _ in range(3):
        before = time.process_time()
        on_loop(work())
        times.append(time.process_time() - before)
    return min(times)


@pytest.fixture
def journal(tmp_path):
    def make(name):
        made = SqliteJournal(tmp_path / name, synchronous="normal")
        on_loop(made.setup())
        opened.append(made)
        return made

    opened = []
    yield make
    for each in opened:
        on_loop(each.close())


async def in_groups(work, count):
    for first in range(0, count, TOGETHER):
        await asyncio.gather(*map(work, range(first, min(count, first + TOGETHER))))


def put_steps(journal, count):
    """Record a run of some steps; returns the CPU time of one in the second half, the least of groups."""
    run = on_loop(journal.open_run(Run(f"r{count}", "w"))).run

    async def put(number):
        await journal.put_step(sample_step(run, f"s#{number}", called_seq=number, recorded_seq=number))

    on_loop(in_groups(put, count // 2))
    times = []
    for first in range(count // 2, count, TOGETHER // 2):
        before = time.process_time()
        on_loop(in_groups(lambda number, first=first: put(first + number), TOGETHER // 2))
        times.append((time.process_time() - before) / (TOGETHER // 2))
    return min(times)


def test_steps_are_recorded_and_read_in_linear_time(journal):
    small, large = 1_000, 8_000
    store = journal("steps.db")
    put = {count: put_steps(store, count) for count in (small, large)}
    read = {
        count: cpu(lambda count=count: everything(store, f"r{count}")) / count for count in (small, large)
    }
    assert put[large] < ALLOWED * put[small]
    assert read[large] < ALLOWED * read[small]


async def everything(journal, run_id):
    return list((await journal.read_run(run_id)).steps)


def test_runs_are_listed_in_linear_time(journal):
    listed = {}
    for count in (500, 4_000):
        store = journal(f"{count}.db")

        async def put(number, store=store):
            run = (await store.open_run(Run(f"r{number}", "w", updated_at=float(number)))).run
            await store.put_step(sample_step(run))

        on_loop(in_groups(put, count))
        listed[count] = cpu(lambda store=store: status.all_runs(store)) / count
    assert listed[4_000] < ALLOWED * listed[500]


def test_a_read_that_takes_too_long_ends_with_an_error(journal, monkeypatch):
    store = journal("slow.db")
    put_steps(store, 6_000)
    monkeypatch.setattr(settings, "READ_LIMIT", -1)  # over when it begins; SQLite asks now and then
    with pytest.raises(StoreUnavailable, match=r"was not read within .* Wait until the disk is less busy"):
        on_loop(everything(store, "r6000"))
    monkeypatch.undo()
    assert len(on_loop(everything(store, "r6000"))) == 6_000
