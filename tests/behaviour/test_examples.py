"""The examples do what they print."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from durable_nb import Workflow
from helpers import ROOT, pythonpath

EXAMPLES = ROOT / "examples"
ELSEWHERE = ["agents.py"]  # tested in tests/agents/test_example.py


def run(name, cwd):
    """Run an example in a process of its own, and give the lines that it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_every_example_is_tested():
    tested = set(re.findall(r'"(\w+\.py)"|"(\w+):app"', Path(__file__).read_text()))
    names = {script or f"{module}.py" for script, module in tested}
    assert {path.name for path in EXAMPLES.glob("*.py")} == names


def test_tour(tmp_path):
    result = "result: 12 letters, forecast for Oslo, mailed to ann and bob"
    assert run("tour.py", tmp_path) == [
        "approval: delivered",
        "run report-monday: what monday brings",
        "executing fetch Oslo",
        "executing fetch Rome",
        "executing fetch Lima",
        "executing flaky, attempt 1",
        "executing flaky, attempt 2",
        "executing flaky, attempt 3",
        "executing mail to ann, bob: forecast for Oslo",
        result,
    ]
    assert run("tour.py", tmp_path) == [
        "approval: was there already",
        result,
    ]


def test_in_memory(tmp_path):
    expected = [
        "executing double 10",
        "executing double 20",
        "first:  40",
        "second: 40",
        "stored: (True, 20)",
    ]
    assert run("in_memory.py", tmp_path) == expected
    assert run("in_memory.py", tmp_path) == expected  # the process took everything with it
    assert list(tmp_path.iterdir()) == []


def test_crash_and_resume(tmp_path):
    result = "  result: ['receipt for a17', 'a17 is on its way']"
    assert run("crash_and_resume.py", tmp_path) == [
        "first process",
        "  charging a17",
        "  shipping a17",
        "  ended with -9",
        "second process",
        "  shipping a17",
        result,
        "  ended with 0",
    ]
    with sqlite3.connect(tmp_path / "crash.db") as connection:
        assert connection.execute("SELECT run_id, status, passes FROM runs").fetchall() == [
            ("order-a17", "done", 2)
        ]


def test_an_order_on_redis_goes_on_in_another_process(tmp_path, redis_server):
    env = {**os.environ, "REDIS_URL": redis_server.url}

    def start(*words):
        command = [sys.executable, EXAMPLES / "redis_order.py", *words]
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)

    first = start()
    assert [first.stdout.readline() for _ in range(2)] == ["charging a17\n", "waiting for approval\n"]
    first.kill()
    first.communicate()
    second = start()
    assert start("approve").communicate(timeout=60)[0] == "approved\n"
    assert second.communicate(timeout=60)[0] == "waiting for approval\nshipping a17\na17 is on its way\n"
    assert start("approve").communicate(timeout=60)[0] == "was approved already\n"
    assert start().communicate(timeout=60)[0] == "a17 is on its way\n"


class Server:
    """A real server on a port of its own."""

    def __init__(self, cwd):
        self.log = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "approval_fastapi:app", "--port", "0"],
            cwd=cwd, env={**os.environ, **pythonpath(EXAMPLES)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.client = httpx.Client(base_url=self.seen(r"running on (http://\S+)"), trust_env=False)

    def seen(self, pattern):
        """Wait until the server has logged something, and give it."""
        while (found := re.search(pattern, self.log)) is None:
            line = self.process.stdout.readline()
            assert line, self.log
            self.log += line
        return found[1]

    def kill(self):
        """Kill it as a power cut would; gives all that it has logged."""
        self.client.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        if not self.process.stdout.closed:
            self.log += self.process.stdout.read()
            self.process.stdout.close()
        return self.log


@pytest.fixture
def server(tmp_path):
    started = []

    def start():
        started.append(Server(tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def until_decided(client, order):
    while (answer := client.get(f"/orders/{order}").json())["state"] == "waiting for approval":
        pass  # the next answer comes when the server is ready for it
    return answer


@pytest.mark.parametrize(("approved", "state"), [("true", "shipped"), ("false", "refunded")])
def test_approval_through_http_while_the_order_waits(server, approved, state):
    one = server()
    assert one.client.get("/orders/a17").status_code == 404
    assert one.client.post("/orders/a17").json() == {"order": "a17"}
    one.seen("(charging a17)")
    assert one.client.get("/orders/a17").json() == {"state": "waiting for approval"}
    assert one.client.post(f"/orders/a17/approval?approved={approved}").status_code == 200
    assert one.client.post("/orders/a17/approval?approved=true").status_code == 409
    assert until_decided(one.client, "a17") == {"receipt": "receipt for a17", "state": state}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_goes_on_with_the_orders_of_one_that_ended(server, number, tmp_path):
    first = server()
    first.client.post("/orders/a17")
    first.seen("(charging a17)")
    first.client.close()
    with Workflow("orders", db=tmp_path / "approvals.db") as wf:
        while [run.status for run in wf.sync.runs()] != ["waiting"]:
            pass
    first.process.send_signal(number)
    first.process.wait(30)
    second = server()
    assert second.client.get("/orders/a17").json() == {"state": "waiting for approval"}
    assert second.client.post("/orders/a17/approval?approved=true").status_code == 200
    assert until_decided(second.client, "a17") == {"receipt": "receipt for a17", "state": "shipped"}
    assert "charging" not in second.kill()


def test_approval_through_http_after_the_server_was_killed(server):
    first = server()
    first.client.post("/orders/a17")
    first.seen("(charging a17)")
    first.client.post("/orders/b2/approval?approved=false")
    first.kill()
    second = server()
    assert second.client.post("/orders/b2/approval?approved=true").status_code == 409
    assert second.client.post("/orders/a17/approval?approved=true").status_code == 200
    for order in "a17", "b2":
        second.client.post(f"/orders/{order}")
    assert until_decided(second.client, "a17") == {"receipt": "receipt for a17", "state": "shipped"}
    assert until_decided(second.client, "b2") == {"receipt": "receipt for b2", "state": "refunded"}
    log = second.kill()
    assert "charging b2" in log
    assert "charging a17" not in log
