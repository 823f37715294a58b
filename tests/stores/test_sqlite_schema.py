"""What other programs put into a database: refused by name, read within a limit, and never executed."""

import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from durable_nb import Workflow
from durable_nb.cli import main as command
from durable_nb.errors import StoreUnreadable
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.guard import check_schema

FOREIGN = {
    "the trigger 'forget'": (
        "CREATE TRIGGER forget AFTER INSERT ON steps BEGIN DELETE FROM steps WHERE step_id = NEW.step_id; END"
    ),
    "the trigger 'ignore'": ("CREATE TRIGGER ignore BEFORE UPDATE ON runs BEGIN SELECT RAISE(IGNORE); END"),
    "the view 'endless'": (
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n"
    ),
    "the altered table 'steps'": "ALTER TABLE steps ADD COLUMN extra TEXT DEFAULT 'x'",
    "the missing table 'signals'": "DROP TABLE signals",
    "the index 'by_status'": "CREATE INDEX by_status ON steps (status)",
}


@pytest.fixture
def db(tmp_path):
    """A database with a finished run."""
    db = tmp_path / "x.db"
    assert executed(db) == [0, 1, 2]
    return db


def executed(db):
    ran = []
    with Workflow("w", db=db) as wf:

        @wf.task(retries=0)
        def work(n):
            ran.append(n)
            return n

        @wf.workflow
        def main():
            return [work(n) for n in range(3)]

        assert main.run("r") == [0, 1, 2]
    return ran


def change(db, *statements):
    with closing(sqlite3.connect(db)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("what", FOREIGN)
def test_what_another_program_added_or_altered_is_refused_by_name(db, what, capsys):
    change(db, FOREIGN[what])
    with pytest.raises(StoreUnreadable, match="is not as durable_nb made it") as caught:
        executed(db)
    assert what in str(caught.value)
    assert command(["runs", "--db", str(db)]) != 0
    assert what in capsys.readouterr().err


def test_a_table_that_is_replaced_by_an_endless_view_is_not_read(db, capsys):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS run_id FROM n"
    change(db, "ALTER TABLE runs RENAME TO others", f"CREATE VIEW runs AS {endless}")
    assert command(["runs", "--db", str(db)]) != 0
    assert "the view 'runs'" in capsys.readouterr().err


def test_a_table_of_another_program_is_left_alone(db):
    change(db, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('kept')")
    assert executed(db) == []
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("kept",)]


LIMITED = """
import resource, sys
from durable_nb import Workflow
wf = Workflow("w", db=sys.argv[1])
opened = []

@wf.task(retries=0)
def work(n):
    if n == 2:
        while True:
            try:
                opened.append(open("/dev/null"))
            except OSError:
                break
    return bytes(400_000) if n == 2 else n

@wf.workflow
def main():
    return [work(n) for n in range(4)]

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    main.run("r")
finally:
    del opened[:]
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_NOFILE"), reason="NOT TESTED: no limit of descriptors")
def test_out_of_descriptors_the_error_is_that(tmp_path):
    program = [sys.executable, "-c", LIMITED, tmp_path / "x.db"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert "durable_nb.errors.Store" in done.stderr, done.stderr
    assert "Too many open files" in done.stderr
    assert "step 'work#2'" in done.stderr, last
    assert "ImportError" not in done.stderr


SHORT = """
import resource, sys
from durable_nb import Workflow
wf = Workflow("w", db=sys.argv[1])

class Kept:
    def __init__(self):
        self.lines = [str(n) for n in range(500_000)]

def limited():
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 20_000_000, resource.RLIM_INFINITY))

@wf.task
def large():
    value = {"text": lambda: "x" * 100_000_000, "object": Kept}[sys.argv[2]]()
    limited()
    return value

@wf.workflow
def main():
    return large()

main.run("r")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: no limit of a process's memory")
@pytest.mark.parametrize("kind", ["text", "object"])
def test_out_of_memory_the_error_is_that(tmp_path, kind):
    program = [sys.executable, "-c", SHORT, tmp_path / "x.db", kind]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("durable_nb.errors.StepNotSaved: run 'r', step 'large': cannot save"), last
    assert "there is not enough memory to save it. Free memory or return less" in last


def test_tables_that_another_process_is_making_are_not_foreign(tmp_path):
    for number in range(40):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as maker:
            maker.execute("PRAGMA journal_mode = WAL")
            made = threading.Thread(target=schema.migrate, args=(maker, str(path)))
            made.start()
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                while made.is_alive():
                    check_schema(reader, str(path))
            made.join()
