"""Damaged rows: each field, with each kind of wrong value, against every command and a resume.

Nothing but our own errors comes out, no body runs again, nothing hangs. What an error says to type works.
"""

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from durable_nb import Workflow, settings
from durable_nb.cli import main as command
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import DurableError, StoreUnreadable
from durable_nb.records import Run, SignalRequest, StepKind, StepStatus
from durable_nb.stores.testing import sample_step

NO_TEXT = b"\xff\xfe"
WRONG = (
    *(None, "", "paused", "1", "[", "[]", "{}", '{"a": {"b": 1}}', "null", "\x1b[31m\r\nrunning\x00"),
    *(0, -1, 3, 2**63 - 1, -(2**63), 0.5, 1e300, -1e300, b"", NO_TEXT, "x" * 1_000_000, "[" * 100_000),
)
RESULT = [{"n": 1}, [1, 2], "no", "yes"]
PATIENCE = 30  # seconds for a trial, which takes half of one
NOTEBOOK = {
    "cells": [{"cell_type": "code", "source": "%%durable_step load\nx = 1", "metadata": {}, "outputs": []}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@dataclass
class Shop:
    """A workflow on a database, and the bodies that it has executed."""

    db: str
    ran: list[str] = field(default_factory=list)

    def __enter__(self):
        self.wf = Workflow("shop", db=self.db)
        ran, wf = self.ran, self.wf

        @wf.task
        def load(n):
            ran.append("load")
            return {"n": n}

        @wf.task
        def shape(n):
            ran.append("shape")
            return {1, n}

        @wf.task(retries=0)
        def fail():
            ran.append("fail")
            raise ValueError("no")

        @wf.workflow(id="r")
        def main():
            found = [load(1), sorted(shape(2))]
            try:
                fail()
            except ValueError as error:
                found.append(str(error))
            wf.sync.sleep(0.001)
            return [*found, wf.sync.signal("go", timeout=0.5)]

        self.main = main
        return self

    def __exit__(self, *_):
        self.wf.close()

    def store(self, work):
        return run_blocking(SYNC.store(work))

    def commands(self, notebook, command=command):
        """Run every command; any error that is not ours comes out."""
        copy = notebook.with_name("copy.db")
        copy.unlink(missing_ok=True)
        on = ["--db", self.db]
        for words in (
            *(["runs", *on], ["status", "r", *on], ["status", "w", *on], ["signals", *on]),
            *(["signal", "w", "ask", "5", *on], ["plan", str(notebook), "--run-id", "r", *on]),
            *(["check", self.db], ["check", self.db, "--fix"], ["backup", self.db, str(copy)]),
            ["trust", "--yes", self.db],
        ):
            assert command(words) in (0, 1, 2, 3), words


def filled(db):
    """Fill a database with runs that have something in every field."""
    with Shop(db) as shop:
        journal = shop.wf.journal
        shop.wf.sync.complete("r", "go", "yes")
        assert shop.main() == RESULT
        shop.wf.sync.resolve("r", "load", "rerun")
        assert shop.main() == RESULT
        opening = Run("w", "shop.w", code="c", arguments="n=1", arguments_repr='{"n": "1"}')
        run = shop.store(journal.open_run(opening)).run
        usage = '{"requests": 1, "input_tokens": 2, "output_tokens": 3}'
        cell = sample_step(run, "cell", kind=StepKind.CELL, lineage="{}", usage=usage, delivered_by="me")
        shop.store(journal.put_step(cell))
        shop.store(journal.put_step(cell._replace(status=StepStatus.STARTED, payload=None, attempt=2)))
        request = SignalRequest("w", "ask", "How many?", '{"type": "integer"}', "[5, 6]", "no", "me", 1.5)
        shop.store(journal.request_signal(request))


def in_a_process(words):
    """Run a command in a fresh process, which prints no traceback."""
    command = [sys.executable, "-m", "durable_nb.cli", *words]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode


@contextlib.contextmanager
def in_time(trial):
    """Fail in a block that hangs, and name the trial."""

    def fail(*_):
        raise AssertionError(f"it hangs: {str(trial)[:200]}")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    except Exception as error:
        error.add_note(f"trial: {str(trial)[:200]}")
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def survives(db, notebook, *, forgets=False):
    """Run every command and a resume: returns the error of the resume, or None.

    Args:
        db: The damaged database.
        notebook: A notebook to plan.
        forgets: Whether the damage moves a record to another place, so that it is missing where it was.
    """
    with Shop(db) as shop:
        shop.commands(notebook)
        try:
            assert shop.main() == RESULT
        except DurableError as caught:
            error = caught
        else:
            error = None
        assert forgets or shop.ran == []
    assert error is None or (error.remedy_text and "\n" not in str(error))
    return error


def remedied(db, error):
    """Type what the error says, until the run is resumed: only what was damaged runs again."""
    with Shop(db) as shop:
        for _ in range(3):
            if isinstance(error, StoreUnreadable) and "Deliver it again" in str(error):
                shop.wf.sync.complete("r", "go", "yes")
            elif isinstance(error, StoreUnreadable) and "'rerun')" in str(error):
                step = error.remedy_text.partition("resolve('r', ")[2].partition(", 'rerun'")[0]
                shop.wf.sync.resolve("r", step.strip("'\""), "rerun")
            else:
                return
            try:
                assert shop.main() == RESULT
                return
            except DurableError as again:
                error = again
        raise AssertionError(error)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(settings, "OWNER_SILENT", 0.2)
    monkeypatch.setattr(settings, "HEARTBEAT", 0.05)
    monkeypatch.setenv("DURABLE_NB_SECRET", "of the tests")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "a.ipynb"
    path.write_text(json.dumps(NOTEBOOK))
    return path


# SQLite

TABLES = ("runs", "steps", "versions", "signals", "requests", "sessions", "meta")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "a.db"
    filled(str(path))
    return path


def columns_of(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [
            (table, name)
            for table in TABLES
            for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]


def damage(path, table, column, value, row=0):
    """Write a value into a field as a broken disk might: whatever the table's definition says."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        kept = connection.execute("SELECT sql, rowid FROM sqlite_master").fetchall()
        connection.execute("PRAGMA writable_schema = ON")
        for rule in ("STRICT,", "STRICT", "NOT NULL"):
            relax = "UPDATE sqlite_master SET sql = replace(sql, ?, '') WHERE type = 'table'"
            connection.execute(relax, (rule,))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        keys = [name for _, name, *_, key in connection.execute(f"PRAGMA table_info({table})") if key]
        known = connection.execute(f"SELECT {', '.join(keys)} FROM {table}").fetchall()
        where = " AND ".join(f"{key} = ?" for key in keys)
        wanted = "CAST(? AS TEXT)" if value == NO_TEXT and column != "payload_data" else "?"
        with contextlib.suppress(sqlite3.IntegrityError):  # of a key
            update = f"UPDATE {table} SET {column} = {wanted} WHERE {where}"
            connection.execute(update, (value, *known[row % len(known)]))
        connection.execute("PRAGMA writable_schema = ON")
        connection.executemany("UPDATE sqlite_master SET sql = ? WHERE rowid = ?", kept)


def sqlite_trial(template, folder, notebook, table, column, value, row):
    path = folder / "a.db"
    for end in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    shutil.copyfile(template, path)
    damage(path, table, column, value, row)
    error = survives(str(path), notebook, forgets=column in ("run_id", "name") or table == "meta")
    if table in ("steps", "signals") and column not in ("run_id", "step_id", "name"):
        remedied(str(path), error)


def sqlite_trials(template):
    """Each column of each table, with each wrong value, in each row."""
    names = columns_of(template)
    return [(table, column, value, row) for table, column in names for value in WRONG for row in range(3)]


def run_sqlite_trials(template, folder, notebook, trials):
    """Carry out all trials, and raise what went wrong in any of them."""
    failed = []
    for trial in trials:
        try:
            with in_time(trial):
                sqlite_trial(template, folder, notebook, *trial)
        except Exception as error:
            failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(trials)} trials", failed)


def test_a_slice_of_damaged_rows_in_sqlite(template, tmp_path, notebook):
    run_sqlite_trials(template, tmp_path, notebook, random.Random(7).sample(sqlite_trials(template), 25))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_damaged_rows_in_sqlite(template, tmp_path, notebook):
    run_sqlite_trials(template, tmp_path, notebook, random.Random(8).sample(sqlite_trials(template), 200))


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_every_damaged_row_in_sqlite(template, tmp_path, notebook):
    run_sqlite_trials(template, tmp_path, notebook, sqlite_trials(template))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_commands_in_processes_of_their_own_on_damaged_rows(template, tmp_path, notebook):
    for trial in random.Random(9).sample(sqlite_trials(template), 20):
        path = tmp_path / "a.db"
        shutil.copyfile(template, path)
        damage(path, *trial)
        Shop(str(path)).commands(notebook, in_a_process)


# Redis

WRONG_VALUES = (
    *(b"", b"\n", b"\n\n", b"x", b"007", b"-1", b"9" * 30, b"9" * 6000, b"[]", b"[1]\n[2]\n[3]", b"null"),
    *(NO_TEXT, b"done\n[]\n", b"done\n" + b"[" * 100_000 + b"\n", b"\x1b[31m\n{}\n", b"x" * 1_000_000),
)


@pytest.fixture
def dump(redis_server):
    """All keys of a filled server."""
    filled(redis_server.url)
    return {key: redis_server.client.dump(key) for key in redis_server.client.keys("*")}


def redis_trials(client, dump):
    """Each field of each hash, and each key, with each wrong value; each column of each line with another."""
    restored(client, dump)
    trials = []
    for key in sorted(dump):
        trials += [(key, None, value) for value in (*WRONG_VALUES, None)]
        for name, there in sorted(client.hgetall(key).items()) if client.type(key) == b"hash" else ():
            trials += [(key, name, value) for value in (*WRONG_VALUES, None)]
            trials += [(key, name, value) for value in with_other_columns(there)]
    return trials


def with_other_columns(value):
    """A value of a hash with each of the columns in its JSON line replaced."""
    before, mark, rest = value.partition(b"[")
    line, end, after = rest.partition(b"]\n")
    if mark and (end or rest.endswith(b"]")):
        columns = json.loads(b"[" + line.removesuffix(b"]") + b"]")
        for number in range(len(columns)):
            for other in (None, "paused", 1, 2**60, 1e300, [], {}, "[" * 1000, "\ud800"):
                changed = [*columns[:number], other, *columns[number + 1 :]]
                yield before + json.dumps(changed).encode() + (b"\n" + after if end else b"")


def restored(client, dump):
    client.flushall()
    for key, value in dump.items():
        client.restore(key, 0, value)


def redis_trial(server, dump, notebook, key, name, value):
    client = server.client
    restored(client, dump)
    if name is None:
        client.delete(key)
        if value is not None:
            client.set(key, value)
    elif value is None:
        client.hdel(key, name)
    else:
        client.hset(key, name, value)
    gone = name is None or (name == b"made" and value is None) or (name.startswith(b"s:") and value is None)
    error = survives(server.url, notebook, forgets=gone)
    if name is not None and name.startswith((b"s:", b"g:")):
        remedied(server.url, error)


def run_redis_trials(server, dump, notebook, trials):
    for trial in trials:
        with in_time(trial):
            redis_trial(server, dump, notebook, *trial)


def test_a_slice_of_damaged_values_on_redis(redis_server, dump, notebook):
    trials = random.Random(7).sample(redis_trials(redis_server.client, dump), 25)
    run_redis_trials(redis_server, dump, notebook, trials)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_damaged_values_on_redis(redis_server, dump, notebook):
    trials = random.Random(8).sample(redis_trials(redis_server.client, dump), 200)
    run_redis_trials(redis_server, dump, notebook, trials)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_every_damaged_value_on_redis(redis_server, dump, notebook):
    run_redis_trials(redis_server, dump, notebook, redis_trials(redis_server.client, dump))
