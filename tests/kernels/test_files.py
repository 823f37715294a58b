"""What happens to the files of a database while a notebook is open: what a badge has acknowledged is kept."""

from collections import Counter

import pytest

from helpers import pythonpath
from helpers.kernel import KernelDied
from helpers.marks import marked, marking

CELLS = 8

DEEDS = {
    "read, and closed by another program": """
open("runs.db", "rb").read()
program = "import sqlite3; c = sqlite3.connect('runs.db'); c.execute('SELECT 1 FROM runs'); c.close()"
__import__("subprocess").run([__import__("sys").executable, "-c", program], check=True)
""",
    "listed by another process": """
open("runs.db", "rb").read()
!python -m durable_nb runs --db runs.db
""",
    "log deleted": "__import__('os').unlink('runs.db-wal')",
    "log truncated": "__import__('os').truncate('runs.db-wal', 1000)",
    "lock deleted": "__import__('os').unlink('runs.db.lock')",
}

OPEN = "%load_ext durable_nb\n%durable_workflow kept --db runs.db"


def step(kernel, number):
    """Execute a durable cell, and return it."""
    body = f"n{number} = {number}" if number % 3 else f"import numpy as np\nn{number} = np.arange(100_000.0)"
    return kernel.run(f"%%durable_step cell{number} --once\n" + marking(f"cell{number}", body))


@pytest.fixture
def opened(kernel_factory, tmp_path):
    kernel = kernel_factory(**pythonpath(), MARKS=str(tmp_path / "marks"))
    assert kernel.run(OPEN).error is None
    return kernel


@pytest.mark.parametrize("deed", DEEDS)
def test_acknowledged_cells_outlive_what_happens_to_the_files_and_a_kill(opened, tmp_path, deed):
    told = ""
    for number in range(CELLS):
        cell = step(opened, number)
        assert cell.error is None
        told += cell.told + cell.stderr
        if number in (2, 5):
            assert opened.run(DEEDS[deed]).error is None
    opened.sigkill()
    opened.restart()
    assert opened.run(OPEN).error is None
    assert [step(opened, number).error for number in range(CELLS)] == [None] * CELLS
    assert Counter(marked(tmp_path / "marks")) == {f"cell{number}": 1 for number in range(CELLS)}
    if "log" in deed:
        assert "written again (run 'kept')" in told


def test_a_deleted_database_is_said_under_the_next_cell_and_after_a_restart(opened, tmp_path):
    for number in range(3):
        assert step(opened, number).error is None
    opened.run("__import__('os').unlink('runs.db')")
    assert "was deleted or replaced while it was in use" in step(opened, 3).stderr
    opened.sigkill()
    opened.restart()
    opening = opened.run(OPEN)
    error = f"{opening.stderr}{step(opened, 0).stderr}"
    assert "StoreUnreadable" in error
    assert "durable-nb check" in error
    assert Counter(marked(tmp_path / "marks"))["cell0"] == 1


def test_a_kernel_that_is_killed_in_a_cell_leaves_files_that_replay(opened, tmp_path):
    for number in range(3):
        assert step(opened, number).error is None
    with pytest.raises(KernelDied):
        opened.run("%%durable_step last\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    opened.restart()
    assert opened.run(OPEN).error is None
    assert [step(opened, number).error for number in range(3)] == [None] * 3
    assert len(marked(tmp_path / "marks")) == 3
