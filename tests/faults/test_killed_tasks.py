"""Real processes killed with SIGKILL after each step in turn, then resumed: every body ran once."""

import signal
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

STEPS = 6
PROGRAM = """
    import asyncio, os, signal, sys
    from durable_nb import Workflow

    kill_after = int(sys.argv[1])
    wf = Workflow("killed", db="runs.db")
    finished = 0

    def fsynced(line):
        log = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, line.encode() + b"\\n")
        os.fsync(log)
        os.close(log)

    @wf.task
    async def work(n):
        fsynced(f"work {n}")
        return n * n

    async def step(n):
        global finished
        value = await work(n)
        finished += 1
        if finished == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    @wf.workflow
    async def sequence():
        return [await step(n) for n in range(STEPS)]

    @wf.workflow
    async def gathered():
        return await asyncio.gather(*(step(n) for n in range(STEPS)))

    async def in_turn(n):
        while finished < n:
            await asyncio.sleep(0)
        return await step(n)

    @wf.workflow
    async def gathered_in_turn():
        return await asyncio.gather(*(in_turn(n) for n in range(STEPS)))

    print(asyncio.run(globals()[sys.argv[2]].run("r")))
"""


def run(cwd, kill_after, shape, db="runs.db"):
    program = textwrap.dedent(PROGRAM).replace("STEPS", str(STEPS)).replace("runs.db", db)
    command = [sys.executable, "-c", program, str(kill_after), shape]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def bodies(cwd):
    return Counter((cwd / "bodies.log").read_text().split("\n")[:-1])


@pytest.mark.parametrize("kill_after", range(1, STEPS + 1))
@pytest.mark.parametrize("shape", ["sequence", "gathered_in_turn"])
def test_killed_after_each_step(tmp_path, shape, kill_after):
    assert run(tmp_path, kill_after, shape).returncode == -signal.SIGKILL
    assert sum(bodies(tmp_path).values()) == kill_after
    resumed = run(tmp_path, 0, shape)
    assert resumed.stdout.strip() == str([n * n for n in range(STEPS)]), resumed.stderr
    assert bodies(tmp_path) == {f"work {n}": 1 for n in range(STEPS)}


def test_a_sequence_killed_after_every_single_step(tmp_path):
    """Each pass makes one step of progress and dies: seven passes, six bodies."""
    for progress in range(1, STEPS + 1):
        assert run(tmp_path, progress, "sequence").returncode == -signal.SIGKILL
        assert sum(bodies(tmp_path).values()) == progress
    assert run(tmp_path, 0, "sequence").returncode == 0
    assert bodies(tmp_path) == {f"work {n}": 1 for n in range(STEPS)}


@pytest.mark.parametrize("kill_after", range(1, STEPS + 1))
def test_a_gather_with_bodies_in_flight(tmp_path, kill_after):
    """All bodies are begun together; those that were acknowledged before the kill never run again."""
    assert run(tmp_path, kill_after, "gathered").returncode == -signal.SIGKILL
    first = bodies(tmp_path)
    assert all(count == 1 for count in first.values())
    resumed = run(tmp_path, 0, "gathered")
    assert resumed.stdout.strip() == str([n * n for n in range(STEPS)]), resumed.stderr
    again = bodies(tmp_path) - first
    assert sum(again.values()) <= STEPS - kill_after


def test_a_script_that_never_closes_exits(tmp_path):
    finished = run(tmp_path, 0, "sequence")
    assert finished.returncode == 0
    assert finished.stderr == ""
