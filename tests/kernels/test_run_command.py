"""`durable-nb run`: any notebook, headless, through the deaths of its kernels and of the command itself."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from durable_nb.cli import main
from durable_nb.notebook.headless import memory
from helpers import pythonpath

CELLS = (
    "import os, pathlib, time\ndef log(line):\n    with open('log', 'a') as file: print(line, file=file)",
    "log('load')\nrows = [1, 2]\nprint('loaded')",
    "log('sum')\ntotal = sum(rows)\ntotal",
    "log('report')\nprint('total', total)",
)
DIES = "if not pathlib.Path('died').exists():\n    pathlib.Path('died').touch()\n    os.kill(os.getpid(), 9)"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a notebook into the working directory; a source may come with tags."""
    monkeypatch.chdir(tmp_path)

    def write(*sources, name="book.ipynb"):
        made = [source if isinstance(source, tuple) else (source, []) for source in sources]
        cells = [
            new_code_cell(text, id=f"c{n}", metadata={"tags": tags}) for n, (text, tags) in enumerate(made)
        ]
        nbformat.write(new_notebook(cells=cells), tmp_path / name)
        return tmp_path / name

    return write


def run(*arguments):
    """Run it here; gives the exit code."""
    return main(["run", "book.ipynb", *arguments])


def logged(path):
    return (path.parent / "log").read_text().split()


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def outputs(path):
    """The outputs of a notebook without our lines."""
    cells = nbformat.read(path, as_version=4).cells
    return [[one for one in cell.outputs if "durable_nb" not in one.get("metadata", {})] for cell in cells]


def test_a_notebook_goes_on_after_its_kernel_died(write, capsys):
    path = write(*CELLS[:3], DIES, CELLS[3])
    before = path.read_bytes()
    assert run("--json", "--output", "out.ipynb") == 0
    assert path.read_bytes() == before
    ended = [
        (each["index"], each["state"]) for each in events(capsys) if each.get("state", "running") != "running"
    ]
    first, second = ended[:4], ended[4:]
    assert first == [(0, "executed"), (1, "executed"), (2, "executed"), (3, "killed")]
    assert second == [(0, "replayed"), (1, "replayed"), (2, "replayed"), (3, "executed"), (4, "executed")]
    assert logged(path) == ["load", "sum", "report"]
    shown = outputs(path.parent / "out.ipynb")
    assert shown[1][0].text == "loaded\n"
    assert shown[2][0].data == {"text/plain": "3"}
    assert shown[4][0].text == "total 3\n"


def test_a_finished_run_is_begun_anew_unless_it_is_to_be_reused(write, capsys):
    path = write(*CELLS)
    assert run() == run() == 0
    assert logged(path) == ["load", "sum", "report"] * 2
    assert run("--reuse") == 0
    assert logged(path) == ["load", "sum", "report"] * 2


def test_a_cell_that_fails_is_mended_and_what_is_before_it_replays(write, capsys):
    path = write(*CELLS[:2], "log('bad')\n1 / 0", CELLS[3].replace("total)", "rows)"))
    assert run() == 3
    told = capsys.readouterr()
    assert "ZeroDivisionError" in told.err
    assert "type the same command" in told.err
    write(*CELLS[:3], CELLS[3])
    assert run() == 0
    assert logged(path) == ["load", "bad", "sum", "report"]


def test_a_cell_that_kills_every_kernel_ends_it_with_a_verdict(write, capsys):
    path = write(*CELLS[:2], "os.kill(os.getpid(), 9)")
    assert run("--max-restarts", "1") == 4
    told = capsys.readouterr().err
    assert "cell 3, 'os.kill(os.getpid(), 9)', ended 2 kernels: killed by SIGKILL" in told
    assert "SIGKILL: memory ran out" not in told
    assert " MB" in told
    assert logged(path) == ["load"]


@pytest.mark.slow
def test_kernels_of_several_commands_are_counted_until_the_cell_is_mended(write, capsys):
    bad = "log('bad')\nos.kill(os.getpid(), 9)"
    path = write(*CELLS[:2], bad)
    assert run("--max-restarts", "1") == 4
    assert "cell 3, \"log('bad')\", ended 2 kernels" in capsys.readouterr().err
    assert run("--max-restarts", "1") == 4
    assert "cell 3, \"log('bad')\", ended 4 kernels" in capsys.readouterr().err
    assert run("--max-restarts", "1") == 3
    told = capsys.readouterr().err
    assert "the process died in 5 passes in a row while the step, or one beside it, was executing" in told
    assert "have the step executed again: %durable_reset" in told
    assert logged(path) == ["load", *["bad"] * 5]
    write(*CELLS[:2], "log('good')")
    assert run() == 0
    assert logged(path) == ["load", *["bad"] * 5, "good"]


def test_parameters_are_put_below_their_defaults_and_name_the_run(write, capsys):
    path = write(("n = 1\nword = 'a'", ["parameters"]), "print(repr(n), repr(word), flag)")
    parameters = ("-p", "n", "3", "-p", "word", "b c", "-p", "flag", "True")
    assert run(*parameters, "--output", "out.ipynb") == 0
    assert outputs(path.parent / "out.ipynb")[2][0].text == "3 'b c' True\n"
    injected = nbformat.read("out.ipynb", as_version=4).cells[1]
    assert injected.source == "# Parameters\nn = 3\nword = 'b c'\nflag = True"
    assert injected.metadata.tags == ["injected-parameters"]
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("book-")


VALUES = (
    "3",
    "-5",
    "1e3",
    "nan",
    "-inf",
    "1_000",
    "True",
    "None",
    "true",
    "-draft",
    "a b",
    'it\'s "q"',
    "a\\b",
    "ünï",
    "",
)


def test_parameters_are_those_of_papermill_and_so_are_the_outputs(write, capsys):
    names = [f"p{n}" for n, _ in enumerate(VALUES)]
    path = write(
        ("p0 = 1\np99 = 'default'", ["parameters"]),
        f"print([{', '.join(names)}], p99)",
        "import sys\nprint('to stderr', file=sys.stderr)",
        "{'p': p0, 'display': display(p2)}",
    )
    book = nbformat.read(path, as_version=4)
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    parameters = [word for name, value in zip(names, VALUES, strict=True) for word in ("-p", name, value)]
    papermill = [sys.executable, "-m", "papermill", path, "papermill.ipynb", "--cwd", ".", *parameters]
    done = subprocess.run(papermill, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert run(*parameters, "--output", "out.ipynb") == 0
    assert shown(path.parent / "out.ipynb") == shown(path.parent / "papermill.ipynb")
    printed = outputs(path.parent / "out.ipynb")[2][0].text
    assert printed.startswith("[3, -5, 1000.0, nan, -inf, 1000, True, None, 'true', '-draft', ")


def shown(path):
    """The outputs of a notebook without our lines, counts and what an execution adds."""
    return [
        [{key: value for key, value in one.items() if key != "execution_count"} for one in cell]
        for cell in outputs(path)
    ]


def test_other_parameters_under_a_named_run_are_refused(write, capsys):
    write(("n = 1", ["parameters"]), "1 / (n - 2)")
    assert run("--run-id", "r", "-p", "n", "2") == 3
    assert run("--run-id", "r", "-p", "n", "3") == 2
    assert "run 'r': the run was begun with other parameters" in capsys.readouterr().err


def test_a_notebook_that_waits_for_a_person_ends_and_is_answered_from_the_shell(write, capsys):
    path = write("log = print", "x = 5", "answer = await wf.signal('approval')\nprint(answer, x)")
    assert run() == 5
    told = capsys.readouterr().err
    assert "waiting for signal 'approval'" in told
    command = re.search("To answer: durable-nb (.*?); then type the same command", told)[1]
    assert main(shlex.split(command.replace("VALUE", "true"))) == 0
    assert run("--output", "out.ipynb") == 0
    assert outputs(path.parent / "out.ipynb")[2][-1].text == "True 5\n"


def test_in_place_the_outputs_are_written_into_the_notebook_as_it_goes(write, capsys):
    path = write(
        *CELLS[:3], "held = len(__import__('nbformat').read('book.ipynb', 4).cells[1].outputs)\nheld"
    )
    assert run("--inplace") == 0
    shown = outputs(path)
    assert shown[1][0].text == "loaded\n"
    assert shown[3][0].data == {"text/plain": "2"}  # our line and the text


def test_in_place_a_notebook_that_was_changed_meanwhile_is_left_alone(write, capsys):
    path = write("open('book.ipynb', 'a').write(' ')", "x = 1")
    assert run("--inplace") == 2
    assert "was changed while it was executed" in capsys.readouterr().err
    assert path.read_text().endswith("} ") or path.read_text().endswith("\n ")


def test_a_notebook_that_opens_a_run_itself_keeps_it(write, capsys):
    path = write("%load_ext durable_nb\n%durable_workflow mine --db mine.db", *CELLS)
    assert run() == 0
    assert run() == 0
    assert logged(path) == ["load", "sum", "report"]
    assert run("--run-id", "other") == 2
    assert "the notebook opens run 'mine' itself" in capsys.readouterr().err


LIMIT = 400 * 2**20
GROUPS = {
    "memory": {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT},
    "": {"memory.max": LIMIT, "memory.swap.max": 0},
}
"""Where the system has control groups, in version 1 and in version 2, and what limits their memory."""


def limited_group():
    """A new control group whose memory is limited; None if none can be made here."""
    for kind, limits in GROUPS.items():
        group = Path("/sys/fs/cgroup", kind, f"durable-nb-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            if _takes_a_process(group, limits):
                return group
            group.rmdir()
    return None


def _takes_a_process(group, limits):
    for file, value in limits.items():
        with contextlib.suppress(OSError):
            (group / file).write_text(str(value))
    enters = ["sh", "-c", f"echo $$ > {group}/cgroup.procs"]
    return (group / next(iter(limits))).exists() and subprocess.run(enters, check=False).returncode == 0


@pytest.fixture
def memory_limit(tmp_path):
    """Gives a cell that puts its kernel under a limit of memory, and whether that is the system's."""
    group = limited_group()
    if group is None:
        with watched(tmp_path / "kernel"):
            yield (
                "# durable: skip\nimport os, pathlib\npathlib.Path('kernel').write_text(str(os.getpid()))",
                False,
            )
        return
    yield f"# durable: skip\nimport os\nopen('{group}/cgroup.procs', 'w').write(str(os.getpid()))", True
    deadline = time.monotonic() + 60
    while (group / "cgroup.procs").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    group.rmdir()


@contextlib.contextmanager
def watched(file):
    """Kill the process whose id is in a file when it has more memory than it may have."""
    ended = threading.Event()

    def watch():
        while not ended.wait(0.01):
            with contextlib.suppress(OSError, ValueError, TypeError):
                pid = int(file.read_text())
                resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]
                if int(resident) * 1024 > LIMIT:
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="NOT TESTED: limits of memory outside Linux"
)
def test_a_cell_that_is_killed_for_its_memory_ends_it_with_a_verdict(write, memory_limit, capsys):
    limit, by_system = memory_limit
    hog = "rows = [bytearray(b'x' * 2**24) for n in range(100)]"
    path = write(*CELLS[:2], limit, hog)
    assert run("--max-restarts", "1") == 4
    told = capsys.readouterr().err
    assert f"cell 4, {hog!r}, ended 2 kernels: killed by SIGKILL" in told
    assert ("SIGKILL: memory ran out; " in told) is by_system
    assert int(re.search(r"the largest process had ([\d,]+) MB", told)[1].replace(",", "")) > 300
    write(*CELLS[:2], limit, hog.replace("100", "2"), CELLS[3].replace("total)", "len(rows))"))
    assert run("--output", "out.ipynb") == 0
    assert outputs(path.parent / "out.ipynb")[4][0].text == "total 2\n"
    assert logged(path) == ["load", "report"]


def test_a_cell_whose_memory_is_refused_fails_and_is_mended(write, capsys):
    limit = "# durable: skip\nimport resource\nnow = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
    limit += "resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, -1))"
    path = write(*CELLS[:2], limit, "rows = bytearray(2**33)")
    assert run() == 3
    assert "MemoryError" in capsys.readouterr().err
    write(*CELLS[:2], limit, "rows = bytearray(2**20)")
    assert run() == 0
    assert logged(path) == ["load"]


def test_a_segmentation_fault_is_named(write, capsys):
    write("import ctypes", "ctypes.string_at(0)")
    assert run("--max-restarts", "0") == 4
    assert "cell 2, 'ctypes.string_at(0)', ended 1 kernel: killed by SIGSEGV; the" in capsys.readouterr().err


OTHER_GROUPS = {
    "memory.oom_control": "12:memory:/box\n0::/\n",
    "memory.events": "0::/box\n",
}


@pytest.mark.parametrize("file", OTHER_GROUPS)
def test_kills_for_memory_are_counted_in_the_group_of_the_kernel(tmp_path, monkeypatch, file):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_groups_of", lambda pid: OTHER_GROUPS[file] if pid == 7 else "")
    counter = tmp_path / ("memory/box" if "control" in file else "box") / file
    counter.parent.mkdir(parents=True)
    kills = memory.KillsForMemory(7)
    kills.note()
    assert kills.found() is None
    counter.write_text("oom 9\noom_kill 3\n")
    kills.note()
    assert kills.found() is False
    counter.write_text("oom 9\noom_kill 4\n")
    kills.note()
    assert kills.found() is True
    assert memory.KillsForMemory(8).found() is None


SLOW = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [pytest.param("load", marks=SLOW), "sum", pytest.param("report", marks=SLOW)])
def test_the_command_itself_is_killed_and_goes_on(write, number, at):
    slow = [
        cell + f"\nwhile not pathlib.Path('go').exists() and {at!r} in {cell!r}: time.sleep(0.05)"
        for cell in CELLS[1:]
    ]
    path = write(CELLS[0], *slow)
    command = [sys.executable, "-m", "durable_nb.cli", "run", "book.ipynb"]
    environment = {**os.environ, **pythonpath()}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (path.parent / "log").exists() or at not in logged(path):
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    (path.parent / "go").touch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = ["load", "sum", "report"]
    expected.insert(expected.index(at), at)
    # A kernel whose command was killed notices that within a second, in which it may end its cell.
    assert logged(path) == expected or (
        number == signal.SIGKILL and logged(path) == sorted(set(expected), key=expected.index)
    )
