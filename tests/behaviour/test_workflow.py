"""Tasks and workflows: what is checkpointed, what replays, what is retried."""

import asyncio
import dataclasses
import datetime
import enum
import random
import sqlite3
import sys
import types
import uuid
from decimal import Decimal

import pydantic
import pytest

from durable_nb import SQLiteStore, Workflow, constant
from durable_nb.errors import InvalidRunId, RunChanged, StepChanged, StepFailed, StepNotSaved
from durable_nb.stores import open_journal


class CallMode(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: tuple


class Order(pydantic.BaseModel):
    number: int
    when: datetime.datetime


VALUES = [
    False,
    0,
    "",
    None,
    [],
    (),
    (1, (2, "x")),
    {1: "a", (2, 3): "b"},
    {1, 2},
    frozenset({"a"}),
    b"\x00\xff",
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.timedelta(seconds=1.5),
    Decimal("1.10"),
    float("inf"),
    CallMode.RED,
    Point(1, (2, 3)),
    Order(number=3, when=datetime.datetime(2026, 1, 2)),  # noqa: DTZ001
    {"nested": [Point(0, ()), {CallMode.RED: {1}}]},
]


def exact(value):
    """A value with the types of all its parts."""
    if isinstance(value, dict):
        return dict, [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_result_comes_back_as_itself(again, value):
    ran = []

    def define(wf):
        @wf.task
        async def give():
            ran.append(1)
            return value

        @wf.workflow
        async def main():
            return await give()

        return main

    first = await define(again()).run("r")
    second = await define(again()).run("r")
    assert exact(first) == exact(second) == exact(value)
    assert ran == [1]


async def test_a_task_outside_a_run_is_the_plain_function(again):
    wf = again()
    calls = []

    @wf.task
    async def flaky():
        calls.append(1)
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        await flaky()
    assert calls == [1]


async def test_retries_are_further_attempts_and_wait_as_the_backoff_says(again):
    wf = again()
    calls, waits = [], []

    def backoff(attempt):
        waits.append(attempt)
        return 0

    @wf.task(retries=3, backoff=backoff)
    async def flaky():
        calls.append(1)
        raise ValueError("still")

    @wf.workflow
    async def main():
        await flaky()

    with pytest.raises(ValueError, match="still") as caught:
        await main.run("r")
    assert len(calls) == 4
    assert waits == [0, 1, 2]
    assert caught.value.__notes__ == ["durable_nb: run 'r', step 'flaky' failed after 4 attempts"]


async def test_a_failure_the_run_moved_past_is_replayed_and_one_that_ended_it_is_tried_again(again):
    calls = []

    def define(wf, last_fails):
        @wf.task(retries=0)
        async def first():
            calls.append("first")
            raise KeyError("first")

        @wf.task(retries=0)
        async def second():
            calls.append("second")
            if last_fails:
                raise ValueError("second")

        @wf.workflow
        async def main():
            try:
                await first()
            except KeyError as error:
                caught = error
            await second()
            return caught.args

        return main

    with pytest.raises(ValueError, match="second"):
        await define(again(), last_fails=True).run("r")
    assert await define(again(), last_fails=False).run("r") == ("first",)
    assert calls == ["first", "second", "second"]


async def test_a_replayed_failure_whose_class_is_gone_says_so(again, monkeypatch):
    def define(wf, boom, ends):
        @wf.task(retries=0)
        async def first():
            raise boom("gone")

        @wf.task
        async def second():
            return 1

        @wf.workflow
        async def main():
            try:
                await first()
            except Exception as error:
                await second()
                if not ends:
                    raise
                return error

        return main

    module = types.ModuleType("module_that_goes")
    module.Gone = type("Gone", (Exception,), {"__module__": "module_that_goes"})
    monkeypatch.setitem(sys.modules, "module_that_goes", module)
    with pytest.raises(module.Gone):
        await define(again(), module.Gone, ends=False).run("r")
    monkeypatch.delitem(sys.modules, "module_that_goes")
    error = await define(again(), module.Gone, ends=True).run("r")
    assert isinstance(error, StepFailed)
    assert "Gone" in str(error)
    assert "gone" in str(error)


def shop_of(wf, ran):
    """As in a notebook's helper function: class, tasks and workflow are locals of it."""

    class Shop:
        def __init__(self, factor):
            self.factor = factor

        @wf.task
        def times(self, n):
            ran.append(n)
            return self.factor * n

        @wf.task
        async def later(self, n):
            ran.append(n)
            return self.factor * n

        @wf.task
        def grown(self):
            return Shop(self.factor + 1)

        @wf.workflow(id="sync")
        def sync(self):
            return self.times(1), self.grown().times(2)

        @wf.workflow(id="async")
        async def main(self):
            return await self.later(3)

    return Shop(10)


@pytest.mark.one_pass  # restoring a class that a function made sets its attributes anew
@pytest.mark.parametrize("place", [str, SQLiteStore])
def test_tasks_are_methods_of_a_class_in_a_function_where_the_workflow_is_a_local(again, db, place):
    ran = []
    for _ in range(2):
        shop = shop_of(again(db=place(db)), ran)
        assert shop.sync() == (10, 22)
        assert asyncio.run(shop.main()) == 30
    assert ran == [1, 2, 3]


async def test_counted_ids_and_named_ids(again):
    wf = again()

    @wf.task
    async def fetch(n):
        return n

    @wf.task
    async def outer():
        return await fetch(9)

    @wf.workflow
    async def main():
        await fetch(0)
        await fetch(1)
        await fetch(2, step_id="third")
        await outer()
        await asyncio.gather(fetch(4), fetch(5))
        async with asyncio.TaskGroup() as group:
            group.create_task(branch())

    async def branch():
        await fetch(6)
        await fetch(7)

    await main.run("r")
    ids = sqlite3.connect(wf.db).execute("SELECT step_id FROM steps ORDER BY began").fetchall()
    assert [step_id for (step_id,) in ids] == [
        "fetch", "fetch#1", "third", "outer", "outer/fetch", "fetch#2", "fetch#3", "~2/fetch", "~2/fetch#1",
    ]  # fmt: skip


async def test_other_arguments_are_an_error_with_the_difference(again):
    def define(wf, n):
        @wf.task
        async def double(n, token="abc"):
            return 2 * n

        @wf.workflow
        async def main():
            await double(n)
            raise OSError("down")

        return main

    with pytest.raises(OSError, match="down"):
        await define(again(), 3).run("r")
    with pytest.raises(StepChanged, match=r"run 'r', step 'double': .*n: 3 → 4.*'double', 'rerun'"):
        await define(again(), 4).run("r")


async def test_the_same_run_id_with_other_workflow_arguments_is_an_error(again):
    def define(wf):
        @wf.workflow
        async def main(n):
            return n

        return main

    assert await define(again()).run("r", 1) == 1
    with pytest.raises(RunChanged, match=r"run 'r': .*n: 1 → 2"):
        await define(again()).run("r", 2)


async def test_an_edited_task_replays_with_one_notice(again):
    async def one():
        return 1

    async def two():
        return 2

    def define(wf, body):
        task = wf.task(name="give")(body)

        @wf.workflow
        async def main():
            return await task()

        return main

    await define(again(), one).run("r")
    with pytest.warns(UserWarning, match=r"step 'give': replayed although its code changed"):
        assert await define(again(), two).run("r") == 1


def two_branches(wf, seed, stop_after, got):
    """A1→A2 beside B1→B2, all of one task without arguments, in an order that the seed decides."""
    rng = random.Random(seed)

    @wf.task
    async def tick():
        return uuid.uuid4().hex

    async def branch(name):
        for step in (1, 2):
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            got[name, step] = await tick()
            if len(got) >= stop_after:
                raise InterruptedError

    @wf.workflow
    async def main():
        await asyncio.gather(branch("A"), branch("B"))

    return main


async def test_200_random_schedules_never_swap_two_results(again):
    """Stopped somewhere, then resumed under another schedule: each call gets its own result back."""
    swaps = replayed = 0
    for seed in range(200):
        first, second = {}, {}
        with pytest.raises(InterruptedError):
            await two_branches(again(), seed, 1 + seed % 4, first).run(f"r{seed}")
        await two_branches(again(), -seed - 1, 99, second).run(f"r{seed}")
        assert len(second) == 4
        replayed += len(first)
        swaps += sum(second[key] != value for key, value in first.items())
    assert swaps == 0
    assert replayed >= 500


async def test_gather_of_1000_executes_1000_bodies(again):
    wf = again()
    ran = []

    @wf.task
    async def work(n):
        ran.append(n)
        return n

    @wf.workflow
    async def main():
        return await asyncio.gather(*(work(n) for n in range(1000)))

    assert await main.run("r") == list(range(1000))
    assert sorted(ran) == list(range(1000))
    assert wf.journal.commits < 300


async def test_one_commit_a_step_one_select_a_run_no_thread_on_replay(again, monkeypatch):
    def define(wf, ends):
        @wf.task
        async def work(n):
            return n

        @wf.workflow
        async def main():
            found = [await work(n) for n in range(20)]
            if not ends:
                raise OSError("down")
            return found

        return main

    wf = again()
    main = define(wf, ends=False)
    await wf_ready(wf)
    before = wf.journal.commits
    with pytest.raises(OSError, match="down"):
        await main.run("r")
    assert wf.journal.commits - before == 20 + 2  # and one each to open and to finish the run

    wf = again()
    main = define(wf, ends=True)
    await wf_ready(wf)
    selects = wf.journal.selects
    crossings = []
    from durable_nb.concurrency import bridge

    submit = bridge.submit
    monkeypatch.setattr(bridge, "submit", lambda work: crossings.append(work) or submit(work))
    await main.run("r")
    assert wf.journal.selects - selects == 1
    assert len(crossings) == 3  # to look at, open and finish the run: none for the 20 replayed steps


async def wf_ready(wf):
    from durable_nb.concurrency.bridge import ASYNC

    await ASYNC.store(wf.journal.setup())


async def test_a_result_that_cannot_be_saved_runs_its_body_once(again):
    wf = again()
    ran = []

    @wf.task(retries=3, backoff=constant(0))
    async def connect():
        ran.append(1)
        return {"con": sqlite3.connect(":memory:")}

    @wf.workflow
    async def main():
        await connect()

    with pytest.raises(StepNotSaved, match=r"run 'r', step 'connect': .*sqlite3\.Connection"):
        await main.run("r")
    assert ran == [1]


def test_a_sync_task_and_workflow(again):
    ran = []

    def define(wf):
        @wf.task
        def double(n):
            ran.append(n)
            return 2 * n

        @wf.workflow(id="twice-{n}")
        def main(n):
            return double(double(n))

        return main

    assert define(again())(3) == 12
    assert define(again())(3) == 12
    assert ran == [3, 6]


@pytest.mark.parametrize("run_id", ["", "  ", None, 3])
async def test_an_id_that_cannot_name_a_run(again, run_id):
    @again().workflow
    async def main():
        pass

    with pytest.raises(InvalidRunId):
        await main.run(run_id)


def test_a_generator_cannot_be_a_task(again):
    with pytest.raises(TypeError, match="generator"):

        @again().task
        def numbers():
            yield 1


async def test_two_workflows_on_one_file_share_one_journal(db):
    one, two = Workflow("a", db=db), Workflow("b", db=f"sqlite:///{db}")
    assert one.journal is two.journal is open_journal(db)
    one.close()
