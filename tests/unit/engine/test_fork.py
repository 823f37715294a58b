"""A fork has the history of a run up to a step, and the run itself stays as it is."""

import sqlite3
import uuid

import pytest

from durable_nb import InMemoryStore, RedisStore, SQLiteStore, Workflow
from durable_nb.concurrency.bridge import submit
from durable_nb.engine import fork as forking
from durable_nb.errors import RunNotFound, StepNotFound, StoreError, UntrustedCheckpoint
from helpers.json_store import JsonFileStore


class Custom:
    """What only a pickle keeps."""

    def __init__(self, n):
        self.n = n


def define(wf, ran, plus=0):
    @wf.task
    def inner(n):
        ran.append(f"inner {n}")
        return Custom(n + plus)

    @wf.task
    def outer(n):
        ran.append(f"outer {n}")
        return inner(n).n + inner(n + 1).n

    @wf.workflow
    def main():
        return [outer(1), outer(10), outer(100)]

    return main


def fork(wf, *args):
    return submit(forking.fork(wf.journal, *args)).result()


@pytest.fixture(params=["sqlite", "memory", "redis", "cluster"])
def store(request, db):
    if request.param == "sqlite":
        return SQLiteStore(str(db))
    if request.param == "memory":
        return InMemoryStore()
    url = request.getfixturevalue("redis_server").url  # says where there is none
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster")
    return RedisStore(url, prefix=f"fork{uuid.uuid4().hex}")


OF_ALL = [
    *("outer 1", "inner 1", "inner 2"),
    *("outer 10", "inner 10", "inner 11"),
    *("outer 100", "inner 100", "inner 101"),
]


@pytest.mark.parametrize(
    ("before", "kept", "runs_again"),
    [
        (None, 9, []),
        ("outer#1", 3, OF_ALL[3:]),
        ("outer", 0, OF_ALL),
        # What stands round the step goes with it: its result is made of the step's.
        ("outer#1/inner#1", 4, ["outer 10", "inner 11", *OF_ALL[6:]]),
    ],
)
def test_it_goes_on_at_the_step(store, before, kept, runs_again):
    ran = []
    with Workflow("shop", db=store) as wf:
        main = define(wf, ran)
        first = main.run("r")
        assert ran == OF_ALL
        ran.clear()
        assert fork(wf, "r", "new", before) == kept
        assert main.run("new") == first
        assert ran == runs_again
        ran.clear()
        assert main.run("r") == main.run("new") == first
        assert ran == []


def test_the_fork_and_the_run_have_nothing_to_do_with_each_other(store):
    with Workflow("shop", db=store) as wf:
        assert define(wf, []).run("r") == [3, 21, 201]
        fork(wf, "r", "new", "outer#2")
        assert define(wf, [], plus=1).run("new") == [3, 21, 203]
        assert define(wf, []).run("r") == [3, 21, 201]


def test_a_large_value_comes_along(store):
    bodies = []
    with Workflow("shop", db=store) as wf:

        @wf.task
        def load():
            bodies.append(1)
            return b"x" * 9_000_000

        @wf.workflow
        def main():
            return len(load())

        assert main.run("r") == 9_000_000
        assert fork(wf, "r", "new") == 1
        assert main.run("new") == 9_000_000
    assert bodies == [1]


def test_what_is_refused(store):
    with Workflow("shop", db=store) as wf:
        define(wf, []).run("r")
        define(wf, []).run("other")
        with pytest.raises(RunNotFound, match="run 'x': not found in "):
            fork(wf, "x", "new")
        with pytest.raises(
            StepNotFound,
            match=r"run 'r', step 'outr': no step of that name\. Steps: outer, outer#1, outer#2",
        ):
            fork(wf, "r", "new", "outr")
        with pytest.raises(StoreError, match="'other': that id is taken"):
            fork(wf, "r", "other")
        assert {run.run_id for run in submit(wf.journal.list_runs()).result()} == {"r", "other"}


def test_one_that_was_killed_in_the_middle_is_begun_anew(store, monkeypatch):
    ran = []
    with Workflow("shop", db=store) as wf:
        main = define(wf, ran)
        main.run("r")

        with monkeypatch.context() as patched:
            patched.setattr(wf.journal, "finish_run", None)
            with pytest.raises(TypeError):
                fork(wf, "r", "new")
        ran.clear()
        assert fork(wf, "r", "new", "outer#1") == 3
        assert main.run("new") == [3, 21, 201]
        assert ran == OF_ALL[3:]


def test_what_nobody_trusts_stays_untrusted(db):
    with Workflow("shop", db=db) as wf:
        define(wf, []).run("r")
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE steps SET payload_signature = NULL")
    with Workflow("shop", db=db) as wf:
        with pytest.raises(UntrustedCheckpoint, match="durable-nb trust"):
            fork(wf, "r", "new")
        assert submit(wf.journal.get_run("new")).result() is None


def test_a_store_that_gives_no_list_of_steps(db):
    with (
        Workflow("shop", db=JsonFileStore(db)) as wf,
        pytest.raises(StoreError, match=r"run 'r': the run cannot be forked: .* Keep runs in SQLite"),
    ):
        fork(wf, "r", "new")
