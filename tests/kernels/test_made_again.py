"""Names that could not be kept are made again where an unfinished cell reads them, and nothing else is."""

import pytest

from helpers.notebooks import OpenNotebook

OPEN = "%load_ext durable_nb\n%durable_workflow r --db runs.db --cells all"
LOG = "# durable: skip\ndef log(line):\n    with open('log', 'a') as file:\n        print(line, file=file)"


@pytest.fixture
def notebook(kernel):
    def opened(line=OPEN, **cells):
        return OpenNotebook(kernel, open=line, log=LOG, **cells)

    return opened


def logged(book):
    return (book.kernel.cwd / "log").read_text().split()


def went_on(book, **cells):
    """Run all, kill, add cells, and run all again; gives what came back."""
    book.run_all()
    book.cells |= cells
    book.restart()
    return book.run_all()


CONNECT = "import sqlite3\nlog('work')\ncon = sqlite3.connect('other.db')\nrows = [1]"


def test_only_the_statement_that_makes_it_is_executed_again(notebook):
    book = notebook(connect=CONNECT)
    told = book.run_all()["connect"].told
    assert "con is not saved: " in told
    assert "a cell that reads it executes `con = sqlite3.connect('other.db')` again." in told
    done = went_on(book, use="print(con.execute('select 1').fetchall(), rows)")
    assert done["use"].error is None
    assert done["use"].text == "[(1,)] [1]\n"
    assert (
        "↻ con · made again by `con = sqlite3.connect('other.db')` of step import-sqlite3" in done["use"].told
    )
    assert logged(book) == ["work"]
    book.restart()
    done = book.run_all()
    assert done["use"].facts["action"] == "replayed"
    assert "↻" not in done["use"].told


def test_it_is_found_through_a_function(notebook):
    book = notebook(connect=CONNECT, ask="def ask():\n    return con.execute('select 2').fetchall()")
    assert went_on(book, use="print(ask())")["use"].text == "[(2,)]\n"


def test_what_it_is_made_of_is_made_again_first(notebook):
    book = notebook(one="gen = (n for n in range(9))", two="pairs = zip(gen, gen)\nn = 5")
    done = went_on(book, use="print(next(pairs), n)")
    assert done["use"].text == "(0, 1) 5\n"
    assert done["use"].told.count("made again") == 2


def test_what_its_function_reads_once_it_goes_on_is_made_again_too(notebook):
    count = "def numbers():\n    yield from con.execute('select 3')"
    book = notebook(connect=CONNECT, count=count, gen="gen = numbers()")
    done = went_on(book, use="print(next(gen))")
    assert done["use"].error is None
    assert done["use"].text == "(3,)\n"
    assert done["use"].told.count("made again") == 2


def test_only_that_name_is_bound(notebook):
    book = notebook(make="count, gen = 0, (n for n in range(9))", raised="count += 1")
    done = went_on(book, use="print(next(gen), count)")
    assert done["use"].text == "0 1\n"


def test_what_else_was_done_to_it_is_named(notebook):
    book = notebook(
        make="import sqlite3\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t (x)')"
    )
    told = went_on(book, use="con.execute('select 1')")["use"].told
    assert "not done again: `con.execute('create table t (x)')`" in told


def test_what_other_cells_did_to_it_is_named_too(notebook):
    book = notebook(
        make="import threading\nworker = threading.Thread(target=print)",
        start="worker.start()",
        join="worker.join(5)\nworker.is_alive()",
    )
    done = went_on(book, use="worker.name = 'one'\nprint(worker.name)")
    assert done["use"].text == "one\n"
    assert "made again by `worker = threading.Thread(target=print)`" in done["use"].told
    assert "not done again: `worker.start()`, `worker.join(5)`" in done["use"].told


def test_what_listened_to_a_widget_is_named(notebook):
    book = notebook(
        make="import ipywidgets\nslider = ipywidgets.IntSlider()\nseen = []",
        listen="slider.observe(lambda change: seen.append(change['new']), 'value')",
    )
    done = went_on(book, use="slider.value = 4\nprint(seen)")
    assert done["use"].text == "[]\n"
    assert "not done again: `slider.observe(lambda change: " in done["use"].told


def test_a_statement_that_reads_what_the_cell_binds_again_is_not_executed(notebook):
    book = notebook(make="path = 'a.db'\nimport sqlite3\ncon = sqlite3.connect(path)\npath = 'b.db'")
    error = went_on(book, use="con.execute('select 1')")["use"].stderr
    assert "StepNotRestored" in error
    assert "the cell binds `path` again after that" in error


def test_nor_is_one_that_would_read_another_value(notebook):
    book = notebook(
        path="path = 'a.db'", make="import sqlite3\ncon = sqlite3.connect(path)", other="path = 'b.db'"
    )
    error = went_on(book, use="con.execute('select 1')")["use"].stderr
    assert "StepNotRestored" in error
    assert "`path` now comes from step `path-b-db`" in error


SLOW = "with open('f', 'w') as file:\n    log('work')\n    con = (n for n in [7])"


def test_other_work_is_executed_again_if_it_was_short(notebook):
    done = went_on(notebook(make=SLOW), use="print(next(con))")
    assert done["use"].text == "7\n"


def test_long_work_is_not_executed_again_unasked(notebook, kernel):
    book = notebook(make=SLOW)
    book.cells["log"] += "\n__import__('durable_nb.settings').settings.LIVE_SECONDS = 0.0"
    error = went_on(book, use="print(next(con))")["use"].stderr
    assert "StepNotRestored" in error
    assert "To have it made again, split off `with open('f', 'w') as file: …`" in error
    assert logged(book) == ["work"]


def test_nor_is_a_task(notebook):
    task = "@wf.task\ndef pay():\n    log('paid')\n    return 7"
    make = "for n in [pay()]:\n    con = (m for m in [n])"
    error = went_on(notebook(task=task, make=make), use="print(next(con))")["use"].stderr
    assert "split off `for n in [pay()]:" in error


def test_what_fails_is_said_and_the_placeholder_stays(notebook):
    book = notebook(make="import pathlib\nfile = open('data')\n")
    (book.kernel.cwd / "data").touch()
    book.run_all()
    (book.kernel.cwd / "data").unlink()
    done = went_on(book, use="file.read()")
    assert "could not be made again: FileNotFoundError" in done["use"].told
    assert "StepNotRestored" in done["use"].stderr


def test_marked_cells_keep_their_rule_unless_they_say_otherwise(notebook):
    keep = "%%durable_step {}\ngen{} = (n for n in [1])"
    cells = {"keep": keep.format("keep", 1), "live": keep.format("live --live rerun", 2)}
    once = "%%durable_step once --live rerun --once\ngen3 = (n for n in [1])"
    book = notebook(line=OPEN.replace("all", "marked"), once=once, **cells)
    uses = {f"use{n}": f"%%durable_step use{n}\nprint(next(gen{n}))" for n in (1, 2, 3)}
    done = went_on(book, **uses)
    assert "StepNotRestored" in done["use1"].stderr
    assert done["use2"].text == "1\n"
    assert "StepNotRestored" in done["use3"].stderr


def test_what_a_task_that_is_made_again_changes_is_saved(notebook):
    tick = (
        "async def tick():\n    for n in range(3):\n        rows.append(n)\n        await asyncio.sleep(0)\n"
    )
    book = notebook(
        make="import asyncio\nrows = []", start=f"{tick}task = asyncio.create_task(tick())", other="x = 1"
    )
    done = went_on(book, wait="await task\nprint(rows)")
    assert done["wait"].text == "[0, 1, 2]\n"
    book.cells["use"] = "print(sum(rows))"
    book.restart()
    done = book.run_all()
    assert done["wait"].facts["action"] == "replayed"
    assert done["use"].text == "3\n"
