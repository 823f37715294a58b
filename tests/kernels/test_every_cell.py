"""Cells without a magic as steps: which are, which step is whose, and what replays after edits and kills."""

import re

import pytest

from durable_nb.cli import main
from helpers.notebooks import OpenNotebook, facts

OPEN = "%load_ext durable_nb\n%durable_workflow r --db runs.db --cells all"


def actions(done):
    return facts(done, "action")


def steps(done):
    return facts(done, "step")


@pytest.fixture
def notebook(kernel):
    def opened(**cells):
        return OpenNotebook(kernel, open=OPEN, **cells)

    return opened


LOG = "def log(line):\n    with open('bodies.log', 'a') as file:\n        print(line, file=file)\n"


def test_an_unprepared_notebook_comes_back_after_a_kill(notebook):
    book = notebook(
        imports="import math\nimport json as j",
        load="# Load the data\nrows = [1, 2]\nprint('loading')",
        change="rows.append(3)\nrows",
        shell="%%bash\necho from bash",
        timed="%time total = sum(rows)",
        function="def scaled(n):\n    return n * total",
        use="scaled(2)",
    )
    first = book.run_all()
    assert actions(first) == {"open": None, "imports": None} | dict.fromkeys(list(first)[2:], "executed")
    assert steps(first)["load"] == "load-the-data"
    assert steps(first)["change"] == "rows-append-3"
    book.restart()
    second = book.run_all()
    assert actions(second) == {"open": None, "imports": None} | dict.fromkeys(list(first)[2:], "replayed")
    assert [cell.visible for cell in second.values()] == [cell.visible for cell in first.values()]
    assert second["use"].result == {"text/plain": "12"}


def test_what_an_edit_an_insertion_a_move_and_a_deletion_run_again(notebook):
    book = notebook(a="a = 1", b="b = a + 1", c="c = 10", d="d = b + c\nd")
    book.run_all()
    edited = {"a": "executed", "b": "executed", "c": "replayed", "d": "executed"}
    book.cells["a"] = "a = 2"
    book.restart()
    done = book.run_all()
    assert actions(done) == {"open": None, **edited}
    assert done["d"].result == {"text/plain": "13"}

    cells = book.cells
    book.cells = {
        "open": OPEN,
        "c": cells["c"],
        "new": "n = 5",
        "a": cells["a"],
        "b": cells["b"],
        "d": cells["d"],
    }
    book.restart()
    assert actions(book.run_all()) == {
        "open": None,
        "c": "replayed",
        "new": "executed",
        "a": "replayed",
        "b": "replayed",
        "d": "replayed",
    }

    del book.cells["new"], book.cells["c"]
    book.restart()
    done = book.run_all()
    assert actions(done) == {"open": None, "a": "replayed", "b": "replayed", "d": "replayed"}


def test_equal_cells_are_told_apart(notebook):
    book = notebook(make="x = []", one="x.append(len(x))\nx", two="x.append(len(x))\nx")
    first = book.run_all()
    assert len(set(steps(first).values())) == 4
    book.cells["inserted"] = book.cells.pop("two")
    book.restart()
    del book.cells["inserted"]
    book.cells = {"open": OPEN, "make": "x = []", "zero": "x.append(len(x))\nx", "one": "x.append(len(x))\nx"}
    book.restart()
    done = book.run_all()
    assert actions(done)["make"] == "replayed"
    assert done["one"].result == {"text/plain": "[0, 1]"}


def test_a_cell_that_is_executed_twice_runs_again_and_its_last_result_replays(notebook):
    book = notebook(make="x = 0", add="x += 1\nx", show="x")
    book.run_all()
    again = book.run("add")
    assert again.facts["action"] == "executed"
    assert again.result == {"text/plain": "2"}
    book.restart()
    done = book.run_all()
    assert actions(done) == {"open": None, "make": "replayed", "add": "replayed", "show": "executed"}
    assert done["add"].result == done["show"].result == {"text/plain": "2"}


def test_a_cell_that_feeds_itself_runs_again_when_what_it_read_first_is_edited(notebook):
    book = notebook(make="x = 0", add="x += 1\nx")
    book.run_all()
    assert book.run("add").result == {"text/plain": "2"}
    book.cells["make"] = "x = 10"
    book.restart()
    done = book.run_all()
    assert actions(done) == {"open": None, "make": "executed", "add": "executed"}
    assert done["add"].result == {"text/plain": "11"}


def test_a_new_pass_replays_what_was_executed_twice(notebook):
    book = notebook(make="x = 0", add="x += 1\nx")
    book.run_all()
    book.run("add")
    assert actions(book.run_all()) == {"open": None, "make": "replayed", "add": "replayed"}


def test_a_cell_killed_when_it_ran_again_has_its_earlier_result(notebook):
    book = notebook(start="import os, pathlib", add="pathlib.Path('ran').exists() and os._exit(9)\nx = 7")
    book.run_all()
    (book.kernel.cwd / "ran").touch()
    book.kernel.start(book.cells["add"], cell="add")
    book.kernel.process.wait(timeout=20)
    (book.kernel.cwd / "ran").unlink()
    book.restart()
    done = book.run_all()
    assert actions(done)["add"] == "executed"
    assert "the result of attempt 1 is kept" in done["add"].told


def test_cells_that_say_so_are_ordinary(notebook):
    book = notebook(
        skip="# durable: skip\nx = 1",
        magics="%matplotlib inline\n%config InlineBackend.dpi = 50\n!pip --version",
    )
    book.run_all()
    book.restart()
    assert set(actions(book.run_all()).values()) == {None}


def test_a_marked_cell_keeps_its_rules(notebook):
    book = notebook(marked="%%durable_step mine\nprint('ran')\nx = 1", other="y = x")
    first = book.run_all()
    assert steps(first)["marked"] == "mine"
    again = book.run("marked")
    assert again.facts["action"] == "replayed"
    assert again.text == "ran\n"


def test_a_failing_cell_is_not_kept_and_its_error_names_its_line(notebook):
    book = notebook(bad="x = 1\n\nx / 0")
    failed = book.run_all()["bad"]
    assert "line 3" in failed.error
    book.cells["bad"] = "x = 1\n\nx / 1"
    done = book.run("bad")
    assert done.facts["action"] == "executed"
    assert done.result == {"text/plain": "1.0"}


def test_without_ids_cells_are_known_by_their_code_and_order(kernel):
    cells = [OPEN, "x = []", "x.append(len(x))\nx", "x.append(len(x))\nx", "y = 5"]
    for cell in cells:
        kernel.run(cell)
    kernel.sigkill()
    kernel.restart()
    done = [kernel.run(cell) for cell in (*cells[:4], "z = 1", "y = 5")]
    assert [cell.facts.get("action") for cell in done] == [None, *["replayed"] * 3, "executed", "replayed"]
    assert done[3].result == {"text/plain": "[0, 1]"}


def test_ids_that_are_not_in_the_file_are_no_identity(notebook):
    book = notebook(a="a = 1", b="b = a")
    book.run_all()
    book.restart()
    done = [book.kernel.run(source, cell=f"made-up-{n}") for n, source in enumerate(book.cells.values())]
    assert [cell.facts.get("action") for cell in done] == [None, "replayed", "replayed"]


def test_the_default_is_named_by_the_environment(kernel):
    kernel.setenv("DURABLE_NB_CELLS", "all")
    kernel.restart()
    kernel.run("%load_ext durable_nb")
    kernel.run("%durable_workflow r --db runs.db")
    assert kernel.run("x = 1").facts["step"] == "x-1"
    kernel.run("%durable_workflow r --cells marked")
    assert not kernel.run("x = 1").outputs


def test_a_front_ends_own_code_is_no_step(notebook):
    book = notebook(a="a = 1")
    book.run_all()
    (shown,) = book.kernel.run("b = a + 1; print(b)", store_history=False).outputs
    assert shown["text"] == "2\n"


def test_the_line_of_the_run_says_what_replays_and_how_to_start_over(notebook):
    book = notebook(a="a = 1")
    book.run_all()
    told = book.run_all()["open"].told
    assert "resuming, 1 finished, the last " in told
    assert told.endswith(" ago; to start over: %durable_workflow r --db runs.db --cells all --fresh")


def test_the_plan_has_the_steps_of_all_cells(notebook, capsys):
    book = notebook(imports="import os", a="a = 1", b="b = a", marked="%%durable_step mine\nc = b")
    book.run_all()
    book.cells["a"] = "a = 2"
    book.save()
    lines = book.kernel.run("%durable_plan", cell="plan").text.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["1", "runs"],
        ["2", "runs"],
        ["3", "a-1", "run"],
        ["4", "b-a", "may"],
        ["5", "mine", "may"],
    ]
    book.kernel.sigkill()
    assert main(["plan", str(book.file), "--run-id", "r", "--db", str(book.kernel.cwd / "runs.db")]) == 0
    assert capsys.readouterr().out.splitlines() == lines


TRAINING = (
    "model = []\nfor n in range(1000):\n    model.append(n)\n    print(f'epoch {n};', end='', flush=True)\n"
)
UNTIL_STOPPED = TRAINING + "    while len(model) == 3:\n        time.sleep(0.02)"


def interrupted(book, name):
    """Execute a cell until it has printed its third epoch, and interrupt it."""
    request = book.kernel.start(book.cells[name], cell=name)
    assert book.kernel.wait(request, until="epoch 2;") is None
    book.kernel.interrupt()
    return book.kernel.wait(request)


def test_what_an_interrupted_cell_has_made_is_kept_on_request(notebook):
    book = notebook(start="import time", train=UNTIL_STOPPED, use="sum(model)")
    book.run("open")
    book.run("start")
    stopped = interrupted(book, "train")
    assert "KeyboardInterrupt" in stopped.error
    assert "changed before it stopped: model, n · to keep that as its result: %durable_keep" in stopped.told
    kept = book.kernel.run("%durable_keep", cell="keep")
    assert kept.error is None
    assert "⚠ interrupted, and kept with what it had made by then" in kept.told
    book.restart()
    done = book.run_all()
    assert done["train"].facts["action"] == "replayed"
    assert done["train"].text == "epoch 0;epoch 1;epoch 2;"
    assert done["use"].result == {"text/plain": "3"}
    assert book.kernel.run("len(model), n").result == {"text/plain": "(3, 2)"}


def test_an_interrupted_cell_that_awaits_is_kept_too(notebook):
    awaits = "rows = [1]\nprint('epoch 2;')\nimport asyncio\nawait asyncio.sleep(1000)\nrows.append(2)"
    book = notebook(wait=awaits, use="rows")
    book.run("open")
    interrupted(book, "wait")
    assert book.kernel.run("%durable_keep", cell="keep").error is None
    book.restart()
    done = book.run_all()
    assert actions(done) == {"open": None, "wait": "replayed", "use": "executed"}
    assert done["use"].result == {"text/plain": "[1]"}


def test_only_the_cell_that_was_just_interrupted_is_kept(notebook):
    book = notebook(start="import time", train=UNTIL_STOPPED, fails="1 / 0", other="other = 1")
    book.run("open")
    refused = "the last cell was no durable cell that was interrupted"
    assert refused in book.kernel.run("%durable_keep").stderr
    book.run("fails")
    assert refused in book.kernel.run("%durable_keep").stderr
    book.run("start")
    interrupted(book, "train")
    book.kernel.run("len(model)", store_history=False)  # as a front end's list of variables does
    book.run("other")
    assert refused in book.kernel.run("%durable_keep").stderr
    assert "StepNotFound" in book.kernel.run("%durable_keep").stderr


def test_what_a_task_changes_between_cells_is_saved_with_the_next_cell_that_names_it(notebook):
    tick = (
        "async def tick():\n    for n in range(3):\n        await asyncio.sleep(0)\n        log.append(n)\n"
    )
    book = notebook(
        log="import asyncio\nlog = []",
        start=f"{tick}task = asyncio.create_task(tick())",
        other="x = 1\nawait asyncio.sleep(0.1)",
        more="y = 2",
        wait="await task\nlog",
        use="sum(log)",
    )
    first = book.run_all()
    assert first["wait"].result == {"text/plain": "[0, 1, 2]"}
    book.restart()
    book.cells["read"] = "log"
    done = book.run_all()
    assert actions(done) == {"open": None} | dict.fromkeys([*first][1:], "replayed") | {"read": "executed"}
    assert done["read"].result == {"text/plain": "[0, 1, 2]"}


def test_restoring_names_the_cells_that_were_edited_since(notebook):
    book = notebook(a="a = 1", b="b = a + 1", c="c = 10", **{"%": "%%durable_step mine\nd = 4"})
    book.run_all()
    book.cells |= {"a": "a = 2", "%": "%%durable_step mine\nd = 5"}
    book.restart()
    book.run("open")
    told = book.kernel.run("%durable_restore", cell="restore").text.splitlines()
    assert told == [
        "restored 4 names from the finished steps",
        "edited since, and restored as it was: a-1 (its code changed)",
        "edited since, and restored as it was: mine (its code changed)",
    ]
    assert book.kernel.run("a, b, c, d", store_history=False).text == ""
    assert book.kernel.run("print(a, b, c, d)", store_history=False).text == "1 2 10 4\n"


def test_another_notebook_under_the_same_run_id_is_said(notebook):
    book = notebook(a="a = 1")
    book.run_all()
    assert "another notebook" not in book.run_all()["open"].told
    original, book.file = book.file, book.file.with_name("copy.ipynb")
    book.kernel.setenv("JPY_SESSION_NAME", str(book.file))
    book.restart()
    done = book.run_all()
    assert f"⚠ its cells were executed in another notebook, {original}. For a run" in done["open"].told
    assert done["a"].facts["action"] == "replayed"
    original.unlink()
    assert "another notebook" not in book.run_all()["open"].told


def test_a_database_that_outgrows_its_cap_says_so_once(notebook):
    cells = {name: f"{name} = __import__('os').urandom(250_000)" for name in ("x", "y", "z")}
    book = notebook(**cells)
    limit = "get_ipython().durable_nb.session.max_database = 700_000"
    book.cells["open"] = book.cells["open"].replace("durable_nb\n", f"durable_nb\n{limit}\n")
    done = book.run_all()
    assert [name for name in cells if "To make room: durable-nb forget" in done[name].told] == ["z"]
    told = r"its files have 0?\.\d+ MB, more than max_database \(0\.7 MB\); \S+ .B of the disk are free"
    assert re.search(told, done["z"].told)


def test_a_value_beyond_the_largest_is_named_and_not_kept(notebook):
    book = notebook(
        limit="# durable: skip\nget_ipython().durable_nb.session.max_result = 100_000",
        make="small, large = b'x' * 1000, bytes(200_000)",
    )
    told = book.run_all()["make"].told
    assert "large is not saved: it has 0.2 MB, and max_result is 0.1 MB. After a restart" in told
    book.cells["use"] = "len(small), len(large)"
    book.restart()
    done = book.run_all()
    assert done["make"].facts["action"] == "replayed"
    assert done["use"].result == {"text/plain": "(1000, 200000)"}
    assert "↻ large · made again by" in done["use"].told
