"""A result that cannot be stored: the body ran once, the error names run, step, cause and remedy."""

import contextlib
import os
import sqlite3
import subprocess

import pytest

from durable_nb import Workflow, constant
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import StoreUnavailable
from durable_nb.stores.sqlite.connection import READ, Work
from durable_nb.stores.sqlite.journal import SqliteJournal


class Job:
    """A workflow of two tasks, and how often each body ran."""

    def __init__(self, path):
        self.ran = []
        self.before_second = lambda: None
        self.size = 10
        self.wf = Workflow("job", db=SqliteJournal(path, busy_timeout=0.2))

        @self.wf.task(retries=3, backoff=constant(0))
        async def first():
            self.ran.append("first")
            return "small"

        @self.wf.task(retries=3, backoff=constant(0))
        async def second():
            self.ran.append("second")
            self.before_second()
            return os.urandom(self.size)

        @self.wf.workflow
        async def main():
            return await first(), await second()

        self.main = main


async def failure(job):
    with pytest.raises(StoreUnavailable) as caught:
        await job.main.run("r")
    job.wf.close()
    return str(caught.value)


async def resumed(path):
    """What a second pass executes, once the store is well again."""
    job = Job(path)
    await job.main.run("r")
    job.wf.close()
    return job.ran


def explains(error, *words):
    assert error.startswith("run 'r', step 'second': "), error
    assert "\n" not in error
    for word in words:
        assert word in error, error


async def test_a_full_disk(small_disk):
    job = Job(small_disk / "a.db")
    job.size = 200_000
    filler = small_disk / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass

    job.before_second = fill
    explains(await failure(job), "full", "Free some")
    assert job.ran == ["first", "second"]
    filler.unlink()
    assert await resumed(small_disk / "a.db") == ["second"]


async def test_a_disk_full_of_blobs(small_disk):
    job = Job(small_disk / "a.db")
    job.size = 2_000_000
    explains(await failure(job), "No space left")
    assert job.ran == ["first", "second"]
    assert await resumed(small_disk / "a.db") == ["second"]


async def test_a_file_that_turns_read_only(tmp_path):
    job = Job(tmp_path / "a.db")

    def turn_read_only():
        journal = job.wf.journal
        work = Work((("PRAGMA query_only = 1", ()),))
        run_blocking(SYNC.store(journal._run(READ, [work])))
        assert work.error is None

    job.before_second = turn_read_only
    explains(await failure(job), "read-only")
    assert job.ran == ["first", "second"]
    assert await resumed(tmp_path / "a.db") == ["second"]


async def test_a_read_only_disk_is_said_before_any_body_runs(small_disk):
    job = Job(small_disk / "a.db")
    await job.main.run("r")
    job.wf.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    job = Job(small_disk / "a.db")
    error = await failure(job)
    assert "permission to write" in error
    assert str(small_disk / "a.db") in error
    assert job.ran == []


async def test_a_database_locked_by_another_program(tmp_path):
    job = Job(tmp_path / "a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    job.before_second = lambda: other.execute("BEGIN EXCLUSIVE")
    explains(await failure(job), "locked")
    assert job.ran == ["first", "second"]
    other.execute("ROLLBACK")
    other.close()
    assert await resumed(tmp_path / "a.db") == ["second"]
