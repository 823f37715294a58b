"""What people do to the files of a database, while a run is open and between runs: no loss is silent."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from durable_nb import Workflow
from durable_nb.cli import main as command
from durable_nb.errors import StoreError, StoreUnavailable, StoreUnreadable
from durable_nb.records import Run
from durable_nb.stores.sqlite.journal import SqliteJournal
from helpers.unfinished import leave_unfinished

PROGRAM = """
import os, shutil, sqlite3, subprocess, sys
from pathlib import Path
import durable_nb.cli
from durable_nb import Workflow

db, which, deed = sys.argv[1:]
wal, lock = Path(db + "-wal"), Path(db + ".lock")
wf = Workflow("o", db=db)

def others(program):
    subprocess.run([sys.executable, "-c", program, db], check=True, stdout=subprocess.DEVNULL)

def other_closes():
    others("import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
           "c.execute('SELECT count(*) FROM runs').fetchone(); c.close()")

def overwrite(data, at=0):
    with wal.open("r+b") as file:
        file.seek(at)
        file.write(data)

@wf.task(once=True)
def pay(i):
    print("PAID", i, flush=True)
    return i

@wf.workflow
def flow():
    for i in range(12):
        pay(i)
        print("KEPT", i, flush=True)
        if which == "first" and i == 4:
            exec(deed)
        if which == "first" and i == 9:
            os._exit(9)
    return "done"

print(flow.run("r"))
"""

DEEDS = {
    "nothing": "pass",
    "read and closed by another": "open(db, 'rb').read(); other_closes()",
    "archived and closed by another": (
        "shutil.make_archive(db + '-archive', 'tar', Path(db).parent, 'x.db'); other_closes()"
    ),
    "copied with its folder and closed by another": (
        "shutil.copytree(Path(db).parent, Path(db).parent.with_name('copied')); other_closes()"
    ),
    "read and trusted by another": (
        "open(db, 'rb').read();"
        "others('import sys, durable_nb.cli; durable_nb.cli.main([\\'trust\\', sys.argv[1]])')"
    ),
    "lock file read": "lock.read_bytes(); other_closes()",
    "connected and closed by itself": "c = sqlite3.connect(db); c.execute('SELECT 1 FROM runs'); c.close()",
    "log deleted": "wal.unlink()",
    "log emptied": "os.truncate(wal, 0)",
    "log truncated": "os.truncate(wal, wal.stat().st_size // 2)",
    "log zeroed": "overwrite(bytes(wal.stat().st_size))",
    "head of the log flipped": "overwrite(b'\\xff' * 8, at=16)",
    "log and index deleted": "wal.unlink(); Path(db + '-shm').unlink()",
    "index deleted": "Path(db + '-shm').unlink()",
    "lock deleted": "lock.unlink()",
    "lock replaced": "lock.write_bytes(lock.read_bytes()); os.replace(shutil.copy(lock, db + '-l'), lock)",
    "log and lock deleted": "wal.unlink(); lock.unlink()",
    "replaced by a copy": (
        "c = sqlite3.connect(db); c.execute('PRAGMA wal_checkpoint'); c.close();"
        "os.replace(shutil.copy(db, db + '-copy'), db)"
    ),
    "all of it moved away and back": (
        "files = [each for each in Path(db).parent.glob('x.db*') if each.is_file()];"
        "[each.rename(str(each) + '~') for each in files];"
        "[Path(str(each) + '~').rename(each) for each in files]"
    ),
}
"""What happens to the files while a run is open, after which it goes on and is killed."""

LOSSES = {
    "database deleted": "os.unlink(db)",
    "database and log deleted": "os.unlink(db); wal.unlink()",
    "all deleted but for the lock": "[each.unlink() for each in Path(db).parent.iterdir() if each != lock]",
    "replaced by another database": (
        "other = Workflow('other', db=db + '-other');"
        "other.sync.complete('r', 'signal'); other.close(); os.replace(db + '-other', db)"
    ),
    "replaced by an empty file": "Path(db + '-new').touch(); os.replace(db + '-new', db)",
    "overwritten with zeros": "Path(db).write_bytes(bytes(8192)); wal.unlink()",
}
"""What leaves nothing that the run could go on with."""


def executed(db, which, deed="pass"):
    """Execute the program, and return what it printed, by first word, and what it said."""
    command = [sys.executable, "-c", PROGRAM, str(db), which, deed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    words = {word: [int(rest[0]) for first, *rest in lines if first == word] for word in ("PAID", "KEPT")}
    return words["PAID"], words["KEPT"], done


@pytest.mark.parametrize("deed", DEEDS)
def test_what_was_acknowledged_is_kept_or_written_again(tmp_path, deed):
    db = tmp_path / "live" / "x.db"
    db.parent.mkdir()
    paid, kept, first = executed(db, "first", DEEDS[deed])
    assert first.returncode == 9, first.stderr
    assert paid == kept == list(range(10))
    again, kept, second = executed(db, "resume")
    assert second.returncode == 0, second.stderr
    assert again == [10, 11], first.stderr
    assert kept == list(range(12))


@pytest.mark.parametrize("deed", ["log deleted", "log emptied", "lock deleted", "replaced by a copy"])
def test_a_notice_says_what_happened_and_what_was_written_again(tmp_path, deed):
    _, _, done = executed(tmp_path / "x.db", "first", DEEDS[deed])
    name = {"lock deleted": "x.db.lock", "replaced by a copy": "x.db"}.get(deed, "x.db-wal")
    assert f"{name}' was" in done.stderr
    assert "was made again" in done.stderr or "written again (run 'r')" in done.stderr
    assert done.stderr.count("while in use") == 1


@pytest.mark.parametrize("deed", LOSSES)
def test_a_run_that_lost_its_database_stops_with_an_error_and_so_does_the_next(tmp_path, deed):
    db = tmp_path / "x.db"
    paid, kept, first = executed(db, "first", LOSSES[deed])
    assert first.returncode == 1
    assert re.search(r"errors.StoreUn\w+: run 'r', step 'pay#5': '.*/x.db'", first.stderr), first.stderr
    assert kept == list(range(5)), "nothing is acknowledged after the loss"
    assert set(paid) <= set(range(6))
    again, kept, second = executed(db, "resume")
    assert second.returncode == 1, second.stdout
    assert again == kept == []
    assert "StoreUnreadable" in second.stderr


# A database between two runs


@pytest.fixture
def flow(tmp_path):
    """A function that executes a run of seven steps on a database, and returns which bodies it executed."""
    opened = []

    def execute(db=tmp_path / "x.db", run_id="r", steps=7):
        ran, wf = [], Workflow("w", db=db)
        opened.append(wf)

        @wf.task(retries=0)
        def work(n):
            ran.append(n)
            return str(n) * (400_000 if n == 3 else 1)

        @wf.workflow
        def main():
            return sum(len(work(n)) for n in range(steps))

        try:
            assert main.run(run_id) >= steps
        finally:
            wf.close()
        return ran

    yield execute
    for wf in opened:
        wf.close()


def killed(db):
    """Leave a database as a process that was killed half-way leaves it, with everything in its log."""
    _, _, done = executed(db, "first")
    assert done.returncode == 9
    assert Path(f"{db}-wal").stat().st_size


def alone(db, place):
    """Copy the file of a database alone; return the number of steps in the copy."""
    place.mkdir()
    copy = place / "x.db"
    copy.write_bytes(db.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        return connection.execute("SELECT count(*) FROM steps WHERE status = 'done'").fetchone()[0]


ENDS = {
    "run's end": "flow.run('r'); print('ready', flush=True); sys.stdin.read()",
    "close": "flow.run('r'); wf.close(); print('ready', flush=True); sys.stdin.read()",
    "pause": "pausing = True; flow.run('r')",
    "exit": "flow.run('r'); print('ready', flush=True)",
    "exit with an error": "flow.run('r'); print('ready', flush=True); sys.exit('wrong')",
    "interpreter's exit in an open run": "stopping = True; flow.run('r')",
}
ENDING = """
import sys, time
from durable_nb import Workflow
wf, pausing, stopping = Workflow("o", db=sys.argv[1]), False, False

@wf.task
def work(n):
    return n

@wf.workflow
def flow():
    for n in range(5):
        work(n)
    if pausing:
        print("ready", flush=True)
        sys.stdin.read()
    if stopping:
        print("ready", flush=True)
        raise SystemExit

"""


@pytest.mark.parametrize("end", ENDS)
def test_a_file_is_whole_by_itself(tmp_path, end):
    db = tmp_path / "x.db"
    program = [sys.executable, "-c", ENDING + ENDS[end], db]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            if "exit" in end:
                process.wait(60)
            deadline = 300
            while Path(f"{db}-wal").exists() and Path(f"{db}-wal").stat().st_size and deadline:
                deadline -= 1
                signal.sigtimedwait([], 0.1)
            assert alone(db, tmp_path / "copy") == 5
        finally:
            process.stdin.close()


@contextmanager
def changed(db):
    files = {each: each.read_bytes() for each in db.parent.rglob("*") if each.is_file()}
    yield
    now = {each: each.read_bytes() for each in db.parent.rglob("*") if each.is_file()}
    kept = {each: data for each, data in files.items() if not each.name.endswith(("-shm", ".lock"))}
    assert {each: now.get(each) for each in kept} == kept, "an error leaves the files as they are"


AFTER_AN_END = {
    "deleted": lambda db: db.unlink(),
    "emptied": lambda db: os.truncate(db, 0),
    "zeroed": lambda db: db.write_bytes(bytes(db.stat().st_size)),
    "truncated": lambda db: os.truncate(db, db.stat().st_size // 2),
    "a byte": lambda db: os.truncate(db, 1),
    "deleted, and its lock": lambda db: (db.unlink(), Path(f"{db}.lock").unlink()),
}


@pytest.mark.parametrize("loss", AFTER_AN_END)
def test_a_lost_database_is_no_new_one(tmp_path, flow, loss):
    db = tmp_path / "x.db"
    assert flow() == list(range(7))
    AFTER_AN_END[loss](db)
    with changed(db), pytest.raises(StoreUnreadable) as caught:
        flow()
    assert "x.db" in str(caught.value)
    assert caught.value.remedy


LOGS = {
    "deleted": lambda log: log.unlink(),
    "emptied": lambda log: os.truncate(log, 0),
    "truncated": lambda log: os.truncate(log, log.stat().st_size // 2),
    "zeroed": lambda log: log.write_bytes(bytes(log.stat().st_size)),
    "flipped": lambda log: log.write_bytes(bytes([log.read_bytes()[0] ^ 1]) + log.read_bytes()[1:]),
    "flipped at its end": lambda log: log.write_bytes(
        log.read_bytes()[:-3000] + b"\xa5" + log.read_bytes()[-2999:]
    ),
    "deleted, and the database": lambda log: (log.unlink(), log.with_name("x.db").unlink()),
    "left alone, and the database deleted": lambda log: log.with_name("x.db").unlink(),
    "left alone, and the database emptied": lambda log: os.truncate(log.with_name("x.db"), 0),
    "left alone, and the database zeroed": lambda log: log.with_name("x.db").write_bytes(bytes(4096)),
}


@pytest.mark.parametrize("loss", LOGS)
def test_a_lost_log_is_named_with_what_is_still_there_and_what_to_type(tmp_path, loss):
    db = tmp_path / "x.db"
    killed(db)
    LOGS[loss](Path(f"{db}-wal"))
    with changed(db):
        again, _, done = executed(db, "resume")
    assert again == []
    assert "StoreUnreadable" in done.stderr
    assert f"durable-nb check {db} --accept" in done.stderr.splitlines()[-1]
    assert command(["check", str(db), "--accept"]) == 0
    _, kept, done = executed(db, "resume")
    assert kept == list(range(12)) or "StepInDoubt" in done.stderr


@pytest.mark.parametrize("lock", ["kept", "lost"])
def test_an_older_log_beside_a_newer_file(tmp_path, lock):
    db = tmp_path / "x.db"
    deed = (
        "Path(db + '-older').write_bytes(wal.read_bytes());"
        "c = sqlite3.connect(db); c.execute('PRAGMA wal_checkpoint(TRUNCATE)'); c.close()"
    )
    assert executed(db, "first", deed)[2].returncode == 9
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    Path(f"{db}-older").replace(f"{db}-wal")
    if lock == "lost":
        Path(f"{db}.lock").unlink()
    with changed(db):
        again, _, done = executed(db, "resume")
    assert again == []
    assert "does not fit the write-ahead log beside it" in done.stderr
    assert command(["check", str(db), "--accept"]) == 0
    again, _, done = executed(db, "resume")
    assert again == [10, 11], done.stderr


@pytest.mark.parametrize("lock", ["kept", "lost"])
def test_an_older_file_beside_a_newer_log(tmp_path, lock):
    db = tmp_path / "x.db"
    deed = (
        "Path(db + '-older').write_bytes(Path(db).read_bytes());"
        "c = sqlite3.connect(db); c.execute('PRAGMA wal_checkpoint(TRUNCATE)'); c.close()"
    )
    assert executed(db, "first", deed)[2].returncode == 9
    Path(f"{db}-older").replace(db)
    if lock == "lost":
        Path(f"{db}.lock").unlink()
    with changed(db):
        again, _, done = executed(db, "resume")
    assert again == []
    assert "does not fit the write-ahead log beside it" in done.stderr
    assert command(["check", str(db), "--accept"]) == 0
    _, kept, done = executed(db, "resume")
    assert kept == list(range(12)), done.stderr


def test_an_older_copy_is_named_and_can_be_accepted(tmp_path, flow, capsys):
    db = tmp_path / "x.db"
    flow(steps=3)
    with Workflow("w", db=db) as wf:
        leave_unfinished(wf)
    older = db.read_bytes()
    assert flow(steps=7) == [3, 4, 5, 6]
    db.write_bytes(older)
    with pytest.raises(StoreUnreadable, match=r"has lost the last [\d,]+ of its [\d,]+ commits") as caught:
        flow()
    assert f"durable-nb check {db} --accept" in str(caught.value)
    command(["check", str(db)])
    assert "has lost the last" in capsys.readouterr().out
    assert command(["check", str(db), "--accept"]) == 0
    assert "accepted" in capsys.readouterr().out
    assert flow() == [3, 4, 5, 6]


def test_after_all_files_are_deleted_the_path_holds_a_new_database(tmp_path, flow):
    flow()
    subprocess.run(f"rm -r {tmp_path}/x.db*", shell=True, check=True)
    assert flow() == list(range(7))


@pytest.mark.parametrize("kept", ["x.db.lock", "x.db.blobs"])
def test_after_some_are_deleted_a_new_one_is_begun_only_if_it_is_accepted(tmp_path, flow, kept, capsys):
    db = tmp_path / "x.db"
    flow()
    for file in tmp_path.iterdir():
        if file.name != kept:
            subprocess.run(["rm", "-r", file], check=True)
    with pytest.raises(StoreUnreadable, match="is missing") as caught:
        flow()
    assert f"durable-nb check {db} --accept" in str(caught.value)
    assert command(["check", str(db), "--accept"]) == 0
    assert flow() == list(range(7))


def test_a_copy_of_the_file_alone_after_a_run_is_the_database(tmp_path, flow):
    flow(steps=3)
    (tmp_path / "sent").mkdir()
    copy = tmp_path / "sent" / "y.db"
    copy.write_bytes((tmp_path / "x.db").read_bytes())
    assert flow(copy, steps=3) == []


# Names and locks


def test_a_copy_of_the_file_alone_in_mid_run_is_named_and_can_be_accepted(tmp_path, capsys):
    place = tmp_path / "copy"
    place.mkdir()
    with Workflow("o", db=tmp_path / "x.db") as wf:

        @wf.task
        def work(n):
            if n == 2:
                shutil.copy(tmp_path / "x.db", place)
            return n

        wf.workflow(lambda: [work(n) for n in range(4)]).run("r")

    def resumed():
        with Workflow("o", db=place / "x.db") as wf:
            ran = []
            task = wf.task(name="work")(lambda n: ran.append(n) or n)
            wf.workflow(lambda: [task(n) for n in range(4)]).run("r")
            return ran

    with pytest.raises(StoreUnreadable, match="was copied while it was in use, without its write-ahead log"):
        resumed()
    assert command(["check", str(place / "x.db"), "--accept"]) == 0
    assert resumed() == [0, 1, 2, 3]


def test_a_killed_run_needs_no_lock_file(tmp_path):
    db = tmp_path / "x.db"
    executed(db, "first")
    (tmp_path / "x.db.lock").unlink()
    paid, kept, _ = executed(db, "resume")
    assert (paid, kept) == ([10, 11], list(range(12)))


def test_a_file_with_two_names_is_refused_under_both(tmp_path, flow):
    flow()
    db, second = tmp_path / "x.db", tmp_path / "y.db"
    second.hardlink_to(db)
    for path in (db, second):
        with pytest.raises(StoreUnavailable, match="2 names"):
            flow(path)
    second.unlink()
    assert flow() == []


def test_a_second_name_given_to_an_open_database_is_refused(tmp_path):
    db = tmp_path / "x.db"
    deed = "os.link(db, db + '2'); print(subprocess.run([sys.executable, '-c', open(db + '.py').read(), "
    deed += "db + '2', 'resume', ''], capture_output=True, text=True).stderr, file=sys.stderr)"
    Path(f"{db}.py").write_text(PROGRAM)
    _, _, done = executed(db, "first", deed)
    assert "2 names" in done.stderr


OWNER = """
import sys
from durable_nb import Workflow
wf = Workflow("w", db=sys.argv[1])

@wf.task
def work(n):
    print("ran", n, flush=True)
    return n

@wf.workflow
def flow():
    work(0)
    sys.stdin.readline()
    work(1)

flow.run("r")
"""


@contextmanager
def owner(db):
    """A living process that owns the run 'r', and has executed one step of two."""
    program = [sys.executable, "-c", OWNER, db]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(program, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ran 0\n"
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: locks of descriptors are Linux's")
@pytest.mark.parametrize("deed", ["deleted", "replaced"])
def test_without_its_lock_file_a_living_owner_keeps_its_run(tmp_path, deed):
    db = tmp_path / "x.db"
    with owner(db) as process:
        Path(f"{db}.lock").unlink()
        if deed == "replaced":
            Path(f"{db}.lock").touch()
        rival = subprocess.run([sys.executable, "-c", OWNER, db], capture_output=True, text=True)
        assert "RunHeld" in rival.stderr
        assert "ran" not in rival.stdout
        out, err = process.communicate("\n", 60)
        assert process.returncode == 0, err
        assert out == "ran 1\n"


def test_a_lock_file_that_is_a_link_is_refused_and_nothing_is_made(tmp_path, flow):
    target = tmp_path / "target"
    (tmp_path / "x.db.lock").symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        flow()
    assert not target.exists()


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a+b")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_stopped_process_that_holds_the_mutex_is_named(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr("durable_nb.settings.LOCK_NOTICE", 0.1)
    journal = SqliteJournal(tmp_path / "x.db", busy_timeout=0.5)
    await journal.setup()
    program = [sys.executable, "-c", HOLDER, tmp_path / "x.db.lock"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable, match=f"process {process.pid} .*held the lock"):
                await journal.open_run(Run("r", "w"))
        finally:
            process.kill()
    assert (await journal.open_run(Run("r", "w"))).run.run_id == "r"
    await journal.close()
    assert any("holds the lock" in str(each.message) for each in recwarn)
