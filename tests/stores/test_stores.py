"""Stores: the contract on memory and SQLite, opening by name, and what only SQLite promises."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytest_asyncio

from durable_nb.errors import (
    DurableNotice,
    InvalidOption,
    RunHeld,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
    StoreUnreadable,
)
from durable_nb.records import Run
from durable_nb.stores import open_journal, rows
from durable_nb.stores.memory import MemoryJournal
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.connection import on_network, set_journal_mode
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.journal import SqliteJournal
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.testing import JournalContract, LeaseContract, sample_step
from helpers.rivals import rivals

_made = []


def made(path, **options):
    """A journal that is closed after the test, however it ends: its thread would keep pytest from exiting."""
    _made.append(SqliteJournal(path, **options))
    return _made[-1]


@pytest_asyncio.fixture(autouse=True)
async def closed_after_the_test():
    yield
    while _made:
        await _made.pop().close()


class TestMemory(JournalContract):
    @pytest_asyncio.fixture
    async def journal(self):
        journal = MemoryJournal()
        await journal.setup()
        yield journal
        await journal.close()

    @pytest.fixture
    def reopen(self, journal):
        async def again():
            await journal.setup()
            return journal

        return again


class TestSqlite(JournalContract, LeaseContract):
    @pytest_asyncio.fixture
    async def journal(self, tmp_path):
        journal = made(tmp_path / "durable.db")
        await journal.setup()
        yield journal
        await journal.close()

    @pytest.fixture
    def reopen(self, journal):
        async def again():
            other = made(journal.location)
            await other.setup()
            return other

        return again

    @pytest.fixture
    def rival(self, journal):
        with rivals(journal.location) as open_elsewhere:
            yield open_elsewhere


@pytest_asyncio.fixture
async def journal(tmp_path):
    journal = made(tmp_path / "durable.db", busy_timeout=2.0)
    await journal.setup()
    yield journal
    await journal.close()


async def owned(journal, run_id="r"):
    return (await journal.open_run(Run(run_id, "w"))).run


async def refused(path, **options):
    """Why a database cannot be set up."""
    journal = made(path, **options)
    with pytest.raises(StoreError) as caught:
        await journal.setup()
    await journal.close()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    return type(caught.value), message


# Opening by name


@pytest.mark.parametrize("name", ["{}/a.db", "sqlite:///{}/a.db", "SQLITE:///{}/sub/../a.db"])
def test_one_journal_per_resolved_path(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    journal = open_journal(tmp_path / "a.db")
    assert isinstance(journal, SqliteJournal)
    assert open_journal(name.format(tmp_path)) is journal
    assert open_journal(tmp_path / "link.db") is journal
    assert open_journal(tmp_path / "b.db") is not journal
    assert journal.location == str(tmp_path.resolve() / "a.db")
    assert not (tmp_path / "a.db").exists()


def test_relative_and_home_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    journal = open_journal(str(tmp_path.resolve() / "x.db"))
    for name in ("x.db", "./x.db", "sqlite:///x.db", "~/x.db", "sqlite:///~/x.db"):
        assert open_journal(name) is journal


def test_a_journal_is_handed_through():
    journal = MemoryJournal()
    assert open_journal(journal) is journal


NO_PLACES = ["", "  ", None, 3, b"x.db", ["x.db"], "a\0b", "~nobody-of-that-name/x.db", ":memory:"]
NO_URLS = ["sqlite://", "sqlite:///", "sqlite://x.db", "sqlite:///:memory:", "postgres://h/x", "file:///x.db"]


@pytest.mark.parametrize("db", [*NO_PLACES, *NO_URLS])
def test_what_names_no_place(db):
    with pytest.raises(InvalidOption) as caught:
        open_journal(db)
    assert caught.value.remedy


def test_a_password_is_not_shown():
    with pytest.raises(InvalidOption, match="there is no store for") as caught:
        open_journal("postgres://ann:hunter2@host:6379/0")
    assert "hunter2" not in str(caught.value)


def test_synchronous_is_full_or_normal(tmp_path):
    with pytest.raises(InvalidOption, match="'full' or 'normal'"):
        SqliteJournal(tmp_path / "a.db", synchronous="off; DROP TABLE runs")


async def test_a_closed_journal_is_replaced(tmp_path):
    first = open_journal(tmp_path / "a.db")
    _made.append(first)
    await first.setup()
    await first.close()
    second = open_journal(tmp_path / "a.db")
    assert second is not first
    assert open_journal(tmp_path / "a.db") is second
    with pytest.raises(StoreUnavailable, match="was closed"):
        await first.setup()


async def test_a_deleted_database_is_noticed_and_replaced(tmp_path):
    path = tmp_path / "a.db"
    first = open_journal(path)
    _made.append(first)
    await first.setup()
    run = await owned(first)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await first.put_step(sample_step(run))
    second = open_journal(path)
    _made.append(second)
    assert second is not first
    await second.setup()
    new = await owned(second)
    await second.put_step(sample_step(new))
    await first.close()
    assert await second.get_step("r", "load") == sample_step(new)
    assert not LockFile.shared(Path(f"{path}.lock")).is_deleted()
    await second.close()


def test_threads_get_one_journal(tmp_path):
    barrier, found = threading.Barrier(8), []

    def ask():
        barrier.wait()
        found.append(open_journal(tmp_path / "a.db"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_importing_stores_loads_no_driver():
    code = (
        "import sys, durable_nb.stores; print(*{'aiosqlite', 'redis', 'IPython', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# SQLite: files, header, migrations


async def test_nothing_but_setup_opens_it(tmp_path):
    journal = made(tmp_path / "a.db")
    for call in (journal.list_runs(), journal.open_run(Run("r", "w"))):
        with pytest.raises(StoreUnavailable, match="not open yet"):
            await call
    assert list(tmp_path.iterdir()) == []
    await asyncio.gather(journal.setup(), journal.setup())
    assert await journal.list_runs() == []
    await journal.close()


async def test_files_are_the_users_alone(tmp_path):
    before = os.umask(0)
    try:
        journal = made(tmp_path / "durable.db")
        await journal.setup()
        await owned(journal)
        digest = journal.blobs.put(b"x")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {
        "durable.db": 0o600,
        "durable.db-wal": 0o600,
        "durable.db-shm": 0o600,
        "durable.db.lock": 0o600,
        "durable.db.blobs": 0o700,
    }
    assert journal.blobs.path(digest).is_relative_to(tmp_path / "durable.db.blobs")
    await journal.close()


async def test_the_header_and_pragmas(journal):
    await owned(journal)
    reader = sqlite3.connect(journal.location)
    assert reader.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    assert reader.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
async def test_synchronous_reaches_sqlite(tmp_path, synchronous, level):
    journal = made(tmp_path / "a.db", synchronous=synchronous)
    await journal.setup()
    (outcome,) = await journal._read(("PRAGMA synchronous", ()))
    assert outcome.rows == [(level,)]
    await journal.close()


async def test_odd_file_names(tmp_path):
    for name in ("a b?x=1&mode=memory#f%41.db", "é☃.db", os.fsdecode(b"\xff.db")):
        journal = made(tmp_path / name)
        await journal.setup()
        run = await owned(journal)
        await journal.close()
        assert (tmp_path / name).stat().st_size > 0
        again = made(tmp_path / name)
        await again.setup()
        assert await again.get_run("r") == run
        await again.close()


async def test_an_empty_file_becomes_ours(tmp_path):
    (tmp_path / "a.db").touch()
    journal = made(tmp_path / "a.db")
    await journal.setup()
    assert (await owned(journal)).passes == 1
    await journal.close()


async def test_an_old_version_is_migrated(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    old = made(path)
    await old.setup()
    run = await owned(old)
    await old.close()
    half = (*schema.MIGRATIONS, ("CREATE TABLE half (x INTEGER) STRICT", "CREATE TABLE nonsense ("))
    good = (*schema.MIGRATIONS, ("CREATE TABLE more (x INTEGER) STRICT",))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    monkeypatch.setattr(schema, "MIGRATIONS", half)
    await refused(path)
    monkeypatch.setattr(schema, "MIGRATIONS", good)
    new = made(path)
    await new.setup()
    assert await new.get_run("r") == run
    await new.close()
    reader = sqlite3.connect(path)
    tables = {name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    ours = {"runs", "steps", "versions", "signals", "messages", "requests", "sessions", "meta"}
    assert tables == ours | {"sqlite_sequence", "more"}
    assert reader.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    reader.close()


def test_the_columns_are_those_of_the_rows():
    named_before = {
        "arguments_repr": "shown",
        "called_seq": "began",
        "recorded_seq": "recorded",
        "lineage": "reads",
        "usage": "used",
    }

    def columns(names):
        return ", ".join(named_before.get(name, name) for name in names)

    assert columns(rows.RUN_COLUMNS) == schema.RUN
    assert columns(rows.STEP_COLUMNS) == schema.STEP
    assert columns(rows.SIGNAL_COLUMNS) == schema.SIGNAL
    assert columns(rows.MESSAGE_COLUMNS) == schema.MESSAGE
    assert columns(rows.REQUEST_COLUMNS) == schema.REQUEST


# SQLite: what it refuses, and leaves as it was


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def test_a_newer_database_is_refused_by_name(tmp_path):
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path)
    writer.executescript(
        f"CREATE TABLE runs (x); PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 99"
    )
    writer.close()
    before = contents(tmp_path)
    kind, message = await refused(path)
    assert kind is StoreTooNew
    assert str(path) in message
    assert "99" in message
    assert f"ours is {schema.VERSION}" in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)",
        "PRAGMA application_id = 7; VACUUM",
        "PRAGMA journal_mode = wal; CREATE TABLE theirs (x)",
        "PRAGMA user_version = 3; VACUUM",
    ],
)
async def test_another_applications_database_is_left_alone(tmp_path, script):
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path)
    writer.executescript(script)
    writer.close()
    before = path.read_bytes()
    kind, message = await refused(path)
    assert kind is StoreUnreadable
    assert "another application" in message
    assert str(path) in message
    assert path.read_bytes() == before
    assert "a.db.lock" not in contents(tmp_path)


@pytest.mark.parametrize(
    "data", [b"x", b"hello, world\n" * 1000, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 9000]
)
async def test_a_file_that_is_no_database_is_left_alone(tmp_path, data):
    path = tmp_path / "a.db"
    path.write_bytes(data)
    kind, message = await refused(path)
    assert kind is StoreUnreadable
    assert str(path) in message
    assert contents(tmp_path) == {"a.db": data}


async def test_a_folder_and_a_missing_folder(tmp_path):
    kind, message = await refused(tmp_path)
    assert kind is StoreUnavailable
    assert "is a folder" in message
    kind, message = await refused(tmp_path / "none" / "a.db")
    assert kind is StoreUnavailable
    assert repr(str(tmp_path / "none")) in message
    assert list(tmp_path.iterdir()) == []


async def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    kind, _ = await refused(tmp_path / "file" / "a.db")
    assert kind is StoreUnavailable


async def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.db")
    kind, message = await asyncio.wait_for(refused(tmp_path / "a.db"), 5)
    assert kind is StoreUnavailable
    assert "a special file" in message


async def test_it_can_be_set_up_once_the_cause_is_gone(tmp_path):
    journal = made(tmp_path / "new" / "a.db")
    with pytest.raises(StoreUnavailable):
        await journal.setup()
    (tmp_path / "new").mkdir()
    await journal.setup()
    assert (await owned(journal)).passes == 1
    await journal.close()


@pytest.mark.parametrize(
    "changes",
    [{"attempt": 2**70}, {"code": "\ud800"}, {"called_seq": "three"}],
    ids=["too large", "lone surrogate", "wrong type"],
)
async def test_what_sqlite_cannot_hold_is_our_error_and_nobody_elses(journal, changes):
    run = await owned(journal)
    writes = [sample_step(run, f"s#{number}") for number in range(20)]
    writes[7] = sample_step(run, "poison", **changes)
    commits = journal.commits
    outcomes = await asyncio.gather(*map(journal.put_step, writes), return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if outcome] == [7]
    assert isinstance(outcomes[7], StoreError)
    assert "\n" not in str(outcomes[7])
    snapshot = await journal.read_run("r")
    assert {step.step_id for step in snapshot.steps} == {f"s#{number}" for number in range(20) if number != 7}
    assert journal.commits - commits <= 5  # halves, not twenty transactions


def test_every_failure_is_one_line_with_a_remedy():
    for error in (sqlite3.OperationalError("a\nb"), OSError(28, "No space left"), OverflowError("x")):
        ours = translated(error, Path("/x/a.db"))
        assert isinstance(ours, StoreError)
        assert "\n" not in str(ours)
        assert "/x/a.db" in str(ours)
        assert ours.remedy
    held = RunHeld("x")
    assert translated(held, Path("a.db")) is held


# SQLite: commits, reads, lifetime


async def test_one_commit_a_step_and_one_for_a_gather(journal):
    run = await owned(journal)
    assert (journal.commits, journal.selects) == (1, 1)
    for number in range(10):
        await journal.put_step(sample_step(run, f"s#{number}"))
    assert journal.commits == 11
    await asyncio.gather(*(journal.put_step(sample_step(run, f"g#{number}")) for number in range(1000)))
    assert journal.commits == 11 + 2  # the first at once, all others while it was under way
    snapshot = await journal.read_run("r")
    assert len(snapshot.steps) == 1010
    assert journal.selects == 2
    await journal.get_run("r")
    await journal.list_runs()
    assert journal.commits == 11 + 2


async def test_writes_that_arrive_during_a_commit_share_the_next(journal):
    run = await owned(journal)
    blocker = sqlite3.connect(journal.location, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    first = asyncio.create_task(journal.put_step(sample_step(run, "first")))
    await asyncio.sleep(0.1)
    others = [asyncio.create_task(journal.put_step(sample_step(run, f"s#{n}"))) for n in range(50)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in (first, *others))
    blocker.execute("COMMIT")
    blocker.close()
    await asyncio.gather(first, *others)
    assert journal.commits == 1 + 2


async def test_a_step_that_is_acknowledged_is_committed(journal):
    run = await owned(journal)
    reader = sqlite3.connect(journal.location)
    for number in range(20):
        await journal.put_step(sample_step(run, f"s#{number}"))
        assert reader.execute("SELECT count(*) FROM steps").fetchone() == (number + 1,)
    reader.close()


async def test_a_root_logger_at_debug_shows_no_statement(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    journal = made(tmp_path / "x.db")
    await journal.setup()
    await journal.open_run(Run("r", "w"))
    await journal.close()
    assert [record for record in caplog.records if record.name == "aiosqlite"] == []


async def test_close_commits_what_is_waiting(journal, tmp_path):
    run = await owned(journal)
    blocker = sqlite3.connect(journal.location, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    tasks = [asyncio.create_task(journal.put_step(sample_step(run, "under way")))]
    await asyncio.sleep(0.1)
    tasks += [asyncio.create_task(journal.put_step(sample_step(run, f"s#{n}"))) for n in range(99)]
    await asyncio.sleep(0)
    closing = asyncio.gather(journal.close(), journal.close())
    await asyncio.sleep(0.1)
    blocker.execute("COMMIT")
    blocker.close()
    await closing
    await asyncio.gather(*tasks)
    assert not list(tmp_path.glob("*-wal"))
    again = made(journal.location)
    await again.setup()
    assert len((await again.read_run("r")).steps) == 100


async def test_no_cursor_holds_the_log(journal):
    run = await owned(journal)
    await asyncio.gather(*(journal.put_step(sample_step(run, f"s#{n}")) for n in range(500)))
    await journal.read_run("r")
    await journal.list_runs()
    writer = sqlite3.connect(journal.location)
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    writer.close()


def test_it_serves_one_loop_after_another(tmp_path):
    journal = made(tmp_path / "a.db")
    asyncio.run(journal.setup())
    run = asyncio.run(owned(journal))
    asyncio.run(journal.put_step(sample_step(run)))
    assert asyncio.run(journal.get_step("r", "load")) == sample_step(run)
    asyncio.run(journal.close())


UNCLOSED = """
import asyncio, sys, threading
from durable_nb.records import Run
from durable_nb.stores import open_journal

async def main():
    journal = open_journal(sys.argv[1])
    await journal.setup()
    print((await journal.open_run(Run("r", "w"))).run.passes)

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(main(), loop).result()
"""


def test_a_script_that_never_closes_still_exits(tmp_path):
    command = [sys.executable, "-W", "error", "-c", UNCLOSED, str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# Where there is no write-ahead log


def test_without_shared_memory_it_warns_and_goes_on(tmp_path):
    connection = sqlite3.connect(f"{(tmp_path / 'a.db').as_uri()}?vfs=unix-dotfile", uri=True)
    with pytest.warns(DurableNotice, match="write-ahead log") as caught:
        set_journal_mode(connection, "wal", "a.db")
    assert len(caught) == 1
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


async def test_a_rollback_journal_keeps_the_promises_too(tmp_path, monkeypatch):
    monkeypatch.setattr("durable_nb.stores.sqlite.opening.on_network", lambda path: True)
    journal = made(tmp_path / "a.db")
    with pytest.warns(DurableNotice, match="network"):
        await journal.setup()
    run = await owned(journal)
    await journal.put_step(sample_step(run))
    assert not list(tmp_path.glob("*-wal"))
    assert await journal.get_step("r", "load") == sample_step(run)
    await journal.close()


def test_a_network_file_system_is_recognised(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"
        "2 1 0:44 / /home/my\\040dät rw - nfs4 server:/data rw\n"
        "3 2 0:45 / /home/my\\040dät/local rw shared:2 master:1 - xfs /dev/sdb rw\n"
    )
    found = {
        path: on_network(Path(path), mounts)
        for path in ("/x.db", "/home/my dät/x.db", "/home/my dät/local/x.db", "/home/my dätabase/x.db")
    }
    assert list(found.values()) == [False, True, False, False]
    assert not on_network(Path("/x.db"), tmp_path / "none")


# The lock file


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_one_descriptor_per_process_and_path(tmp_path):
    path = tmp_path / "a.lock"
    one, two = LockFile.shared(path), LockFile.shared(path)
    assert one is two
    before = open_files()
    with one.mutex(1.0):
        pass
    with two.mutex(1.0):
        assert open_files() == before + 1
    one.release()
    with two.mutex(1.0):
        pass
    two.release()
    assert open_files() == before


def test_the_mutex_keeps_threads_apart(tmp_path):
    lock, inside, worst = LockFile.shared(tmp_path / "a.lock"), [], []

    def work():
        for _ in range(50):
            with lock.mutex(10.0):
                inside.append(1)
                worst.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) == 200
    assert max(worst) == 1
    with lock.mutex(1.0), pytest.raises(StoreUnavailable, match=r"more than 0\.05 s"), lock.mutex(0.05):
        pytest.fail("held twice")
    lock.release()


def test_without_locks_between_processes_a_database_is_refused(tmp_path):
    script = """
import sys
sys.modules["fcntl"] = None
from durable_nb import InMemoryStore, Workflow

def main(db):
    with Workflow("w", db=db) as wf:
        work = wf.task(lambda: 7, name="work")
        return wf.workflow(id="r")(lambda: work())()

print(main(InMemoryStore()))
try:
    main("runs.db")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == "7"
    assert second == (
        "StoreUnavailable run 'r': cannot open 'runs.db': this platform lacks the POSIX file locks that "
        "protect its runs. Use WSL on Windows; to try things out, keep runs in memory: db=InMemoryStore()."
    )
    assert list(tmp_path.iterdir()) == []
