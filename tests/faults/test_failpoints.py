"""SIGKILL at every named point of a step's life, in five shapes of program, then resumed.

What was on record before the kill is not executed again, and the result is that of a run never killed.
"""

import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from durable_nb.engine.failpoints import FAILPOINTS, POINTS

COMMON = """
    import asyncio, os, sys
    from durable_nb import Workflow

    wf = Workflow("killed", db="runs.db")
    LARGE = "x" * 300_000

    def fsynced(line):
        log = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, line.encode() + b"\\n")
        os.fsync(log)
        os.close(log)

    @wf.task
    async def work(n):
        fsynced(f"work-{n}")
        return f"{n * n}{LARGE if n == 2 else ''}"
"""
SHAPES = {
    "sequence": """
    @wf.workflow
    async def main():
        return [await work(n, step_id=f"work-{n}") for n in range(4)]
    result = asyncio.run(main.run("r"))
    """,
    "gather": """
    @wf.workflow
    async def main():
        return await asyncio.gather(*(work(n, step_id=f"work-{n}") for n in range(4)))
    result = asyncio.run(main.run("r"))
    """,
    "nested": """
    @wf.task
    async def outer(n):
        fsynced(f"outer-{n}")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(2 * n + k, step_id=f"work-{2 * n + k}")) for k in range(2)]
        return [task.result() for task in tasks]
    @wf.workflow
    async def main():
        return [await outer(n, step_id=f"outer-{n}") for n in range(2)]
    result = asyncio.run(main.run("r"))
    """,
    "sync": """
    @wf.task
    def work(n):
        fsynced(f"work-{n}")
        return f"{n * n}{LARGE if n == 2 else ''}"
    @wf.workflow
    def main():
        return [work(n, step_id=f"work-{n}") for n in range(4)]
    result = main.run("r")
    """,
    "cells": """
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    def run(source):
        shell.run_cell(source).raise_error()
    run("%load_ext durable_nb")
    shell.user_ns.update(fsynced=fsynced, LARGE=LARGE)
    run("%durable_workflow r --db runs.db --badge off")
    run("@wf.task\\nasync def work(n):\\n    fsynced(f'load/work-{n}')\\n    return n * n")
    run("%%durable_step load\\nfsynced('load')\\nx = [await work(n, step_id=f'work-{n}') for n in range(2)]")
    run("%%durable_step grow\\nfsynced('grow')\\nx.append(LARGE)")
    run("%%durable_step last\\nfsynced('last')\\nlength = len(x)")
    result = shell.user_ns["x"], shell.user_ns["length"]
    """,
}
EXPECTED = {
    **dict.fromkeys(("sequence", "gather", "sync"), "['0', '1', '4' + LARGE, '9']"),
    "nested": "[['0', '1'], ['4' + LARGE, '9']]",
    "cells": "([0, 1, LARGE], 3)",
}


def run(cwd, shape, plan="", db="runs.db"):
    program = (textwrap.dedent(COMMON) + textwrap.dedent(SHAPES[shape])).replace("runs.db", db)
    (cwd / "job.py").write_text(f"{program}\nprint(result == {EXPECTED[shape]})\n")
    command = [sys.executable, "job.py"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), FAILPOINTS: plan}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


def bodies(cwd):
    log = cwd / "bodies.log"
    return log.read_text().split() if log.exists() else []


def on_record(cwd):
    if not (cwd / "runs.db").exists():
        return set()
    with sqlite3.connect(cwd / "runs.db") as connection:
        rows = connection.execute("SELECT step_id FROM steps WHERE status = 'done'").fetchall()
    connection.close()
    return {body_of(step_id) for (step_id,) in rows}


def body_of(step_id):
    """What a step's body writes into the log."""
    return step_id.rpartition("/")[2] if "outer" in step_id else step_id


def killed_and_resumed(cwd, shape, point, time_reached, db="runs.db", on_record=on_record):
    """Whether the point was reached; what must hold is asserted."""
    killed = run(cwd, shape, f"{point}=kill@{time_reached}", db)
    if killed.returncode == 0:
        return False
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    recorded, before = on_record(cwd), bodies(cwd)
    resumed = run(cwd, shape, db=db)
    assert resumed.stdout == "True\n", resumed.stderr
    again = bodies(cwd)[len(before) :]
    assert len(again) == len(set(again))
    assert recorded.isdisjoint(again)
    return True


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_once_at_each_point(tmp_path, shape, point):
    reached = killed_and_resumed(tmp_path, shape, point, 2 if point.startswith(("body", "commit")) else 1)
    assert reached or (point == "step.started" and shape != "cells") or point == "run.marked"


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_each_time_a_point_is_reached(tmp_path, shape, point):
    for time_reached in range(1, 20):
        place = tmp_path / str(time_reached)
        place.mkdir()
        if not killed_and_resumed(place, shape, point, time_reached):
            break


def test_without_a_plan_a_point_does_nothing():
    program = "from durable_nb.engine import failpoints; print(failpoints.hit is failpoints._skip)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "True\n"


def test_a_point_that_there_is_not_is_said(tmp_path):
    assert "no failpoint 'no.such'" in run(tmp_path, "sync", "no.such=kill").stderr
