"""The ancestor's contract, sentence by sentence, and each row of what it failed at."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import textwrap

import pytest

import durable_nb
from durable_nb import InMemoryStore, RunContext, SQLiteStore, Store, Workflow, constant, exponential, linear
from durable_nb.concurrency.pending import drain_pending
from durable_nb.errors import NoOpenRun, RunChanged, RunHeld, StepChanged, StepNotSaved
from durable_nb.stores.base import Journal


def fresh_process(code, cwd):
    """Run code in a process of its own, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(db):
    """Each run's status, after what a cancelled caller has left to be committed."""
    drain_pending()
    with sqlite3.connect(db) as connection:
        return dict(connection.execute("SELECT run_id, status FROM runs"))


def step_ids(db):
    with sqlite3.connect(db) as connection:
        return [step for (step,) in connection.execute("SELECT step_id FROM steps ORDER BY began")]


# Public names


@pytest.mark.parametrize(
    "name",
    [
        *("Workflow", "Store", "SQLiteStore", "InMemoryStore", "RunContext"),
        *("BackoffStrategy", "exponential", "constant", "linear"),
    ],
)
def test_public_names(name):
    assert getattr(durable_nb, name) is not None
    assert name in durable_nb.__all__


def test_the_submodule_of_backoffs():
    from durable_nb.workflow import backoff

    assert (backoff.exponential, backoff.linear, backoff.constant) == (exponential, linear, constant)


# Workflow(name, db, default_retries, default_backoff)


@pytest.mark.parametrize("place", ["runs.db", "sqlite:///runs.db", SQLiteStore, InMemoryStore])
async def test_db_is_a_path_a_url_or_a_store(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    db = place if isinstance(place, str) else place() if place is InMemoryStore else place("runs.db")
    wf = Workflow("shop", db=db)
    ran = []

    @wf.task
    async def step():
        ran.append(1)
        return 1

    @wf.workflow
    async def main():
        return await step()

    assert await main.run("r") == await main.run("r") == 1
    assert ran == [1]
    assert (tmp_path / "runs.db").exists() is (place is not InMemoryStore)
    wf.close()


async def test_the_default_database_is_durable_db_beside_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Workflow("shop") as wf:
        assert await wf.complete("r", "approval")
    assert (tmp_path / "durable.db").exists()


@pytest.mark.parametrize("db", ["runs.db", "sqlite:///runs.db"])
def test_a_relative_database_stays_where_it_was_when_it_was_given(tmp_path, monkeypatch, db):
    later = tmp_path / "later"
    later.mkdir()
    monkeypatch.chdir(tmp_path)
    with Workflow("shop", db=db) as wf:
        main = wf.workflow(lambda: 1)
        monkeypatch.chdir(later)
        assert main.run("r") == 1
        wf.close()
        assert wf.sync.status("r").run.run_id == "r"  # also when it is opened again
        wf.move_to(db=db)  # given again: in the folder that is the current one now
        assert main.run("r") == 1
    assert (tmp_path / "runs.db").exists()
    assert (later / "runs.db").exists()


@pytest.mark.parametrize(("given", "attempts"), [({}, 3), ({"retries": 0}, 1), ({"retries": 4}, 5)])
async def test_default_retries_and_backoff_are_those_of_a_task_that_gives_none(again, given, attempts):
    waits, calls = [], []
    wf = again(default_retries=2, default_backoff=lambda attempt: waits.append(attempt) or 0)

    @wf.task(**given)
    async def flaky():
        calls.append(1)
        raise OSError("down")

    @wf.workflow
    async def main():
        await flaky()

    with pytest.raises(OSError, match="down"):
        await main.run("r")
    assert len(calls) == attempts
    assert waits == list(range(attempts - 1))


def test_three_retries_and_exponential_waits_are_the_default():
    policy = Workflow("shop").task(len).policy
    assert policy.retries == 3
    assert [policy.backoff(attempt) for attempt in range(4)] == [2, 4, 8, 16]


# @wf.task


async def test_both_forms_of_the_decorator_and_its_options(again, db):
    wf = again()
    waits = []

    @wf.task
    async def plain():
        return "plain"

    @wf.task(name="renamed", retries=1, backoff=lambda attempt: waits.append(attempt) or 0)
    async def flaky():
        if not waits:
            raise ValueError
        return "second attempt"

    @wf.workflow
    async def main():
        return await plain(), await flaky()

    assert await main.run("r") == ("plain", "second attempt")
    assert waits == [0]
    assert step_ids(db) == ["plain", "renamed"]
    assert (plain.__name__, plain.__wrapped__.__name__) == ("plain", "plain")


async def test_a_task_called_outside_a_run_is_the_plain_function(again, db):
    wf = again()
    calls = []

    @wf.task(retries=3)
    async def flaky(n):
        calls.append(n)
        raise ValueError("plain")

    with pytest.raises(ValueError, match="plain"):
        await flaky(1, step_id="ignored here")
    assert calls == [1]
    assert not db.exists()


async def test_step_id_names_the_checkpoint_and_without_it_calls_are_counted(again, db):
    wf = again()

    @wf.task
    async def fetch(n):
        return n

    @wf.workflow
    async def main():
        return [await fetch(n, step_id=f"page-{n}") for n in range(2)] + [await fetch(n) for n in (2, 3)]

    assert await main.run("r") == [0, 1, 2, 3]
    assert step_ids(db) == ["page-0", "page-1", "fetch", "fetch#1"]


async def test_one_task_in_two_runs_is_two_checkpoints(again):
    wf = again()
    ran = []

    @wf.task
    async def fetch():
        ran.append(1)
        return len(ran)

    @wf.workflow
    async def main():
        return await fetch()

    assert [await main.run("a"), await main.run("b"), await main.run("a")] == [1, 2, 1]


# @wf.workflow


async def test_the_template_is_filled_from_the_bound_arguments(again, db):
    wf = again()

    @wf.workflow(id="order-{order_id}-{region}-{note}")
    async def process(order_id, region="eu", **details):
        return order_id

    await process("a17", note="gift")
    await process(order_id="b2", region="us", note=3)
    assert sorted(runs(db)) == ["order-a17-eu-gift", "order-b2-us-3"]


async def test_the_id_without_a_template(again, db):
    wf = again("shop")

    @wf.workflow
    async def process(order_id, region="eu", **details):
        return order_id

    await process("a17", note="gift")
    assert list(runs(db)) == ["shop-process-a17-eu-gift"]


async def test_run_sets_the_id(again, db):
    wf = again()

    @wf.workflow(id="order-{order_id}")
    async def process(order_id, region="eu"):
        return order_id, region

    assert await process.run("mine", "a17", region="us") == ("a17", "us")
    assert list(runs(db)) == ["mine"]


@pytest.mark.one_pass
async def test_the_same_id_enters_the_body_again_and_finished_tasks_replay(again):
    entered, ran = [], []

    def define(wf, ends):
        @wf.task
        async def charge():
            ran.append(1)
            return "receipt"

        @wf.workflow(id="order-{n}")
        async def process(n):
            entered.append(n)
            receipt = await charge()
            if not ends:
                raise OSError("down")
            return receipt

        return process

    with pytest.raises(OSError, match="down"):
        await define(again(), ends=False)(7)
    assert await define(again(), ends=True)(7) == "receipt"
    assert (entered, ran) == ([7, 7], [1])
    # Here we leave the ancestor, which enters a run that is done once more: code beside its steps would have
    # its effects again, and chance or time in it could take another branch than the one on record.
    assert await define(again(), ends=True)(7) == "receipt"
    assert (entered, ran) == ([7, 7], [1])


async def test_a_run_is_marked_done_with_its_return(again, db):
    wf = again()

    @wf.workflow
    async def main():
        return {"total": 3}

    await main.run("r")
    with sqlite3.connect(db) as connection:
        row = connection.execute("SELECT status, result_format, result_data FROM runs").fetchone()
    assert row[0] == "done"
    assert (row[1], json.loads(row[2])) == ("json", {"total": 3})


async def test_a_run_is_marked_failed_with_the_exceptions_text_which_is_raised_again(again, db):
    wf = again()
    error = ValueError("no stock left")

    @wf.workflow
    async def main():
        raise error

    with pytest.raises(ValueError, match="no stock left") as caught:
        await main.run("r")
    assert caught.value is error
    with sqlite3.connect(db) as connection:
        status, result = connection.execute("SELECT status, result_data FROM runs").fetchone()
    assert status == "failed"
    assert b"no stock left" in result


async def test_a_return_that_cannot_be_saved_is_still_returned_and_the_run_is_done(again, db):
    wf = again()

    @wf.workflow
    async def main():
        return sqlite3.connect(":memory:")

    with pytest.warns(
        UserWarning, match=r"run 'r' is done, but its result was not saved: .*sqlite3\.Connection"
    ):
        connection = await main.run("r")
    connection.close()
    assert runs(db) == {"r": "done"}


@pytest.mark.one_pass  # a failure is tried again in each pass
async def test_a_failure_that_ended_the_run_is_tried_again_beside_calls_made_with_it(again):
    """Also one that fails before the calls beside it have begun."""
    ran = []

    def define(wf, fails):
        @wf.task(retries=0)
        async def work(n):
            ran.append(n)
            if n == fails:
                raise OSError("down")
            return n

        @wf.workflow
        async def main():
            return await asyncio.gather(*(work(n) for n in range(3)))

        return main

    with pytest.raises(OSError, match="down"):
        await define(again(), 0).run("r")
    assert await define(again(), None).run("r") == [0, 1, 2]
    assert ran == [0, 1, 2, 0]


# Signals


ANSWERS = [False, None, 0, "", [], {}, {"approved": False}, (1, 2), {1: "x"}, b"\x00"]


@pytest.mark.parametrize("payload", ANSWERS, ids=repr)
async def test_a_payload_arrives_as_itself(again, payload):
    """The ancestor's `payload or {}` made an approval of each rejection."""
    wf = again()

    @wf.workflow
    async def main():
        return await wf.signal("approval")

    assert await wf.complete("r", "approval", payload)
    got = await main.run("r")
    assert (type(got), got) == (type(payload), payload)


async def test_a_signal_delivered_while_the_run_waits(again, db):
    wf = again()
    waiting = asyncio.Event()

    @wf.workflow
    async def main():
        waiting.set()
        return await wf.signal("approval", poll=0.001)

    run = asyncio.create_task(main.run("r"))
    await waiting.wait()
    while (await wf.status("r")).run.status != "waiting":
        await asyncio.sleep(0.001)
    assert await wf.complete("r", "approval", {"by": "ann"})
    assert await run == {"by": "ann"}
    assert runs(db) == {"r": "done"}


async def test_a_signal_delivered_before_a_restart_is_there_at_once(again):
    delivered = await again().complete("r", "approval", "yes")
    wf = again()

    @wf.workflow
    async def main():
        return await wf.signal("approval", poll=3600)

    assert delivered
    assert await asyncio.wait_for(main.run("r"), 30) == "yes"


async def test_what_a_run_has_received_is_received_again_on_replay(again):
    def define(wf):
        @wf.workflow
        async def main():
            return await wf.signal("approval"), await wf.signal("approval")

        return main

    wf = again()
    await wf.complete("r", "approval", "yes")
    assert await define(wf).run("r") == ("yes", "yes")
    assert await define(again()).run("r") == ("yes", "yes")


async def test_the_first_delivery_wins_and_later_ones_return_false(again):
    wf = again()

    @wf.workflow
    async def main():
        return await wf.signal("approval")

    delivered = await asyncio.gather(*(wf.complete("r", "approval", n) for n in range(5)))
    assert sorted(delivered) == [False] * 4 + [True]
    assert await main.run("r") == delivered.index(True)
    assert not await wf.complete("r", "approval", "late")
    assert await wf.complete("r", "another", "first")


async def test_a_signal_outside_a_run_raises_runtimeerror(again):
    wf = again()
    with pytest.raises(RuntimeError, match="outside a run"):
        await wf.signal("approval")
    with pytest.raises(NoOpenRun):
        wf.sync.signal("approval")


def test_signal_and_complete_from_sync_code(again):
    wf = again()

    @wf.workflow
    def main():
        return wf.sync.signal("approval")

    assert wf.sync.complete("r", "approval", False) is True
    assert wf.sync.complete("r", "approval", True) is False
    assert main.run("r") is False


# Backoff


@pytest.mark.parametrize(
    ("strategy", "waits"),
    [
        (exponential(), [2, 4, 8, 16, 32, 60, 60]),
        (exponential(base=3, max=20), [3, 9, 20]),
        (linear(), [2, 5, 8]),
        (linear(start=1, step=0.5), [1, 1.5, 2]),
        (constant(5), [5, 5, 5]),
    ],
)
def test_backoff(strategy, waits):
    assert [strategy(attempt) for attempt in range(len(waits))] == waits


# Store


@pytest.fixture(params=["sqlite", "memory"])
def store(request, tmp_path):
    store = SQLiteStore(tmp_path / "store.db") if request.param == "sqlite" else InMemoryStore()
    yield store
    asyncio.run(store.close())


async def test_the_seven_calls_of_a_store(store):
    assert isinstance(store, Store)
    await store.setup()
    await store.setup()
    assert await store.get_step("r", "s") == (False, None)
    await store.set_step("r", "s", (1, {2: "x"}), attempt=2)
    assert await store.get_step("r", "s") == (True, (1, {2: "x"}))
    await store.set_step("r", "none", None)
    assert await store.get_step("r", "none") == (True, None)
    assert await store.get_signal("r", "go") == (False, None)
    assert await store.set_signal("r", "go", False) is True
    assert await store.set_signal("r", "go", True) is False
    assert await store.get_signal("r", "go") == (True, False)
    await store.mark_run_failed("r", "no stock")
    await store.mark_run_done("r")


async def test_a_workflow_replays_what_was_put_into_its_store(store):
    await store.set_step("r", "fetch", "from before")
    wf = Workflow("shop", db=store)

    @wf.task
    async def fetch():
        raise AssertionError("not to be run")

    @wf.workflow
    async def main():
        return await fetch()

    assert await main.run("r") == "from before"
    assert await store.get_step("r", "fetch") == (True, "from before")


async def test_a_store_gives_what_a_run_has_kept_also_after_the_workflow_was_closed(store):
    wf = Workflow("shop", db=store)

    @wf.task
    async def fetch():
        return {"n": (1, 2)}

    @wf.workflow
    async def main():
        return await fetch()

    await main.run("r")
    wf.close()
    await store.setup()
    assert await store.get_step("r", "fetch") == (True, {"n": (1, 2)})


# RunContext


async def test_run_context(again):
    wf = again()

    @wf.workflow
    async def main():
        context = RunContext.current()
        names = [context.next_step_id("a"), context.next_step_id("a")]
        return context.run_id, context.workflow_id, isinstance(context.store, Journal), names

    assert await main.run("r") == ("r", "shop.main", True, ["a", "a#1"])
    with pytest.raises(RuntimeError, match="not part of a run"):
        RunContext.current()


# Where it fails


async def test_a_checkpoint_is_written_outside_the_retry_loop(again):
    wf = again()
    ran = []

    @wf.task(retries=3, backoff=constant(0))
    async def connect():
        ran.append(1)
        return sqlite3.connect(":memory:")

    @wf.workflow
    async def main():
        await connect()

    with pytest.raises(StepNotSaved, match=r"step 'connect'"):
        await main.run("r")
    assert ran == [1]


async def test_a_store_that_fails_is_not_taken_for_a_task_that_fails(again, db):
    wf = again()
    ran = []

    @wf.task(retries=3, backoff=constant(0))
    async def inner():
        ran.append("inner")
        with sqlite3.connect(db) as connection:  # what a full disk would do to the next write
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON steps BEGIN SELECT RAISE(ABORT, 'no'); END"
            )

    @wf.task(retries=3, backoff=constant(0))
    async def outer():
        ran.append("outer")
        await inner()

    @wf.workflow
    async def main():
        await outer()

    with pytest.raises(durable_nb.DurableError, match=r"run 'r', step 'outer/inner': .*no"):
        await main.run("r")
    assert ran == ["outer", "inner"]


async def test_results_keep_their_types(again):
    value = {"tuple": (1, 2), 3: "int key", "bytes": b"\x00\xff", "set": {1}}
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

    await define(again()).run("r")
    got = await define(again()).run("r")
    assert got == value
    assert [type(item) for item in got.values()] == [type(item) for item in value.values()]
    assert ran == [1]


async def test_one_connection_and_one_commit_a_step(again):
    wf = again()

    @wf.task
    async def work(n):
        return n

    @wf.workflow
    async def main():
        return [await work(n) for n in range(30)]

    await wf.complete("another", "signal")
    before = wf.journal.commits
    await main.run("r")
    assert wf.journal.commits - before == 30 + 2  # and one each to open and to finish the run
    before = wf.journal.commits
    await main.run("r")
    assert wf.journal.commits == before  # the ancestor enters the run again: here it gives its result


@pytest.mark.parametrize("later", ["A", "B"])
async def test_two_branches_of_one_task_get_their_own_results_back(again, later):
    def define(wf, slow):
        turn = asyncio.Event()

        @wf.task
        async def tick():
            return object.__hash__(object())

        async def branch(name):
            if name == slow:
                await turn.wait()
            got = [await tick(), await tick()]
            turn.set()
            return got

        @wf.workflow
        async def main():
            return await asyncio.gather(branch("A"), branch("B"))

        return main

    first = await define(again(), "A").run("r")
    assert await define(again(), later).run("r") == first


@pytest.mark.parametrize("inserted", [0, 1])
async def test_a_call_inserted_before_an_old_one_is_not_handed_its_value(again, inserted):
    def define(wf, numbers):
        @wf.task
        async def double(n):
            return 2 * n

        @wf.workflow
        async def main():
            for n in numbers:
                await double(n)
            raise OSError("down")

        return main

    with pytest.raises(OSError, match="down"):
        await define(again(), [1, 2]).run("r")
    changed = [1, 2]
    changed.insert(inserted, 7)
    with pytest.raises(StepChanged, match=rf"n: {inserted + 1} → 7"):
        await define(again(), changed).run("r")


async def test_one_id_with_other_arguments_is_an_error(again):
    def define(wf):
        @wf.workflow
        async def main(n):
            return n

        return main

    assert await define(again()).run("r", 1) == 1
    with pytest.raises(RunChanged, match=r"run 'r': .*n: 1 → 2"):
        await define(again()).run("r", 2)
    assert await define(again()).run("r", 1) == 1


@pytest.mark.parametrize("payload", ["False", "None", "{'approved': True}"])
def test_complete_from_a_fresh_process_before_anything_exists(tmp_path, payload):
    delivery = f"""
        import asyncio
        from durable_nb import Workflow
        print(asyncio.run(Workflow("shop", db="runs.db").complete("r", "approval", {payload})))
    """
    waiting = """
        from durable_nb import Workflow
        wf = Workflow("shop", db="runs.db")
        @wf.workflow
        def main():
            return wf.sync.signal("approval", poll=3600)
        print(repr(main.run("r")))
    """
    assert fresh_process(delivery, tmp_path) == "True\n"
    assert fresh_process(delivery, tmp_path) == "False\n"
    assert fresh_process(waiting, tmp_path) == f"{payload}\n"


OTHER_PASS = """
    from durable_nb import Workflow
    wf = Workflow("shop", db="runs.db")
    @wf.task
    def work(n):
        return "theirs"
    @wf.workflow
    def main():
        return [work(n) for n in range(2)]
    print(main.run("r", take_over=True))
"""


async def test_of_two_processes_on_one_run_the_first_is_fenced_off(tmp_path, db, again):
    wf = again()

    @wf.task
    async def work(n):
        if n == 1:
            assert "theirs" in await asyncio.to_thread(fresh_process, OTHER_PASS, tmp_path)
        return "ours"

    @wf.workflow
    async def main():
        return [await work(n) for n in range(2)]

    with pytest.raises(RunHeld, match=r"run 'r', step 'work#1': .*opened again by process \d+"):
        await main.run("r")
    assert runs(db) == {"r": "done"}
    with sqlite3.connect(db) as connection:
        rows = connection.execute("SELECT payload_data FROM steps ORDER BY step_id").fetchall()
    assert [json.loads(data) for (data,) in rows] == ["ours", "theirs"]


def test_import_needs_no_redis(tmp_path):
    code = """
        import sys
        sys.modules.update(dict.fromkeys(("redis", "IPython", "pydantic", "pydantic_ai", "numpy")))
        from durable_nb import Workflow
        wf = Workflow("shop", db="runs.db")
        print(wf.workflow(lambda: 3).run("r"))
    """
    assert fresh_process(code, tmp_path) == "3\n"


def test_import_is_fast(tmp_path):
    """Well under the ancestor's 0.5 s, in processor time, of which a busy machine needs twice as much."""
    code = """
        import time
        begun = time.process_time()
        import durable_nb
        print(time.process_time() - begun)
    """
    assert any(float(fresh_process(code, tmp_path)) < 0.35 for _ in range(10))


async def test_a_cancelled_run_is_recorded_as_cancelled_and_goes_on_later(again, db):
    begun = asyncio.Event()
    ran = []

    def define(wf, forever):
        @wf.task
        async def first():
            ran.append("first")
            return 1

        @wf.task
        async def second():
            ran.append("second")
            begun.set()
            await asyncio.sleep(3600 if forever else 0)
            return 2

        @wf.workflow
        async def main():
            return await first() + await second()

        return main

    run = asyncio.create_task(define(again(), forever=True).run("r"))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert runs(db) == {"r": "cancelled"}
    assert await define(again(), forever=False).run("r") == 3
    assert ran == ["first", "second", "second"]
    assert runs(db) == {"r": "done"}


async def test_a_run_cancelled_anywhere_is_never_left_running(again, db):
    wf = again()

    @wf.task
    async def work(n):
        await asyncio.sleep(0.002)
        return n

    @wf.workflow
    async def main():
        return [await work(n) for n in range(3)]

    for turns in range(25):
        run = asyncio.create_task(main.run(f"r{turns}"))
        await asyncio.sleep(turns / 2000)
        run.cancel()
        await asyncio.wait([run])
    assert set(runs(db).values()) <= {"cancelled", "done"}
    assert "cancelled" in runs(db).values()
