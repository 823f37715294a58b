"""Redis servers that lose data, refuse it or stop: nothing gets silently wrong, and what can be mended is."""

import asyncio
import contextlib
import shutil
import sys
import threading
import time
import warnings
from collections import Counter

import pytest
import pytest_asyncio
import redis

from durable_nb import Workflow, settings
from durable_nb.errors import DurableNotice, InvalidOption, RunHeld, StoreUnavailable, StoreUnreadable
from durable_nb.records import Payload, Run, RunStatus, Signal, StepStatus
from durable_nb.stores.redis import RedisJournal, scripts
from durable_nb.stores.testing import sample_step

LARGE = Payload("raw", b"x" * 300_000)
SMALL = Payload("raw", b"")


@pytest_asyncio.fixture
async def made():
    """Makes journals that are closed after the test."""
    journals = []

    async def make(url, **options):
        journals.append(RedisJournal(url, **options))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DurableNotice)  # that a server keeps no log
            await journals[-1].setup()
        return journals[-1]

    yield make
    for journal in journals:
        await journal.close()


async def opened(journal, run_id="r", **options):
    return (await journal.open_run(Run(run_id, "w"), **options)).run


async def steps(journal):
    return {step.step_id for step in (await journal.read_run("r")).steps}


# A server that has lost what it acknowledged


def back_in_time(server):
    """Have it restarted with what it had when it last saved."""
    server.kill()
    server.start()


@pytest.mark.parametrize("end", ["another step", "the end of the run"])
async def test_the_last_writes_are_lost_and_written_again(own_redis, made, end):
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    run = await opened(journal)
    for number in range(3):
        await journal.put_step(sample_step(run, f"s{number}"))
    server.client.save()
    await asyncio.gather(*(journal.put_step(sample_step(run, f"s{n}", payload=LARGE)) for n in range(3, 6)))
    back_in_time(server)
    done = run._replace(status=RunStatus.DONE)
    call = journal.put_step(sample_step(run, "s6")) if end == "another step" else journal.finish_run(done)
    with pytest.warns(DurableNotice, match=r"lost the last 3 writes of run 'r'.*written again"):
        await call
    assert await steps(journal) >= {f"s{number}" for number in range(6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await journal.finish_run(done)


async def test_a_step_that_was_reset_is_not_brought_back(own_redis, made):
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    run = await opened(journal)
    server.client.save()
    for name in "ab":
        await journal.put_step(sample_step(run, name))
    await journal.reset_steps(run, ["a"])
    back_in_time(server)
    with pytest.warns(DurableNotice, match="written again"):
        await journal.put_step(sample_step(run, "c"))
    assert await steps(journal) == {"b", "c"}


async def test_what_is_written_twice_is_no_loss(redis_server, made):
    journal = await made(redis_server.url)
    run = await opened(journal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in "aabab":
            await journal.put_step(sample_step(run, name))
        await journal.finish_run(run._replace(status=RunStatus.DONE))


async def test_a_write_that_was_sent_twice_is_missed_all_the_same(own_redis, made, monkeypatch):
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    run = await opened(journal)
    await journal.put_step(sample_step(run, "kept"))
    server.client.save()
    with monkeypatch.context() as patched:
        call = journal._connection.call

        async def call_twice(*command):
            await call(*command)
            return await call(*command)

        patched.setattr(journal._connection, "call", call_twice)
        await journal.put_step(sample_step(run, "lost"))
    back_in_time(server)
    with pytest.warns(DurableNotice, match="lost the last 1 writes"):
        await journal.put_step(sample_step(run, "next"))
    assert await steps(journal) == {"kept", "lost", "next"}


async def test_what_is_written_again_replaces_nothing_newer(own_redis, made):
    """A step is finished while the record that it began is brought back."""
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    run = await opened(journal)
    await journal.put_step(sample_step(run, "once", status=StepStatus.STARTED, payload=None))
    server.client.save()
    await journal.put_step(sample_step(run, "lost"))
    back_in_time(server)
    ending = [sample_step(run, "next"), sample_step(run, "once")]
    with pytest.warns(DurableNotice, match="written again"):
        await asyncio.gather(*map(journal.put_step, ending))
    assert (await journal.get_step("r", "once")).status is StepStatus.DONE


async def test_what_was_on_its_way_while_the_run_went_to_wait_is_no_loss(redis_server, made, monkeypatch):
    """On a cluster answers come in any order."""
    journal = await made(redis_server.url)
    run = await opened(journal)
    call, acknowledged = journal._connection.call, asyncio.Event()

    async def call_late(*command):
        answer = await call(*command)
        if scripts.FINISH.sha in command or scripts.FINISH.source in command:
            await acknowledged.wait()
        return answer

    monkeypatch.setattr(journal._connection, "call", call_late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waiting = asyncio.create_task(journal.finish_run(run._replace(status=RunStatus.WAITING)))
        while (await journal.get_run("r")).status is not RunStatus.WAITING:
            await asyncio.sleep(0.01)
        await journal.put_step(sample_step(run))
        acknowledged.set()
        await waiting


async def test_what_a_run_that_is_over_has_written_is_held_no_longer(redis_server, made):
    journal = await made(redis_server.url)
    run, payload = await opened(journal), Payload("raw", bytes(300_000))
    free = sys.getrefcount(payload)
    await journal.put_step(sample_step(run, payload=payload))
    await journal.finish_run(run._replace(status=RunStatus.WAITING))
    assert sys.getrefcount(payload) > free
    await journal.finish_run(run._replace(status=RunStatus.DONE))
    assert sys.getrefcount(payload) == free


def test_a_run_goes_on_over_a_loss_and_nothing_runs_twice(own_redis):
    server, bodies = own_redis(appendonly="no"), Counter()
    with warnings.catch_warnings(record=True) as told, Workflow("shop", db=server.url) as wf:
        warnings.simplefilter("always")

        @wf.task
        def work(n):
            bodies[n] += 1
            if n == 3:
                server.client.save()
            if n == 7:
                back_in_time(server)
            return n

        @wf.workflow
        def main():
            return [work(n) for n in range(10)]

        assert main.run("r") == list(range(10))
        assert main.run("r") == list(range(10))
    assert bodies == dict.fromkeys(range(10), 1)
    assert sum("lost the last 4 writes" in str(each.message) for each in told) == 1


@pytest.mark.parametrize("how", ["emptied", "before it was opened"])
async def test_a_run_that_the_server_has_forgotten(own_redis, made, how):
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    await opened(journal)
    server.client.save()
    run = await opened(journal)
    if how == "emptied":
        server.client.flushall()
    else:
        back_in_time(server)
    calls = [
        journal.put_step(sample_step(run)),
        journal.reset_steps(run, ["load"]),
        journal.finish_run(run._replace(status=RunStatus.DONE)),
    ]
    for call in calls:
        with pytest.raises(RunHeld, match=r"run 'r'.*has lost the run.*appendonly yes"):
            await call


async def test_who_opened_it_before_the_loss_stays_fenced_off(redis_server, made):
    """The server counts epochs anew; two owners may have the same."""
    first, second = await made(redis_server.url), await made(redis_server.url)
    old = await opened(first)
    redis_server.client.flushall()
    new = await opened(second)
    assert old.epoch == new.epoch
    with pytest.raises(RunHeld, match="it was opened again by"):
        await first.put_step(sample_step(old))
    with pytest.raises(RunHeld):
        await first.finish_run(old._replace(status=RunStatus.DONE))
    with pytest.raises(RunHeld):
        await first.reset_steps(old, ["load"])
    await second.put_step(sample_step(new))


# The fence


async def test_who_owned_a_run_does_not_own_another_that_is_given_its_id(redis_server, made):
    first, second = await made(redis_server.url), await made(redis_server.url)
    stale = await opened(first, "other")
    await second.rename_run("other", "aside")
    assert (await opened(second)).epoch == stale.epoch
    await second.rename_run("r", "other")
    with pytest.raises(RunHeld):
        await first.put_step(sample_step(stale))


async def test_opened_by_another_between_opening_and_reading(redis_server, made):
    """Nobody takes another's epoch for its own."""
    first, second = await made(redis_server.url), await made(redis_server.url)
    read, others = first.read_run, []

    async def read_late(run_id):
        if not others:
            others.append(await opened(second, take_over=True))
        return await read(run_id)

    first.read_run = read_late
    run = await opened(first, take_over=True)
    assert run.epoch > others[0].epoch
    await first.put_step(sample_step(run))
    with pytest.raises(RunHeld):
        await second.put_step(sample_step(others[0]))


async def test_an_outage_is_no_silence_of_the_owner(redis_server, made, monkeypatch):
    """While the server is away no owner can give a sign of life, and nobody is taken for dead."""
    monkeypatch.setattr(settings, "HEARTBEAT", 0.3)
    monkeypatch.setattr(settings, "OWNER_SILENT", 1.0)
    journal = await made(redis_server.url)
    await opened(journal)
    sessions = journal._sessions
    owner = await sessions.find_owner("r")
    sessions._unchanged_since(owner)
    find = sessions.find_owner

    async def find_slowly(run_id):
        await asyncio.sleep(1.2)
        return await find(run_id)

    sessions.find_owner = find_slowly
    await sessions._find_owner_timed("r")
    assert time.monotonic() - sessions._unchanged_since(owner) < 1.0


# What is left behind


def pieces(journal, server):
    return server.client.hlen(journal._keys.chunks("r"))


async def test_results_of_former_passes_leave_no_pieces(redis_server, made):
    journal = await made(redis_server.url)
    for _ in range(3):
        run = await opened(journal)
        await journal.finish_run(run._replace(status=RunStatus.DONE, result=LARGE))
        assert pieces(journal, redis_server) == 1
    await opened(journal)
    assert pieces(journal, redis_server) == 0


async def test_what_comes_after_the_end_is_forgotten_with_the_run(redis_server, made):
    journal = await made(redis_server.url, ttl=100)
    run = await opened(journal)
    await journal.finish_run(run._replace(status=RunStatus.DONE))
    await journal.put_signal(Signal("r", "go", LARGE))
    assert 0 < redis_server.client.ttl(journal._keys.chunks("r")) <= 100
    redis_server.client.delete(journal._keys.chunks("r"))
    await journal.put_step(sample_step(run, payload=LARGE))
    assert 0 < redis_server.client.ttl(journal._keys.chunks("r")) <= 100


# Servers that refuse


def permit(server, *rules):
    server.client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
    return server.url.replace("//", "//app:pw@")


async def test_a_user_without_channels_is_woken_all_the_same(own_redis, made, monkeypatch):
    """Redis gives a new user none: nothing is heard, so it is looked."""
    monkeypatch.setattr(settings, "REDIS_LONGEST_PAUSE", 0.1)
    journal = await made(permit(own_redis(), "~durable:*", "resetchannels", "+@all"))
    assert await journal.put_signal(Signal("r", "go", SMALL)) is True
    before = await journal.version()
    while await journal.version() == before:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("rules", [("~durable:*", "+@all", "-@dangerous"), ("~other:*", "+@all")])
async def test_what_a_user_may_not_do_is_said(own_redis, made, rules):
    with pytest.raises(StoreUnavailable, match=r"does not give the user the permissions.*ACL SETUSER"):
        await made(permit(own_redis(), *rules))


async def test_no_password_where_one_is_wanted(own_redis, made):
    server = own_redis()
    server.client.config_set("requirepass", "right")
    with pytest.raises(StoreUnavailable, match="rejected the login"):
        await made(server.url)


async def test_a_replica_is_named(own_redis, made, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_PATIENCE", 0.3)
    first, replica = own_redis(), own_redis()
    replica.client.replicaof("127.0.0.1", first.port)
    while replica.client.info("replication").get("master_link_status") != "up":
        await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailable, match="is a replica, which accepts no writes"):
        await made(replica.url)


async def test_a_server_that_cannot_save_its_data(own_redis, made, tmp_path):
    server = own_redis(appendonly="no")
    journal = await made(server.url)
    run = await opened(journal)
    server.client.config_set("save", "3600 1000")
    shutil.rmtree(tmp_path / "redis-0")
    server.client.bgsave()
    while server.client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        await asyncio.sleep(0.02)
    with pytest.raises(StoreUnavailable, match="cannot save its data: MISCONF"):
        await journal.put_step(sample_step(run))


async def test_somebodys_long_script_is_waited_for(own_redis, made):
    server = own_redis()
    server.client.config_set("lua-time-limit", 50)
    journal = await made(server.url)
    run = await opened(journal)
    blocking = threading.Thread(target=block, args=[server.port])
    blocking.start()
    while not is_busy(server):
        await asyncio.sleep(0.02)
    await journal.put_step(sample_step(run))
    blocking.join()
    assert await steps(journal) == {"load"}


def block(port):
    script = "local t = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < t do end return 1"
    with contextlib.closing(redis.Redis(port=port)) as client:
        client.eval(script, 0)


def is_busy(server):
    try:
        server.client.ping()
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


@pytest.mark.parametrize(
    "command", [("SET", "durable:layout", "theirs"), ("RPUSH", "durable:layout", "theirs")]
)
async def test_a_prefix_of_somebody_else(redis_server, made, command):
    redis_server.client.execute_command(*command)
    with pytest.raises(StoreUnreadable, match="of another application under this prefix"):
        await made(redis_server.url)


@pytest.mark.parametrize("url", ["redis://:pa/ss@host:6379/0", "redis://host:port/0", "redis://host/0?x=1"])
async def test_a_url_that_is_none(made, url):
    with pytest.raises(InvalidOption, match="not a URL of a Redis server") as caught:
        await made(url)
    assert "pa" not in str(caught.value).replace("password", "").replace("parse", "")


async def test_options_that_would_change_how_answers_look(redis_server, made):
    journal = await made(f"{redis_server.url}?protocol=3&decode_responses=true")
    run = await opened(journal)
    await journal.put_step(sample_step(run))
    assert await steps(journal) == {"load"}


async def test_closing_waits_no_longer_than_it_says(own_redis, monkeypatch):
    monkeypatch.setattr(settings, "EXIT_GRACE", 0.5)
    server = own_redis()
    journal = RedisJournal(server.url)
    await journal.setup()
    await opened(journal)
    server.kill()
    async with asyncio.timeout(settings.REDIS_PATIENCE / 2):
        await journal.close()
    server.start()
