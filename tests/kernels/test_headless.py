"""Notebooks run headless in real kernels: what is reported of each cell, also of those that fail or die."""

import asyncio
import os
import signal
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from durable_nb.errors import DurableError, InvalidOption
from durable_nb.notebook.headless.runner import CellState, pending_cells, run_notebook
from helpers import pythonpath

OPEN = "%load_ext durable_nb\n%durable_workflow r --db r.db"
LOAD = "%%durable_step load\nimport time; time.sleep(1); n = 2"
ADD = "%%durable_step add --retries 1\nn += 40"


@pytest.fixture
def write(tmp_path):
    """Writes a notebook of code cells; what begins with `# ` and a space alone is markdown."""

    def write(*sources):
        cells = [
            new_markdown_cell(source[1:]) if source.startswith("!") else new_code_cell(source)
            for source in sources
        ]
        path = tmp_path / "notebook.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def states(report):
    return [str(cell.state) for cell in report.cells]


async def gone(pid):
    """Whether a process ends within a few seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_durable_cells_are_executed_then_replayed(write, tmp_path):
    path = write(OPEN, "! markdown", LOAD, ADD, "", "# the sum\nprint(n)")
    first = await run_notebook(path, cwd=tmp_path)
    assert states(first) == ["ran", "executed", "executed", "ran"]
    assert first.finished
    assert not first.died
    assert first.saved == 0

    second = await run_notebook(path, cwd=tmp_path)
    assert states(second) == ["ran", "replayed", "replayed", "ran"]
    load = second.cells[1]
    assert (load.index, load.title, load.step) == (2, "load", "load")
    assert load.seconds >= 1
    assert 0 < load.saved < load.seconds
    assert second.saved == sum(cell.saved for cell in second.cells)
    assert second.notebook.cells[-1].outputs[0].text == "42\n"
    assert "outputs" in nbformat.read(path, as_version=4).cells[0]
    assert nbformat.read(path, as_version=4).cells[-1].outputs == []  # the file is as it was


def test_the_plan_names_cells_as_the_report_does(write):
    path = write(OPEN, "! markdown", LOAD, ADD, "", "# the sum\nprint(n)", "#", "%%durable_step")
    assert [(cell.index, cell.title) for cell in pending_cells(path)] == [
        (0, "%load_ext durable_nb"),
        (2, "load"),
        (3, "add"),
        (5, "the sum"),
        (6, "#"),
        (7, "%%durable_step"),
    ]
    assert {cell.state for cell in pending_cells(path)} == {CellState.WAITING}


async def test_each_cell_is_told_when_it_starts_and_when_it_has_ended(write, tmp_path):
    told, pids = [], []
    report = await run_notebook(
        write("a = 1", "b = 2"),
        cwd=tmp_path,
        on_cell=lambda cell: told.append((cell.index, str(cell.state))),
        on_kernel=pids.append,
    )
    assert told == [(0, "running"), (0, "ran"), (1, "running"), (1, "ran")]
    assert pids == [report.pid]
    assert await gone(report.pid)


async def test_a_failing_cell_ends_the_run_and_is_reported(write, tmp_path):
    report = await run_notebook(write("1", "1 / 0", "2"), cwd=tmp_path)
    assert states(report) == ["ran", "failed", "waiting"]
    assert report.cells[1].error == "ZeroDivisionError: division by zero"
    assert not report.finished
    assert not report.died


async def test_a_failing_durable_cell_is_reported(write, tmp_path):
    report = await run_notebook(write(OPEN, "%%durable_step bad\nmissing"), cwd=tmp_path)
    assert states(report) == ["ran", "failed"]
    assert report.cells[1].error.startswith("NameError")


async def test_an_error_that_the_cell_announces_is_none(write, tmp_path):
    path = write("1 / 0", "2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    assert states(await run_notebook(path, cwd=tmp_path)) == ["ran", "ran"]


async def test_a_killed_kernel_is_reported_and_the_next_run_goes_on(write, tmp_path):
    slow = "%%durable_step slow\nimport os, time\nif not os.path.exists('second'): time.sleep(60)"
    path = write(OPEN, LOAD, slow, "n")
    pid = None

    def know(number):
        nonlocal pid
        pid = number

    def kill(cell):
        if cell.title == "slow" and cell.state is CellState.RUNNING:
            asyncio.get_running_loop().call_later(0.3, os.kill, pid, signal.SIGKILL)

    first = await run_notebook(path, cwd=tmp_path, on_cell=kill, on_kernel=know)
    assert states(first) == ["ran", "executed", "killed", "waiting"]
    assert first.died
    assert first.cells[2].took < 10

    (tmp_path / "second").touch()
    second = await run_notebook(path, cwd=tmp_path)
    assert states(second) == ["ran", "replayed", "executed", "ran"]
    assert second.pid != first.pid


async def test_a_kernel_that_kills_itself_is_a_death(write, tmp_path):
    report = await run_notebook(write("import os", "os.kill(os.getpid(), 9)", "1"), cwd=tmp_path)
    assert states(report) == ["ran", "killed", "waiting"]


async def test_a_cell_that_takes_too_long_has_failed(write, tmp_path):
    report = await run_notebook(write("import time; time.sleep(60)", "1"), cwd=tmp_path, timeout=0.5)
    assert states(report) == ["failed", "waiting"]
    assert report.cells[0].error == "the cell took longer than its timeout of 0.5 s"
    assert await gone(report.pid)


async def test_cancelling_is_no_death_and_leaves_no_kernel(write, tmp_path):
    kernel = asyncio.get_running_loop().create_future()
    path = write("import time; time.sleep(60)")
    running = asyncio.create_task(run_notebook(path, cwd=tmp_path, on_kernel=kernel.set_result))
    pid = await kernel
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await gone(pid)


async def test_the_kernel_is_this_python_in_that_directory_and_environment(write, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    source = "import os, sys; print(sys.executable, os.getcwd(), os.environ['GREETING'])"
    # A kernel of the same name that the user installed must not come in between.
    spec = tmp_path / "data" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    env = {**os.environ, "GREETING": "hello", "JUPYTER_PATH": str(tmp_path / "data")}
    report = await run_notebook(write(source), cwd=work, env=env)
    assert report.notebook.cells[0].outputs[0].text == f"{sys.executable} {work} hello\n"


async def test_an_installed_kernel_can_be_named(write, tmp_path, monkeypatch):
    spec = tmp_path / "data" / "kernels" / "special"
    spec.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    kernel = f'{{"argv": {argv}, "display_name": "x", "language": "python", "env": {{"SPECIAL": "yes"}}}}'
    (spec / "kernel.json").write_text(kernel)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    path = write("import os; print(os.environ['SPECIAL'])")
    report = await run_notebook(path, cwd=tmp_path, kernel_name="special")
    assert report.notebook.cells[0].outputs[0].text == "yes\n"
    with pytest.raises(InvalidOption, match="no kernel named 'none' is installed"):
        await run_notebook(path, cwd=tmp_path, kernel_name="none")


async def test_a_kernel_that_does_not_start_says_why(write, tmp_path):
    env = {**os.environ, **pythonpath(tmp_path)}
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel today')")
    began = time.monotonic()
    with pytest.raises(DurableError, match=r"the kernel did not start: no kernel today"):
        await run_notebook(write("1"), cwd=tmp_path, env=env)
    assert time.monotonic() - began < 20


PORT_TAKEN = """
import runpy, sys
tried = open("tried", "a+")
print("x", file=tried, flush=True)
tried.seek(0)
if len(tried.readlines()) <= {times}:
    sys.exit("zmq.error.ZMQError: Address already in use")
sys.path.remove({here!r})
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""


@pytest.mark.parametrize("times", [2, 3])
async def test_a_port_that_somebody_else_took_is_tried_again(times, write, tmp_path):
    here = tmp_path / "first"
    here.mkdir()
    (here / "ipykernel_launcher.py").write_text(PORT_TAKEN.format(times=times, here=str(here)))
    env = {**os.environ, **pythonpath(here)}
    running = run_notebook(write("1"), cwd=tmp_path, env=env)
    if times == 2:
        assert states(await running) == ["ran"]
    else:
        with pytest.raises(DurableError, match="Address already in use"):
            await running
    assert (tmp_path / "tried").read_text() == "x\n" * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), ("", "not a notebook"), ("{}", "not a notebook"), ("[1]", "not a notebook")],
)
async def test_what_is_no_notebook_is_said(content, message, tmp_path):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidOption, match=message):
        await run_notebook(path, cwd=tmp_path)
