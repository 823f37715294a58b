"""Checkpoints that 0.1.0 wrote come back, on this version and on this Python.

The files are frozen once 0.1.0 is released. A failure here means that users lose work when they upgrade:
mend the package, never the files. They are written anew exactly once more (``write.py``), when the schema's
revision for this release lands.

Bytecode can be executed by the minor version of Python alone that compiled it. On the others the test asserts
that what depends on it says so, and that everything else comes back.
"""

import asyncio
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from pydantic_ai.messages import ModelMessagesTypeAdapter

from durable_nb import _stored, errors, settings
from durable_nb.cli import main
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.records import RunStatus
from golden import cells, runs, scan
from golden.cells import FORK, NOTEBOOKS
from golden.values import VALUES, Paint, Refused, same
from golden.write import SECRET, VERSION
from helpers import ROOT, pythonpath
from helpers.kernel import Kernel

HERE = Path(__file__).parent
TOLD = json.loads((HERE / f"{VERSION}.json").read_text())
WRITTEN_BY = "{}.{}".format(*TOLD["python"])
SAME_PYTHON = list(sys.version_info[:2]) == TOLD["python"]
DONE = (
    "values",
    "failures",
    "branches-3",
    "parent",
    "child-3",
    "signals",
    "sleeps",
    "agent",
    "over",
    "resolved",
)


def copied(folder):
    """A copy of the golden database; gives its path."""
    db = folder / "golden.db"
    shutil.copyfile(HERE / f"{VERSION}.db", db)
    shutil.copytree(HERE / f"{VERSION}.db.blobs", f"{db}.blobs")
    return db


def too_old(library):
    """Why values of a library cannot be expected back; empty where they can."""
    written = TOLD["libraries"].get(library, "")
    try:
        here = version(library)
    except PackageNotFoundError:
        return f"{library} is not installed"
    older = int(here.partition(".")[0]) < int(written.partition(".")[0])
    return f"{library} {here} is older than {written}, which wrote the checkpoints" if older else ""


@pytest.fixture(scope="module", autouse=True)
def secret():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURABLE_NB_SECRET", SECRET)
        yield


@pytest.fixture
def db(tmp_path):
    return copied(tmp_path)


async def left_unfinished(journal):
    """Make runs that are done unfinished, so that their steps are replayed, and not their results alone."""
    await journal.setup()
    for run in await journal.list_runs():
        if run.status is RunStatus.DONE:
            await journal.finish_run(run._replace(status=RunStatus.INTERRUPTED))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """All finished runs, entered again: the program, what each returned, and the executed bodies."""
    made = runs.Runs(copied(tmp_path_factory.mktemp("runs")))
    runs.EXECUTED.clear()
    with made.wf:
        run_blocking(SYNC.store(left_unfinished(made.wf.journal)))
        returned = asyncio.run(made.finished())
    return made, returned, list(runs.EXECUTED)


def test_finished_runs_have_their_results_on_record(db):
    runs.EXECUTED.clear()
    with (made := runs.Runs(db)).wf:
        returned = asyncio.run(made.finished())
    assert runs.EXECUTED == []
    wanted = runs.expected(returned)
    assert [run_id for run_id in wanted if not same(returned[run_id], wanted[run_id])] == []


def test_finished_runs_return_what_they_returned_and_execute_nothing(replayed):
    _, returned, executed = replayed
    assert executed == []
    wanted = runs.expected(returned)
    assert returned.keys() == {*wanted, "agent"}
    assert [run_id for run_id in wanted if not same(returned[run_id], wanted[run_id])] == []


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_comes_back_exactly(replayed, kind):
    found, wanted = replayed[0].found[kind], VALUES[kind]
    if wanted.library and (reason := too_old(wanted.library)):
        pytest.skip(f"NOT TESTED: {reason}")
    if wanted.by_value and not SAME_PYTHON:
        assert type(found) is errors.StepNotRestored
        assert f"it holds bytecode of Python {WRITTEN_BY}, which Python" in str(found)
        assert "run 'values', step 'value" in str(found)
        return
    assert type(found) is not errors.StepNotRestored, found
    assert same(wanted.look(found), wanted.look(wanted.make()))


def test_failures_come_back_as_they_were(replayed):
    notes, cause, group, odd, system, held, gone = replayed[0].caught
    assert (type(notes), notes.args, notes.__notes__) == (KeyError, ("k", 1), ["first", "second"])
    assert notes.kept[0] is Paint.RED
    assert (type(cause), repr(cause.__cause__)) == (LookupError, "ZeroDivisionError('inner')")
    assert (group.message, repr(group.exceptions[0])) == ("several", "ValueError(1)")
    assert [(type(each), each.code) for each in group.exceptions[1].exceptions] == [(Refused, 2)]
    assert (type(odd), odd.args, odd.code) == (Refused, ("3: h",), 3)
    assert (system.errno, system.filename) == (2, "nowhere.txt")
    assert type(held) is ValueError
    assert "('held', <generator object" in str(held)
    assert type(gone) is errors.StepFailed
    assert "golden_gone.Vanished: it was here" in str(gone)
    assert gone.__notes__ == ["noted"]


def test_an_agent_run_comes_back_without_asking_the_model(replayed):
    output, usage, messages = replayed[1]["agent"]
    assert output == runs.Order.model_validate(TOLD["agent"]["output"])
    found = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
    wanted = TOLD["agent"]["messages"]
    assert [each["kind"] for each in found] == [each["kind"] for each in wanted]
    if version("pydantic-ai-slim") == TOLD["libraries"]["pydantic-ai-slim"]:  # others add fields
        assert found == wanted
        assert repr(usage) == TOLD["agent"]["usage"]
    for one, other in zip(found, wanted, strict=True):
        texts = [[part.get("content") for part in each["parts"]] for each in (one, other)]
        assert texts[0] == texts[1]


def test_a_run_with_other_arguments_stands_aside_and_is_whole(db, capsys):
    assert main(["runs", "--db", str(db)]) == 0
    (aside,) = [word for word in capsys.readouterr().out.split() if word.startswith("over~")]
    runs.EXECUTED.clear()
    with (made := runs.Runs(db)).wf:
        again = asyncio.run(made.over.run(aside, 6))
    assert same(again, (runs.expected({})["sleeps"], Paint.BLUE, {1, 2}))
    assert runs.EXECUTED == []


def test_runs_and_status_show_every_run(db, capsys):
    assert main(["runs", "--db", str(db)]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line for line in shown.splitlines()[1:] if line.strip()}
    aside = {run_id for run_id in rows if run_id.startswith("over~")}
    notebooks = {one.run_id for one in NOTEBOOKS} | {FORK[1]}
    assert rows.keys() - aside == {*DONE, "failed", "in-doubt", "waiting", "cancelled", *notebooks}
    status = dict.fromkeys(DONE, "done") | {"failed": "failed", "cancelled": "cancelled"}
    status |= dict.fromkeys(notebooks, "interrupted") | {NOTEBOOKS[-1].run_id: "done"}
    assert [run_id for run_id, word in status.items() if word not in rows[run_id]] == []
    for run_id in rows:
        assert main(["status", run_id, "--db", str(db)]) == 0
        assert run_id in capsys.readouterr().out


@pytest.fixture
def soon(monkeypatch):
    """Owners on another machine that give no sign of life are taken for dead soon."""
    monkeypatch.setattr(settings, "OWNER_SILENT", 0.2)
    monkeypatch.setattr(settings, "HEARTBEAT", 0.05)


def test_a_step_in_doubt_is_still_in_doubt(db):
    runs.EXECUTED.clear()
    with (made := runs.Runs(db)).wf:
        with pytest.raises(errors.StepInDoubt) as caught:
            made.in_doubt()
        assert "run 'in-doubt', step 'pay'" in str(caught.value)
        made.wf.sync.resolve("in-doubt", "pay", "value", "receipt")
        assert made.in_doubt() == "receipt"
    assert runs.EXECUTED == []


def resumed(db, run_id, answer):
    """Answer a run, and resume it; gives its first step's result and the answer that it got."""
    runs.EXECUTED.clear()
    with (made := runs.Runs(db)).wf:
        assert made.wf.sync.complete(run_id, "go", answer)
        found = asyncio.run(getattr(made, run_id)())
    assert runs.EXECUTED == []
    return found


def test_a_run_that_waited_when_it_was_killed_goes_on(db, soon):
    with pytest.warns(errors.DurableNotice, match=r"'waiting' is owned by process \d+ on golden"):
        first, answer = resumed(db, "waiting", True)
    assert (first[0], answer) == (16, True)


def test_a_run_that_was_cancelled_goes_on(db):
    first, answer = resumed(db, "cancelled", {1: "x"})
    assert (first[0], answer) == (18, {1: "x"})


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    home = tmp_path_factory.mktemp("kernel")
    marks = str(home / "marks")
    kernel = Kernel(home, home / "home", **pythonpath(ROOT), DURABLE_NB_SECRET=SECRET, GOLDEN_MARKS=marks)
    yield kernel
    kernel.shutdown()


@pytest.fixture(scope="module")
def played(kernel):
    """Each notebook, run again in one kernel: its cells, and its expressions' values."""
    db, found = copied(kernel.cwd), {}
    for line in (cells.SETUP, "%load_ext durable_nb"):
        assert kernel.run(line).error is None
    for one in NOTEBOOKS:
        played = cells.play(kernel, one, db)
        values = {expr: kernel.run(f"print(repr({expr}))") for expr in (*one.expect, *one.code)}
        used = {name: kernel.run(f"{name}.used").error for name in one.unsaved}
        found[one.run_id] = played, values, used
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda one: one.run_id)
def test_a_notebook_comes_back(played, notebook):
    if notebook.run_id in ("nb-figures", "nb-open-figure") and (reason := too_old("matplotlib")):
        pytest.skip(f"NOT TESTED: {reason}")
    done, values, used = played[notebook.run_id]
    if SAME_PYTHON or not notebook.code:
        assert [cell.error for cell in done] == [None] * len(done)
    for expression, value in notebook.expect.items():
        assert values[expression].text == f"{value!r}\n", values[expression].error
    for expression, value in notebook.code.items():
        if SAME_PYTHON:
            assert values[expression].text == f"{value!r}\n", values[expression].error
        else:
            assert f"bytecode of Python {WRITTEN_BY}" in values[expression].error
            assert "StepNotRestored" in values[expression].error
    for name, words in notebook.unsaved.items():
        assert "StepNotRestored" in used[name]
        assert words in used[name]
    for number, shown in notebook.shows.items():
        cell = done[number]
        assert (cell.text, cell.stderr, cell.result and cell.result["text/plain"]) == shown


def test_no_cell_and_no_task_of_a_notebook_is_executed(kernel, played):
    marks = kernel.cwd / "marks"
    assert not marks.exists() or marks.read_text() == ""


def test_a_fork_comes_back(kernel, played):
    original, forked, count = FORK
    (notebook,) = [one for one in NOTEBOOKS if one.run_id == original]
    assert kernel.run(f"%reset -f\n%durable_workflow {forked} --db {kernel.cwd / 'golden.db'}").error is None
    replays = [kernel.run(cell) for cell in notebook.parted[:count]]
    assert [cell.facts["action"] for cell in replays] == ["replayed"] * count
    assert kernel.run("print(a, b, c['new'] is b)").text == "1 [1, 2] True\n"


def test_restore_puts_a_notebook_back(kernel, played):
    opened = kernel.run(f"%reset -f\n%durable_workflow nb-shared --db {kernel.cwd / 'golden.db'}")
    assert opened.error is None
    assert "restored 3 names from the finished steps" in kernel.run("%durable_restore").text
    assert kernel.run("print(y, y[0] is x)").text == "[[0, 1], [0, 1]] True\n"


def is_stored(module, name):
    if module == "durable_nb._stored":
        return name in _stored.STORED
    if module == "durable_nb.errors":
        return name in errors.__all__ or name == "_rebuild"
    return module in _stored.PUBLIC and name in sys.modules[module].__all__


@pytest.fixture(scope="module")
def named():
    return list(scan.names_in(HERE / f"{VERSION}.db"))


def test_of_this_package_only_the_stored_format_is_named(named):
    wrong = [
        (where, *name)
        for where, _, names in named
        for name in names
        if name[0].partition(".")[0] == "durable_nb" and not is_stored(*name)
    ]
    assert wrong == []


def test_the_checkpoints_have_every_format_and_every_stored_name(named):
    formats = {kind for _, kind, _ in named}
    assert formats == {"json", "objects", "bytes", "pickle", "buffers", "cell", "failure"}
    used = {name for _, _, names in named for module, name in names if module == "durable_nb._stored"}
    # The checkpoints hold no tensors: torch was not installed where they were written. They are older than
    # exceptions that stand in for others, than references to what other names hold, and than rules for
    # instances of subclasses and aliases of types.
    later = {"torch_storage", "torch_tensor", "set_grad", "stand_in", "part", "update"}
    later |= {"built", "fill", "share_dict", "type_alias"}
    assert used == _stored.STORED - later


def test_large_parts_are_in_blobs():
    assert len([path for path in (HERE / f"{VERSION}.db.blobs").rglob("*") if path.is_file()]) > 20


def test_it_is_one_file():
    assert {path.name for path in HERE.glob("*.db*")} == {f"{VERSION}.db", f"{VERSION}.db.blobs"}
