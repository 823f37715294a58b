"""What `durable-nb forget` takes out of a database is in none of its files, and nothing else is touched."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from durable_nb import Workflow
from durable_nb.cli import main
from durable_nb.errors import StepNotRestored

CANARY = "canary-5f1d"
LARGE = f"{CANARY} " * 40_000


class Opaque:
    def __init__(self, text):
        self.text = text


class Program:
    """A workflow that keeps a canary in every way, and the bodies that it executed."""

    def __init__(self, db):
        self.ran = []
        self.wf = wf = Workflow("shop", db=str(db))
        ran = self.ran

        @wf.task
        def plain(text):
            ran.append("plain")
            return {"key": text}

        @wf.task
        def pickled(text):
            ran.append("pickled")
            return Opaque(text)

        @wf.task
        def large(text):
            ran.append("large")
            return text * 40_000

        @wf.task(retries=0)
        def failing(text):
            ran.append("failing")
            raise ValueError(text)

        @wf.task
        def other():
            ran.append("other")
            return "kept " * 100_000

        @wf.workflow
        def main(text):
            found = [plain(text), pickled(text).text, large(f"{text} "), len(other())]
            try:
                failing(text)
            except ValueError as error:
                found.append(str(error))
            return [*found, wf.sync.signal("go", timeout=0.1, default="no")]

        self.main = main

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wf.close()


def traces(db, word=CANARY):
    """The files of a database in which a word stands."""
    files = [path for path in db.parent.rglob("*") if path.is_file()]
    return sorted({path.name[:12] for path in files if word.encode() in path.read_bytes()})


@pytest.fixture
def db(tmp_path):
    """A database with two runs, one of them with a canary in every way, and in an earlier result."""
    path = tmp_path / "runs.db"
    with Program(path) as program:
        program.wf.sync.complete("r", "go", CANARY)
        program.main.run("r", CANARY)
        program.wf.sync.resolve("r", "plain", "rerun")
        program.main.run("r", CANARY)
        program.main.run("kept", "harmless")
    assert "runs.db" in traces(path)
    assert len(traces(path)) > 1  # and a blob
    return path


def whole(db):
    """Whether a database passes its checks, and its other run replays."""
    assert main(["check", str(db)]) == 0
    with Program(db) as program:
        assert program.main.run("kept", "harmless")[0] == {"key": "harmless"}
    return program.ran == []


def test_a_run_is_gone_for_good(db, capsys):
    assert main(["forget", str(db), "--run", "r", "--yes"]) == 0
    assert capsys.readouterr().out == (
        "forgot run 'r': 6 steps, 1 earlier result, 1 signal\ndeleted 2 large values\n"
    )
    assert traces(db) == []
    assert whole(db)
    assert main(["status", "r", "--db", str(db)]) == 1
    with Program(db) as program:
        program.main.run("r", CANARY)
    assert len(program.ran) == 5


def test_values_are_gone_for_good_and_no_step_runs_again_for_it(db):
    assert main(["forget", str(db), "--run", "r", "--value", "--yes"]) == 0
    assert traces(db) == []
    assert whole(db)
    with Program(db) as program:
        with pytest.raises(StepNotRestored, match="its value was removed for good"):
            program.main.run("r", CANARY)
        assert program.ran == []
        program.wf.sync.resolve("r", "plain", "rerun")
        with pytest.raises(StepNotRestored, match="'pickled'"):
            program.main.run("r", CANARY)
    assert program.ran == ["plain"]


@pytest.mark.parametrize("step", ["pickled", "large", "failing", "signal:go"])
def test_the_value_of_one_step(db, step):
    assert main(["forget", str(db), "--run", "r", "--step", step, "--value", "--yes"]) == 0
    assert whole(db)
    with Program(db) as program:
        assert program.main.run("r", CANARY)[0] == {"key": CANARY}  # the run's own result is still there
        assert program.ran == []
        program.wf.sync.resolve("r", "plain", "rerun")  # the run is entered again
    with Program(db) as program, pytest.raises(StepNotRestored, match=f"'{step}': its value was removed"):
        program.main.run("r", CANARY)
    assert program.ran == ["plain"]


@pytest.mark.parametrize("value", [[], ["--value"]])
def test_a_step_is_gone_with_its_earlier_results(db, value):
    with Program(db) as program:
        for step in ("pickled", "large", "failing", "plain"):
            words = ["forget", str(db), "--run", "r", "--step", step, "--yes", *value]
            assert main(words) == 0
        assert program.ran == []
    with closing(sqlite3.connect(db)) as connection:
        (left,) = connection.execute("SELECT count(*) FROM versions").fetchone()
        digests = connection.execute("SELECT count(*) FROM steps WHERE payload_blob IS NOT NULL").fetchone()
    assert left == 0
    assert digests == (3,)  # of the step `other` in both runs, and of the other run
    assert len(traces(db)) == 1 + bool(
        value
    )  # the run's arguments; its result too, in a blob, unless it went
    assert main(["forget", str(db), "--run", "r", "--yes", *value]) == 0
    assert traces(db) == []
    assert whole(db)


def test_a_step_that_is_gone_runs_again_and_no_other(db):
    assert main(["forget", str(db), "--run", "r", "--step", "plain", "--yes"]) == 0
    with Program(db) as program:
        program.main.run("r", CANARY)
    assert program.ran == ["plain"]


def test_remains_of_what_was_replaced_before_are_gone_too(tmp_path):
    path = tmp_path / "runs.db"
    with Program(path) as program:
        program.main.run("r", CANARY)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE scratch (text)")
        connection.executemany("INSERT INTO scratch VALUES (?)", [(CANARY * 100,)] * 50)
        connection.execute("DELETE FROM scratch")
        connection.execute("DROP TABLE scratch")
    assert main(["forget", str(path), "--run", "r", "--yes"]) == 0
    assert traces(path) == []


HOLD = """
import sys
from durable_nb import Workflow
wf = Workflow("shop", db=sys.argv[1])
@wf.workflow
def main():
    print("open", flush=True)
    return wf.sync.signal("never")
main.run(sys.argv[2])
"""


@pytest.fixture
def holder(db):
    """A process that has a run open."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, db, "held"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_that_another_process_has_open_is_refused(db, holder, capsys):
    assert main(["forget", str(db), "--run", "held", "--yes"]) == 2
    assert "run 'held'" in capsys.readouterr().err
    assert main(["forget", str(db), "--run", "r", "--yes"]) == 0  # another run of a database that is in use
    assert holder.poll() is None
    assert main(["status", "held", "--db", str(db)]) == 0
    holder.kill()
    holder.wait()
    assert main(["forget", str(db), "--run", "held", "--yes"]) == 0
    assert traces(db) == []


def test_it_asks_first(db, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: print(prompt) or "n")
    before = traces(db)
    assert main(["forget", str(db), "--run", "r", "--step", "plain", "--value"]) == 1
    assert capsys.readouterr().out == (
        "What step 'plain' returned is removed; a replay of it will be an error, until it is reset. "
        "Forget it for good? [y/N] \nnothing was forgotten\n"
    )
    assert traces(db) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "nowhere"], "run 'nowhere': not found in"),
        (
            ["--run", "r", "--step", "nothing"],
            "run 'r', step 'nothing': no step of that name. Look at its steps",
        ),
        (["--run", "r", "--step", "plai"], "no step of that name"),
    ],
)
def test_what_is_not_there_is_said(db, capsys, words, said):
    before = db.read_bytes()
    assert main(["forget", str(db), *words, "--yes"]) in (1, 2)
    assert said in capsys.readouterr().err
    assert db.read_bytes() == before


def test_on_a_server(redis_server, capsys):
    url = redis_server.url
    with Program(url) as program:
        program.wf.sync.complete("r", "go", CANARY)
        program.main.run("r", CANARY)
        program.main.run("kept", "harmless")

    def there():
        client = redis_server.client
        kinds = {b"hash": client.hgetall, b"zset": lambda key: client.zrange(key, 0, -1)}
        return str([kinds[kind](key) for key in client.scan_iter() if (kind := client.type(key)) in kinds])

    assert main(["forget", url, "--run", "r", "--value", "--yes"]) == 2
    assert main(["forget", url, "--run", "r", "--step", "nothing", "--yes"]) == 2
    assert main(["forget", url, "--run", "nowhere", "--yes"]) == 1
    assert f"{CANARY} {CANARY}" in there()  # in chunks
    for step in ("plain", "pickled", "large", "failing", "signal:go"):
        assert main(["forget", url, "--run", "r", "--step", step, "--yes"]) == 0
    with Program(url) as program:
        program.main.run("kept", "harmless")
        assert program.ran == []
        program.main.run("r", CANARY)
    assert sorted(program.ran) == ["failing", "large", "pickled", "plain"]
    capsys.readouterr()
    assert main(["forget", url, "--run", "r", "--yes"]) == 0
    assert "redis-cli BGREWRITEAOF" in capsys.readouterr().out
    assert CANARY not in there()
    assert main(["status", "r", "--db", url]) == 1
    assert main(["status", "kept", "--db", url]) == 0
