"""Ctrl-C in a script: it ends at once, finished steps stay, and the same script goes on."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

PROGRAM = """
    import asyncio, sys, time
    from durable_nb import Workflow, constant

    wf = Workflow("interrupted", db="runs.db")
    place, calm = sys.argv[1], sys.argv[2] == "calm"

    def begun():
        print("begun", flush=True)

    @wf.task
    def first():
        print("first", flush=True)

    @wf.task
    def asleep():
        begun()
        time.sleep(60)

    @wf.task
    def spinning():
        begun()
        while True:
            pass

    @wf.task(retries=3, backoff=constant(60))
    def flaky():
        begun()
        raise OSError("down")

    @wf.task
    def nested():
        asleep()

    @wf.task
    def committed():
        begun()

    def asking():
        begun()
        wf.sync.signal("approval")

    @wf.workflow(id="child")
    def child():
        asleep()

    @wf.task
    async def a_asleep():
        begun()
        await asyncio.sleep(60)

    @wf.task(retries=3, backoff=constant(60))
    async def a_flaky():
        begun()
        raise OSError("down")

    @wf.task
    async def a_nested():
        await a_asleep()

    @wf.task
    async def a_committed():
        begun()

    async def a_asking():
        begun()
        await wf.signal("approval")

    async def a_gathered():
        await asyncio.gather(a_asleep(), a_asleep())

    async def a_task():
        await asyncio.create_task(a_asleep())

    @wf.workflow(id="child")
    async def a_child():
        await a_asleep()

    async def a_blocked():
        asleep()

    @wf.workflow
    def main():
        first()
        calm or globals()[place]()
        first()

    @wf.workflow
    async def a_main():
        first()
        calm or await globals()[place]()
        first()

    asyncio.run(a_main.run("r")) if place.startswith("a_") else main.run("r")
    print("done")
"""

SYNC = ["asleep", "spinning", "flaky", "nested", "asking", "child", "committed"]
ASYNC = ["a_asleep", "a_flaky", "a_nested", "a_asking", "a_gathered", "a_task", "a_child", "a_committed"]


def start(cwd, place, how=""):
    failpoints = "commit.before=delay:1@2" if "committed" in place else ""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), place, how], cwd=cwd, text=True,
        env={**os.environ, "DURABLE_NB_FAILPOINTS": failpoints},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def interrupted(cwd, place, times=1):
    process = start(cwd, place)
    assert [process.stdout.readline(), process.stdout.readline()] == ["first\n", "begun\n"]
    time.sleep(0.2)
    at = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - at < (2.5 if "committed" in place else 1.5)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def rows(cwd, query):
    with sqlite3.connect(cwd / "runs.db") as connection:
        return dict(connection.execute(query))


def goes_on(cwd, place):
    output, errors = start(cwd, place, "calm").communicate(timeout=30)
    assert (output, errors) == ("first\ndone\n", "")  # its second call: the first one replays
    assert rows(cwd, "SELECT run_id, status FROM runs")["r"] == "done"


@pytest.mark.parametrize("place", SYNC)
def test_sync(tmp_path, place):
    interrupted(tmp_path, place)
    expected = {"r": "interrupted"} | ({"child": "interrupted"} if place == "child" else {})
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == expected
    steps = rows(tmp_path, "SELECT step_id, status FROM steps")
    assert steps == {"first": "done"} | ({"committed": "done"} if place == "committed" else {})
    goes_on(tmp_path, place)


@pytest.mark.parametrize("place", ASYNC)
def test_asyncio_run_makes_a_cancellation_of_it(tmp_path, place):
    interrupted(tmp_path, place)
    expected = {"r": "cancelled"} | ({"child": "cancelled"} if place == "a_child" else {})
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == expected
    steps = rows(tmp_path, "SELECT step_id, status FROM steps")
    assert steps == {"first": "done"} | ({"a_committed": "done"} if place == "a_committed" else {})
    goes_on(tmp_path, place)


def test_asyncio_run_needs_a_second_one_where_its_code_blocks(tmp_path):
    interrupted(tmp_path, "a_blocked", times=2)
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == {"r": "interrupted"}
    goes_on(tmp_path, "a_blocked")
