"""The arguments of runs, which are kept so that runs can be resumed without their callers."""

import asyncio
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, SecretStr

from durable_nb import Workflow
from durable_nb.cli import main as command
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import DurableNotice, RunError, StepNested, UntrustedCheckpoint
from durable_nb.stores.memory import MemoryJournal

CANARY = "canary-77ab21c9"


@pytest.fixture(params=["sqlite", "redis", "memory"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on all stores."""
    if request.param == "memory":
        return MemoryJournal()
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url


@pytest.fixture
def file(tmp_path):
    """A database in a file."""
    return tmp_path / "runs.db"


class Basket(set):
    """A value that is pickled."""


class Login(BaseModel):
    """A record that hides a secret."""

    user: str
    password: SecretStr


class Token(BaseModel):
    """A record with a secret."""

    api_token: str


@dataclass
class Connection:
    """A record with a secret in its address."""

    url: str


class Stop:
    """A workflow of which every run is interrupted while ``on`` is true."""

    def __init__(self, db):
        self.wf = Workflow("shop", db=db)
        self.on = True
        self.ran = []

        @self.wf.workflow
        def main(value, *more, again=False):
            self.ran.append(value)
            if self.on:
                raise KeyboardInterrupt
            return value, more, again

        self.main = main

    def interrupt(self, run_id, *args, **kwargs):
        with pytest.raises(KeyboardInterrupt):
            self.main.run(run_id, *args, **kwargs)

    def resume(self):
        self.on = False
        return {each.run_id: each for each in self.wf.sync.resume_interrupted()}


@contextmanager
def told():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", DurableNotice)
        yield (texts := [])
    texts += [str(each.message) for each in found if issubclass(each.category, DurableNotice)]


def is_nowhere(file):
    texts = (path.read_text("latin-1") for path in file.parent.rglob("*") if path.is_file())
    return not [text for text in texts if CANARY in text]


def given(wf, run_id):
    return run_blocking(SYNC.store(wf.journal.get_run(run_id))).given


@pytest.mark.parametrize(
    "value",
    [3, "a", None, (1, {2: b"3"}), Basket("ab"), "x" * 1_000_000, b"\xff" * 300_000],
    ids=["int", "str", "None", "nested", "pickled", "large", "bytes"],
)
def test_arguments_come_back_exactly(db, value):
    stop = Stop(db)
    with told() as said:
        stop.interrupt("r", value, "b", again=True)
        runs = stop.resume()
    assert said == []
    assert (runs["r"].status, runs["r"].error) == ("done", None)
    assert runs["r"].value == (value, ("b",), True)
    assert type(runs["r"].value[0]) is type(value)
    stop.wf.close()


def test_arguments_are_kept_as_they_were_before_the_body(db):
    stop, order = Stop(db), ["a"]
    wf = stop.wf

    @wf.workflow
    def change(items):
        items.append("b")
        if stop.on:
            raise KeyboardInterrupt
        return items

    with pytest.raises(KeyboardInterrupt):
        change.run("r", order)
    assert order == ["a", "b"]
    assert stop.resume()["r"].value == ["a", "b"]
    wf.close()


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"db": {"password": CANARY}}, r"its argument value\['db'\]\['password'\] looks like a secret"),
        (Connection(f"postgres://me:{CANARY}@host/db"), r"its argument value.url looks like a secret"),
        ([Token(api_token=CANARY)], "an object among its arguments holds what looks like a secret"),
        (Login(user="ann", password=CANARY), "its arguments cannot be kept: .*its class hides its value"),
        ((n for n in ()), "its arguments cannot be kept: .*generator"),
    ],
    ids=["dict", "address", "model", "SecretStr", "generator"],
)
def test_what_is_secret_or_cannot_be_saved_is_not_kept_and_the_run_says_so(file, value, what):
    stop = Stop(file)
    with pytest.warns(
        DurableNotice,
        match=rf"run 'r' is not resumable without its caller: {what}.*After a crash: .*main\.run\('r', …\)",
    ):
        stop.interrupt("r", value)
    assert given(stop.wf, "r") is None
    with pytest.warns(DurableNotice, match="not resumed: run 'r': its arguments are not kept"):
        found = stop.resume()["r"]
    assert (found.status, found.value, type(found.error)) == ("interrupted", None, RunError)
    assert stop.ran == [value]
    stop.wf.close()
    assert is_nowhere(file)
    with Workflow("shop", db=file) as wf:  # its caller resumes it

        @wf.workflow
        def main(value, *more, again=False):
            return "done"

        assert main.run("r", value) == "done"


def test_a_method_says_that_its_object_is_not_kept(file):
    with Workflow("shop", db=file) as wf:

        class Shop:
            @wf.workflow
            def sell(self, item):
                raise KeyboardInterrupt

        with (
            pytest.warns(DurableNotice, match="its function is a method, whose object is not kept"),
            pytest.raises(KeyboardInterrupt),
        ):
            Shop().sell.run("r", "tea")


def test_pickled_arguments_are_loaded_only_if_a_key_of_the_user_has_signed_them(db, monkeypatch):
    if isinstance(db, MemoryJournal):
        pytest.skip("no other user has the memory of this process")
    stop = Stop(db)
    stop.interrupt("r", Basket("ab"))
    monkeypatch.setenv("DURABLE_NB_SECRET", "of another team")
    with pytest.warns(DurableNotice, match=r"not resumed: run 'r'.*durable-nb trust"):
        found = stop.resume()["r"]
    assert (found.status, type(found.error)) == ("interrupted", UntrustedCheckpoint)
    assert command(["trust", str(db), "--yes"]) == 0
    assert stop.resume()["r"].value == (Basket("ab"), (), False)
    stop.wf.close()


def test_trust_names_the_arguments(file, monkeypatch, capsys):
    stop = Stop(file)
    stop.interrupt("r", Basket("ab"))
    stop.wf.close()
    monkeypatch.setenv("DURABLE_NB_SECRET", "of another team")
    command(["trust", str(file), "--yes"])
    assert "run 'r', the run's arguments (pickle)" in capsys.readouterr().out


def test_a_fork_has_the_arguments_of_its_run(db):
    stop = Stop(db)
    stop.interrupt("r", Basket("ab"))
    stop.wf.sync.fork("r", "copy")
    assert stop.resume()["copy"].value == (Basket("ab"), (), False)
    stop.wf.close()


def test_a_run_that_was_set_aside_is_not_resumed(db):
    stop = Stop(db)
    stop.interrupt("r", 1)
    stop.interrupt("r", 2, fresh=True)
    assert {run_id: each.value[0] for run_id, each in stop.resume().items()} == {"r": 2}
    stop.wf.close()


def test_forgotten_values_include_the_arguments(file):
    stop = Stop(file)
    stop.interrupt("r", CANARY * 100_000)
    stop.wf.close()
    assert command(["forget", str(file), "--run", "r", "--value", "--yes"]) == 0
    assert is_nowhere(file)
    with pytest.warns(DurableNotice, match="its arguments are not kept"):
        stop.resume()
    stop.wf.close()


def test_a_damaged_blob_of_arguments_is_named(file, capsys):
    stop = Stop(file)
    stop.interrupt("r", "x" * 1_000_000)
    for blob in file.with_name("runs.db.blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"x")
    assert command(["check", str(file)]) != 0
    assert "run 'r', its arguments: " in "".join(capsys.readouterr())
    with pytest.warns(DurableNotice, match="run 'r': its arguments were not restored: .*Call it again"):
        assert stop.resume()["r"].status == "interrupted"
    stop.wf.close()


def test_a_child_is_left_to_its_parent(db):
    ran, on = [], [True]
    with Workflow("shop", db=db) as wf:

        @wf.workflow
        def child(password):
            ran.append("child")
            if on:
                raise KeyboardInterrupt
            return "done"

        @wf.workflow
        def parent():
            ran.append("parent")
            return child.run("c", "hunter2-" + CANARY)

        with told() as said, pytest.raises(KeyboardInterrupt):
            parent.run("p")
        assert said == []  # its caller is its parent, which has the password
        on.clear()
        assert [(each.run_id, each.value) for each in wf.sync.resume_interrupted()] == [("p", "done")]
        assert ran == ["parent", "child"] * 2


async def test_it_is_refused_inside_a_run(file):
    with Workflow("shop", db=file) as wf:

        @wf.workflow
        async def main():
            await wf.resume_interrupted()

        with pytest.raises(StepNested, match="run 'r': resume_interrupted"):
            await main.run("r")


async def test_cancelling_it_cancels_the_runs_and_a_run_may_be_cancelled_alone(file):
    on = [True]
    with Workflow("shop", db=file) as wf:

        @wf.workflow
        async def main(n):
            if on:
                raise KeyboardInterrupt
            await wf.signal(f"go {n}")

        for n in range(2):
            with pytest.raises(KeyboardInterrupt):
                await main.run(f"r{n}", n)
        on.clear()
        resuming = asyncio.create_task(wf.resume_interrupted())
        while [run.status for run in await wf.runs()] != ["waiting"] * 2:
            await asyncio.sleep(0.01)
        assert await wf.cancel("r0")
        await wf.complete("r1", "go 1", "on")
        found = await resuming
        assert [(each.run_id, each.status) for each in found] == [("r0", "cancelled"), ("r1", "done")]


def test_a_run_that_is_done_failed_or_cancelled_is_not_entered(db):
    stop = Stop(db)
    stop.on = False
    stop.main.run("done", 1)
    stop.on = True
    stop.interrupt("cancelled", 2)
    stop.wf.sync.cancel("cancelled")
    assert stop.resume() == {}
    stop.wf.close()


def test_the_package_does_not_import_pydantic_for_it():
    code = "import sys, durable_nb; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_run_that_is_left_at_the_end_of_its_event_loop_is_interrupted_not_cancelled(file):
    with Workflow("shop", db=file) as wf:

        @wf.workflow
        async def main():
            return await wf.signal("go")

        async def serve():
            serving = asyncio.create_task(main.run("r"))
            while not file.exists() or [run.status for run in await wf.runs()] != ["waiting"]:
                await asyncio.sleep(0.01)
            return serving

        assert asyncio.run(serve()).cancelled()
        assert wf.sync.status("r").run.status == "interrupted"
        wf.sync.complete("r", "go", "on")
        assert [each.value for each in wf.sync.resume_interrupted()] == ["on"]
