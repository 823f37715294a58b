"""One owner a run inside a process; runs inside runs; cancelling."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from durable_nb import RunContext, settings
from durable_nb.concurrency.pending import PENDING, drain_pending
from durable_nb.errors import RunChanged, RunHeld, RunNotFound
from durable_nb.workflow import active_runs

PROGRAM_SECONDS = 60


def rows(db, columns="run_id, status"):
    drain_pending()
    with sqlite3.connect(db) as connection:
        return connection.execute(f"SELECT {columns} FROM runs ORDER BY run_id").fetchall()


def is_waiting(db):
    with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(db) as connection:
        return connection.execute("SELECT 1 FROM requests WHERE run_id = 'r'").fetchone() is not None
    return False


def steps(db):
    with sqlite3.connect(db) as connection:
        return sorted(connection.execute("SELECT run_id, step_id FROM steps"))


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert active_runs._running == {}


class Gate:
    """A workflow that waits half-way until it is let go."""

    def __init__(self, wf, answer=lambda n: [n]):
        self.begun, self.open, self.entered, self.ran = threading.Event(), threading.Event(), [], []

        @wf.task(retries=0)
        async def work(n):
            self.ran.append(n)
            return n

        @wf.workflow(id="r")
        async def main(n=1):
            self.entered.append(n)
            await work(n)
            self.begun.set()
            while not self.open.is_set():
                await asyncio.sleep(0.001)
            return answer(await work(n))

        sync_work = wf.task(lambda n: self.ran.append(n))

        @wf.workflow(id="r")
        def sync_main(n=1):
            self.entered.append(n)
            sync_work(n)
            self.begun.set()
            self.open.wait(30)
            sync_work(n)
            return answer(n)

        self.main, self.sync_main = main, sync_main


async def until(event):
    while not event.is_set():
        await asyncio.sleep(0.001)


# Joining


async def test_a_second_call_joins_the_first_in_the_same_loop(again):
    gate = Gate(again())
    calls = [asyncio.create_task(gate.main()) for _ in range(3)]
    await until(gate.begun)
    with pytest.raises(RunChanged, match=r"run 'r': the run was started with other arguments \(n: 1 → 2"):
        await gate.main(2)
    gate.open.set()
    first, second, third = await asyncio.gather(*calls)
    assert first is second is third
    assert len(gate.ran) == 2


@pytest.mark.one_pass
async def test_joining_enters_the_body_once_and_a_call_after_the_end_never(again):
    gate = Gate(again())
    gate.open.set()
    assert await asyncio.gather(gate.main(), gate.main()) == [[1], [1]]
    assert gate.entered == [1]
    assert await gate.main() == [1]
    assert gate.entered == [1]


async def test_joiners_get_the_same_exception(again, db):
    error = ValueError("no stock")

    def fail(_):
        raise error

    gate = Gate(again(), fail)
    gate.open.set()
    results = await asyncio.gather(*(gate.main() for _ in range(3)), return_exceptions=True)
    assert all(result is error for result in results)
    assert rows(db) == [("r", "failed")]


async def test_joining_from_another_thread_and_its_loop(again):
    gate = Gate(again())
    here = asyncio.create_task(gate.main())
    await until(gate.begun)
    there = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(gate.main())))
    await asyncio.sleep(0.05)
    gate.open.set()
    assert await here is await there
    assert len(gate.ran) == 2


def test_synchronous_calls_in_threads_join(again):
    gate = Gate(again())
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(gate.sync_main) for _ in range(3)]
        gate.begun.wait(30)
        with pytest.raises(RunChanged):
            gate.sync_main(2)
        gate.open.set()
        first, *others = [call.result() for call in calls]
    assert all(other is first for other in others)
    assert len(gate.ran) == 2


async def test_a_cancelled_joiner_leaves_the_pass_alone(again, db):
    gate = Gate(again())
    first = asyncio.create_task(gate.main())
    await until(gate.begun)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.main(), 0.02)
    second = asyncio.create_task(gate.main())
    gate.open.set()
    assert await first is await second
    assert rows(db) == [("r", "done")]


async def test_cancelling_the_first_call_cancels_it_for_all(again, db):
    gate = Gate(again())
    first = asyncio.create_task(gate.main())
    await until(gate.begun)
    second = asyncio.create_task(gate.main())
    await asyncio.sleep(0.02)
    first.cancel()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert rows(db) == [("r", "cancelled")]


async def test_a_pass_thrown_away_half_way_is_no_longer_joined(again):
    gate = Gate(again())
    call = gate.main()
    for _ in range(50):
        call.send(None) if not gate.begun.is_set() else None
        await asyncio.sleep(0.002)
        if active_runs._running:
            break
    call.close()
    assert active_runs._running == {}
    gate.open.set()
    assert await gate.main() == [1]


async def test_a_run_that_calls_itself_is_told_so(again):
    wf = again()

    @wf.workflow(id="{name}")
    async def main(name, others):
        if others:
            return await main(others[0], [name])
        return name

    @wf.workflow(id="same")
    async def same():
        return await asyncio.create_task(same())

    @wf.workflow(id="sync")
    def sync():
        return sync()

    with pytest.raises(RunHeld, match="run 'same': this call is part of the run itself"):
        await same()
    with pytest.raises(RunHeld, match="run 'sync': this call is part of the run itself"):
        sync()
    with pytest.raises(RunHeld, match="run 'a': this call is part of the run itself"):
        await main("a", ["b"])


async def test_two_runs_that_wait_for_each_other_are_told_so(again):
    wf = again()
    both = asyncio.Barrier(2)

    @wf.workflow(id="{name}")
    async def main(name):
        await both.wait()
        return await main("b" if name == "a" else "a")

    results = await asyncio.gather(main("a"), main("b"), return_exceptions=True)
    assert {type(result) for result in results} == {RunHeld}


async def test_a_running_run_is_not_started_over(again):
    gate = Gate(again())
    first = asyncio.create_task(gate.main())
    await until(gate.begun)
    with pytest.raises(RunHeld, match=r"cannot be started over\. Wait until it ends, or cancel it"):
        await gate.main.run("r", fresh=True)
    gate.open.set()
    await first
    assert await gate.main.run("r", 2, fresh=True) == [2]


async def test_two_equal_posts_at_once_to_a_real_server_run_once(again):
    gate = Gate(again(), lambda n: {"receipt": n})
    app = FastAPI()

    @app.post("/orders/{n}")
    async def order(n: int):
        return await gate.main(n)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        posts = [asyncio.create_task(client.post("/orders/7")) for _ in range(2)]
        await until(gate.begun)
        await asyncio.sleep(0.1)
        gate.open.set()
        answers = [(await post).json() for post in posts]
    server.should_exit = True
    await serving
    assert answers == [{"receipt": 7}] * 2
    assert gate.ran == [7, 7]


# Runs inside runs


def shop(wf, log):
    """A parent that has a step of its own before and after its children."""

    @wf.task
    async def note(text):
        log.append(text)
        return text

    @wf.workflow(id="child-{n}")
    async def child(n):
        assert RunContext.current().run_id == f"child-{n}"
        return [await note(f"{n}a"), await note(f"{n}b")]

    @wf.task
    async def through_task(n):
        return await child(n)

    @wf.workflow(id="parent")
    async def parent():
        first = await note("first")
        inner = await child(1)
        gathered = await asyncio.gather(child(2), child(3))
        assert RunContext.current().run_id == "parent"
        return [first, inner, gathered, await through_task(4), await note("last")]

    return parent


async def test_a_workflow_in_a_workflow_is_a_run_of_its_own_linked_to_its_parent(again, db):
    log = []
    expected = ["first", ["1a", "1b"], [["2a", "2b"], ["3a", "3b"]], ["4a", "4b"], "last"]
    for _first_and_replay in range(2):
        assert await shop(again(), log)() == expected
    assert len(log) == len(set(log)) == 10
    assert rows(db, "run_id, status, parent") == [
        *((f"child-{n}", "done", "parent") for n in range(1, 5)),
        ("parent", "done", None),
    ]
    children = [(f"child-{n}", step) for n in range(1, 5) for step in ("note", "note#1")]
    assert steps(db) == [*children, ("parent", "note"), ("parent", "note#1"), ("parent", "through_task")]


KILLED = """
    import os, signal, sys
    from durable_nb import Workflow
    wf = Workflow("shop", db="runs.db")

    @wf.task
    def note(text):
        print(text, flush=True)
        if text == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return text

    @wf.workflow(id="child-{n}")
    def child(n):
        return [note(f"{n}a"), note(f"{n}b")]

    @wf.workflow(id="parent")
    def parent():
        return [note("first"), child(1), note("second"), child(2)]

    print(parent())
"""


def test_killed_in_the_child_the_parent_resumes_both(tmp_path):
    def run(kill_at):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), kill_at],
            cwd=tmp_path, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False,
        )  # fmt: skip

    killed = run("1b")
    assert (killed.returncode, killed.stdout.split()) == (-signal.SIGKILL, ["first", "1a", "1b"])
    killed = run("2b")
    assert (killed.returncode, killed.stdout.split()) == (-signal.SIGKILL, ["1b", "second", "2a", "2b"])
    assert run("").stdout.splitlines() == ["2b", "['first', ['1a', '1b'], 'second', ['2a', '2b']]"]
    assert rows(tmp_path / "runs.db", "run_id, status, parent") == [
        ("child-1", "done", "parent"),
        ("child-2", "done", "parent"),
        ("parent", "done", None),
    ]


# Cancelling


@pytest.mark.parametrize("face", ["await", "sync in a thread"])
async def test_cancel_ends_a_pass_of_this_process(again, db, face):
    wf = again()
    gate = Gate(wf)
    call = asyncio.create_task(gate.main())
    await until(gate.begun)
    assert await (wf.cancel("r") if face == "await" else asyncio.to_thread(wf.sync.cancel, "r"))
    with pytest.raises(asyncio.CancelledError):
        await call
    assert rows(db) == [("r", "cancelled")]
    assert not await wf.cancel("r")
    gate.open.set()
    assert await gate.main() == [1]
    assert len(gate.ran) == 2
    assert not await wf.cancel("r")


async def test_cancel_is_no_cancellation_of_the_task_that_called(again, db):
    wf = again()
    gate = Gate(wf)

    async def caller():
        with contextlib.suppress(asyncio.CancelledError):
            await gate.main()
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    call = asyncio.create_task(caller())
    await until(gate.begun)
    assert await wf.cancel("r")
    assert await call == 0


async def test_cancel_of_a_child_that_its_parent_survives(again, db):
    wf = again()
    gate = Gate(wf)

    @wf.workflow(id="parent")
    async def parent():
        try:
            return await gate.main()
        except asyncio.CancelledError:
            return "without it"

    call = asyncio.create_task(parent())
    await until(gate.begun)
    assert await wf.cancel("r")
    assert await call == "without it"
    assert rows(db) == [("parent", "done"), ("r", "cancelled")]


def test_a_synchronous_pass_is_cancelled_at_its_next_durable_call(again, db):
    wf = again()
    gate = Gate(wf)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(gate.sync_main) for _ in range(2)]
        gate.begun.wait(30)
        assert wf.sync.cancel("r")
        gate.open.set()
        assert {type(call.exception()) for call in calls} == {asyncio.CancelledError}
    assert rows(db) == [("r", "cancelled")]
    assert gate.sync_main() == [1]
    assert len(gate.ran) == 2


def test_a_synchronous_wait_for_a_signal_is_cancelled(again, db):
    wf = again()
    main = wf.workflow(lambda: wf.sync.signal("approval", poll=0.01))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(main.run, "r")
        deadline = time.monotonic() + 30
        while not is_waiting(db) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wf.sync.cancel("r")
        assert isinstance(call.exception(), asyncio.CancelledError)
    assert rows(db) == [("r", "cancelled")]


async def test_a_run_that_no_process_has_open_is_marked_cancelled(again, db):
    left = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), "1b"], cwd=db.parent, capture_output=True, check=False
    )
    assert left.returncode == -signal.SIGKILL
    wf = again()
    with pytest.raises(RunNotFound, match="run 'unknown': not found in "):
        await wf.cancel("unknown")
    assert await wf.cancel("parent")
    assert wf.sync.cancel("child-1")
    assert not await wf.cancel("parent")
    assert rows(db) == [("child-1", "cancelled"), ("parent", "cancelled")]


async def test_a_timeout_round_a_workflow_leaves_it_cancelled(again, db):
    wf = again()
    gate = Gate(wf)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await gate.main()
    assert rows(db) == [("r", "cancelled")]
    gate.open.set()
    assert await gate.main() == [1]
    assert len(gate.ran) == 2


async def test_close_waits_for_what_a_cancelled_caller_has_left_to_be_committed(again, db, monkeypatch):
    monkeypatch.setattr(settings, "INTERRUPT_GRACE", 0.0)
    wf = again()
    gate = Gate(wf)
    call = asyncio.create_task(gate.main())
    await until(gate.begun)
    call.cancel()
    await asyncio.wait([call])
    wf.close()
    assert not PENDING
    assert rows(db) == [("r", "cancelled")]


async def test_cancel_at_any_moment_leaves_the_run_cancelled_or_done(again, db):
    wf = again()
    work = wf.task(lambda n: n)

    @wf.workflow
    async def main():
        for n in range(3):
            work(n)
            await asyncio.sleep(0)

    asked = 0
    for turns in range(25):
        run = asyncio.create_task(main.run(f"r{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        with contextlib.suppress(RunNotFound):
            asked += await wf.cancel(f"r{turns}")
        await asyncio.wait([run])
        assert run.cancelling() == 0
    assert asked
    assert {status for _, status in rows(db)} <= {"cancelled", "done"}


ELSEWHERE = """
    import sys
    from durable_nb import Workflow
    wf = Workflow("shop", db="runs.db")

    @wf.task
    def note(text):
        print(text, flush=True)
        sys.stdin.readline()

    @wf.workflow
    def main():
        return [note("a"), note("b")]

    main.run("r")
"""


async def test_a_run_that_another_process_has_open_can_be_written_no_more(again, db):
    """Cancelling takes the run over: the other hears of it at its next commit."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ELSEWHERE)], cwd=db.parent, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "a\n"
    wf = again()
    assert await wf.cancel("r")
    output, errors = process.communicate("\n", timeout=30)
    assert (output, process.returncode) == ("", 1)
    assert "RunHeld: run 'r', step 'note': this process no longer owns the run" in errors
    assert rows(db) == [("r", "cancelled")]
