"""Colours, threads, event loops and processes: who may call what from where."""

import asyncio
import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from durable_nb import SQLiteStore, Workflow
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.concurrency.loop_thread import Mailbox
from durable_nb.concurrency.pending import drain_pending
from durable_nb.errors import DurableError, DurableNotice, RunNotFound, StepError
from helpers.unfinished import leave_unfinished


def step_ids(db):
    with sqlite3.connect(db) as connection:
        return {step for (step,) in connection.execute("SELECT step_id FROM steps")}


# The way to an event loop


class InterruptedLoop(asyncio.SelectorEventLoop):
    """A person interrupts, or an alarm rings, just while it is being woken."""

    interrupted = False

    def call_soon_threadsafe(self, *args, **options):
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return super().call_soon_threadsafe(*args, **options)


def test_an_interrupt_while_a_loop_is_woken_does_not_put_it_to_sleep_for_good():
    loop, received = InterruptedLoop(), []
    mailbox = Mailbox(received.append)
    with contextlib.closing(loop):
        with pytest.raises(KeyboardInterrupt):
            mailbox.put("first", loop)
        mailbox.put("second", loop)
        loop.run_until_complete(asyncio.sleep(0))
    assert received == ["first", "second"]


def test_what_ends_after_its_event_loop_keeps_that_alive_no_longer():
    begun, ended = threading.Event(), threading.Event()

    async def work():
        begun.set()
        await asyncio.to_thread(ended.wait)

    async def leave():
        calling = asyncio.create_task(ASYNC.commit(work()))
        await asyncio.to_thread(begun.wait)
        calling.cancel()
        await asyncio.wait([calling])
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(leave())
    ended.set()
    drain_pending()
    until = time.monotonic() + 10
    while loop() is not None and time.monotonic() < until:  # who waited is woken before others are told
        gc.collect()
    assert loop() is None


# Trio


def test_under_trio_an_async_call_is_refused_before_anything_happens(again):
    trio = pytest.importorskip("trio", reason="NOT TESTED: trio is not installed")
    wf, ran = again(), []

    @wf.task
    async def double(n):
        ran.append(n)
        return 2 * n

    @wf.workflow
    async def main():
        return await double(1)

    @wf.workflow
    def inside():
        return trio.run(double, 2)  # the run is open: the body must not be executed and then not recorded

    for start in (lambda: trio.run(main.run, "r"), lambda: inside.run("s"), lambda: trio.run(wf.status, "s")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no coroutine is left that was never awaited
            with pytest.raises(DurableError) as caught:
                start()
        assert str(caught.value).endswith(
            "an async durable call was made under trio, which is not supported: expected asyncio. "
            "Start it with asyncio.run(…) or anyio.run(…, backend='asyncio'), or call sync functions."
        )
    assert ran == []
    with pytest.raises(RunNotFound):
        wf.sync.status("r")
    assert asyncio.run(main.run("r")) == 2


def test_under_trio_sync_calls_work(again):
    trio = pytest.importorskip("trio", reason="NOT TESTED: trio is not installed")
    wf = again()
    double = wf.task(name="double")(lambda n: 2 * n)
    main = wf.workflow(lambda: double(1))

    async def use():
        return await trio.to_thread.run_sync(main.run, "r")

    assert trio.run(use) == 2


# Colours


def test_sync_tasks_and_a_sync_workflow(again):
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

    assert define(again())(3) == define(again())(3) == 12
    assert ran == [3, 6]


async def test_sync_tasks_in_an_async_workflow(again, db):
    ran = []

    def define(wf):
        @wf.task
        def double(n):
            ran.append(n)
            return 2 * n

        @wf.task
        async def add(n):
            return double(n) + 1

        @wf.workflow
        async def main():
            return [double(1), await add(2), double(3)]

        return main

    assert await define(again()).run("r") == await define(again()).run("r") == [2, 5, 6]
    assert ran == [1, 2, 3]
    assert step_ids(db) == {"double", "add", "add/double", "double#1"}


async def test_a_sync_workflow_called_where_an_event_loop_runs(again):
    wf = again()

    @wf.task
    def double(n):
        return 2 * n

    @wf.workflow
    def main(n):
        return double(n)

    assert main.run("r", 3) == 6


class Shop:
    """Has tasks and a workflow for methods; without a fingerprint, since it holds a lock."""

    wf = Workflow("shop", db="replaced by each test")

    def __init__(self, rate):
        self.rate = rate
        self.ran = []
        self.lock = threading.Lock()

    @wf.task
    async def price(self, n):
        self.ran.append(n)
        return n * self.rate

    @wf.task(name="tax", retries=1)
    def add_tax(self, n):
        self.ran.append("tax")
        return n + 1

    @wf.workflow(id="order-{n}")
    async def order(self, n):
        return self.add_tax(await self.price(n))


async def test_methods_as_tasks_and_workflows(db):
    Shop.wf.move_to(db=db)
    shop, restarted = Shop(10), Shop(10)
    assert await shop.order(3) == 31
    assert await restarted.order(3) == 31
    assert await restarted.order.run("another", 4) == 41
    assert (shop.ran, restarted.ran) == ([3, "tax"], [4, "tax"])
    assert await Shop(10).price(5) == 50  # outside a run
    Shop.wf.close()
    with sqlite3.connect(db) as connection:
        assert connection.execute("SELECT run_id FROM runs ORDER BY run_id").fetchall() == [
            ("another",),
            ("order-3",),
        ]


# Opening and closing


def test_a_closed_workflow_opens_again(db):
    with Workflow("shop", db=db) as wf:
        ran = []

        @wf.task
        def step():
            ran.append(1)
            return 1

        @wf.workflow
        def main():
            return step()

        assert main.run("r") == 1
    assert not (db.parent / "runs.db-wal").exists()
    assert main.run("r") == 1
    wf.close()
    wf.close()
    assert ran == [1]


async def test_async_with(db):
    async with Workflow("shop", db=db) as wf:
        assert await wf.complete("r", "approval")
    assert not (db.parent / "runs.db-wal").exists()


def test_a_database_that_was_closed_or_deleted_behind_its_back_is_opened_again(db):
    wf, store = Workflow("shop", db=db), SQLiteStore(db)
    assert wf.sync.complete("r", "approval")
    asyncio.run(store.close())
    assert not wf.sync.complete("r", "approval")
    for path in db.parent.iterdir():
        path.unlink()
    assert wf.sync.complete("r", "approval")
    wf.close()


def test_closing_one_workflow_leaves_the_others_on_its_database_alone(db):
    other = Workflow("other", db=db)

    @other.task
    def step(n):
        with Workflow("short", db=db) as short:
            return short.sync.complete("r", f"signal-{n}")

    @other.workflow
    def main():
        return [step(n) for n in range(3)]

    assert main.run("r") == [True] * 3
    other.close()
    assert not (db.parent / "runs.db-wal").exists()


def test_asyncio_run_again_and_again_on_one_workflow(again):
    wf = again()
    ran = []

    @wf.task
    async def step(n):
        ran.append(n)
        return n

    @wf.workflow
    async def main(n):
        return await asyncio.gather(step(n), step(n + 1))

    for n in range(5):
        assert asyncio.run(main.run(f"r{n}", n)) == [n, n + 1]
        assert asyncio.run(main.run(f"r{n}", n)) == [n, n + 1]
    assert len(ran) == 10


def test_a_script_that_never_closes_exits(tmp_path):
    code = """
        from durable_nb import Workflow
        wf = Workflow("shop", db="runs.db")
        print(wf.workflow(lambda: 3).run("r"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


# Threads


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_several_threads_each_with_a_run_of_its_own(db, again, mode):
    ran = []
    together = threading.Barrier(8)

    def define(wf):
        @wf.task
        def step(run, n):
            ran.append((run, n))
            return run, n

        @wf.task
        async def async_step(run, n):
            return step.function(run, n)

        @wf.workflow
        def main(run):
            return [step(run, n) for n in range(10)]

        @wf.workflow
        async def async_main(run):
            return await asyncio.gather(*(async_step(run, n) for n in range(10)))

        def call(run):
            together.wait(60)
            return main.run(run, run) if mode == "sync" else asyncio.run(async_main.run(run, run))

        return call

    names = [f"run-{n}" for n in range(8)]
    expected = [[(name, n) for n in range(10)] for name in names]
    with ThreadPoolExecutor(8) as pool:
        for _first_and_replay in range(2):
            assert list(pool.map(define(again()), names)) == expected
    assert len(ran) == len(set(ran)) == 80


def test_several_threads_each_with_a_workflow_of_its_own_that_it_closes(db):
    together = threading.Barrier(6)

    def call(name):
        together.wait(60)
        with Workflow("shop", db=db) as wf:
            step = wf.task(lambda n: n)
            main = wf.workflow(lambda: [step(n) for n in range(5)])
            return main.run(name)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(call, "abcdef")) == [[0, 1, 2, 3, 4]] * 6


@pytest.mark.one_pass  # a thread cannot be ended with the pass it belongs to
async def test_a_task_in_a_thread_of_the_run_is_named_by_its_arguments(again, db):
    ran = []

    def define(wf, numbers):
        @wf.task
        def work(n):
            ran.append(n)
            return 10 * n

        @wf.workflow
        async def main():
            return work(0), [await asyncio.to_thread(work, n) for n in numbers], work(1)

        return main

    assert await define(again(), [1, 2]).run("r") == (0, [10, 20], 10)
    assert await define(leave_unfinished(again()), [2, 1]).run("r") == (0, [20, 10], 10)
    assert await define(leave_unfinished(again()), [2]).run("r") == (0, [20], 10)
    assert ran == [0, 1, 2, 1]
    named = {step.partition("[")[0] for step in step_ids(db)}
    assert (named, len(step_ids(db))) == ({"work", "work#1"}, 4)


@pytest.mark.one_pass  # a thread cannot be ended with the pass it belongs to
async def test_threads_in_one_scope_never_swap_results_in_whatever_order_they_come(again, db):
    ran = []

    def define(wf, first, fails=None):
        gate = threading.Event()

        @wf.task(retries=0)
        def work(n):
            ran.append(n)
            if n == fails:
                raise OSError("down")
            return 10 * n

        def in_thread(n):
            if n != first:
                gate.wait(60)
            try:
                return work(n)
            finally:
                gate.set()

        @wf.workflow
        async def main():
            with ThreadPoolExecutor(4) as pool:
                return [
                    future.result()
                    for future in [pool.submit(copy_context().run, in_thread, n) for n in range(4)]
                ]

        return main

    with pytest.raises(OSError, match="down"):
        await define(again(), 1, fails=1).run("r")
    for first in 2, 3, 0:
        assert await define(again(), first).run("r") == [0, 10, 20, 30]
    assert sorted(ran) == [0, 1, 1, 2, 3]
    assert all(step.startswith("work[") for step in step_ids(db))


@pytest.mark.one_pass  # a thread cannot be ended with the pass it belongs to
async def test_a_failure_in_a_thread_is_replayed_once_the_run_itself_went_on(again):
    ran = []

    def define(wf, crash):
        @wf.task(retries=0)
        def work(n):
            ran.append(n)
            raise OSError("down")

        @wf.task
        def report(text):
            return text

        @wf.workflow
        async def main():
            try:
                await asyncio.to_thread(work, 1)
            except OSError as error:
                result = report(str(error))
            if crash:
                raise InterruptedError
            return result

        return main

    with pytest.raises(InterruptedError):
        await define(again(), crash=True).run("r")
    assert await define(again(), crash=False).run("r") == "down"
    assert ran == [1]


async def test_equal_calls_in_threads_are_counted(again, db):
    together = threading.Barrier(8)
    ran = []

    def define(wf):
        @wf.task
        def sample():
            ran.append(1)
            return 1

        def in_thread():
            together.wait(60)
            return sample()

        @wf.workflow
        async def main():
            with ThreadPoolExecutor(8) as pool:
                return sum(f.result() for f in [pool.submit(copy_context().run, in_thread) for _ in range(8)])

        return main

    assert await define(again()).run("r") == await define(again()).run("r") == 8
    assert len(ran) == len(step_ids(db)) == 8


@pytest.mark.one_pass  # a thread cannot be ended with the pass it belongs to
async def test_nested_tasks_in_a_thread_are_counted_within_it(again, db):
    def define(wf):
        @wf.task
        def inner(n):
            return n

        @wf.task
        def outer(n):
            return [inner(n), inner(n + 1)]

        @wf.workflow
        async def main():
            return await asyncio.gather(*(asyncio.to_thread(outer, n) for n in range(2)))

        return main

    assert await define(again()).run("r") == await define(again()).run("r") == [[0, 1], [1, 2]]
    inside = {step.partition("]")[2] for step in step_ids(db)}
    assert (inside, len(step_ids(db))) == ({"", "/inner", "/inner#1"}, 6)


async def test_a_thread_of_the_run_needs_step_id_where_an_argument_has_no_fingerprint(again):
    wf = again()

    @wf.task
    def use(lock, n):
        return n

    @wf.workflow
    async def main():
        lock = threading.Lock()
        with pytest.raises(
            StepError, match=r"calls from other threads .* but no stable fingerprint exists for lock"
        ):
            await asyncio.to_thread(use, lock, 1)
        return await asyncio.to_thread(use, lock, 2, step_id="two")

    assert await main.run("r") == 2


async def test_a_thread_that_belongs_to_no_run_is_told_so(again, db):
    wf = again()

    @wf.task
    def work(n):
        return n

    @wf.workflow
    async def main():
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.warns(DurableNotice, match="not part of run 'r': executed, but not"),
        ):
            return pool.submit(work, 1).result()

    assert await main.run("r") == 1
    assert step_ids(db) == set()


def test_a_thread_outside_every_run_is_told_nothing(again, recwarn):
    wf = again()
    work = wf.task(lambda n: n)
    wf.workflow(lambda: 1).run("r")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work, 1).result() == 1
    assert not [warning for warning in recwarn if warning.category is DurableNotice]


# Processes


FORK = """
    import os, sys, time
    from durable_nb import Workflow
    from durable_nb.errors import ForkedProcess
    from durable_nb.stores.sqlite.journal import SqliteJournal

    wf = Workflow("shop", db="runs.db")

    @wf.task
    def work(n):
        return n

    def in_child(call):
        child = os.fork()
        if not child:
            try:
                call()
            except ForkedProcess as error:
                print(type(error).__name__, str(error).count(chr(10)), flush=True)
                os._exit(7)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @wf.workflow
    def main():
        first = work(1)
        calls = [
            lambda: work(2),                       # a new step
            lambda: work(1, step_id="another"),
            lambda: wf.sync.signal("approval"),
            lambda: wf.sync.complete("r", "approval"),
            lambda: main.run("in the child"),
        ]
        return [in_child(call) for call in calls], work(3)

    print(main.run("r"))
    print(in_child(lambda: main.run("r")))
    print(in_child(lambda: work(5)))  # outside a run: the plain function
    held = Workflow("held", db=SqliteJournal("held.db"))  # the journal is the parent's
    one = held.workflow(lambda: 1)
    print(one.run("a"), in_child(lambda: one.run("b")))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_refused_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = "ForkedProcess 0"
    in_run, outside = "([7, 7, 7, 0, 7], 3)", "0"
    assert done.stdout.splitlines() == [*[refused] * 4, in_run, outside, outside, refused, "1 7"]
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        assert connection.execute("SELECT run_id, status FROM runs").fetchall() == [("r", "done")]


CHILDREN = """
    import multiprocessing, os, sys, threading
    from durable_nb import Workflow
    from durable_nb.errors import RunHeld

    wf = Workflow("shop", db=sys.argv[1])
    go, began = threading.Event(), threading.Event()

    @wf.task
    def double(n):
        return 2 * n

    @wf.workflow
    def main(n):
        return double(n)

    @wf.workflow
    def holds():
        double(0)
        began.set()
        go.wait()

    def in_child(n):
        return main.run(f"child {n}", n)

    def held():
        try:
            holds.run("held")
        except RunHeld:
            return "held"

    main.run("parent", 1)
    holding = threading.Thread(target=holds.run, args=["held"])
    holding.start()
    began.wait()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(in_child, range(4)), pool.apply(held))
    child = os.fork()
    if not child:
        print(wf.sync.result("child 3"), main.run("exits", 5), flush=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    go.set()
    holding.join()
    print(main.run("after", 6), sorted(run.run_id for run in wf.sync.runs() if run.status == "done"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_forked_child_makes_runs_of_its_own(tmp_path, store, request):
    db = "runs.db" if store == "sqlite" else request.getfixturevalue("redis_server").url
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(CHILDREN), db],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    ended = sorted(["parent", "held", "exits", "after", *(f"child {n}" for n in range(4))])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[0, 2, 4, 6] held", "6 10", "0", f"12 {ended}"]


def test_a_child_forked_before_the_first_durable_call_is_a_process_of_its_own(tmp_path):
    code = """
        import os
        from durable_nb import Workflow
        wf = Workflow("shop", db="runs.db")
        main = wf.workflow(lambda: os.getpid())
        child = os.fork()
        if not child:
            main.run("child")
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), main.run("parent") == os.getpid())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "0 True\n", done.stderr
