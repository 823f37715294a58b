"""SQLite under real faults: killed writers, held locks, full and read-only disks, damaged files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import pytest_asyncio

from durable_nb.errors import RunHeld, StoreError, StoreUnavailable, StoreUnreadable
from durable_nb.records import Payload, Run
from durable_nb.stores.blobs.folder import BlobFolder
from durable_nb.stores.sqlite.journal import SqliteJournal
from durable_nb.stores.testing import sample_step
from helpers import AT_ONCE

PRELUDE = """
import asyncio, os, resource, signal, sqlite3, sys, time
from durable_nb.errors import StoreError
from durable_nb.records import Payload, Run
from durable_nb.stores.sqlite import SqliteJournal
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.testing import sample_step
from pathlib import Path
path = sys.argv[1]

def say(*words):
    print(*words, flush=True)

async def opened(run_id, **options):
    journal = SqliteJournal(path, **options)
    await journal.setup()
    return journal, (await journal.open_run(Run(run_id, "w", owner=f"process {os.getpid()}"))).run
"""


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


@contextlib.contextmanager
def child(script, *arguments):
    """Another process; ended by its own id if it is still there."""
    command = [sys.executable, "-c", PRELUDE + script, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest_asyncio.fixture
async def journal(tmp_path):
    journal = made(tmp_path / "a.db", busy_timeout=0.2)
    await journal.setup()
    yield journal
    await journal.close()


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: mounting is not permitted here ({mounted.stderr.decode().strip()})")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def owned(journal, run_id="r"):
    return (await journal.open_run(Run(run_id, "w"))).run


def one_line(error, *words):
    message = str(error)
    assert "\n" not in message
    assert error.remedy
    for word in words:
        assert word in message
    return True


async def refusal(path, kind, run):
    """Why a database cannot be used to read a run and go on with it."""
    journal = made(path)

    async def use():
        await journal.setup()
        await journal.read_run(run.run_id)
        await journal.put_step(sample_step(run))

    with pytest.raises(kind) as caught:
        await use()
    await journal.close()
    return caught.value


# Killed writers

WRITER = """
async def branch(journal, run, name):
    for number in range(100_000):
        step_id = f"{name}#{number}"
        data = os.urandom(2000)
        await journal.put_step(sample_step(run, step_id, payload=Payload("raw", data)))
        say(step_id, data[:8].hex())

async def main():
    journal, run = await opened("r")
    await asyncio.gather(*(branch(journal, run, name) for name in "abcd"))

asyncio.run(main())
"""


async def test_what_was_acknowledged_before_kill_9_is_there(tmp_path):
    path, acknowledged = tmp_path / "a.db", {}
    for life in range(4):
        with child(WRITER, path) as process:
            for _ in range(50 + 40 * life):
                step_id, data = process.stdout.readline().split()
                acknowledged[step_id] = data
            process.send_signal(signal.SIGKILL)
            for line in process.stdout.read().split("\n")[:-1]:
                step_id, data = line.split()
                acknowledged[step_id] = data
        assert process.returncode == -signal.SIGKILL
        journal = made(path)
        await journal.setup()
        snapshot = await journal.read_run("r")
        present = {step.step_id: step.payload.data[:8].hex() for step in snapshot.steps}
        # An unacknowledged write may have come in after it; an acknowledged one may never be gone.
        assert acknowledged.keys() <= present.keys()
        assert snapshot.run.passes == life + 1
        last = {step_id: data for step_id, data in acknowledged.items() if present[step_id] != data}
        assert len(last) <= 4 * (life + 1)
        await journal.close()
        reader = sqlite3.connect(path)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        reader.close()


async def test_a_lock_ends_with_the_process_that_held_it(journal):
    holder = """
with LockFile.shared(Path(path + ".lock")).mutex(5.0):
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    say("held")
    time.sleep(60)
"""
    run = await owned(journal)
    with child(holder, journal.location) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreUnavailable, match="held the lock") as caught:
            await journal.put_step(sample_step(run))
        one_line(caught.value, journal.location)
        process.kill()
        process.wait()
        await journal.put_step(sample_step(run))
    assert await journal.get_step("r", "load") == sample_step(run)


# Locks

FOREIGN_LOCK = """
writer = sqlite3.connect(path, isolation_level=None)
writer.execute("BEGIN EXCLUSIVE")
say("held")
sys.stdin.readline()
writer.execute("ROLLBACK")
say("free")
sys.stdin.readline()
"""


async def test_a_database_that_another_program_holds(journal):
    run = await owned(journal)
    with child(FOREIGN_LOCK, journal.location) as process:
        assert process.stdout.readline() == "held\n"
        began = time.monotonic()
        writes = [journal.put_step(sample_step(run, f"s#{number}")) for number in range(50)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert time.monotonic() - began < AT_ONCE  # one wait for all of them
        assert all(type(outcome) is StoreUnavailable for outcome in outcomes)
        one_line(outcomes[0], journal.location, "locked")
        assert (await journal.get_run("r")) == run  # reading goes on
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"
        await journal.put_step(sample_step(run))
    assert [step.step_id for step in (await journal.read_run("r")).steps] == ["load"]


async def test_a_new_database_that_another_program_holds(tmp_path):
    path = tmp_path / "a.db"
    with child(FOREIGN_LOCK, path) as process:
        assert process.stdout.readline() == "held\n"
        journal = made(path, busy_timeout=0.1)
        with pytest.raises(StoreUnavailable, match="locked"):
            await journal.setup()
        process.kill()
        process.wait()
        await journal.setup()
    assert (await owned(journal)).passes == 1
    await journal.close()


# Many processes

HUNDRED = """
async def main():
    journal, run = await opened(sys.argv[2])
    for number in range(100):
        await journal.put_step(sample_step(run, f"s#{number}", recorded_seq=number))
    await journal.close()
    say("done", journal.commits)

asyncio.run(main())
"""


@pytest.mark.parametrize(("processes", "script"), [(4, HUNDRED), (8, HUNDRED.replace("100", "3"))])
async def test_processes_share_a_new_database(tmp_path, processes, script):
    path, wanted = tmp_path / "a.db", 100 if script is HUNDRED else 3
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(child(script, path, f"r{number}")) for number in range(processes)]
        for process in started:
            assert process.stdout.readline() == f"done {wanted + 1}\n"
            assert process.wait() == 0
    journal = made(path)
    await journal.setup()
    runs = await journal.list_runs()
    assert {run.run_id for run in runs} == {f"r{number}" for number in range(processes)}
    assert len({run.epoch for run in runs}) == processes
    for run in runs:
        snapshot = await journal.read_run(run.run_id)
        assert [step.step_id for step in snapshot.steps] == [f"s#{number}" for number in range(wanted)]
    await journal.close()


FIRSTS = """
from durable_nb.records import Signal
async def main(number):
    journal = SqliteJournal(f"{path}/{number}.db")
    await journal.setup()
    await journal.put_signal(Signal("r", sys.argv[2], Payload("raw", b"")))
    await journal.close()

say("ready")
start = float(sys.stdin.readline())
for number in range(150):
    time.sleep(max(0, start + number * 0.02 - time.time()))
    asyncio.run(main(number))
say("done")
"""


def test_processes_that_create_a_database_at_the_same_moment(tmp_path):
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(child(FIRSTS, tmp_path, number)) for number in range(5)]
        for process in started:
            assert process.stdout.readline() == "ready\n"
        for process in started:
            process.stdin.write(f"{time.time() + 0.1}\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in started] == ["done\n"] * 5
    for path in tmp_path.glob("*.db"):
        reader = sqlite3.connect(path)
        assert reader.execute("SELECT count(*) FROM signals").fetchone() == (5,)
        reader.close()


async def test_one_signal_delivered_by_many_processes(tmp_path):
    deliver = """
from durable_nb.records import Signal
async def main():
    journal = SqliteJournal(path)
    await journal.setup()
    say("ready")
    sys.stdin.readline()
    say(await journal.put_signal(Signal("r", "go", Payload("raw", sys.argv[2].encode()))))
    await journal.close()

asyncio.run(main())
"""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(child(deliver, tmp_path / "a.db", number)) for number in range(4)]
        for process in started:
            assert process.stdout.readline() == "ready\n"
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        won = [process.stdout.readline() for process in started]
    assert sorted(won) == ["False\n"] * 3 + ["True\n"]
    journal = made(tmp_path / "a.db")
    await journal.setup()
    assert (await journal.get_signal("r", "go")).payload.data == str(won.index("True\n")).encode()
    await journal.close()


async def test_a_run_opened_by_another_process_fences_this_one(journal):
    run = await owned(journal)
    await journal.put_step(sample_step(run, "mine"))
    take_over = """
async def main():
    journal = SqliteJournal(path)
    await journal.setup()
    opening = Run("r", "w", owner=f"process {os.getpid()}")
    run = (await journal.open_run(opening, take_over=True)).run
    await journal.put_step(sample_step(run, "theirs"))
    await journal.close()
    say(os.getpid())

asyncio.run(main())
"""
    with child(take_over, journal.location) as process:
        pid = process.stdout.readline().strip()
    for call in (journal.put_step(sample_step(run, "late")), journal.finish_run(run)):
        with pytest.raises(RunHeld, match=f"by process {pid}") as caught:
            await call
        one_line(caught.value)
    assert [step.step_id for step in (await journal.read_run("r")).steps] == ["mine", "theirs"]


# Full disks


async def fill(journal, run, size=20_000):
    """Write until the disk is full; gives what was acknowledged and the error."""
    written = {}
    for number in range(1000):
        step = sample_step(run, f"s#{number}", recorded_seq=number, payload=Payload("raw", os.urandom(size)))
        try:
            await journal.put_step(step)
        except StoreError as error:
            return written, error
        written[step.step_id] = step
    raise AssertionError("the disk was never full")


async def test_a_full_disk(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(300_000))
    journal = made(small_disk / "a.db")
    await journal.setup()
    run = await owned(journal)
    written, error = await fill(journal, run)
    assert type(error) is StoreUnavailable
    one_line(error, journal.location, "full", "Free some space")
    assert len(written) > 5
    assert {step.step_id: step for step in (await journal.read_run("r")).steps} == written
    ballast.unlink()
    after = sample_step(run, "after", recorded_seq=10_000)
    await journal.put_step(after)
    await journal.close()
    again = made(small_disk / "a.db")
    await again.setup()
    assert {step.step_id: step for step in (await again.read_run("r")).steps} == written | {"after": after}
    await again.close()


async def test_on_a_full_disk_what_still_fits_is_written(small_disk):
    journal = made(small_disk / "a.db")
    await journal.setup()
    run = await owned(journal)
    large = sample_step(run, "large", payload=Payload("raw", os.urandom(2_000_000)))
    small = [sample_step(run, f"s#{number}") for number in range(10)]
    outcomes = await asyncio.gather(*map(journal.put_step, [large, *small]), return_exceptions=True)
    assert type(outcomes[0]) is StoreUnavailable
    assert outcomes[1:] == [None] * 10
    assert list((await journal.read_run("r")).steps) == small
    await journal.close()


async def test_a_disk_that_is_full_from_the_start(small_disk):
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    journal = made(small_disk / "a.db")
    with pytest.raises(StoreUnavailable) as caught:
        await journal.setup()
    one_line(caught.value, journal.location)
    (small_disk / "ballast").unlink()
    await journal.setup()
    assert (await owned(journal)).passes == 1
    await journal.close()


@pytest.mark.parametrize("parts", [False, True])
def test_blobs_on_a_full_disk(small_disk, parts):
    blobs = BlobFolder(small_disk / "blobs")
    kept = blobs.put(b"small")
    data = os.urandom(2_000_000)
    with pytest.raises(StoreUnavailable) as caught:
        blobs.put([data] if parts else data)
    one_line(caught.value, str(blobs.folder), "No space left")
    assert [path.name for path in blobs.folder.rglob("*") if path.is_file()] == [kept]
    assert blobs.get(kept) == b"small"


LIMITED = """
async def main():
    journal, run = await opened("r")
    await journal.put_step(sample_step(run, "before"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        await journal.put_step(sample_step(run, "large", payload=Payload("raw", bytes(500_000))))
    except StoreError as error:
        say(type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await journal.put_step(sample_step(run, "after"))
    say(*[step.step_id for step in (await journal.read_run("r")).steps])
    await journal.close()

asyncio.run(main())
"""


def test_a_file_that_may_not_grow(tmp_path):
    with child(LIMITED, tmp_path / "a.db") as process:
        refusal, steps = process.stdout.readline(), process.stdout.readline()
        assert process.wait() == 0
    assert refusal.startswith("StoreUnavailable ")
    assert str(tmp_path / "a.db") in refusal
    assert steps == "after before\n"


# Read-only places


async def test_a_read_only_disk(small_disk):
    path = small_disk / "a.db"
    first = made(path)
    await first.setup()
    run = await owned(first)
    await first.close()
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("a.db", "new.db"):
        one_line(await refusal(small_disk / name, StoreUnavailable, run), str(small_disk / name))
    with pytest.raises(StoreUnavailable, match="Read-only"):
        BlobFolder(small_disk / "blobs").put(b"x")


NOT_ALLOWED = """
async def warm_up():  # imports all that it takes: under another user this Python may be out of reach
    import tempfile
    with tempfile.TemporaryDirectory() as place:
        journal = SqliteJournal(Path(place) / "a.db")
        await journal.setup()
        await journal.open_run(Run("r", "w"))
        await journal.close()
        try:
            await SqliteJournal(place).setup()
        except StoreError:
            pass

asyncio.run(warm_up())
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    try:
        journal = SqliteJournal(path)
        await journal.setup()
        run = (await journal.open_run(Run("r", "w"))).run
        say("written")
    except StoreError as error:
        say(type(error).__name__, error)
    await journal.close()

asyncio.run(main())
"""


@pytest.fixture
def open_place():
    """A folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.mark.parametrize(
    ("file", "folder"), [(0o000, 0o777), (0o444, 0o777), (0o444, 0o555), (0o666, 0o555), (None, 0o555)]
)
async def test_files_and_folders_of_somebody_else(open_place, file, folder):
    place, path = open_place, open_place / "a.db"
    if file is not None:
        journal = made(path)
        await journal.setup()
        await owned(journal, "theirs")
        await journal.close()
        (place / "a.db.lock").unlink()
        path.chmod(file)
    place.chmod(folder)
    before = path.read_bytes() if file is not None else None
    with child(NOT_ALLOWED, path) as process:
        said = process.stdout.readline()
    place.chmod(0o755)
    assert said.startswith("StoreUnavailable ")
    assert str(path) in said
    assert (path.read_bytes() if path.exists() else None) == before


# Damaged files


@pytest.mark.parametrize("keep", [1, 3])
async def test_damaged_pages_are_said_and_never_a_bare_error(tmp_path, keep):
    path = tmp_path / "a.db"
    journal = made(path)
    await journal.setup()
    run = await owned(journal)
    steps = [sample_step(run, f"s#{number}", arguments_repr="x" * 500) for number in range(300)]
    await asyncio.gather(*map(journal.put_step, steps))
    await journal.close()
    data = bytearray(path.read_bytes())
    data[keep * 4096 :] = os.urandom(len(data) - keep * 4096)
    path.write_bytes(data)
    one_line(await refusal(path, StoreUnreadable, run), str(path), "damaged", ".recover")


async def test_a_truncated_database(tmp_path):
    path = tmp_path / "a.db"
    journal = made(path)
    await journal.setup()
    run = await owned(journal)
    await asyncio.gather(
        *(journal.put_step(sample_step(run, f"s#{n}", arguments_repr="x" * 500)) for n in range(300))
    )
    await journal.close()
    os.truncate(path, path.stat().st_size // 2)
    one_line(await refusal(path, StoreUnreadable, run), str(path))
