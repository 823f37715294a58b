"""Random workflow programs, killed at random points and resumed, against the same program never killed."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_nb import Workflow, constant
from durable_nb.engine import run, scopes
from durable_nb.workflow import retry

calls = st.tuples(st.just("call"), st.integers(0, 3))
failures = st.tuples(st.just("fail"), st.integers(0, 3))
flaky = st.tuples(st.just("flaky"), st.integers(0, 3))
programs = st.recursive(
    st.lists(st.one_of(calls, calls, failures, flaky), min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            calls,
            st.tuples(st.just("gather"), st.lists(inner, min_size=2, max_size=3)),
            st.tuples(st.just("loop"), st.integers(1, 3), inner),
            st.tuples(st.just("nested"), inner),
        ),
        min_size=1,
        max_size=3,
    ),
    max_leaves=8,
)
POINTS = ["body.before", "body.after", "commit.before", "commit.after"]
kills = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 8)), max_size=3)
readers = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 8)), max_size=2)
"""Moments at which the owner reads and closes its file, and another process opens and closes it."""


class Interpreter:
    """Executes a random program as a workflow, and notes each body that is entered."""

    def __init__(self, place):
        self.place = place
        self.wf = Workflow("random", db=place / "runs.db", default_retries=1, default_backoff=constant(0))
        self.call = self.wf.task(name="call")(self.call_body)
        self.fail = self.wf.task(name="fail")(self.fail_body)
        self.flaky = self.wf.task(name="flaky")(self.flaky_body)
        self.nested = self.wf.task(name="nested")(self.run)

    def note(self):
        step_id = scopes.current_scope().path[:-1]
        log = os.open(self.place / "bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, step_id.encode() + b"\n")
        os.close(log)
        return step_id

    async def call_body(self, n):
        step_id = self.note()
        await asyncio.sleep(0)
        return step_id, n

    async def fail_body(self, n):
        self.note()
        raise ValueError(n)

    async def flaky_body(self, n):
        step_id = self.note()
        marker = self.place / ("tried-" + step_id.replace("/", "-"))
        if not marker.exists():
            marker.touch()
            raise ConnectionError(n)
        return step_id, n

    async def run(self, program):
        return [await getattr(self, f"do_{node[0]}")(*node[1:]) for node in program]

    async def do_call(self, n):
        return await self.call(n)

    async def do_flaky(self, n):
        return await self.flaky(n)

    async def do_fail(self, n):
        try:
            await self.fail(n)
        except ValueError as error:
            return ["caught", *error.args]

    async def do_gather(self, branches):
        return await asyncio.gather(*map(self.run, branches))

    async def do_loop(self, times, program):
        return [await self.run(program) for _ in range(times)]

    async def do_nested(self, program):
        return await self.nested(program)


def read_and_closed(db):
    """Read the file and close it, which drops POSIX locks; then have another process open and close it."""
    db.read_bytes()
    subprocess.run([sys.executable, "-S", "-c", READER, db], check=True)


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60)
connection.execute("SELECT count(*) FROM runs").fetchone()
connection.close()
"""


class Moments:
    """In place of ``failpoints.hit``: at each moment the process is killed, or its file read and closed."""

    def __init__(self, db, kill, reads):
        self.db, self.kill, self.reads, self.passed = db, kill, reads, Counter()

    def __call__(self, point):
        self.passed[point] += 1
        moment = (point, self.passed[point])
        if moment in self.reads:
            read_and_closed(self.db)
        if moment == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(place, program, kill=None, reads=()):
    """Run the program in a forked process, which a kill may end; gives its exit status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    with contextlib.suppress(BaseException):
        run.hit = retry.hit = Moments(place / "runs.db", kill, reads)
        interpreter = Interpreter(place)
        main = interpreter.wf.workflow(interpreter.run)
        (place / "result.json").write_text(json.dumps(asyncio.run(main.run("r", program))))
        os._exit(0)
    os._exit(1)


def on_record(place):
    with contextlib.closing(sqlite3.connect(place / "runs.db")) as connection:
        try:
            rows = connection.execute("SELECT step_id FROM steps WHERE status = 'done'").fetchall()
        except sqlite3.OperationalError:  # killed before there was a table
            return set()
    return {step_id for (step_id,) in rows}


def bodies(place):
    log = place / "bodies.log"
    return log.read_text().split() if log.exists() else []


def compare(program, kills, readers):
    place, other = (Path(tempfile.mkdtemp()) for _ in range(2))
    try:
        assert in_child(other, program) == 0
        for kill in kills:
            recorded, before = on_record(place), len(bodies(place))
            assert in_child(place, program, kill, readers) in (0, signal.SIGKILL)
            assert recorded.isdisjoint(bodies(place)[before:])
        recorded, before = on_record(place), len(bodies(place))
        assert in_child(place, program) == 0
        assert recorded.isdisjoint(bodies(place)[before:])
        assert (place / "result.json").read_text() == (other / "result.json").read_text()
        assert on_record(place) == on_record(other)
    finally:
        shutil.rmtree(place)
        shutil.rmtree(other)


def check(examples):
    """Compare so many programs, in a process that can still be forked: it has opened no store."""
    command = [sys.executable, __file__, str(examples)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]


def test_a_few_random_programs():
    check(15)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_500_random_programs():
    check(500)


if __name__ == "__main__":
    unhurried = settings(
        max_examples=int(sys.argv[1]),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    unhurried(given(program=programs, kills=kills, readers=readers)(compare))()
