"""The kill suite on Redis: processes killed, the server killed, two processes and two hosts on one run."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter

import pytest

from durable_nb import Workflow, settings
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.failpoints import POINTS
from durable_nb.engine.status import list_runs
from durable_nb.errors import RunHeld
from durable_nb.records import RunStatus, StepStatus
from durable_nb.stores import open_journal
from faults import test_failpoints as failpoints
from faults import test_killed_tasks as killed_tasks
from helpers import AT_ONCE
from helpers.owners import FAST, OWNER, RACER, ask, raced, starting, take


def stored(work):
    return run_blocking(SYNC.store(work))


@pytest.fixture
def url(redis_server):
    return redis_server.url


@pytest.fixture
def here(url):
    """The journal of this process."""
    journal = open_journal(url)
    stored(journal.setup())
    yield journal
    stored(journal.close())


def done(journal):
    """What is on record of the run ``r``, as the bodies' log names it."""
    snapshot = stored(journal.read_run("r"))
    steps = snapshot.steps if snapshot else ()
    return {failpoints.body_of(step.step_id) for step in steps if step.status is StepStatus.DONE}


def killed_and_resumed(cwd, shape, point, time_reached, journal):
    return failpoints.killed_and_resumed(
        cwd, shape, point, time_reached, db=journal._url, on_record=lambda _: done(journal)
    )


@pytest.mark.parametrize(
    ("shape", "point"),
    [
        *(("gather", point) for point in ("run.opened", "commit.before", "commit.after", "run.marked")),
        ("cells", "commit.after"),
    ],
)
def test_killed_once_at_a_point(tmp_path, here, shape, point):
    assert killed_and_resumed(tmp_path, shape, point, 1, here) or point == "run.marked"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("shape", failpoints.SHAPES)
def test_killed_each_time_a_point_is_reached(tmp_path, here, redis_server, shape, point):
    for time_reached in range(1, 20):
        redis_server.client.flushall()
        place = tmp_path / str(time_reached)
        place.mkdir()
        if not killed_and_resumed(place, shape, point, time_reached, here):
            break


STEPS = killed_tasks.STEPS


def test_killed_in_the_middle(tmp_path, url):
    """A gather of bodies in flight: what was acknowledged never runs again."""
    assert killed_tasks.run(tmp_path, 3, "gathered", url).returncode == -signal.SIGKILL
    first = killed_tasks.bodies(tmp_path)
    resumed = killed_tasks.run(tmp_path, 0, "gathered", url)
    assert resumed.stdout.strip() == str([n * n for n in range(STEPS)]), resumed.stderr
    assert sum((killed_tasks.bodies(tmp_path) - first).values()) <= STEPS - 3


@pytest.mark.long
@pytest.mark.parametrize("kill_after", range(1, STEPS + 1))
@pytest.mark.parametrize("shape", ["sequence", "gathered_in_turn"])
def test_killed_after_each_step(tmp_path, url, shape, kill_after):
    assert killed_tasks.run(tmp_path, kill_after, shape, url).returncode == -signal.SIGKILL
    resumed = killed_tasks.run(tmp_path, 0, shape, url)
    assert resumed.stdout.strip() == str([n * n for n in range(STEPS)]), resumed.stderr
    assert killed_tasks.bodies(tmp_path) == {f"work {n}": 1 for n in range(STEPS)}


def test_the_server_is_killed_and_restarted_in_mid_run(own_redis):
    """The run goes on, and nothing is lost or doubled."""
    server, bodies = own_redis(), Counter()
    with Workflow("shop", db=server.url) as wf:

        @wf.task
        async def work(n):
            bodies[n] += 1
            if n in (5, 12):
                server.kill()
                threading.Timer(0.3, server.start).start()
            return n

        @wf.workflow
        async def main():
            one_by_one = [await work(n) for n in range(10)]
            return one_by_one + await asyncio.gather(*map(work, range(10, 40)))

        assert asyncio.run(main.run("r")) == list(range(40))
        assert asyncio.run(main.run("r")) == list(range(40))
    assert bodies == dict.fromkeys(range(40), 1)


def test_a_gather_of_1000(url):
    bodies = Counter()
    with Workflow("shop", db=url) as wf:

        @wf.task
        async def work(n):
            bodies[n] += 1
            return n

        @wf.workflow
        async def main():
            return await asyncio.gather(*map(work, range(1000)))

        assert asyncio.run(main.run("r")) == list(range(1000))
        assert asyncio.run(main.run("r")) == list(range(1000))
    assert bodies == dict.fromkeys(range(1000), 1)


@pytest.fixture
def start(tmp_path, url):
    """Starts a process of some code; ended with the test."""
    with starting(tmp_path, url) as start:
        yield start


def begun(start, code=OWNER, **env):
    process = start(code, **env)
    assert process.stdout.readline() == "opened\n"
    return process


def test_held_then_taken_over_then_fenced(here, start):
    owner = begun(start)
    assert ask(owner, "before") == "written"
    began = time.perf_counter()
    with pytest.raises(RunHeld, match=f"process {owner.pid} on .* take_over=True"):
        take(here)
    assert time.perf_counter() - began < AT_ONCE
    os.kill(owner.pid, signal.SIGSTOP)
    with pytest.raises(RunHeld):
        take(here)
    run, seconds = take(here, take_over=True)
    assert seconds < AT_ONCE
    os.kill(owner.pid, signal.SIGCONT)
    assert ask(owner, "late").startswith("refused run 'r', step 'late': this process no longer owns the run")
    assert set(run.history) == {"before"}
    assert {step.step_id for step in stored(here.read_run("r")).steps} == {"before"}


def test_a_killed_owner_is_replaced_at_once(here, start):
    owner = begun(start)
    owner.kill()
    owner.wait()
    assert [run.status for run, _ in stored(list_runs(here))] == [RunStatus.INTERRUPTED]
    run, seconds = take(here)
    assert seconds < AT_ONCE
    assert (run.run.epoch, run.run.passes) == (2, 2)
    assert [run.status for run, _ in stored(list_runs(here))] == [RunStatus.RUNNING]


def test_an_owner_from_before_the_last_boot_is_dead(here, start):
    begun(start, DURABLE_NB_BOOT_ID="the boot before")
    assert take(here)[1] < AT_ONCE


def test_an_owner_that_closes_leaves_it_free(here, start):
    process = begun(
        start, "run = opened(); say('opened'); run_blocking(SYNC.store(run.journal.close())); say('.')"
    )
    process.stdout.readline()
    stored(here.check_owner("r"))


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_on_another_host_the_heartbeat_tells(here, start, monkeypatch):
    """Begun on one host, resumed on another."""
    monkeypatch.setattr(settings, "HEARTBEAT", 0.2)
    monkeypatch.setattr(settings, "OWNER_SILENT", 4.0)
    owner = begun(start, FAST + OWNER, DURABLE_NB_HOST="far-away")
    assert ask(owner, "there") == "written"
    with pytest.raises(RunHeld, match="on far-away"):
        take(here)
    owner.kill()
    owner.wait()
    run, seconds = take(here)
    assert 3.0 <= seconds < 60.0
    assert set(run.history) == {"there"}


FIGHTER = """
written, tries, name = 0, 0, sys.argv[1]
run = opened(take_over=True)
while written < 40:
    tries += 1
    try:
        put(run, f"{name}-{tries}")
    except RunHeld:
        time.sleep(0.01)
        run = opened(take_over=True)
        continue
    say(f"{name}-{tries}")
    written += 1
    if written % 7 == 0:
        run = opened(take_over=True)
"""


@pytest.mark.long
def test_4_processes_take_a_run_from_each_other_and_lose_nothing(here, start):
    processes = [start(FIGHTER, name) for name in range(4)]
    acknowledged = [name for process in processes for name in process.stdout.read().split()]
    assert len(acknowledged) == 160
    snapshot = stored(here.read_run("r"))
    assert sorted(step.step_id for step in snapshot.steps) == sorted(acknowledged)
    assert snapshot.run.epoch >= 4 * 6


@pytest.mark.long
def test_of_many_who_race_for_a_dead_owners_run_one_gets_it(here, start):
    owner = begun(start)
    owner.kill()
    owner.wait()
    racers = [start(RACER) for _ in range(4)]
    winner, others = raced(racers)
    assert all(f"process {winner} on " in line for line in others)
    assert stored(here.get_run("r")).epoch == 2
