"""Runs whose process dies again and again in a body are stopped; all others go on for ever."""

import asyncio
import signal
import subprocess
import sys
import textwrap

import pytest

from durable_nb import Workflow, settings
from durable_nb.concurrency.bridge import SYNC, run_blocking

pytestmark = pytest.mark.slow

PROGRAM = """
    import asyncio, os, signal, sys, threading, time
    from durable_nb import Workflow

    how = sys.argv[2]
    wf = Workflow("shop", db=sys.argv[1])

    def log(line):
        file = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

    def end(signum):
        os.kill(os.getpid(), signum)
        time.sleep(60)

    @wf.task
    def load():
        log("load")

    @wf.task
    def count(n):
        log(f"count {n}")

    @wf.task
    def crash():
        log("crash")
        if how == "kill":
            end(signal.SIGKILL)
        if how == "terminate":
            end(signal.SIGTERM)
        if how == "exit":
            left.set()
            time.sleep(60)
        return "done"

    @wf.workflow
    async def main():
        load()
        if how == "outside":
            log("outside")
            end(signal.SIGKILL)
        return crash()

    @wf.workflow
    async def progress():
        for n in range(20):
            count(n)
            if how == "kill":
                log("killed")
                end(signal.SIGKILL)

    @wf.task
    async def beside(n):
        begun.append(n)
        if len(begun) == 8 and how == "kill":
            end(signal.SIGKILL)
        await asyncio.sleep(60 if how == "kill" else 0)

    @wf.workflow
    async def many():
        await asyncio.gather(*(beside(n) for n in range(8)))

    @wf.workflow
    async def waiting():
        load()
        if how == "kill":
            asyncio.get_running_loop().call_later(0.2, end, signal.SIGKILL)
        return await wf.signal("go")

    begun = []
    left = threading.Event()
    if how == "exit":
        threading.Thread(target=lambda: asyncio.run(main.run("r")), daemon=True).start()
        left.wait(60)
    else:
        print(asyncio.run(globals()[sys.argv[3]].run("r")))
"""
ENDS = {"kill": -signal.SIGKILL, "terminate": -signal.SIGTERM, "exit": 0, "outside": -signal.SIGKILL}


@pytest.fixture(params=["sqlite", "redis"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on both stores."""
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url


def run(cwd, db, how="go", name="main"):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(db), how, name]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


def end(cwd, db, how, times, name="main"):
    for _ in range(times):
        ended = run(cwd, db, how, name)
        assert ended.returncode == ENDS[how], ended.stderr


def bodies(cwd, name):
    return (cwd / "bodies.log").read_text().split("\n").count(name)


def assert_stopped(done):
    assert done.returncode == 1
    assert (
        f"CrashLoop: run 'r', step 'crash': the process died in {settings.CRASHES} passes in a row while the "
        "step, or one beside it, was executing, and no step was finished in between; it is not executed "
        "again. Mend what ends the process, have the step executed again: wf.sync.resolve('r', 'crash', "
        "'rerun'), and resume." in done.stderr
    )


def test_a_run_that_kills_its_process_is_stopped_until_it_is_reset(tmp_path, db):
    end(tmp_path, db, "kill", settings.CRASHES)
    assert_stopped(run(tmp_path, db, "kill"))
    assert_stopped(run(tmp_path, db))  # it stays so
    assert (bodies(tmp_path, "load"), bodies(tmp_path, "crash")) == (1, settings.CRASHES)
    with Workflow("shop", db=db) as wf:
        assert wf.sync.status("r").run.status == "failed"
        wf.sync.reset("r", "crash")
        assert wf.sync.status("r").run.status == "interrupted"
    assert run(tmp_path, db).stdout == "done\n"
    assert (bodies(tmp_path, "load"), bodies(tmp_path, "crash")) == (1, settings.CRASHES + 1)


def test_it_may_die_as_often_again_after_a_reset_and_after_a_pass_that_ended(tmp_path, db):
    end(tmp_path, db, "kill", settings.CRASHES - 1)
    end(tmp_path, db, "terminate", 1)
    end(tmp_path, db, "kill", settings.CRASHES - 1)
    assert run(tmp_path, db).stdout == "done\n"


@pytest.mark.parametrize("how", ["terminate", "exit", "outside"])
def test_a_process_that_ends_in_another_way_does_not_count(tmp_path, db, how):
    end(tmp_path, db, how, settings.CRASHES + 2)
    assert run(tmp_path, db).stdout == "done\n"


def test_a_run_that_makes_progress_goes_on(tmp_path, db):
    for done in range(settings.CRASHES + 2):
        assert run(tmp_path, db, "kill", "progress").returncode == -signal.SIGKILL
        assert bodies(tmp_path, "killed") == done + 1
    assert run(tmp_path, db, "go", "progress").returncode == 0


def test_bodies_that_begin_at_the_same_time_count_as_one_pass(tmp_path, db):
    end(tmp_path, db, "kill", settings.CRASHES - 1, "many")
    assert run(tmp_path, db, name="many").returncode == 0


def test_a_run_that_waits_does_not_count(tmp_path, db):
    end(tmp_path, db, "kill", settings.CRASHES + 2, "waiting")
    with Workflow("shop", db=db) as wf:
        wf.sync.complete("r", "go", "on")
    assert run(tmp_path, db, "go", "waiting").stdout == "on\n"


def test_a_run_without_crashes_has_no_commit_more_and_one_after_a_crash_has_one(tmp_path):
    db = tmp_path / "runs.db"
    commits = {}
    for crashed in (False, True):
        if crashed:
            end(tmp_path, db, "outside", 1)
        with Workflow("shop", db=db) as wf:
            task = wf.task(name="crash")(lambda: "done")
            load = wf.task(name="load")(lambda: None)

            async def main():
                load()  # noqa: B023 - it is called in this round
                return task()  # noqa: B023

            run_id = "r" if crashed else "other"
            assert asyncio.run(wf.workflow(main).run(run_id)) == "done"
            commits[crashed] = wf.journal.commits
            assert run_blocking(SYNC.store(wf.journal.get_run(run_id))).crashes == 0
    assert commits == {False: 4, True: 4}  # the second one replays `load`
