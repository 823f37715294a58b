"""The command `durable-nb`: its table of commands, its exit codes, its one-line errors."""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from durable_nb import Workflow, settings
from durable_nb.cli import COMMANDS, main
from durable_nb.engine.status import Table, _run_row
from durable_nb.records import Progress, Run
from durable_nb.stores.host import this_process

SCRIPT = Path(sys.executable).with_name("durable-nb")


def refused(argv):
    """The exit code with which argparse leaves."""
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    return leaving.value.code


def test_version(capsys):
    assert refused(["--version"]) == 0
    assert capsys.readouterr().out == f"durable_nb {version('durable_nb')}\n"


def test_help_names_every_command(capsys):
    assert refused(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {command.help}" in shown for name, command in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_its_help(name, capsys):
    module = import_module(f"durable_nb.cli.{COMMANDS[name].module}")
    assert callable(getattr(module, f"{name}_arguments"))
    assert callable(getattr(module, f"run_{name}"))
    assert refused([name, "--help"]) == 0
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [["nonsense"], ["demo", "--nonsense"]])
def test_what_makes_no_sense_is_refused_with_the_usage(argv, capsys):
    assert refused(argv) == 2
    assert capsys.readouterr().err.startswith("usage: durable-nb")


def test_an_error_of_ours_is_one_line_and_no_traceback(tmp_path, capsys):
    (tmp_path / "something").touch()
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert (
        shown.err == f"durable-nb: invalid --keep {tmp_path}: the directory is not empty. Name a new one.\n"
    )
    assert shown.out == ""


def test_a_directory_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--keep", str(tmp_path / "file" / "new")]) == 2
    reason = f"cannot create the directory '{tmp_path}/file/new': Not a directory."
    assert capsys.readouterr().err == f"durable-nb: {reason}\n"


@pytest.mark.parametrize("command", [[str(SCRIPT)], [sys.executable, "-m", "durable_nb.cli"]])
def test_the_installed_script_and_the_module(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("durable_nb ")


def test_the_version_does_not_wait_for_what_commands_import():
    script = (
        "import sys, durable_nb.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"rich", "nbclient", "IPython"}.isdisjoint(done.stdout.split())


@pytest.fixture
def kept(tmp_path):
    """A database with a finished run, one that waits here, and one whose owner is dead."""
    path = tmp_path / "runs.db"
    code = (
        "import os\nfrom durable_nb import Workflow\nwf = Workflow('shop', db='runs.db')\n"
        "@wf.workflow\ndef dead():\n    wf.task(lambda: 1, name='load')()\n    os._exit(0)\n"
        "dead.run('r-dead')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with Workflow("shop", db=path) as wf:
        done = wf.workflow(lambda: wf.task(lambda: 1, name="load")())
        done.run("r-done")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(wf.workflow(lambda: wf.sync.signal("approval")).run, "r-waits")
            until_waiting(path)
            yield path
            wf.sync.complete("r-waits", "approval")


def until_waiting(path):
    deadline = time.monotonic() + 20
    with contextlib.closing(sqlite3.connect(path)) as reader:
        while time.monotonic() < deadline:
            if reader.execute("SELECT 1 FROM requests").fetchone():
                return
            time.sleep(0.02)


def columns(text):
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_runs_lists_when_who_how_many_steps_and_what_they_wait_for(kept, capsys):
    assert main(["runs", "--db", str(kept)]) == 0
    heading, *rows = columns(capsys.readouterr().out)
    assert heading == ["run", "workflow", "status", "steps", "waits for", "updated", "owner"]
    shown = {row[0]: row for row in rows}
    assert shown["r-done"][:4] == ["r-done", "shop.<lambda>", "done", "1 done"]
    assert shown["r-waits"][2:5] == ["waiting", "0 done", "signal:approval"]
    assert shown["r-dead"][:4] == ["r-dead", "shop.dead", "interrupted", "1 done"]
    assert shown["r-done"][-1] == this_process()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["r-done"][-2])


def test_status_shows_a_run_step_by_step_and_takes_nothing_over(kept, capsys):
    assert main(["status", "r-dead", "--db", str(kept)]) == 0
    run, steps = capsys.readouterr().out.split("\n\n")
    assert columns(run)[1][:3] == ["r-dead", "shop.dead", "interrupted"]
    assert columns(steps)[0] == ["step", "kind", "status", "attempts", "took", "finished"]
    assert columns(steps)[1][:4] == ["load", "task", "done", "1"]
    assert main(["status", "r-waits", "--db", str(kept)]) == 0
    assert columns(capsys.readouterr().out)[-1] == ["signal:approval", "signal", "started", "1"]


def test_status_says_what_failed(tmp_path, capsys):
    with Workflow("shop", db=tmp_path / "runs.db") as wf:
        shop = wf.workflow(lambda order: wf.task(lambda order: order[1], name="ship", retries=0)(order))
        for run_id, order in (("r-task", ()), ("r-body", None)):
            with pytest.raises((IndexError, TypeError)):
                shop.run(run_id, order)
        own = wf.workflow(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            own.run("r-own")
    said = {"r-task": "ship", "r-body": "ship", "r-own": "the run"}
    for run_id, place in said.items():
        assert main(["status", run_id, "--db", str(tmp_path / "runs.db")]) == 0
        failed = columns(capsys.readouterr().out)[-2:]
        assert failed[0] == ["failed", "error"]
        assert failed[1][0] == place
    assert failed[1][1] == "ZeroDivisionError: integer division or modulo by zero"


def test_status_says_what_failed_where_the_exception_held_much(tmp_path, capsys):
    def fail():
        raise ValueError("no luck", "x" * settings.BLOB_THRESHOLD)

    with Workflow("shop", db=tmp_path / "runs.db") as wf:
        shop = wf.workflow(lambda: wf.task(fail, name="ship", retries=0)())
        with pytest.raises(ValueError, match="no luck"):
            shop.run("r")
    command = ["status", "r", "--db", str(tmp_path / "runs.db")]
    assert main(command) == 0
    assert columns(capsys.readouterr().out)[-1][1].startswith("ValueError: ('no luck', 'xxx")
    shutil.rmtree(tmp_path / "runs.db.blobs")
    assert main(command) == 0
    assert columns(capsys.readouterr().out)[-1] == ["ship", "recorded, but not readable here"]


@pytest.mark.parametrize("command", [["runs"], ["status", "r"]])
def test_a_database_that_is_not_there_is_said_and_not_made(command, tmp_path, capsys):
    path = tmp_path / "none.db"
    assert main([*command, "--db", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"durable-nb: no database at '{path}'. Name the database")
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_and_a_file_that_is_no_database(kept, tmp_path, capsys):
    assert main(["status", "none", "--db", str(kept)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"durable-nb: run 'none': not found in '{kept}'. ")
    assert f"durable-nb runs --db {kept}" in error
    (tmp_path / "text.db").write_text("no database at all, only text" * 100)
    assert main(["runs", "--db", str(tmp_path / "text.db")]) == 1
    assert "is not an SQLite database" in capsys.readouterr().err


def test_what_could_steer_a_terminal_is_not_printed():
    assert str(Table(("a",), [_run_row(Run("\x1b[2J\nx", "w"), Progress())[:1]])) == "a\n\\x1b[2J\\nx"
