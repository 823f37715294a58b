"""A script is killed inside a step marked once: it is not executed again unasked; what each answer does."""

import signal
import subprocess
import sys

import pytest

from durable_nb.engine.failpoints import FAILPOINTS

SCRIPT = """
import asyncio, os, sys
from durable_nb import Workflow

wf = Workflow("shop", db="runs.db")

@wf.task
async def price():
    return 7

@wf.task(once=True)
async def charge(amount):
    with open("charged.log", "a") as log:
        print(amount, file=log, flush=True)
        os.fsync(log.fileno())
    return f"receipt {amount}"

@wf.workflow
async def main():
    return await charge(await price())

for answer in sys.argv[1:]:
    wf.sync.resolve("r", "charge", *eval(answer))
print(asyncio.run(main.run("r")))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "job.py").write_text(SCRIPT)

    def run(*answers, plan=""):
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), FAILPOINTS: plan}
        command = [sys.executable, "job.py", *map(repr, answers)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)

    return run


def charged(tmp_path):
    log = tmp_path / "charged.log"
    return log.read_text().split() if log.exists() else []


# The second task, charge, comes second to each point; that it started is a commit of its own.
POINTS = {"step.started": 1, "body.before": 2, "body.after": 2, "commit.before": 3, "commit.after": 2}


def killed(run, tmp_path, point="body.after"):
    """Kill the script inside the once step, and see that it is refused; gives how often it was executed."""
    dead = run(plan=f"{point}=kill@{POINTS[point]}")
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    before = len(charged(tmp_path))
    for _ in range(2):
        refused = run()
        assert refused.returncode == 1
        (line,) = (line for line in refused.stderr.splitlines() if "StepInDoubt: " in line)
        assert "run 'r', step 'charge': it was started but never recorded as finished (started at 20" in line
        assert "wf.sync.resolve('r', 'charge', 'rerun')" in line
    assert len(charged(tmp_path)) == before
    return before


@pytest.mark.parametrize("point", POINTS)
def test_run_again_when_asked_wherever_it_was_killed(run, tmp_path, point):
    before = killed(run, tmp_path, point)
    assert before == (point not in ("step.started", "body.before", "commit.after"))
    assert run(("rerun",)).stdout == "receipt 7\n"
    assert run().stdout == "receipt 7\n"
    assert charged(tmp_path) == ["7"] * (before + 1)


def test_the_value_that_it_gave(run, tmp_path):
    killed(run, tmp_path)
    assert run(("value", "receipt by hand")).stdout == "receipt by hand\n"
    assert run().stdout == "receipt by hand\n"
    assert charged(tmp_path) == ["7"]


def test_given_up(run, tmp_path):
    killed(run, tmp_path)
    for answers in ([("fail",)], []):
        failed = run(*answers)
        assert failed.returncode == 1
        assert "StepFailed: run 'r', step 'charge': the step was given up on 20" in failed.stderr
    assert charged(tmp_path) == ["7"]


def test_not_in_doubt_where_it_was_killed_before_it_was_on_record(run, tmp_path):
    assert run(plan="commit.before=kill@2").returncode == -signal.SIGKILL
    assert charged(tmp_path) == []
    assert run().stdout == "receipt 7\n"


def test_not_in_doubt_once_its_result_is_on_record(run, tmp_path):
    assert run(plan="commit.after=kill@3").returncode == -signal.SIGKILL
    assert run().stdout == "receipt 7\n"
    assert charged(tmp_path) == ["7"]
