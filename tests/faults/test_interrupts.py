"""Ctrl-C in a script: it ends at once, finished steps stay, and the same script goes on."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from helpers import AT_ONCE

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

    async def a_plain():
        begun()
        await asyncio.sleep(60)

    async def a_blocked():
        asleep()

    async def a_blocked_child():
        await asyncio.gather(asyncio.sleep(60), a_blocked())

    async def a_sync_child():
        child()

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
ASYNC = [
    *("a_asleep", "a_plain", "a_flaky", "a_nested", "a_asking", "a_gathered", "a_task", "a_child"),
    *("a_blocked", "a_blocked_child", "a_sync_child", "a_committed"),
]


def start(cwd, place, how=""):
    failpoints = "commit.before=delay:3@2" if "committed" in place else ""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), place, how], cwd=cwd, text=True,
        env={**os.environ, "DURABLE_NB_FAILPOINTS": failpoints},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def interrupted(cwd, place):
    """Interrupt it where it has begun; gives how long its process still took to end."""
    process = start(cwd, place)
    assert [process.stdout.readline(), process.stdout.readline()] == ["first\n", "begun\n"]
    time.sleep(0.2)
    at = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    took = time.monotonic() - at
    assert took < AT_ONCE + (3 if "committed" in place else 0)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.endswith("KeyboardInterrupt\n")
    assert "never retrieved" not in errors
    return took


def rows(cwd, query):
    with sqlite3.connect(cwd / "runs.db") as connection:
        return dict(connection.execute(query))


def goes_on(cwd, place):
    output, errors = start(cwd, place, "calm").communicate(timeout=30)
    assert (output, errors) == ("first\ndone\n", "")  # its second call: the first one replays
    assert rows(cwd, "SELECT run_id, status FROM runs")["r"] == "done"


@pytest.mark.parametrize("place", [*SYNC, *ASYNC])
def test_one_interrupt_is_enough_wherever_it_comes(tmp_path, place):
    interrupted(tmp_path, place)
    expected = {"r": "interrupted"} | ({"child": "interrupted"} if "child" in place else {})
    expected.pop("child" if place == "a_blocked_child" else "", None)
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == expected
    steps = rows(tmp_path, "SELECT step_id, status FROM steps WHERE kind = 'task'")
    assert steps == {"first": "done"} | ({place: "done"} if "committed" in place else {})
    goes_on(tmp_path, place)


def script(cwd, code, *arguments, **env):
    prelude = """
import asyncio, contextlib, signal, sys, time
from durable_nb import Workflow
wf = Workflow("interrupted", db="runs.db")

def say(*words):
    print(*words, flush=True)

"""
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(code), *arguments], cwd=cwd, text=True,
        env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def sent(process, until="begun\n"):
    """Interrupt a process once it has said so; gives what it said from then on."""
    while (line := process.stdout.readline()) != until:
        assert line, process.communicate()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)


COMMITTING = """
ran = []

@wf.task
def work():
    ran.append(1)
    say("begun")
    return "kept"

@wf.task
async def a_work():
    return work.function()

@wf.workflow(id="r")
def main():
    return work()

@wf.workflow(id="r")
async def a_main():
    return await a_work()

async def both():
    at = time.monotonic()
    try:
        await a_main()
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        say(type(error).__name__, time.monotonic() - at < 3.5)
    asyncio.current_task().uncancel()
    say(await a_main(), len(ran))

if sys.argv[1] == "async":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(both())
else:
    at = time.monotonic()
    try:
        main()
    except KeyboardInterrupt as error:
        say(type(error).__name__, time.monotonic() - at < 3.5)
    say(main(), len(ran))
"""


@pytest.mark.parametrize(("mode", "error"), [("sync", "KeyboardInterrupt"), ("async", "CancelledError")])
def test_the_caller_is_free_while_a_step_commits_and_it_never_runs_twice(tmp_path, mode, error):
    """The commit takes 4 s: who calls again at once waits for it, and finds the step done."""
    process = script(tmp_path, COMMITTING, mode, DURABLE_NB_FAILPOINTS="commit.before=delay:4@1")
    output, errors = sent(process)
    assert (output.splitlines(), errors) == ([f"{error} True", "kept 1"], "")
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == {"r": "done"}


CLOSED = """
begun = asyncio.Event()

@wf.task
async def work():
    begun.set()
    return "kept"

@wf.workflow(id="r")
async def main():
    await work()

async def closing():
    with wf:
        task = asyncio.create_task(main())
        await begun.wait()
        while not task.done():  # as level-triggered cancellation does: nothing can be waited for
            task.cancel()
            await asyncio.sleep(0)

asyncio.run(closing())
"""


def test_closing_waits_for_what_was_left_to_be_committed(tmp_path):
    process = script(tmp_path, CLOSED, DURABLE_NB_FAILPOINTS="commit.before=delay:3@1")
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")
    assert rows(tmp_path, "SELECT step_id, status FROM steps") == {"work": "done"}
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == {"r": "cancelled"}


def test_a_step_that_commits_is_no_longer_to_be_resolved_or_run_again(tmp_path):
    """The same within one pass, which survives the interrupt of its step."""
    code = """
    ran = []

    @wf.task
    def work():
        ran.append(1)
        say("begun")

    @wf.workflow(id="r")
    def main():
        with contextlib.suppress(KeyboardInterrupt):
            work(step_id="one")
        work(step_id="one")
        return len(ran)

    say(main())
    """
    process = script(tmp_path, code, DURABLE_NB_FAILPOINTS="commit.before=delay:3@1")
    assert sent(process) == ("1\n", "")


def until_opened(cwd):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.OperationalError):  # there are no tables yet
            if rows(cwd, "SELECT run_id, status FROM runs"):
                return
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_run_that_is_being_opened_is_left_interrupted(tmp_path, mode):
    code = """
    @wf.workflow(id="r")
    def main():
        say("entered")

    @wf.workflow(id="r")
    async def a_main():
        say("entered")

    say("begun")
    asyncio.run(a_main()) if sys.argv[1] == "async" else main()
    """
    process = script(tmp_path, code, mode, DURABLE_NB_FAILPOINTS="run.opened=delay:4")
    assert process.stdout.readline() == "begun\n"
    until_opened(tmp_path)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert output == ""
    assert errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == {"r": "interrupted"}


def test_a_users_own_handler_keeps_working(tmp_path):
    code = """
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    heard = []

    @wf.workflow(id="r")
    async def main():
        say("begun")
        while not heard:
            await asyncio.sleep(0.01)
        return "heard"

    say(asyncio.run(main()), heard)
    """
    assert sent(script(tmp_path, code)) == ("heard [1]\n", "")
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == {"r": "done"}


def test_afterwards_the_handlers_are_pythons_own_again(tmp_path):
    code = """
    @wf.workflow(id="{n}")
    async def main(n):
        inside.add(signal.getsignal(signal.SIGINT))
        await asyncio.sleep(n / 100)

    async def several():
        before = signal.getsignal(signal.SIGINT)
        await asyncio.gather(main(3), main(1), main(2))
        assert signal.getsignal(signal.SIGINT) is before
        assert before not in inside

    inside = set()
    asyncio.run(several())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main(4))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    say(len(inside))
    """
    process = script(tmp_path, code)
    assert process.communicate(timeout=30) == ("2\n", "")


@pytest.mark.parametrize("how", ["asyncio.run", "loop"])
def test_several_runs_at_once_are_all_interrupted(tmp_path, how):
    code = """
    @wf.task
    def asleep():
        say("begun")
        time.sleep(60)

    @wf.workflow(id="{n}")
    async def main(n):
        await asyncio.sleep(n)
        asleep()

    async def several():
        async with asyncio.TaskGroup() as group:
            for n in (0.1, 60, 61):
                group.create_task(main(n))

    if sys.argv[1] == "loop":
        asyncio.new_event_loop().run_until_complete(main(0.1))
    else:
        asyncio.run(several())
    """
    process = script(tmp_path, code, how)
    _, errors = sent(process)
    assert errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
    expected = ["0.1"] if how == "loop" else ["0.1", "60", "61"]
    assert rows(tmp_path, "SELECT run_id, status FROM runs") == dict.fromkeys(expected, "interrupted")
