"""A step runs again and is killed: the result that it had is kept, named, and can be taken back."""

import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from durable_nb import Workflow
from durable_nb.cli import main as command
from durable_nb.errors import StepError
from helpers.unfinished import leave_unfinished

PROGRAM = """
    import os, signal, sys, warnings
    from durable_nb import Workflow

    db, price, end = sys.argv[1:]
    wf = Workflow("shop", db=db)
    warnings.simplefilter("always")

    def body(name):
        with open("bodies.log", "a") as log:
            print(name, price, file=log)
        if end == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return [name, price]

    @wf.task(once=True, on_change="rerun")
    def pay(amount):
        return body("pay")

    @wf.task(on_change="rerun")
    def load(amount):
        return body("load")

    @wf.workflow(id="r")
    def flow():
        return [load(price), pay(price)]

    import json
    print(json.dumps(flow()))
"""
FIRST = [["load", "1"], ["pay", "1"]]


class Shop:
    """A script in a folder, on a database."""

    def __init__(self, folder, db):
        self.folder, self.db = folder, db

    def run(self, price=1, end="never"):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), self.db, str(price), end]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def bodies(self):
        return Counter(Path(self.folder, "bodies.log").read_text().splitlines())

    def resolve(self, step, answer):
        with Workflow("shop", db=self.db) as wf:
            wf.sync.resolve("r", step, answer)


@pytest.fixture(params=["sqlite", "redis"])
def shop(request, tmp_path):
    """One that has ended once."""
    db = (
        str(tmp_path / "runs.db")
        if request.param == "sqlite"
        else request.getfixturevalue("redis_server").url
    )
    shop = Shop(tmp_path, db)
    assert json.loads(shop.run().stdout) == FIRST
    return shop


def killed(shop, step, price=1):
    assert shop.run(price, end=step).returncode == -signal.SIGKILL


def test_a_once_step_that_was_reset(shop):
    shop.resolve("pay", "rerun")
    killed(shop, "pay")
    refused = shop.run()
    assert "StepInDoubt: run 'r', step 'pay'" in refused.stderr
    assert "; the result of attempt 1 is kept. " in refused.stderr
    assert "wf.sync.resolve('r', 'pay', 'earlier')" in refused.stderr
    shop.resolve("pay", "earlier")
    assert json.loads(shop.run().stdout) == FIRST
    assert shop.bodies() == {"load 1": 1, "pay 1": 2}


def test_a_once_step_in_doubt_that_runs_again_says_that_its_result_is_kept(shop):
    shop.resolve("pay", "rerun")
    killed(shop, "pay")
    shop.resolve("pay", "rerun")
    again = shop.run()
    assert json.loads(again.stdout) == FIRST
    assert (
        "run 'r', step 'pay': run again, since it was reset; the result of attempt 1 is kept" in again.stderr
    )
    assert shop.bodies() == {"load 1": 1, "pay 1": 3}


def test_a_task_that_was_reset(shop):
    shop.resolve("load", "rerun")
    killed(shop, "load")
    shop.resolve("load", "earlier")
    resumed = shop.run()
    assert json.loads(resumed.stdout) == FIRST
    assert resumed.stderr == ""
    assert shop.bodies() == {"load 1": 2, "pay 1": 1}


def test_a_task_that_was_reset_runs_again_when_nothing_is_said(shop):
    shop.resolve("load", "rerun")
    killed(shop, "load")
    resumed = shop.run()
    assert (
        "run 'r', step 'load': run again, since it was reset; the result of attempt 1 is kept"
        in resumed.stderr
    )
    assert "wf.sync.resolve('r', 'load', 'earlier')" in resumed.stderr
    assert shop.bodies() == {"load 1": 3, "pay 1": 1}


def test_a_task_with_other_arguments_keeps_its_result_until_the_new_one(shop):
    with Workflow("shop", db=shop.db) as wf:
        leave_unfinished(wf)
    killed(shop, "load", price=2)
    resumed = shop.run(1)
    assert json.loads(resumed.stdout) == FIRST
    assert shop.bodies() == {"load 1": 1, "load 2": 1, "pay 1": 1}


def test_an_earlier_result_is_taken_back_and_that_is_undone(shop):
    shop.resolve("load", "rerun")
    shop.run()
    assert shop.bodies() == {"load 1": 2, "pay 1": 1}
    for _ in range(2):
        shop.resolve("load", "earlier")
        assert json.loads(shop.run().stdout) == FIRST
    assert shop.bodies() == {"load 1": 2, "pay 1": 1}
    assert command(["status", "r", "--db", shop.db]) == 0


def test_a_step_that_ran_once_has_no_earlier_result(shop):
    with pytest.raises(
        StepError, match=r"run 'r', step 'load': no earlier result of the step is kept.*rerun"
    ):
        shop.resolve("load", "earlier")


def test_a_failure_is_no_earlier_result(shop):
    shop.resolve("pay", "rerun")
    killed(shop, "pay")
    shop.resolve("pay", "fail")
    shop.resolve("pay", "rerun")
    killed(shop, "pay")
    assert "the result of attempt 1 is kept" in shop.run().stderr
