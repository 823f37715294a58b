"""Signals and durable time, in one process and across processes."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pydantic
import pytest

from durable_nb import Workflow
from durable_nb.cli import main as command
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine.status import list_runs
from durable_nb.errors import (
    DurableNotice,
    InvalidOption,
    RunHeld,
    RunNotFound,
    SignalInvalid,
    SignalPending,
    SignalTimeout,
    StepChanged,
    StepFailed,
    StepInDoubt,
)
from durable_nb.records import RunStatus, SignalRequest, StepStatus
from durable_nb.signals import delivery, watcher
from durable_nb.signals.accepted import Accepted, check_value
from durable_nb.signals.prompter import _prompters, set_prompter
from durable_nb.signals.typed import hint, read_answer
from durable_nb.stores.memory import MemoryJournal
from durable_nb.stores.redis import journal, scripts
from durable_nb.workflow import waits
from helpers.unfinished import leave_unfinished


@pytest.fixture(params=["sqlite", "redis"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on both stores."""
    if request.param == "sqlite":
        return tmp_path / "runs.db"
    return request.getfixturevalue("redis_server").url


def waiting(wf, **options):
    @wf.workflow
    async def main():
        return await wf.signal("approval", **options)

    return main


def asked(work):
    return run_blocking(SYNC.store(work))


async def until_open(wf, name="approval"):
    """Wait until a run has asked; gives its request."""
    asked(wf.journal.setup())
    while True:
        await asyncio.sleep(0.005)
        found = [request for request in asked(wf.journal.open_signals()) if request.name == name]
        if found:
            return found[0]


@pytest.fixture
def face():
    """A face that answers what it is given, and notes what it showed."""
    set_prompter(known := Recorded())
    yield known
    _prompters.clear()


class Recorded:
    def __init__(self):
        self.shown, self.answers, self.limit = [], [], None

    def headless_timeout(self):
        return self.limit

    def askers(self):
        return (self._ask,) if self.answers else ()

    async def _ask(self, request):
        self.shown.append(f"ask {request.refused}")
        answer = self.answers.pop(0) if self.answers else asyncio.Future()
        return await answer if asyncio.isfuture(answer) else answer

    def can_prompt(self):
        return bool(self.answers)

    def show_waiting(self, journal, request, command):
        self.shown.append(command)
        return lambda text: self.shown.append(text.split(" by ")[0])

    def show_answer(self, run_id, name, by, at):
        self.shown.append(f"{name} was answered")


# What is accepted


class Review(pydantic.BaseModel):
    approved: bool
    comment: str = ""


@dataclass
class Price:
    euros: int


@pytest.mark.parametrize(
    ("kind", "delivered", "given"),
    [
        (None, False, False),
        (None, None, None),
        (bool, False, False),
        (float, 3, 3.0),
        (None.__class__, None, None),
        (Review, {"approved": True}, Review(approved=True)),
        (Review, Review(approved=False, comment="late"), Review(approved=False, comment="late")),
        (Price, {"euros": 3}, Price(3)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (None, "x" * 1_000_000, "x" * 1_000_000),
    ],
)
async def test_what_is_accepted_comes_converted_and_replays(again, kind, delivered, given):
    wf = again()
    running = asyncio.create_task(waiting(wf, schema=kind).run("r"))
    await until_open(wf)
    assert (await wf.status("r")).run.status is RunStatus.WAITING
    assert await wf.complete("r", "approval", delivered)
    first = await running
    second = await waiting(again(), schema=kind).run("r")
    assert first == second == given
    assert type(first) is type(second) is type(given)


@pytest.mark.parametrize(
    ("options", "bad", "good"),
    [
        ({"schema": bool}, "yes", True),
        ({"schema": int}, True, 3),
        ({"schema": Review}, {"approved": "perhaps"}, {"approved": True, "comment": ""}),
        ({"choices": ["ship", 1]}, True, "ship"),
    ],
)
async def test_an_invalid_value_is_refused_or_set_aside_and_a_valid_one_taken(again, options, bad, good):
    wf = again()
    assert await wf.complete("r", "approval", bad)  # nobody knows yet what is wanted
    running = asyncio.create_task(waiting(wf, **options).run("r"))
    request = await until_open(wf)
    assert "is not accepted" in request.refused
    assert "kept as 'approval~" in request.refused
    with pytest.raises(SignalInvalid, match=r"run 'r', step 'signal:approval': .* is not accepted"):
        await wf.complete("r", "approval", bad)
    assert await wf.complete("r", "approval", good)
    value = await running
    assert (value.model_dump() if isinstance(value, Review) else value) == good


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"choices": []}, "choices"),
        ({"choices": "yn"}, "choices"),
        ({"choices": [{1}]}, "not plain"),
        ({"schema": 3}, "expected a type"),
        ({"timeout": -1}, "invalid length of time"),
        ({"timeout": float("inf")}, "invalid length of time"),
    ],
)
async def test_options_that_make_no_sense(again, options, words):
    with pytest.raises(InvalidOption, match=words):
        await waiting(again(), **options).run("r")


def test_without_pydantic_plain_types_are_accepted(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert Accepted(int).validated(3) == 3
    with pytest.raises(SignalInvalid):
        Accepted(int).validated("3")
    with pytest.raises(InvalidOption, match="needs pydantic"):
        Accepted(Price)


@pytest.mark.parametrize(
    ("options", "typed", "answer", "shown"),
    [
        ({}, "y", {"approved": True, "comment": ""}, "y | n, and a comment"),
        ({}, "No too dear", {"approved": False, "comment": "too dear"}, "y | n, and a comment"),
        ({"schema": '{"type": "boolean"}'}, "n", False, "y | n"),
        ({"schema": '{"type": "string"}'}, "3", "3", "string"),
        ({"schema": '{"type": "integer"}'}, " 3 ", 3, "integer"),
        ({"choices": '["ship", 1]'}, "ship", "ship", "ship | 1"),
        ({"choices": '["ship", 1]'}, "1", 1, "ship | 1"),
    ],
)
def test_what_a_person_types(options, typed, answer, shown):
    request = SignalRequest("r", "go", **options)
    assert read_answer(request, typed) == answer
    assert hint(request) == shown
    if options:
        check_value(request, answer)


# Timeouts


async def test_at_the_timeout_the_default_is_delivered_once_and_for_all(again):
    wf = again()
    assert await waiting(wf, timeout=0.02, default=None, schema=bool).run("r") is None
    assert not await wf.complete("r", "approval", True)
    assert await waiting(again(), timeout=0.02, default=None, schema=bool).run("r") is None


async def test_without_a_default_it_is_an_error_that_is_tried_again(again):
    with pytest.raises(
        SignalTimeout, match=r"no answer to signal 'approval' within 0.02 s.*durable-nb signal r approval"
    ) as late:
        await waiting(again(), timeout=timedelta(seconds=0.02)).run("r")
    assert isinstance(late.value, TimeoutError)
    wf = again()
    await wf.complete("r", "approval", 5)
    assert asked(wf.journal.get_run("r")).status is RunStatus.FAILED
    assert await waiting(wf, timeout=0.02).run("r") == 5


async def test_a_timeout_that_the_run_went_on_from_stays(again):
    def define(wf):
        @wf.workflow
        async def main():
            try:
                decided = await wf.signal("approval", timeout=0.01)
            except SignalTimeout:
                decided = "silence"
            await wf.sleep(0)
            await wf.signal("second")
            return decided

        return main

    wf = again()
    running = asyncio.create_task(define(wf).run("r"))
    await until_open(wf, "second")
    running.cancel()
    await asyncio.wait([running])
    wf = again()
    await wf.complete("r", "approval", "late")
    await wf.complete("r", "second")
    assert await define(wf).run("r") == "silence"


async def test_a_restart_does_not_begin_a_timeout_anew(again):
    wf = again()
    running = asyncio.create_task(waiting(wf, timeout=30).run("r"))
    request = await until_open(wf)
    running.cancel()
    await asyncio.wait([running])
    assert request.asked_at > time.time() - 10
    began = time.monotonic()
    with pytest.raises(SignalTimeout):
        await waiting(again(), timeout=time.time() - request.asked_at + 0.05).run("r")
    assert time.monotonic() - began < 10


# Races, faces


async def test_of_two_answers_at_the_same_instant_one_wins(again):
    wf = again()
    for number in range(20):
        run_id = f"r{number}"
        running = asyncio.create_task(waiting(wf).run(run_id))
        won = await asyncio.gather(*(wf.complete(run_id, "approval", n) for n in range(5)))
        assert won.count(True) == 1
        assert await running == won.index(True)


async def test_a_hundred_waiters_are_woken_by_one_watch(again, monkeypatch):
    wf = again()
    monkeypatch.setattr(watcher.settings, "SIGNAL_BACKSTOP", 600)  # Redis: the unasked look in between
    looks = []
    find = type(wf.journal).find_signals
    monkeypatch.setattr(
        type(wf.journal), "find_signals", lambda self, keys: looks.append(len(keys)) or find(self, keys)
    )

    @wf.workflow
    async def main():
        return await asyncio.gather(*(wf.signal(f"s{n}") for n in range(100)))

    running = asyncio.create_task(main.run("r"))
    await until_open(wf, "s0")
    while len(asked(wf.journal.open_signals())) < 100:
        await asyncio.sleep(0.01)
    assert (await wf.status("r")).run.status is RunStatus.WAITING
    quiet = False
    while not quiet:  # nothing is delivered: soon nothing is looked for
        looks.clear()
        await asyncio.sleep(0.2)
        quiet = looks == []
    for n in range(100):
        await wf.complete("r", f"s{n}", n)
    assert await running == list(range(100))
    assert asked(wf.journal.get_run("r")).status is RunStatus.DONE


async def test_a_face_answers_through_the_store_and_is_asked_again_when_it_was_wrong(again, face):
    face.answers += ["perhaps", True]
    wf = again()
    assert await waiting(wf, schema=bool).run("r") is True
    signal = asked(wf.journal.get_signal("r", "approval"))
    assert "asked there" in signal.delivered_by
    ask, again_asked = (line for line in face.shown if line.startswith("ask"))
    assert ask == "ask None"
    assert "is not accepted" in again_asked
    assert face.shown[0].startswith("durable-nb signal r approval VALUE --db ")
    assert face.shown[-1] == "answered"
    await waiting(leave_unfinished(again()), schema=bool).run("r")
    assert face.shown[-1] == "approval was answered"


async def test_who_answers_elsewhere_ends_the_asking(again, face):
    question = asyncio.get_running_loop().create_future()
    face.answers.append(question)
    wf = again()
    running = asyncio.create_task(waiting(wf).run("r"))
    await until_open(wf)
    await wf.complete("r", "approval", "from elsewhere")
    assert await running == "from elsewhere"
    assert question.cancelled()


async def test_asking_makes_no_branches(again, face):
    """Step ids are the same whether or not somebody was asked."""
    wf = again()

    @wf.task
    async def note(n):
        return n

    @wf.workflow
    async def main():
        decided = await wf.signal("approval")
        return decided, await asyncio.gather(note(1), note(2))

    face.answers += [True]
    assert await main.run("asked") == (True, [1, 2])
    await wf.complete("told", "approval", True)
    assert await main.run("told") == (True, [1, 2])
    one, other = (
        {step.step_id for step in asked(wf.journal.read_run(run)).steps} for run in ("asked", "told")
    )
    assert one == other


async def test_where_nobody_is_it_is_pending_and_no_except_clause_takes_it(again, face):
    face.limit = 0.02
    wf = again()
    ran = []

    @wf.workflow
    async def main():
        try:
            return await wf.signal("approval")
        except Exception:
            ran.append("taken for an answer")

    with pytest.raises(
        SignalPending, match=r"run 'r', step 'signal:approval': .*durable-nb signal r approval VALUE"
    ):
        await main.run("r")
    assert asked(wf.journal.get_run("r")).status is RunStatus.INTERRUPTED
    assert [request.name for request in asked(wf.journal.open_signals())] == ["approval"]
    await wf.complete("r", "approval", "yes")
    assert await main.run("r") == "yes"
    assert ran == []


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_cancelling_ends_the_wait_and_its_watch(again, mode):
    wf = again()
    main = waiting(wf) if mode == "async" else wf.workflow(lambda: wf.sync.signal("approval"))
    running = asyncio.create_task(main.run("r") if mode == "async" else asyncio.to_thread(main.run, "r"))
    await until_open(wf)
    assert await wf.cancel("r")
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asked(wf.journal.get_run("r")).status is RunStatus.CANCELLED
    watch = watcher._watches.get(wf.journal)
    while watch is not None and watch._task is not None:  # its last look ends soon
        await asyncio.sleep(0.01)


# Another process

DELIVER = """
    import sys, time
    from durable_nb import Workflow
    wf = Workflow("other", db=sys.argv[1])
    wf.sync.complete("warm", "up")
    print("ready", flush=True)
    for line in sys.stdin:
        run_id = line.strip()
        print(wf.sync.complete(run_id, "approval", time.time()), flush=True)
"""


@pytest.fixture
def other(db):
    """Another process that delivers to the runs it is told."""
    code = textwrap.dedent(DELIVER)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"

    def deliver(run_id):
        print(run_id, file=process.stdin, flush=True)

    yield deliver
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


async def test_another_process_wakes_the_waiter(again, other):
    wf = again()
    seconds = []
    for number in range(20):
        running = asyncio.create_task(waiting(wf).run(f"r{number}"))
        await until_open(wf)
        await asyncio.sleep(0.02)
        other(f"r{number}")
        delivered_at = await running
        seconds.append(time.time() - delivered_at)
    print(f"woken after {statistics.median(seconds) * 1000:.1f} ms (median of {len(seconds)})")
    assert statistics.median(seconds) < 0.5


KILLED = """
    import asyncio, os, signal, sys
    from durable_nb import Workflow
    wf = Workflow("shop", db=sys.argv[1])
    @wf.workflow
    async def main():
        try:
            return await wf.signal("approval", prompt="Ship?", choices=["yes", "no"])
        finally:
            print("left", flush=True)
    print(asyncio.run(main.run("r")))
"""


def start(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_while_it_waits_answered_while_nothing_runs_and_resumed(db, capsys):
    process = start(KILLED, db)
    with Workflow("shop", db=db) as wf:
        asyncio.run(until_open(wf))
        process.kill()
        process.wait(10)
        assert command(["signals", "--db", str(db)]) == 0
        listed = capsys.readouterr().out
        assert listed.startswith("run 'r' (interrupted) waits for signal 'approval' since 20")
        assert "Ship?" in listed
        assert "accepts: yes | no" in listed
        assert f"durable-nb signal r approval VALUE --db {db}" in listed
        assert command(["signal", "r", "approval", "perhaps", "--db", str(db)]) == 2
        assert 'expected one of "yes", "no"' in capsys.readouterr().err
        assert command(["signal", "r", "approval", "yes", "--db", str(db)]) == 0
        assert capsys.readouterr().out == "signal 'approval' delivered to run 'r'\n"
        assert command(["signal", "r", "approval", "no", "--db", str(db)]) == 3
        assert "nothing was changed: signal 'approval' of run 'r' was answered by process" in (
            capsys.readouterr().out
        )
        assert command(["signals", "--db", str(db)]) == 0
        assert capsys.readouterr().out == "no run waits for a signal\n"
    process.stdout.close()
    resumed = start(KILLED, db)
    assert resumed.communicate(timeout=30)[0] == "left\nyes\n"


def test_the_command_makes_no_database_and_names_a_run_that_is_not_there(tmp_path, db, capsys):
    assert command(["signal", "r", "go", "1", "--db", str(tmp_path / "none.db")]) == 1
    assert "no database at" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
    with Workflow("shop", db=db) as wf:
        wf.workflow(lambda: None).run("there")
    assert command(["signal", "typo", "go", "1", "--db", str(db)]) == 0
    assert "run 'typo' does not exist yet" in capsys.readouterr().err


# Time


def sleeping(wf, *lengths):
    @wf.workflow
    async def main():
        for length in lengths:
            await (wf.sleep_until(length) if isinstance(length, datetime) else wf.sleep(length))
        return "awake"

    return main


SLEEPER = """
    import sys, time
    from durable_nb import Workflow
    wf = Workflow("shop", db=sys.argv[1])
    @wf.workflow
    def main():
        print("asleep", flush=True)
        began = time.monotonic()
        wf.sync.sleep(2)
        print(time.monotonic() - began)
    main.run("r")
"""


def test_a_sleep_of_two_seconds_that_is_killed_after_one_takes_one_more(db):
    process = start(SLEEPER, db)
    assert process.stdout.readline() == "asleep\n"
    time.sleep(1)
    process.kill()
    process.communicate()
    _, left = start(SLEEPER, db).communicate(timeout=30)[0].split()
    assert 0 <= float(left) < 1.6  # 2 s if it had begun anew
    assert start(SLEEPER, db).communicate(timeout=30)[0] == ""  # the run is done


@pytest.fixture
def writes(monkeypatch):
    """Gives a function that counts what has been written to a store: transactions, or scripts that write."""
    sent = []
    run_script = journal.run_script

    async def noting(connection, script, *words):
        sent.append(script)
        return await run_script(connection, script, *words)

    monkeypatch.setattr(journal, "run_script", noting)
    writing = scripts.OPEN, scripts.PUT_STEP, scripts.FINISH, scripts.PUT_SIGNAL, scripts.REQUEST_SIGNAL
    return lambda wf: getattr(wf.journal, "commits", None) or sum(script in writing for script in sent)


async def test_a_wait_is_two_commits_and_its_end_two(again, writes):
    wf = again()
    await waiting(wf, timeout=0.01, default=None).run("warm")  # the session of the process has begun
    before = writes(wf)
    running = asyncio.create_task(waiting(wf).run("r"))
    await until_open(wf)
    assert writes(wf) - before == 2  # the run is opened; the request, and the step that waits
    await wf.complete("r", "approval", True)
    assert await running is True
    assert writes(wf) - before == 2 + 1 + 2  # the delivery; the step, the end of the run


async def test_a_request_and_its_step_are_written_together_or_not_at_all(again):
    wf = again()
    running = asyncio.create_task(waiting(wf).run("r"))
    request = await until_open(wf)
    (step,) = (await wf.status("r")).steps
    assert (step.status, step.is_awaited) == (StepStatus.STARTED, True)
    stale = step._replace(epoch=step.epoch - 1, attempt=9)
    with pytest.raises(RunHeld):
        asked(wf.journal.request_signal(request._replace(prompt="stale"), stale))
    assert asked(wf.journal.get_request("r", "approval")) == request
    assert (await wf.status("r")).steps == (step,)
    await wf.complete("r", "approval", True)
    assert await running is True


async def test_a_run_that_sleeps_waits(again):
    wf = again()
    running = asyncio.create_task(sleeping(wf, timedelta(seconds=1.5)).run("r"))
    seen = set()
    while not running.done():
        await asyncio.sleep(0.01)
        with contextlib.suppress(RunNotFound):
            shown = await wf.status("r")
            seen.add(shown.run.status)
            listed = await ASYNC.store(list_runs(wf.journal))
            assert {run.status for run, _ in listed} <= {shown.run.status, RunStatus.DONE, RunStatus.WAITING}
    assert RunStatus.WAITING in seen
    assert await running == "awake"
    assert asked(wf.journal.get_run("r")).status is RunStatus.DONE


class Clock:
    """The time of day, which can be set; the monotonic clock stays as it is."""

    offset = 0.0
    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)

    def time(self):
        return time.time() + self.offset


async def test_a_clock_that_is_set_back_adds_nothing(again, monkeypatch):
    monkeypatch.setattr(waits, "time", clock := Clock())
    running = asyncio.create_task(sleeping(wf := again(), 0.3, 0.01).run("r"))
    await asyncio.sleep(0.1)
    clock.offset = -86_400
    began = time.monotonic()
    assert await asyncio.wait_for(running, 30) == "awake"
    assert time.monotonic() - began < 20
    steps = asked(wf.journal.read_run("r")).steps
    assert [(step.step_id, step.kind, step.status) for step in steps] == [
        ("sleep", "sleep", StepStatus.DONE),
        ("sleep#1", "sleep", StepStatus.DONE),
    ]
    # What is over is not waited for again, whatever the clock says.
    slept, sleep = [], type(ASYNC).sleep
    monkeypatch.setattr(
        type(ASYNC), "sleep", lambda self, seconds: slept.append(seconds) or sleep(self, seconds)
    )
    clock.offset = -2 * 86_400
    assert await asyncio.wait_for(sleeping(again(), 0.3, 0.01).run("r"), 30) == "awake"
    assert all(seconds <= 0.01 for seconds in slept)


@pytest.mark.parametrize("zone", [UTC, None])
async def test_until_a_moment(again, zone):
    moment = datetime.now(zone) + timedelta(seconds=0.2)
    assert await sleeping(again(), moment).run("r") == "awake"
    assert datetime.now(zone) >= moment
    assert await sleeping(again(), datetime.now(zone) + timedelta(days=1)).run("r") == "awake"


async def test_memory_too(face):
    face.answers.append(7)
    with Workflow("shop", db=MemoryJournal()) as wf:
        assert await waiting(wf).run("r") == 7
    assert face.shown[0] == "await wf.complete('r', 'approval', VALUE)"


# Steps that a person is asked about


def charging(wf, ran, **options):
    """A once task that is killed, as far as anybody knows, the first time."""

    @wf.task(once=True, **options)
    async def charge(amount):
        ran.append(amount)
        if len(ran) == 1:
            raise KeyboardInterrupt
        return f"receipt {amount}"

    @wf.workflow(id="order")
    async def main():
        return await charge(7)

    return main


@pytest.mark.parametrize(
    ("answers", "given", "bodies"),
    [(["run again"], "receipt 7", 2), (["perhaps", "it succeeded", {"by": "hand"}], {"by": "hand"}, 1)],
)
async def test_a_step_in_doubt_is_asked_about_where_a_person_is(again, face, answers, given, bodies):
    ran = []
    with contextlib.suppress(BaseException):
        await asyncio.create_task(killed_in(charging(again(), ran)))
    assert len(ran) == 1
    face.answers += answers
    assert await charging(again(), ran).run("order") == given
    assert face.answers == []
    assert await charging(again(), ran).run("order") == given  # recorded: not asked twice
    assert len(ran) == bodies


async def test_a_person_takes_the_earlier_result_of_a_step_in_doubt_back(again, face):
    ran = [0]
    assert await charging(again(), ran).run("order") == "receipt 7"
    wf = again()
    await wf.resolve("order", "charge", "rerun")
    ran.clear()  # the next body is killed
    await killed_in(charging(wf, ran))
    face.answers += ["take back its earlier result"]
    assert await charging(again(), ran).run("order") == "receipt 7"
    assert (face.answers, ran) == ([], [7])


async def killed_in(main):
    # A KeyboardInterrupt that leaves a task would end the loop.
    try:
        await main.run("order")
    except KeyboardInterrupt:
        return


async def test_a_step_in_doubt_is_given_up_or_refused_where_nobody_is(again, face):
    ran = []
    await killed_in(charging(again(), ran))
    with pytest.raises(StepInDoubt):
        await charging(again(), ran).run("order")
    face.answers.append("give up")
    with pytest.raises(StepFailed, match="the step was given up on"):
        await charging(again(), ran).run("order")
    assert len(ran) == 1


async def test_changed_arguments_are_asked_about_and_the_answer_holds_for_that_change(again, face):
    ran = []

    def define(wf, amount):
        @wf.task(on_change="ask")
        async def charge(amount):
            ran.append(amount)
            return amount

        @wf.workflow
        async def main():
            return await charge(amount)

        return main

    assert await define(again(), 1).run("r") == 1
    leave_unfinished(again())
    with pytest.raises(StepChanged, match="this session has no one to ask"):
        await define(again(), 2).run("r")
    face.answers += ["keep"]
    for _ in range(2):
        with pytest.warns(DurableNotice, match="replayed although its arguments changed"):
            assert await define(again(), 2).run("r") == 1
        leave_unfinished(again())
        face.answers += ["run again"]  # not for this change: it was answered
    assert await define(again(), 3).run("r") == 3
    leave_unfinished(again())
    face.answers[:] = ["give up"]
    with pytest.raises(StepChanged, match=r"amount: 3 → 4\), and the step was given up by process"):
        await define(again(), 4).run("r")
    assert ran == [1, 3]


async def test_a_run_that_is_lost_while_it_waits_leaves_the_other_waiters_alone(again):
    journal = again().journal

    def lost():
        raise RunHeld("somebody else has it", run_id="lost")

    async def wait(run_id, check):
        return await watcher.wait_for_delivery(journal, run_id, "go", poll=0.05, seconds=10, check=check)

    async def both():
        await journal.setup()
        one, other = (asyncio.create_task(wait(*each)) for each in (("lost", lost), ("kept", lambda: None)))
        await asyncio.wait([one])
        await delivery.deliver(journal, delivery.make_signal("kept", "go", True, "a test"), True)
        return one.exception(), (await other).run_id

    failure, run_id = await ASYNC.store(both())
    assert isinstance(failure, RunHeld)
    assert run_id == "kept"
