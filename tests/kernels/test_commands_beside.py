"""Commands that only read, beside a kernel that has the run open."""

from helpers.notebooks import write_notebook

CELLS = (
    "%load_ext durable_nb\n%durable_workflow beside --db runs.db",
    "%%durable_step load\nprint('loaded')\nrows = [1, 2]\nrows",
    "%%durable_step later\nmore = 3",
)
COMMAND = (
    "import subprocess, sys\n"
    "done = subprocess.run([sys.executable, '-m', 'durable_nb.cli', *{!r}], capture_output=True, text=True)\n"
    "print(done.returncode, done.stdout, done.stderr, sep='\\n')"
)


def test_plan_and_show_beside_a_kernel(kernel):
    def told(*words):
        code, *lines = kernel.run(COMMAND.format(words)).text.splitlines()
        return int(code), lines

    for cell in CELLS[:2]:
        assert kernel.run(cell).error is None
    write_notebook(kernel.cwd / "book.ipynb", CELLS)
    code, rows = told("plan", "book.ipynb")
    assert code == 0
    assert [row.split()[1:3] for row in rows if row.strip()][1:] == [["load", "replay"], ["later", "run"]]
    code, lines = told("show", "beside", "load", "--db", "runs.db")
    assert code == 0
    assert "saved       rows\nloaded\n[1, 2]" in "\n".join(lines)
    code, lines = told("reset", "beside", "load", "--db", "runs.db")
    assert code == 2
    assert "in that process" in "\n".join(lines)
