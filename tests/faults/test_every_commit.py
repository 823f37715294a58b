"""Programs that are killed at every commit, one after the other, and resumed: they end as if never killed."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from durable_nb import Workflow
from durable_nb.engine import failpoints, run
from durable_nb.errors import StepChanged
from durable_nb.workflow import retry
from helpers import pythonpath

POINTS = ("commit.before", "commit.after")


def note(what):
    log = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(log, f"{what}\n".encode())
    os.close(log)


def bodies():
    return Path("bodies.log").read_text().split() if Path("bodies.log").exists() else []


def recorded_values(wf):
    """The workflow's own code makes a key and a choice, and hands them to a task."""

    @wf.task
    def pay(key, large):
        note(f"{key},{large}")
        return f"{key},{large}"

    @wf.workflow
    def main():
        began = wf.sync.now()
        large = wf.sync.random() < 0.5
        paid = pay(str(wf.sync.uuid4()), large)
        return paid, (wf.sync.now() - began).total_seconds() >= 0

    paid, in_order = main.run("r")
    assert in_order
    assert set(bodies()) == {paid}
    return paid


def finished(wf):
    """A run that is called twice, and takes chance from where nothing records it."""
    use = wf.task(lambda x: x, name="use")
    main = wf.workflow(id="w")(lambda: use(random.random()))
    try:
        found = main()
    except StepChanged:  # killed between the step and the run's end
        wf.sync.resolve("w", "use", "rerun")
        found = main()
    assert main() == found
    return found


def in_place(wf):
    """Tasks hand a list on, and each changes it."""
    load = wf.task(lambda: [{"n": 1.0}, None, {"n": 3.0}], name="load")

    @wf.task
    def clean(rows):
        note("clean")
        rows[:] = [row for row in rows if row is not None]

    @wf.task
    def double(rows):
        for row in rows:
            row["n"] *= 2

    mean = wf.task(lambda rows: sum(row["n"] for row in rows) / len(rows), name="mean")

    @wf.workflow
    def main():
        rows = load()
        first = rows[0]
        clean(rows)
        double(rows)
        assert first is rows[0]
        return mean(rows), mean(rows[1:]), first

    found = main.run("r")
    assert (*found,) == (4.0, 6.0, {"n": 2.0})
    assert len(bodies()) <= 2
    return found


def messages(wf):
    """One run sends to another, which takes each message once, in order, and then finds no more."""

    @wf.workflow
    def sender():
        for number in range(3):
            wf.sync.send("receiver", "numbers", {"number": number})

    @wf.workflow
    def receiver():
        found = [wf.sync.receive("numbers")["number"] for _ in range(3)]
        with contextlib.suppress(TimeoutError):
            found.append(wf.sync.receive("numbers", timeout=0))
        return found

    sender.run("sender")
    assert receiver.run("receiver") == [0, 1, 2]
    return receiver.run("receiver")


def completion_order(wf):
    """Results in the order in which they come, and steps that depend on that order."""

    @wf.task
    async def fetch(number):
        await asyncio.sleep((3 - number) * 0.01)
        return number

    @wf.task
    async def use(order):
        return order

    @wf.workflow(id="r")
    async def main():
        order = []
        for each in asyncio.as_completed([fetch(number) for number in range(3)]):
            order.append(await each)
            await use(list(order))
        return order

    found = asyncio.run(main())
    assert sorted(found) == [0, 1, 2]
    return found


def workers(wf):
    """Two branches take from one queue, until each is told to stop."""

    @wf.workflow
    async def sender():
        for number in (*range(4), None, None):
            await wf.send("workers", "jobs", number)

    @wf.workflow
    async def main():
        async def work():
            done = []
            async for job in wf.receive("jobs"):
                if job is None:
                    break
                done.append(job)
            return done

        return await asyncio.gather(work(), work())

    async def both():
        await sender.run("sender")
        return await main.run("workers")

    found = asyncio.run(both())
    assert sorted(job for done in found for job in done) == [0, 1, 2, 3]
    assert all(done == sorted(done) for done in found)
    return found


PROGRAMS = {
    program.__name__: program
    for program in (recorded_values, finished, in_place, messages, workers, completion_order)
}


def in_child(db, name, kill=None):
    """Run a program in a forked process, which a kill may end; gives its exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if kill is not None:
            failpoints._plan = {kill[0]: (failpoints._kill, "", kill[1])}
            run.hit = retry.hit = failpoints._hit
        with Workflow("killed", db=db, default_retries=0) as wf:
            Path("result.json").write_text(json.dumps(PROGRAMS[name](wf)))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def killed_and_resumed(db, name, kill):
    """Whether the point was reached; the program's own assertions hold in the next passes."""
    status = in_child(db, name, kill)
    assert status in (0, -signal.SIGKILL)
    assert in_child(db, name) == 0, kill
    found = json.loads(Path("result.json").read_text())
    assert in_child(db, name) == 0, kill
    assert json.loads(Path("result.json").read_text()) == found, kill
    return status != 0


def check(db, name):
    """Kill the program each time that a point is reached, in a folder or under a prefix of its own."""
    count = 0
    for point in POINTS if db == "runs.db" else POINTS[1:]:
        reached = 1
        while True:
            count += 1
            place = tempfile.mkdtemp()
            os.chdir(place)
            url = "runs.db" if db == "runs.db" else f"{db}?prefix=p{count}"
            again = killed_and_resumed(url, name, (point, reached))
            shutil.rmtree(place)
            if not again:
                break
            reached += 1
        assert reached > 1, point


@pytest.mark.timeout(400)
@pytest.mark.parametrize("store", ["sqlite", "redis"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_if_it_had_never_been_killed(name, store, request):
    url = "runs.db" if store == "sqlite" else request.getfixturevalue("redis_server").url
    command = [sys.executable, __file__, url, name]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **pythonpath()})
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]


if __name__ == "__main__":
    check(*sys.argv[1:])
