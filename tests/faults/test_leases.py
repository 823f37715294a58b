"""One owner a run, with real processes: killed, stopped, forked, on another host, and taken over by force."""

import contextlib
import os
import re
import signal
import sqlite3
import time

import pytest

from durable_nb import Workflow, settings
from durable_nb.concurrency.bridge import SYNC, run_blocking, submit
from durable_nb.engine.status import current_snapshot, list_runs
from durable_nb.errors import RunHeld
from durable_nb.records import RunStatus
from durable_nb.stores import open_journal
from durable_nb.stores.host import machine
from durable_nb.stores.sqlite.lockfile import LockFile
from helpers import AT_ONCE
from helpers.owners import FAST, OWNER, RACER, ask, own, raced, starting, take


@pytest.fixture
def start(tmp_path):
    """Starts a process of some code in the test's folder; ended with the test."""
    with starting(tmp_path, "runs.db") as start:
        yield start


@pytest.fixture
def owner(start):
    """A living process that owns the run ``r``."""
    process = start(OWNER)
    assert process.stdout.readline() == "opened\n"
    return process


@pytest.fixture
def here(tmp_path):
    """The journal of this process on the same file."""
    journal = open_journal(tmp_path / "runs.db")
    run_blocking(SYNC.store(journal.setup()))
    yield journal
    run_blocking(SYNC.store(journal.close()))


def rows(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as reader:
        return reader.execute(sql).fetchall()


def test_a_living_owner_is_named_and_left_alone(here, owner):
    began = time.perf_counter()
    with pytest.raises(RunHeld) as caught:
        take(here)
    assert time.perf_counter() - began < AT_ONCE
    message = str(caught.value)
    assert f"process {owner.pid} on {machine().host}" in message
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(\d+ s ago\)", message)
    assert "take it over: " in message
    assert "take_over=True" in message
    assert rows(here.location, "SELECT epoch, passes, status FROM runs") == [(1, 1, "running")]
    assert ask(owner, "still") == "written"


def test_starting_over_is_refused_as_well(here, owner):
    with pytest.raises(RunHeld):
        take(here, fresh=True)
    assert rows(here.location, "SELECT run_id FROM runs") == [("r",)]
    run, _ = take(here, fresh=True, take_over=True)
    assert (run.run_id, run.run.passes) == ("r", 1)
    assert ask(owner, "late").startswith("refused")
    left = run_blocking(SYNC.store(current_snapshot(here, "r~1")))
    assert left.run.status is RunStatus.INTERRUPTED


def test_a_killed_owner_is_replaced_at_once(here, owner):
    owner.kill()
    owner.wait()
    assert [run.status for run, _ in run_blocking(SYNC.store(list_runs(here)))] == [RunStatus.INTERRUPTED]
    run, seconds = take(here)
    assert seconds < AT_ONCE
    assert (run.run.epoch, run.run.passes) == (2, 2)
    assert [run.status for run, _ in run_blocking(SYNC.store(list_runs(here)))] == [RunStatus.RUNNING]


def test_an_owner_that_exits_or_closes_leaves_it_free(here, start):
    for ending in (
        "sys.exit()",
        "run_blocking(SYNC.store(run.journal.close())); say('closed'); sys.stdin.read()",
    ):
        process = start(f"run = opened(); say('opened'); {ending}")
        assert process.stdout.readline() == "opened\n"
        process.stdout.readline()
        run_blocking(SYNC.store(here.check_owner("r")))


def test_a_stopped_owner_wakes_up_fenced_off(here, owner):
    assert ask(owner, "before") == "written"
    os.kill(owner.pid, signal.SIGSTOP)
    with pytest.raises(RunHeld):
        take(here)
    run, seconds = take(here, take_over=True)
    assert seconds < AT_ONCE
    os.kill(owner.pid, signal.SIGCONT)
    said = ask(owner, "after")
    assert said.startswith("refused run 'r', step 'after': this process no longer owns the run")
    assert f"process {os.getpid()}" in said
    assert set(run.history) == {"before"}
    assert rows(here.location, "SELECT step_id FROM steps") == [("before",)]


def test_a_dead_owner_whose_forked_child_lives_on_is_dead(here, start):
    process = start("""
run = opened()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
say(child)
time.sleep(60)
""")
    child = int(process.stdout.readline())
    try:
        with pytest.raises(RunHeld):
            take(here)
        process.kill()
        process.wait()
        os.kill(child, 0)
        _, seconds = take(here)
        assert seconds < AT_ONCE
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_ends_takes_nothing_along(here, start):
    process = start("""
from durable_nb.stores import open_journal
run = opened()
child = os.fork()
if child == 0:
    run.journal._sessions.end()
    run.journal._database.release()
    sys.exit()
os.waitpid(child, 0)
say("ended")
time.sleep(60)
""")
    assert process.stdout.readline() == "ended\n"
    with pytest.raises(RunHeld):
        take(here)


def test_an_owner_from_before_the_last_boot_is_dead(here, start):
    process = start("opened(); say('opened'); time.sleep(60)", DURABLE_NB_BOOT_ID="the boot before")
    process.stdout.readline()
    _, seconds = take(here)
    assert seconds < AT_ONCE


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(settings, "HEARTBEAT", 0.2)
    monkeypatch.setattr(settings, "OWNER_SILENT", 4.0)


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_on_another_host_the_heartbeat_tells(here, start, impatient):
    process = start(FAST + "opened(); say('opened'); time.sleep(60)", DURABLE_NB_HOST="far-away")
    process.stdout.readline()
    with pytest.raises(RunHeld, match="on far-away"):
        take(here)
    process.kill()
    process.wait()
    _, seconds = take(here)
    assert 4.0 <= seconds < 25.0


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_a_run_that_ends_on_another_host_is_free_at_once(here, start, monkeypatch):
    monkeypatch.setattr(settings, "HEARTBEAT", 0.2)
    body = "run = opened(); say('opened'); time.sleep(0.7); run_blocking(caller.mark(RunStatus.DONE))"
    imports = "from durable_nb.records import RunStatus\nsettings.HEARTBEAT = 60.0\n"
    process = start(f"{imports}{body}; time.sleep(60)", DURABLE_NB_HOST="far-away")
    process.stdout.readline()
    run, seconds = take(here)
    assert run.run.passes == 2
    assert seconds < 3 * AT_ONCE < settings.OWNER_SILENT


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_a_cell_that_blocks_its_loop_does_not_stop_the_heart(here, start, impatient):
    body = (
        "import asyncio\nasync def cell():\n    opened(); say('opened'); time.sleep(60)\nasyncio.run(cell())"
    )
    process = start(FAST + body, DURABLE_NB_HOST="far-away")
    process.stdout.readline()
    with pytest.raises(RunHeld):
        take(here)


def test_the_heart_takes_back_a_lock_that_was_lost(here, start):
    process = start(FAST + "opened(); open('runs.db.lock').close(); say('opened'); time.sleep(60)")
    process.stdout.readline()
    time.sleep(1.0)
    with pytest.raises(RunHeld):
        take(here)


def test_of_many_who_race_for_a_dead_owners_run_one_gets_it(here, start, owner):
    owner.kill()
    owner.wait()
    racers = [start(RACER) for _ in range(6)]
    winner, others = raced(racers)
    assert all(f"process {winner} on " in line for line in others)
    assert rows(here.location, "SELECT epoch FROM runs") == [(2,)]


def test_the_heart_beats_beside_the_commits_that_are_counted(here, impatient):
    run, _ = take(here)
    commits = here.commits
    time.sleep(1.0)
    ((beat,),) = rows(here.location, "SELECT beat FROM sessions")
    assert beat >= 2
    assert here.commits == commits
    run_blocking(SYNC.store(run.write_status(RunStatus.DONE)))
    time.sleep(0.4)
    quiet = rows(here.location, "SELECT beat FROM sessions")
    time.sleep(0.6)
    assert rows(here.location, "SELECT beat FROM sessions") == quiet


def test_sessions_of_the_dead_are_forgotten(here, start):
    for number in range(3):
        process = start(f"opened('r{number}')")
        process.wait()
    take(here)
    assert rows(here.location, "SELECT pid FROM sessions") == [(os.getpid(),)]


def test_a_look_at_a_lock_never_takes_it(tmp_path):
    lock = LockFile.shared(tmp_path / "a.lock")
    assert lock.claim(7)
    assert not lock.claim(7)
    assert lock.is_locked(7)
    assert not lock.is_locked(8)
    lock.unclaim(7)
    assert not lock.is_locked(7)
    lock.release()


def test_a_workflow_takes_over_when_told(tmp_path, owner):
    with Workflow("shop", db=tmp_path / "runs.db") as wf:

        @wf.workflow
        def main():
            return wf.task(lambda: 1, name="one")()

        with pytest.raises(RunHeld):
            main.run("r")
        assert main.run("r", take_over=True) == 1
    assert ask(owner, "late").startswith("refused")


FIGHTER = """
log, tries, written = open(f"acknowledged-{sys.argv[1]}", "w"), 0, 0
run = opened(take_over=True)
while written < 60:
    tries += 1  # each try under a name of its own: what was refused must not be there either
    try:
        put(run, f"{sys.argv[1]}-{tries}")
    except RunHeld:
        time.sleep(0.02)
        run = opened(take_over=True)
        continue
    print(f"{sys.argv[1]}-{tries}", file=log, flush=True)
    written += 1
    if written % 7 == 0:
        run = opened(take_over=True)
say(tries)
"""


def test_6_processes_take_a_run_from_each_other_and_lose_nothing(tmp_path, here, start):
    processes = [start(FIGHTER, name) for name in range(6)]
    tries = [int(process.stdout.readline()) for process in processes]
    assert all(process.wait(timeout=10) == 0 for process in processes)
    acknowledged = [(tmp_path / f"acknowledged-{name}").read_text().split() for name in range(6)]
    assert [len(lines) for lines in acknowledged] == [60] * 6
    found = [step for (step,) in rows(here.location, "SELECT step_id FROM steps")]
    assert sorted(found) == sorted(line for lines in acknowledged for line in lines)
    assert sum(tries) > 360  # somebody was refused: they did take it from each other
    ((epoch,),) = rows(here.location, "SELECT epoch FROM runs")
    assert epoch >= 6 * 9


# An owner hears that it has lost its run: by its next sign of life, also while it only waits.

LOSER = (
    FAST
    + """
import asyncio
from durable_nb import Workflow
wf = Workflow("shop", db="runs.db")

@wf.workflow(id="r")
async def signalled():
    await wf.signal("approval")

@wf.workflow(id="r")
async def sleeping():
    say("waits")
    await asyncio.sleep(60)

@wf.workflow(id="r")
def sync_signalled():
    wf.sync.signal("approval")

async def joined():
    first = asyncio.create_task(sleeping())
    await asyncio.sleep(0.3)
    outcomes = await asyncio.gather(first, sleeping(), return_exceptions=True)
    say(len({str(outcome) for outcome in outcomes}), "outcome")
    raise outcomes[0]

how = sys.argv[1]
try:
    sync_signalled() if how == "sync_signalled" else asyncio.run(globals()[how]())
except RunHeld as error:
    say("lost", error)
"""
)


def is_waiting(path):
    with contextlib.suppress(sqlite3.OperationalError):
        return rows(path, "SELECT count(*) FROM requests") == [(1,)]
    return False


def until_it_waits(process, path, how):
    if "signalled" not in how:
        assert process.stdout.readline() == "waits\n"
        return time.sleep(0.5)
    deadline = time.monotonic() + 20
    while not is_waiting(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert is_waiting(path)
    return None


def last_line(process):
    return process.communicate(timeout=20)[0].splitlines()[-1]


@pytest.mark.parametrize("how", ["signalled", "sleeping", "sync_signalled", "joined"])
def test_an_owner_that_waits_hears_that_it_was_cancelled(here, start, how):
    process = start(LOSER, how)
    until_it_waits(process, here.location, how)
    with Workflow("shop", db=here) as wf:
        assert wf.sync.cancel("r")
    said = last_line(process)
    assert said.startswith("lost run 'r'")
    assert f"it was cancelled by process {os.getpid()} on " in said
    assert rows(here.location, "SELECT status FROM runs") == [("cancelled",)]


def test_an_owner_that_waits_hears_who_has_taken_its_run_over(here, start):
    process = start(LOSER, "sleeping")
    until_it_waits(process, here.location, "sleeping")
    os.kill(process.pid, signal.SIGSTOP)
    own(here, workflow="shop.sleeping", take_over=True)
    os.kill(process.pid, signal.SIGCONT)
    assert f"it was opened again by process {os.getpid()} on " in last_line(process)
    assert rows(here.location, "SELECT status, epoch FROM runs") == [("running", 2)]


def test_a_later_pass_of_the_same_process_is_no_loss(here, impatient, recwarn):
    first, second = own(here), own(here)
    time.sleep(0.6)
    assert (first.current.lost_error, second.current.lost_error) == (None, None)
    run_blocking(second.mark(RunStatus.DONE))
    with pytest.raises(RunHeld):
        run_blocking(first.mark(RunStatus.DONE))
    assert not [warning for warning in recwarn if "no longer owns" in str(warning.message)]


def test_the_heart_goes_on_after_a_beat_that_failed(here, start, impatient, recwarn):
    current = own(here).current
    with contextlib.closing(sqlite3.connect(here.location)) as spoiler:
        spoiler.execute("ALTER TABLE sessions RENAME TO hidden")
        time.sleep(0.6)
        spoiler.execute("ALTER TABLE hidden RENAME TO sessions")
    process = start('opened(take_over=True); say("opened"); time.sleep(60)')
    assert process.stdout.readline() == "opened\n"
    deadline = time.monotonic() + 20
    while current.lost_error is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert f"by process {process.pid} on " in str(current.lost_error)
    assert len([warning for warning in recwarn if "no longer owns" in str(warning.message)]) == 1


def test_what_another_living_process_executes_is_resolved_there(here, owner):
    with Workflow("shop", db=here) as wf:
        ask(owner, "before")
        for answer in "rerun", "fail":
            with pytest.raises(
                RunHeld, match=rf"owned by process {owner.pid} on .* since .*Resolve the step in that process"
            ):
                wf.sync.resolve("r", "before", answer)
        assert ask(owner, "still") == "written"
        owner.kill()
        owner.wait()
        wf.sync.resolve("r", "before", "rerun")
        run, _ = take(here)
    assert {step.step_id: step.status.value for step in run.history.values()} == {
        "before": "reset",
        "still": "done",
    }


WAITER = """
import asyncio
say("waits")
at = time.monotonic()
try:
    if sys.argv[1] == "sync":
        opened()
    else:
        from durable_nb.concurrency.bridge import ASYNC
        asyncio.run(open_run(Pass(open_journal("runs.db"), Run("r", "shop.main")), ASYNC))
except KeyboardInterrupt:
    say("free after", time.monotonic() - at)
"""


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_waiting_for_a_sign_of_life_can_be_given_up(here, start, mode):
    process = start("opened(); say('opened')", DURABLE_NB_HOST="far-away")
    process.wait()
    waiter = start(WAITER, mode, PYTHONWARNINGS="ignore")
    assert waiter.stdout.readline() == "waits\n"
    time.sleep(1.0)
    waiter.send_signal(signal.SIGINT)
    assert float(last_line(waiter).removeprefix("free after ")) < 1.0 + AT_ONCE
    assert waiter.wait() == 0
    assert rows(here.location, "SELECT epoch FROM runs") == [(1,)]


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_who_has_waited_before_goes_on_waiting(here, start, impatient, monkeypatch):
    process = start("opened(); say('opened')", DURABLE_NB_HOST="far-away")
    process.wait()
    monkeypatch.setattr(settings, "OWNER_SILENT", 8.0)
    looking = submit(here.check_owner("r"))
    time.sleep(6.0)
    looking.cancel()
    _, seconds = take(here)
    assert seconds < 7.0
