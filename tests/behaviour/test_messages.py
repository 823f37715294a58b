"""Messages: a queue for each topic of a run, of which it receives each value once, and in order."""

import asyncio
import contextlib
import json
import subprocess
import sys
import textwrap
import time
import warnings
from datetime import timedelta

import pytest

from durable_nb import InMemoryStore, Workflow
from durable_nb.cli import main as command
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import (
    DurableNotice,
    InvalidOption,
    InvalidRunId,
    NoOpenRun,
    SignalTimeout,
    StepChanged,
    StepError,
    StepNotSaved,
    StoreError,
    UntrustedCheckpoint,
)
from durable_nb.records import RunStatus, StepKind
from durable_nb.stores.memory import MemoryJournal
from helpers import pythonpath
from helpers.json_store import JsonFileStore

PATIENCE = 60


@pytest.fixture(params=["memory", "sqlite", "redis"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on the three journals."""
    if request.param == "memory":
        return MemoryJournal()
    if request.param == "sqlite":
        return tmp_path / "runs.db"
    return request.getfixturevalue("redis_server").url


def unread(wf, run_id, topic):
    return run_blocking(SYNC.store(wf.journal.unread(run_id, topic, 100)))


async def until(condition):
    end = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def chat(wf):
    @wf.workflow
    async def chat():
        seen = []
        async for message in wf.receive("messages"):
            if message == "stop":
                break
            seen.append(message)
        return seen

    return chat


async def test_each_message_is_received_once_and_in_order(db):
    with Workflow("x", db=db) as wf:
        await wf.send("c", "messages", "before the run begins")
        talk = chat(wf)
        running = asyncio.create_task(talk.run("c"))
        for message in ("hi", "hi", ("a", "tuple"), None, "stop"):
            await wf.send("c", "messages", message)
        seen = ["before the run begins", "hi", "hi", ("a", "tuple"), None]
        assert await running == seen
        assert unread(wf, "c", "messages") == []
        assert await talk.run("c") == seen


async def test_topics_and_runs_have_queues_of_their_own(db):
    with Workflow("x", db=db) as wf:

        @wf.workflow
        async def main():
            return [await wf.receive(topic) for topic in ("b", "a", "a")]

        for run_id in "rs":
            for topic in "ab":
                for number in range(2):
                    await wf.send(run_id, topic, f"{run_id}{topic}{number}")
        assert await main.run("r") == ["rb0", "ra0", "ra1"]
        assert await main.run("s") == ["sb0", "sa0", "sa1"]


async def test_a_replay_gives_the_same_messages(db):
    with Workflow("x", db=db) as wf:
        fails = [True]

        @wf.workflow
        async def main():
            seen = [await wf.receive("m"), await wf.receive("m")]
            if fails:
                raise ZeroDivisionError
            return [*seen, await wf.receive("m")]

        for number in range(3):
            await wf.send("r", "m", number)
        with pytest.raises(ZeroDivisionError):
            await main.run("r")
        fails.clear()
        assert await main.run("r") == [0, 1, 2]
        steps = (await wf.status("r")).steps
        assert [step.step_id for step in steps] == ["receive:m", "receive:m#1", "receive:m#2"]
        assert {step.kind for step in steps} == {StepKind.MESSAGE}


async def test_a_run_that_is_reset_takes_the_next_message(db):
    with Workflow("x", db=db) as wf:

        @wf.workflow
        async def main():
            return await wf.receive("m")

        for number in range(2):
            await wf.send("r", "m", number)
        assert await main.run("r") == 0
        await wf.reset("r", "receive:m")
        assert await main.run("r") == 1


async def test_a_waiting_run_says_so(db):
    with Workflow("x", db=db) as wf:
        talk = chat(wf)
        await wf.send("other", "m")  # makes the database
        running = asyncio.create_task(talk.run("c"))

        async def waits():
            return any(run.status is RunStatus.WAITING for run in await wf.runs())

        await until(waits)
        status = await wf.status("c")
        assert status.run.status is RunStatus.WAITING
        assert "receive:messages" in str(status)
        await wf.send("c", "messages", "stop")
        assert await running == []


async def test_concurrent_branches_share_a_queue(db):
    with Workflow("x", db=db) as wf:

        @wf.workflow
        async def main():
            return await asyncio.gather(*(wf.receive("m") for _ in range(20)))

        running = asyncio.create_task(main.run("r"))
        await asyncio.gather(*(wf.send("r", "m", number) for number in range(20)))
        found = await running
        assert sorted(found) == list(range(20))
        assert await main.run("r", fresh=False) == found


async def test_a_timeout_is_an_error_of_await_and_the_end_of_a_loop(db):
    with Workflow("x", db=db) as wf:

        @wf.workflow
        async def main():
            seen = [each async for each in wf.receive("m", timeout=timedelta(seconds=0))]
            with pytest.raises(SignalTimeout, match="no message under 'm' within 0"):
                await wf.receive("m", timeout=0.01)
            return seen

        await wf.send("r", "m", 1)
        await wf.send("r", "m", 2)
        assert await main.run("r") == [1, 2]
        await wf.send("r", "m", 3)
        assert await main.run("r") == [1, 2]


async def test_the_clock_of_a_timeout_goes_on_while_no_process_runs(db):
    with Workflow("x", db=db) as wf:
        times = []
        await wf.send("other", "m")  # makes the database

        @wf.workflow
        async def main():
            await wf.receive("m", timeout=3600)

        async def waits():
            return any(run.status is RunStatus.WAITING for run in await wf.runs())

        for _ in range(2):
            running = asyncio.create_task(main.run("r"))
            await until(waits)
            times.append((await wf.status("r")).steps[0].started_at)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        assert times[0] == times[1]


async def test_a_receive_that_its_caller_gave_up_takes_that_branch_again(db):
    with Workflow("x", db=db) as wf:
        fails = [True]

        @wf.workflow
        async def main():
            try:
                async with asyncio.timeout(0.05):
                    found = await wf.receive("m")
            except TimeoutError:
                found = "nothing"
            now = await wf.now()
            if fails:
                raise ZeroDivisionError
            return found, now is not None, await wf.receive("m")

        with pytest.raises(ZeroDivisionError):
            await main.run("r")
        fails.clear()
        await wf.send("r", "m", "late")
        assert await main.run("r") == ("nothing", True, "late")


async def test_a_signal_that_its_caller_gave_up_takes_that_branch_again(db):
    with Workflow("x", db=db) as wf:
        fails = [True]

        @wf.workflow
        async def main():
            try:
                async with asyncio.timeout(0.05):
                    found = await wf.signal("s")
            except TimeoutError:
                found = "nothing"
            await wf.now()
            if fails:
                raise ZeroDivisionError
            return found

        with pytest.raises(ZeroDivisionError):
            await main.run("r")
        fails.clear()
        await wf.complete("r", "s", "late")
        assert await main.run("r") == "nothing"


async def test_a_run_sends_once_however_often_it_is_resumed(db):
    with Workflow("x", db=db) as wf:
        fails = [True]

        @wf.workflow
        async def main(text):
            await wf.send("other", "m", text)
            if fails:
                raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await main.run("r", "a")
        fails.clear()
        await main.run("r", "a")
        (message,) = unread(wf, "other", "m")
        assert message.sent_by == "run 'r', step 'send:m'"
        await wf.reset("r", "send:m")  # on purpose
        await main.run("r", "a")
        assert len(unread(wf, "other", "m")) == 2
        await main.run("r", "b", fresh=True)
        assert len(unread(wf, "other", "m")) == 3


async def test_a_resumed_run_that_would_send_another_value_is_refused(db):
    with Workflow("x", db=db) as wf:
        values = [1, 2]

        @wf.workflow
        async def main():
            await wf.send("other", "m", values.pop(0))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await main.run("r")
        with pytest.raises(StepChanged, match="value"):
            await main.run("r")
        assert len(unread(wf, "other", "m")) == 1


def test_synchronous_code_sends_and_receives(db):
    with Workflow("x", db=db) as wf:

        @wf.workflow
        def main():
            wf.sync.send("r", "m", "to itself")
            return wf.sync.receive("m"), wf.sync.receive("m")

        wf.sync.send("r", "m", "from outside")
        assert main.run("r") == ("from outside", "to itself")


async def test_large_values_and_pickles_come_back(db):
    with Workflow("x", db=db) as wf:
        values = [b"x" * 2_000_000, {1, (2,)}, range, "ö"]

        @wf.workflow
        async def main():
            return [await wf.receive("m") for _ in values]

        for value in values:
            await wf.send("r", "m", value)
        assert await main.run("r") == values
        assert await main.run("r") == values


async def test_a_value_that_cannot_be_saved_is_not_sent(db):
    with Workflow("x", db=db) as wf:
        await wf.send("r", "m", 1)
        with pytest.raises(StepNotSaved):
            await wf.send("r", "m", (each for each in "x"))
        assert len(unread(wf, "r", "m")) == 1


async def test_what_is_wrong_is_said_at_once(db):
    with Workflow("x", db=db) as wf:
        with pytest.raises(InvalidOption, match="a topic"):
            await wf.send("r", "", 1)
        with pytest.raises(InvalidRunId):
            await wf.send("", "m", 1)
        with pytest.raises(InvalidOption, match="length of time"):
            await wf.send("r", "m", 1, ttl=-1)
        with pytest.raises(NoOpenRun):
            await wf.receive("m")
        with pytest.raises(InvalidOption, match="length of time"):
            wf.receive("m", timeout="1")

        @wf.workflow
        async def main():
            return await asyncio.to_thread(wf.sync.receive, "m")

        with pytest.raises(StepError, match="Call it in a durable cell"):
            await main.run("r")


async def test_a_store_of_the_users_says_that_it_keeps_none(tmp_path):
    with Workflow("x", db=JsonFileStore(tmp_path / "store.json")) as wf:
        with warnings.catch_warnings():  # it is said once in a process
            warnings.simplefilter("ignore", DurableNotice)
            assert await wf.complete("r", "go", True)
        with pytest.raises(StoreError, match="cannot keep messages"):
            await wf.send("r", "m", 1)
        with pytest.raises(StoreError, match="cannot delete a signal after a time"):
            await wf.complete("r", "go", True, ttl=60)

        @wf.workflow
        async def main():
            return await wf.receive("m")

        with pytest.raises(StoreError, match="cannot keep messages"):
            await main.run("r")


async def test_a_signal_for_a_run_that_never_begins_expires(db):
    with Workflow("x", db=db) as wf:
        assert await wf.complete("typo", "go", 1, ttl=0.01)
        end = time.monotonic() + PATIENCE
        while not await wf.complete("typo", "go", 2, ttl=600):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

        @wf.workflow
        async def main():
            return await wf.signal("go")

        assert await main.run("typo") == 2


def test_the_lifetime_on_a_redis_server_is_that_of_its_runs(redis_server):
    """By default what waits for a run that never begins lives as long as a run that has ended."""
    url = f"{redis_server.url}?ttl=60&prefix=ttl"
    key = "ttl:{run/typo}"
    with Workflow("x", db=url) as wf:
        wf.sync.complete("typo", "go", "x" * 1_000_000)
        wf.sync.send("typo", "m", 1)
        assert 0 < redis_server.client.ttl(key) <= 60
        assert 0 < redis_server.client.ttl(f"{key}:chunks") <= 60
        wf.sync.complete("typo", "later", 1, ttl=600)
        assert 60 < redis_server.client.ttl(key) <= 600
        wf.workflow(lambda: 1).run("other")
        main = wf.workflow(lambda: wf.sync.receive("m"))
        seen = []

        @wf.task
        def look():
            seen.append((redis_server.client.ttl(key), redis_server.client.ttl(f"{key}:chunks")))

        wf.workflow(id="typo")(lambda: (look(), wf.sync.signal("go"))[1])()
        assert seen == [(-1, -1)]
        assert 0 < redis_server.client.ttl(key) <= 60  # it has ended
        del main
    with Workflow("x", db=redis_server.url) as wf:
        wf.sync.complete("kept", "go", 1)
        wf.sync.complete("kept", "late", 1, ttl=60)
        assert redis_server.client.ttl("durable:{run/kept}") == -1


def test_the_command_sends(tmp_path, capsys):
    db = str(tmp_path / "runs.db")
    with Workflow("x", db=db) as wf:
        main = wf.workflow(id="r")(lambda: [wf.sync.receive("m") for _ in range(2)])
        wf.workflow(id="first")(lambda: 1)()
        assert command(["send", "r", "m", '{"a": [1]}', "--db", db]) == 0
        shown = capsys.readouterr()
        assert "message sent to run 'r' under 'm'" in shown.out
        assert "does not exist yet" in shown.err
        assert command(["send", "r", "m", "text", "--db", db]) == 0
        assert main() == [{"a": [1]}, "text"]
        assert command(["send", "r", "", "text", "--db", db]) == 2
        assert command(["send", "r", "m", "text", "--db", f"{db}.none"]) == 1


def test_an_untrusted_message_is_not_loaded_until_it_is_trusted(tmp_path, monkeypatch, capsys):
    db = str(tmp_path / "runs.db")
    with Workflow("x", db=db) as wf:
        monkeypatch.setenv("DURABLE_NB_SECRET", "of another user")
        wf.sync.send("r", "m", {1, range})
        monkeypatch.setenv("DURABLE_NB_SECRET", "of the tests")
        main = wf.workflow(id="r")(lambda: wf.sync.receive("m"))
        with pytest.raises(UntrustedCheckpoint):
            main()
    assert command(["trust", db, "--yes"]) == 0
    with Workflow("x", db=db) as wf:
        assert wf.workflow(id="r")(lambda: wf.sync.receive("m"))() == {1, range}


SENDER = """
import sys
from durable_nb import Workflow

with Workflow("x", db=sys.argv[1]) as wf:
    for number in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
        wf.sync.send("r", "m", number)
"""


def test_processes_send_at_once(tmp_path):
    db = str(tmp_path / "runs.db")
    with Workflow("x", db=db) as wf:
        wf.workflow(id="first")(lambda: 1)()
        command = [sys.executable, "-c", textwrap.dedent(SENDER), db]
        sent = [subprocess.Popen([*command, str(first)], env=pythonpath()) for first in (0, 100, 200)]
        main = wf.workflow(id="r")(lambda: [wf.sync.receive("m") for _ in range(30)])
        found = main()
        assert [process.wait() for process in sent] == [0, 0, 0]
        assert sorted(found) == [*range(10), *range(100, 110), *range(200, 210)]
        for first in (0, 100, 200):
            own = [number for number in found if first <= number < first + 10]
            assert own == sorted(own)
        assert json.loads(json.dumps(found)) == main()


async def test_in_memory_stores_keep_messages():
    with Workflow("x", db=InMemoryStore()) as wf:
        await wf.send("r", "m", 1)

        @wf.workflow
        async def main():
            return await wf.receive("m")

        assert await main.run("r") == 1
