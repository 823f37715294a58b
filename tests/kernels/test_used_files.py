"""The files that durable cells read and wrote: a replay says which of them have changed since."""

import json
import os
import sqlite3

import pytest

from durable_nb.cli import main
from durable_nb.notebook.headless.runner import run_notebook
from helpers.notebooks import write_notebook

OPEN = "%load_ext durable_nb\n%durable_workflow files --db runs.db"


def again(kernel, *cells):
    """Kill the kernel and run the cells in a new one; gives the notices of the last cell."""
    kernel.sigkill()
    kernel.restart()
    done = [kernel.run(cell) for cell in (OPEN, *cells)]
    assert [cell.status for cell in done] == ["ok"] * len(done)
    return done[-1].facts["action"], done[-1].facts.get("notice", "")


def begin(kernel, *cells):
    done = [kernel.run(cell) for cell in (OPEN, *cells)]
    assert [cell.status for cell in done] == ["ok"] * len(done)
    assert "notice" not in done[-1].facts


READERS = {
    "open": "with open('data.csv') as file:\n    text = file.read()",
    "pathlib": "import pathlib\ntext = (pathlib.Path('.') / 'data.csv').read_text()",
    "os.open": "import os\nfile = os.open('data.csv', os.O_RDONLY)\ntext = os.read(file, 9)\nos.close(file)",
    "pandas": "import pandas as pd\ndf = pd.read_csv('data.csv')",
    "pandas, the C parser": "import pandas as pd\ndf = pd.read_csv('data.csv', engine='c')",
    "numpy": "import numpy as np\nrows = np.loadtxt('data.csv', delimiter=',', skiprows=1)",
    "a thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def read(name):\n    with open(name + '.csv') as file:\n        return file.read()\n"
        "with ThreadPoolExecutor(2) as pool:\n    text = list(pool.map(read, ['data', 'data']))"
    ),
    "asyncio.to_thread": (
        "import asyncio, pathlib\n"
        "name = 'data'\n"
        "text = await asyncio.to_thread(pathlib.Path(f'{name}.csv').read_text)"
    ),
    "a failed attempt": "%TWICE",
}
TWICE = """%%durable_step load --retries 1 --backoff constant:0.01
import pathlib
tried = globals().get('tried', 0) + 1
text = pathlib.Path('data.csv').read_text() if tried == 1 else text
assert tried == 2"""


@pytest.mark.parametrize("how", READERS)
def test_an_input_that_was_changed_is_named_with_how_it_changed(kernel, how):
    (kernel.cwd / "data.csv").write_text("a,b\n1,2\n")
    cell = TWICE if READERS[how] == "%TWICE" else f"%%durable_step load\n{READERS[how]}"
    begin(kernel, cell)
    assert again(kernel, cell) == ("replayed", "")
    (kernel.cwd / "data.csv").write_text("a,b\n1,2\n3,4\n")
    action, notice = again(kernel, cell)
    assert action == "replayed"
    assert notice.startswith("replayed; data.csv has changed since (8 bytes, ")
    assert notice.endswith("; now 12 bytes); to run it again: %durable_reset load")


def test_a_large_input_is_compared_by_size_and_time_a_small_one_by_its_content(kernel):
    cell = "%%durable_step load\nn = [len(open(f'{name}.bin', 'rb').read()) for name in ('small', 'large')]"
    small, large = kernel.cwd / "small.bin", kernel.cwd / "large.bin"
    small.write_bytes(b"x")
    with large.open("wb") as file:
        file.truncate((16 << 20) + 1)
    begin(kernel, cell)
    os.utime(small, (0, 0))
    assert again(kernel, cell) == ("replayed", "")
    os.utime(large, (0, 0))
    _, notice = again(kernel, cell)
    assert "large.bin has changed since (16.8 MB, " in notice
    assert "now 16.8 MB, 1 Jan 1970 " in notice
    assert "small.bin" not in notice


def test_an_input_of_the_same_size_with_other_content_has_changed(kernel):
    cell = "%%durable_step load\nx = int(open('n.txt').read())"
    (kernel.cwd / "n.txt").write_text("1")
    begin(kernel, cell)
    (kernel.cwd / "n.txt").write_text("2")
    assert "n.txt has changed since (1 byte, " in again(kernel, cell)[1]


MENTIONS = {
    "a literal": ("", "size = os.stat('data.bin').st_size"),
    "a name that it reads": ("path = 'data.bin'", "size = os.stat(path).st_size"),
    "a path in a list": (
        "from pathlib import Path\npaths = [Path('data.bin')]",
        "size = os.stat(paths[0]).st_size",
    ),
    "a path that it puts together": (
        "from pathlib import Path",
        "path = Path('.') / ('data' + '.bin')\nsize = os.stat(path).st_size",
    ),
    "a function of the notebook": (
        "FILE = 'data.bin'\ndef size_of(): return os.stat(FILE).st_size",
        "size = size_of()",
    ),
}


@pytest.mark.parametrize("how", MENTIONS)
def test_a_path_that_a_cell_mentions_is_an_input_though_no_event_tells_of_the_reader(kernel, how):
    ordinary, body = MENTIONS[how]
    cells = f"import os\n{ordinary}", f"%%durable_step load\n{body}"
    (kernel.cwd / "data.bin").write_bytes(b"1")
    os.utime(kernel.cwd / "data.bin", (0, 0))
    begin(kernel, *cells)
    assert again(kernel, *cells) == ("replayed", "")
    (kernel.cwd / "data.bin").write_bytes(b"12")
    assert "data.bin has changed since (1 byte, " in again(kernel, *cells)[1]


def test_an_output_that_is_gone_is_named_and_one_that_the_user_edited_is_not(kernel):
    save = "import numpy as np\nnp.save('a.npy', np.arange(3))\nopen('b.txt', 'w').write('b')"
    cell = f"%%durable_step save\n{save}"
    begin(kernel, cell)
    assert again(kernel, cell) == ("replayed", "")
    (kernel.cwd / "b.txt").write_text("mine")
    assert again(kernel, cell) == ("replayed", "")
    (kernel.cwd / "a.npy").unlink()
    assert again(kernel, cell)[1] == "replayed; a.npy is gone; to run it again: %durable_reset save"


@pytest.mark.parametrize(
    ("policy", "expected"), [("keep", "replayed"), ("rerun", "executed"), ("error", "StepChanged")]
)
def test_the_option_for_drift_decides_about_a_changed_file(kernel, policy, expected):
    cell = f"%%durable_step load --on-drift {policy}\nx = open('data.txt').read()"
    (kernel.cwd / "data.txt").write_text("old")
    begin(kernel, cell)
    (kernel.cwd / "data.txt").write_text("newer")
    kernel.restart()
    kernel.run(OPEN)
    done = kernel.run(cell)
    if expected == "StepChanged":
        assert done.stderr.startswith(
            "UsageError: StepChanged: run 'files', step 'load': data.txt has changed"
        )
        return
    assert done.facts["action"] == expected
    assert kernel.run("print(x)").text == ("old\n" if policy == "keep" else "newer\n")
    if policy == "rerun":
        assert done.facts["notice"].startswith("ran again: data.txt has changed since (3 bytes, ")
        assert again(kernel, cell) == ("replayed", "")


def test_a_file_that_later_steps_rewrite_or_delete_has_not_changed(kernel):
    moved = "open('n.tmp', 'w').write('40')\nos.replace('n.tmp', 'n.txt')\nos.remove('gone.txt')"
    cells = (
        "%%durable_step one\nopen('n.txt', 'w').write('1')\nopen('gone.txt', 'w').write('1')",
        "%%durable_step two\nn = open('n.txt').read()",
        "%%durable_step three\nimport os\nopen('n.txt', 'r+').write(str(int(open('n.txt').read()) + 1))",
        f"%%durable_step four\n{moved}",
    )
    begin(kernel, *cells)
    kernel.sigkill()
    kernel.restart()
    kernel.run(OPEN)
    told = [kernel.run(cell).facts.get("notice", "") for cell in cells]
    assert told == ["", "", "", ""]
    (kernel.cwd / "n.txt").write_text("mine")
    kernel.restart()
    kernel.run(OPEN)
    told = [kernel.run(cell).facts.get("notice", "") for cell in cells]
    assert ["n.txt has changed since" in one for one in told] == [False, True, True, False]


def test_edits_of_the_users_own_modules_are_named_and_comments_in_them_are_not(kernel):
    (kernel.cwd / "inner.py").write_text("def f(): return 1\n")
    (kernel.cwd / "outer.py").write_text("import inner\ndef g(): return inner.f()\n")
    (kernel.cwd / "late.py").write_text("x = 1\n")
    cells = "import outer", "%%durable_step load\nimport late\nn = outer.g() + late.x"
    begin(kernel, *cells)
    begin(kernel, *cells)  # with compiled modules
    (kernel.cwd / "inner.py").write_text("def f(): return 1  # one\n")
    assert again(kernel, *cells) == ("replayed", "")
    (kernel.cwd / "inner.py").write_text("def f(): return 2\n")
    assert "replayed; inner.py has changed since (" in again(kernel, *cells)[1]
    (kernel.cwd / "late.py").write_text("x = 10\n")
    assert "late.py has changed since (6 bytes, " in again(kernel, *cells)[1]
    (kernel.cwd / "outer.py").write_text("def g(): return 3\n")
    assert "drifted: `outer`; inner.py has changed" in again(kernel, *cells)[1]


def test_a_compiled_module_is_on_record_by_its_source(kernel):
    (kernel.cwd / "late.py").write_text("x = 1\n")
    kernel.run("import late")
    kernel.restart()
    cell = "%%durable_step load\nimport late\nn = late.x"
    begin(kernel, cell)
    (kernel.cwd / "late.py").write_text("x = 20\n")
    assert "late.py has changed since (6 bytes, " in again(kernel, cell)[1]


def test_a_sqlite_database_of_the_users_is_an_input(kernel):
    with sqlite3.connect(kernel.cwd / "own.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    cell = (
        "%%durable_step load\nimport sqlite3\nwith sqlite3.connect('own.db') as c:\n"
        "    c.execute('INSERT INTO t VALUES (1)')\nc.close()"
    )
    begin(kernel, cell)
    assert again(kernel, cell) == ("replayed", "")
    with sqlite3.connect(kernel.cwd / "own.db") as connection:
        connection.execute("CREATE TABLE u (x)")
    connection.close()
    assert "own.db has changed since" in again(kernel, cell)[1]


NOT_THEIRS = """%%durable_step load
import logging, matplotlib, pandas, sklearn.linear_model, tempfile, zoneinfo
import matplotlib.pyplot as plt
from matplotlib import font_manager
font_manager._load_fontmanager(try_read_cache=False)
zoneinfo.ZoneInfo('Europe/Berlin')
open('/proc/self/status').read()
database, data = DATABASE, 'runs' + '.db'
fig, ax = plt.subplots()
ax.plot([1, 2])
with tempfile.NamedTemporaryFile() as file:
    file.write(b'x')
@wf.task
def inner(n):
    return bytes(n)
large = inner(300_000)
"""


def test_libraries_caches_and_the_runs_own_database_are_not_on_record(kernel):
    begin(kernel, "DATABASE = 'runs.db'", NOT_THEIRS)
    with sqlite3.connect(kernel.cwd / "runs.db") as connection:
        found = connection.execute("SELECT reads FROM steps").fetchall()
    assert [json.loads(reads or "{}").get("files") for (reads,) in found] == [None, None]
    assert again(kernel, "DATABASE = 'runs.db'", NOT_THEIRS) == ("replayed", "")


def test_what_a_task_inside_reads_is_an_input_of_the_cell(kernel):
    task = "@wf.task\ndef read(name):\n    return open(name).read()"
    cell = "%%durable_step load\nx = read('a.txt')"
    (kernel.cwd / "a.txt").write_text("a")
    begin(kernel, task, cell)
    (kernel.cwd / "a.txt").write_text("ab")
    assert "a.txt has changed since" in again(kernel, task, cell)[1]
    kernel.run("%durable_reset load")


def test_an_input_of_a_task_that_was_replayed_is_an_input_of_the_cell_that_ran_again(kernel):
    task = "@wf.task\ndef read(name):\n    return open(name).read()"
    (kernel.cwd / "a.txt").write_text("a")
    begin(kernel, task, "%%durable_step load\nx = read('a.txt')")
    edited = "%%durable_step load\nx = read('a.txt') * 2"
    assert again(kernel, task, edited)[1].endswith("ran again: its code changed")
    assert again(kernel, task, edited) == ("replayed", "")
    (kernel.cwd / "a.txt").write_text("ab")
    assert "a.txt has changed since" in again(kernel, task, edited)[1]


def test_more_files_than_are_put_on_record_are_counted_and_the_line_says_so(kernel):
    (kernel.cwd / "many").mkdir()
    for number in range(1005):
        (kernel.cwd / "many" / f"{number}.txt").write_text("x")
    cell = "%%durable_step load\nx = [open(f'many/{n}.txt').read() for n in range(1005)]"
    kernel.run(OPEN)
    notice = kernel.run(cell).facts["notice"]
    assert notice == "used 5 more files than the 1,000 on record; a replay does not say if they change"
    for number in range(5):
        (kernel.cwd / "many" / f"{number}.txt").write_text("xy")
    _, notice = again(kernel, cell)
    assert notice.count("has changed since") == 3
    assert "; and 2 more files; to run it again: " in notice


def test_a_run_whose_folder_was_moved_compares_the_files_there(kernel, kernel_factory, tmp_path):
    cell = "%%durable_step load\nx = open('a.txt').read()"
    (kernel.cwd / "a.txt").write_text("a")
    begin(kernel, cell)
    kernel.shutdown()
    kernel.cwd.rename(tmp_path / "moved")
    moved = kernel_factory(cwd=tmp_path / "moved")
    moved.run(OPEN)
    assert "notice" not in moved.run(cell).facts
    (tmp_path / "moved" / "a.txt").write_text("ab")
    moved.restart()
    moved.run(OPEN)
    assert "a.txt has changed since" in moved.run(cell).facts["notice"]


async def test_a_plan_names_every_file_that_has_changed(tmp_path, capsys, monkeypatch):
    book = tmp_path / "book.ipynb"
    cell = "%%durable_step load\nx = [open(f'{n}.txt').read() for n in range(5)]"
    write_notebook(book, [OPEN, cell])
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x")
    await run_notebook(book, cwd=tmp_path)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("xy")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", str(book), "--run-id", "files", "--db", "runs.db"]) == 0
    told = capsys.readouterr().out
    assert "   2  load  replay   0.txt has changed since (1 byte, " in told
    assert "; and 2 more files: 3.txt has changed since (" in told
    assert [told.count(f"{number}.txt has changed since (") for number in range(5)] == [1] * 5
