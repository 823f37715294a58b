"""A durable cell runs again and its kernel is killed: the earlier result is kept, and can be taken back."""

import json
import shlex

import pytest

from helpers.kernel import KernelDied

OPEN = "%load_ext durable_nb\n%durable_workflow shop --db {db} --badge full"
LOAD = """%%durable_step load
import os, signal
found = {value}
with open("ran.log", "a") as log:
    print({value}, file=log)
if os.path.exists("deadly"):
    os.remove("deadly")
    os.kill(os.getpid(), signal.SIGKILL)"""
KEPT = "; the result of attempt 1 is kept, to take it back: %durable_resolve load earlier"


class Notebook:
    """One cell, on a database."""

    def __init__(self, kernel, db):
        self.kernel, self.db = kernel, db
        self.open()
        self.load(1)

    def open(self):
        assert self.kernel.run(OPEN.format(db=shlex.quote(self.db))).status == "ok"

    def load(self, value):
        cell = self.kernel.run(LOAD.replace("{value}", json.dumps(value)))
        assert cell.status == "ok", cell.error
        return cell

    def restart(self):
        self.kernel.sigkill()
        self.kernel.restart()
        self.open()

    def load_killed(self, value):
        self.restart()
        (self.kernel.cwd / "deadly").touch()
        with pytest.raises(KernelDied):
            self.load(value)
        self.kernel.restart()
        self.open()

    def found(self):
        return self.kernel.run("print(found)").text.strip()

    def ran(self):
        return (self.kernel.cwd / "ran.log").read_text().split()


@pytest.fixture(params=["sqlite", "redis"])
def notebook(request, kernel):
    """A notebook whose cell has a result."""
    db = "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url
    return Notebook(kernel, db)


def test_an_edited_cell_runs_again_and_says_that_its_result_is_kept(notebook):
    notebook.load_killed(2)
    assert KEPT in notebook.load(2).told
    assert (notebook.found(), notebook.ran()) == ("2", ["1", "2", "2"])


def test_the_result_of_an_edited_cell_is_taken_back(notebook):
    notebook.load_killed(2)
    said = notebook.kernel.run("%durable_resolve load earlier").text
    assert said == "step 'load' has its earlier result again\n"
    notebook.load(2)
    assert (notebook.found(), notebook.ran()) == ("1", ["1", "2"])


def test_the_result_of_a_cell_that_was_reset_is_taken_back(notebook):
    notebook.kernel.run("%durable_reset load")
    notebook.load_killed(1)
    notebook.kernel.run("%durable_resolve load earlier")
    notebook.load(1)
    assert (notebook.found(), notebook.ran()) == ("1", ["1", "1"])


def test_a_cell_that_ended_again_has_its_earlier_result_back(notebook):
    notebook.restart()
    notebook.load(2)
    notebook.kernel.run("%durable_resolve load earlier")
    notebook.load(2)
    assert (notebook.found(), notebook.ran()) == ("1", ["1", "2"])
