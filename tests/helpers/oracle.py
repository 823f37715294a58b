"""Random programs, killed at random points and resumed, against the same programs never killed.

``python -m helpers.oracle SEED COUNT [SECONDS]`` in a process that can be forked: it has opened no store.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from durable_nb.engine import caller, opening, run
from durable_nb.workflow import retry
from helpers.programs import Interpreter, programs, shapes

POINTS = ["run.opened", "body.before", "body.after", "commit.before", "commit.after", "step.recorded"]
moments = st.tuples(st.sampled_from(POINTS), st.integers(1, 12))
kills = st.lists(moments, min_size=1, max_size=3)
readers = st.lists(moments, max_size=2)
"""Moments at which the owner reads and closes its file, and another process opens and closes it."""
MOST_SECONDS = 300
"""Seconds after which a program counts as one that stops for ever."""


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


def begun(place, work):
    """Begin some work in a process of its own, and return the process."""
    if pid := os.fork():
        return pid
    try:
        signal.alarm(MOST_SECONDS)
        work()
        os._exit(0)
    except BaseException:
        (place / "error.txt").write_text(traceback.format_exc())
    os._exit(1)


def ended(pid):
    """Wait for a process, and return its exit status."""
    return os.waitpid(pid, 0)[1]


def execute(place, program, outside, kill, reads):
    """Execute the program in this process, which a kill may end."""
    hit = Moments(place / "runs.db", kill, reads)
    run.hit = retry.hit = caller.hit = opening.hit = hit
    result = asyncio.run(Interpreter(place).main.run("r", program, outside))
    (place / "result.json").write_text(json.dumps(result))


def deliver(place, value):
    asyncio.run(Interpreter(place).wf.send("r", "outside", value))


def rows(place, query):
    with contextlib.closing(sqlite3.connect(place / "runs.db")) as connection:
        try:
            return {row for (row,) in connection.execute(query) if "sometimes" not in row}
        except sqlite3.OperationalError:  # killed before there was a table
            return set()


def on_record(place):
    """The steps that are done; without those that fail in one process and not in another."""
    return rows(place, "SELECT run_id || ':' || step_id FROM steps WHERE status = 'done'")


def bodies(place):
    """The bodies that were entered: the step, and what was given to it."""
    log = place / "bodies.log"
    return [tuple(line.split(" ", 1)) for line in log.read_text().splitlines()] if log.exists() else []


def check_arguments(place):
    """See that no body began with something else than before: what is settled by then stays."""
    given = {}
    for step_id, each in bodies(place):
        if given.setdefault(step_id, each) != each:
            raise Difference(f"{step_id} was given {given[step_id]}, and then {each}")


class Difference(AssertionError):
    """A program did something else than one that was never killed."""


def one_pass(place, *arguments):
    """Execute a pass in a process of its own, see that it repeats no step, and return what is left of it."""
    recorded, before = on_record(place), len(bodies(place))
    status = ended(begun(place, lambda: execute(place, *arguments)))
    if status not in (0, signal.SIGKILL):
        error = place / "error.txt"
        raise Difference(f"status {status}: {error.read_text() if error.exists() else 'no error'}")
    if again := recorded.intersection(step_id for step_id, _ in bodies(place)[before:]):
        raise Difference(f"executed again: {again}")
    check_arguments(place)
    return status


def all_passes(place, program, outside, kills, reads):
    """Execute a program until it ends, with a kill in each pass but the last; return what it has left."""
    senders = []
    if outside:
        assert ended(begun(place, lambda: deliver(place, 0))) == 0
        senders.append(begun(place, lambda: deliver(place, 1)))  # at any time of a pass, or after a kill
    died = sum(one_pass(place, program, outside, kill, reads) != 0 for kill in kills)
    assert one_pass(place, program, outside, None, ()) == 0
    assert [ended(each) for each in senders] == [0] * len(senders)
    ends = rows(place, "SELECT run_id || ' is ' || status FROM runs")
    return died, {"result": (place / "result.json").read_text(), "steps": on_record(place), "runs": ends}


def compare(program, kills, reads, outside):
    """Return how often the program was killed; raise a Difference."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        _, expected = all_passes(Path(first), program, outside, (), ())
        died, found = all_passes(Path(second), program, outside, kills, reads)
    for what, value in expected.items():
        if found[what] != value:
            raise Difference(f"{what}: {found[what]} instead of {value}")
    return died


def campaign(name, count, seconds=float("inf")):
    """Compare so many programs, or until the time is over; print a summary, and return a difference."""
    found, deadline = Counter(), time.monotonic() + seconds

    @seed(name)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(program=programs, kills=kills, reads=readers, outside=st.booleans())
    def check(program, kills, reads, outside):
        if time.monotonic() < deadline:
            found["programs"] += 1
            found["kills"] += compare(program, kills, reads, outside)
            found.update(f"do_{shape}" for shape in shapes(program))

    difference = None
    try:
        check()
    except Exception:
        difference = traceback.format_exc()
        print(difference)
    nodes = ", ".join(f"{count} {name[3:]}" for name, count in sorted(found.items()) if name[:3] == "do_")
    print(f"nodes: {nodes}")
    print(
        f"random programs, seed {name}: {found['programs']} programs, {found['kills']} kills, "
        f"{int(difference is not None)} differences"
    )
    return difference


if __name__ == "__main__":
    name, count, *seconds = sys.argv[1:]
    sys.exit(bool(campaign(name, int(count), *map(float, seconds))))
