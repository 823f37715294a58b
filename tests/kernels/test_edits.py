"""Edits run again, drift does not, in kernels that are killed; the table is in behaviour/test_edits.py."""

from durable_nb.notebook.headless.runner import run_notebook
from helpers.notebooks import write_notebook

OPEN = "%load_ext durable_nb\n%durable_workflow edits --db runs.db"
LOG = """def log(line):
    with open("bodies.log", "a") as file:
        print(line, file=file)
"""
LOAD = "%%durable_step load\nlog('load')\nimport pandas as pd\ndf = pd.DataFrame({'a': [N, 2], 'b': [3, 4]})"
TRAIN = "%%durable_step train\nlog('train')\nfitted = int(df.sum().sum()) + scale(1)"
REPORT = "%%durable_step report\nlog('report')\nprint(fitted, today)"
SCALE = "def scale(x): return x * K"
CLOCK = "import time\ntoday = time.time_ns()"


def cells(n="N = 1", k="K = 1", clean="", scale=SCALE):
    return [OPEN, LOG, n, k, scale, CLOCK, LOAD, *([clean] if clean else []), TRAIN, REPORT]


def went_on(kernel, version):
    """Kill the kernel, run a version in a new one; gives what was executed and what the steps told."""
    log = kernel.cwd / "bodies.log"
    log.unlink(missing_ok=True)
    kernel.sigkill()
    kernel.restart()
    done = [kernel.run(cell) for cell in version]
    assert [cell.status for cell in done] == ["ok"] * len(version)
    facts = [
        output.get("metadata", {}).get("durable_nb", {}) for cell in done for output in cell.outputs[-1:]
    ]
    told = {one["step"]: one.get("notice", "") for one in facts if "step" in one}
    return log.read_text().split() if log.exists() else [], told


def test_versions_of_a_notebook_one_after_the_other(kernel):
    executed, _ = went_on(kernel, cells())
    assert executed == ["load", "train", "report"]

    executed, told = went_on(
        kernel, ["# nothing new", *cells(n="N = 1  # one", scale=SCALE + "  # the same")]
    )
    assert executed == []
    assert told["report"] == "replayed; drifted: `today`; to run it again: %durable_reset report"
    assert told["load"] == told["train"] == ""

    executed, told = went_on(kernel, cells(k="K = 5"))
    assert executed == ["train", "report"]
    assert told["train"] == "ran again: it now reads `K = 5` (was `K = 1`)"
    assert told["report"] == "ran again: `fitted` comes from step `train`, whose result changed"

    drop = "df.drop('b', axis=1, inplace=True)"
    executed, told = went_on(kernel, cells(k="K = 5", clean=drop))
    assert executed == ["train", "report"]
    assert told["train"] == f"ran again: `{drop}` was added"

    executed, _ = went_on(kernel, cells(k="K = 5", clean=drop))
    assert executed == []

    executed, told = went_on(kernel, cells(n="N = 7", k="K = 0", clean=drop))
    assert executed == ["load", "train", "report"]


def test_a_cell_after_its_rename_in_a_front_end_that_names_cells(kernel):
    kernel.run(OPEN)
    kernel.run("%%durable_step old\nprint('ran')\nx = 1")
    client = kernel.client
    again = client.session.msg  # a request with the cell's id, as JupyterLab sends it

    def with_cell(kind, content=None, **kw):
        message = again(kind, content, **kw)
        message["metadata"]["cellId"] = "one"
        return message

    client.session.msg = with_cell
    assert kernel.run("%%durable_step first\nprint('ran')\ny = 2").text == "ran\n"
    kernel.sigkill()
    kernel.restart()
    kernel.client.session.msg, again = with_cell, kernel.client.session.msg
    kernel.run(OPEN)
    renamed = kernel.run("%%durable_step second\nprint('ran')\ny = 2")
    assert renamed.outputs[-1]["metadata"]["durable_nb"]["notice"].startswith(
        "replayed; it was called `first`"
    )


async def test_a_renamed_step_run_headless(tmp_path):
    book = tmp_path / "book.ipynb"
    write_notebook(book, [OPEN, "%%durable_step old\nx = 1"])
    first = await run_notebook(book, cwd=tmp_path)
    write_notebook(book, [OPEN, "%%durable_step new\nx = 1", "%%durable_step twin\nx = 1"])
    second = await run_notebook(book, cwd=tmp_path)
    assert [str(cell.state) for cell in first.cells] == ["ran", "executed"]
    assert [str(cell.state) for cell in second.cells] == ["ran", "replayed", "executed"]


TASK = "@wf.task\ndef scaled(n):\n    log(f'scaled-{n}')\n    return n * K"
CALLS = "%%durable_step calls\ntotal = sum(scaled(n) for n in numbers)"


def test_a_cell_that_runs_again_says_which_of_its_tasks_did_not(kernel):
    def version(k, numbers):
        return [OPEN, LOG, k, f"numbers = {numbers}", TASK, CALLS]

    assert went_on(kernel, version("K = 2", [1, 2]))[0] == ["scaled-1", "scaled-2"]
    executed, told = went_on(kernel, version("K = 5", [2, 3]))
    assert executed == ["scaled-3"]
    first, second = told["calls"].splitlines()
    assert first.startswith("steps replayed inside it: ")
    assert first.endswith("scaled#1; to run them again too: %durable_reset calls")
    assert second.startswith("ran again: ")
    kernel.run("%durable_reset calls")
    assert kernel.run(CALLS + "\nprint(total)").text == "25\n"
