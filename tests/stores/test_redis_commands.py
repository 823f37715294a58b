"""The commands, signing and shared runs with ``--db redis://…``: the same as with a file."""

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

from durable_nb import RedisStore, Workflow, codec, settings
from durable_nb.cli import main as command
from durable_nb.codec import signing
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import InvalidOption, UntrustedCheckpoint
from durable_nb.records import Signal
from durable_nb.stores import open_journal
from durable_nb.stores.redis import RedisJournal


def stored(work):
    return run_blocking(SYNC.store(work))


@pytest.fixture
def db(redis_server):
    return f"{redis_server.url}?prefix=shop"


@pytest.fixture
def other_process(db):
    """Starts a process of some code with the store's URL; killed with the test."""
    started = []

    def start(code, **env):
        program = [sys.executable, "-c", textwrap.dedent(code), db]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


ORDER = """
    import asyncio, sys
    from durable_nb import Workflow
    wf = Workflow("orders", db=sys.argv[1])

    @wf.task
    async def charge():
        print("charging", flush=True)
        return 7

    @wf.workflow
    async def main():
        paid = await charge()
        return paid, await wf.signal("approval", prompt="Ship?", choices=["yes", "no"])

    print(asyncio.run(main.run("a17")), flush=True)
"""


def until_it_waits(db, process, capsys):
    assert process.stdout.readline() == "charging\n"
    shown = ""
    while "waits for signal" not in shown:
        assert command(["signals", "--db", db]) == 0
        shown = capsys.readouterr().out
    return shown


def test_a_run_of_another_process_is_listed_shown_and_answered(db, other_process, capsys):
    process = other_process(ORDER)
    shown = until_it_waits(db, process, capsys)
    assert shown.startswith("run 'a17' (waiting) waits for signal 'approval' since 20")
    assert f"durable-nb signal a17 approval VALUE --db '{db}'" in shown
    assert "Ship?" in shown
    assert command(["runs", "--db", db]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert row.split()[:6] == ["a17", "orders.main", "waiting", "1", "done", "signal:approval"]
    assert f"process {process.pid} on " in row
    assert command(["status", "a17", "--db", db]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[:3] for line in lines[-2:]) == [
        ["charge", "task", "done"],
        ["signal:approval", "signal", "started"],
    ]
    assert command(["signal", "a17", "approval", "perhaps", "--db", db]) == 2
    assert 'expected one of "yes", "no"' in capsys.readouterr().err
    assert command(["signal", "a17", "approval", "yes", "--db", db]) == 0
    assert process.stdout.readline() == "(7, 'yes')\n"
    assert command(["signal", "a17", "approval", "no", "--db", db]) == 3
    assert command(["status", "nowhere", "--db", db]) == 1
    capsys.readouterr()


DELIVER = """
    import sys
    from durable_nb import Workflow
    wf = Workflow("other", db=sys.argv[1])
    print(wf.sync.complete("r", "approval", 7), flush=True)
"""


async def test_the_server_wakes_who_waits(db, other_process, monkeypatch):
    """Here nobody looks again within the time of the test."""
    monkeypatch.setattr(settings, "SIGNAL_CHECK", 600)
    monkeypatch.setattr(settings, "SIGNAL_BACKSTOP", 600)
    with Workflow("orders", db=db) as wf:

        @wf.workflow
        async def main():
            return await wf.signal("approval")

        running = asyncio.create_task(main.run("r"))
        listener = wf.journal._listener
        while listener._listening is None or not listener.notifications:  # it listens
            await asyncio.sleep(0.01)
        other_process(DELIVER)
        async with asyncio.timeout(60):
            assert await running == 7


def test_a_server_that_is_not_there_is_said(capsys, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_LONGEST_PAUSE", 0.1)
    for words in (["runs"], ["signals"], ["status", "r"], ["signal", "r", "go", "1"]):
        assert command([*words, "--db", "redis://127.0.0.1:1/0"]) == 1
        assert "'redis://127.0.0.1:1/0' cannot be reached" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*to see whether the owner is alive")
def test_begun_on_one_host_killed_and_resumed_on_another(db, other_process, capsys, monkeypatch):
    """Nobody here can see whether the owner lives, but by its heartbeat; nothing runs twice."""
    begun = other_process(ORDER, DURABLE_NB_HOST="far")
    until_it_waits(db, begun, capsys)
    monkeypatch.setattr(settings, "HEARTBEAT", 0.2)
    monkeypatch.setattr(settings, "OWNER_SILENT", 3.0)
    assert command(["signal", "a17", "approval", "yes", "--db", f"{db}"]) == 0
    assert begun.stdout.readline() == "(7, 'yes')\n"
    begun = other_process(ORDER.replace("a17", "b5"), DURABLE_NB_HOST="far")
    until_it_waits(db, begun, capsys)
    begun.kill()
    begun.wait()
    assert command(["signal", "b5", "approval", "yes", "--db", db]) == 0
    charged = []
    with Workflow("orders", db=db) as wf:

        @wf.task
        async def charge():
            charged.append(1)

        @wf.workflow
        async def main():
            return await charge(), await wf.signal("approval", choices=["yes", "no"])

        assert asyncio.run(main.run("b5")) == (7, "yes")
    assert charged == []


# Signing


@pytest.fixture
def foreign(db, monkeypatch):
    """A run that somebody else has made, with a value in pieces and a signal that would run code."""
    with Workflow("shop", db=db) as wf:
        assert main_of(wf).run("r")[1] is bytearray
        payload = signing.sign(codec.encode(bytearray), "r", "signal:go")
        stored(wf.journal.put_signal(Signal("r", "go", payload, "ann", 1.0)))
    monkeypatch.setenv(signing.VARIABLE, "of somebody else")
    return db


def main_of(wf):
    @wf.task
    def small():
        return {"plain": "JSON"}

    @wf.task
    def middle():
        return bytearray

    @wf.task
    def large():
        return [bytearray, "x" * 400_000]

    @wf.workflow
    def main():
        return small(), middle(), len(large()[1])

    return main


def test_trust_shows_asks_and_signs(foreign, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert command(["trust", foreign]) == 1
    with Workflow("shop", db=foreign) as wf, pytest.raises(UntrustedCheckpoint) as refused:
        main_of(wf).run("r")
    assert f"durable-nb trust '{foreign}'" in str(refused.value)
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    capsys.readouterr()
    assert command(["trust", foreign]) == 0
    told = capsys.readouterr().out
    for name in ("step 'middle'", "step 'large'", "step 'signal:go'"):
        assert name in told
    assert "small" not in told
    with Workflow("shop", db=foreign) as wf:
        assert main_of(wf).run("r") == ({"plain": "JSON"}, bytearray, 400_000)
    assert command(["trust", foreign]) == 0
    assert "every checkpoint" in capsys.readouterr().out


async def test_what_has_changed_meanwhile_is_not_signed(foreign):
    journal = RedisJournal(foreign)
    await journal.setup()
    untrusted = await journal.trust_signer.find()
    assert sorted((one.table, one.name) for one in untrusted) == [
        ("runs", ""), ("signals", "go"), ("steps", "large"), ("steps", "middle"),
    ]  # fmt: skip
    key = journal._keys.run("r")
    value = await journal._connection.call("HGET", key, b"s:middle")
    await journal._connection.call("HSET", key, b"s:middle", value + b"!")
    assert await journal.trust_signer.sign(untrusted) == 3
    assert await journal._connection.call("HGET", key, b"s:middle") == value + b"!"
    await journal.close()


# URLs


def test_a_url_names_prefix_and_ttl():
    journal = RedisJournal("redis://ann:secret@host:6379/0?prefix=shop&ttl=60&protocol=3")
    assert (
        journal.location
        == journal.address
        == "redis://ann:\u2039hidden\u203a@host:6379/0?protocol=3&prefix=shop"
    )
    assert (journal._ttl, journal._keys.runs) == (60, "shop:runs")
    assert RedisStore("redis://host/0?prefix=shop", prefix="other").journal._keys.runs == "other:runs"
    assert open_journal("redis://host/0").location == "redis://host/0"


@pytest.mark.parametrize("options", ["ttl=0", "ttl=soon", "prefix=", "prefix={a}"])
def test_options_of_a_url_that_make_no_sense(options):
    with pytest.raises(InvalidOption):
        open_journal(f"redis://host/0?{options}")
