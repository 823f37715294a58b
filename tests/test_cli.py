"""The command `durable-nb`: its table of commands, its exit codes, its one-line errors."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from durable_nb.cli import COMMANDS, main

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
    assert all(f"{name} {text}" in shown for name, text in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_its_help(name, capsys):
    module = import_module(f"durable_nb.cli.{name}")
    assert callable(module.add_arguments)
    assert callable(module.run)
    assert refused([name, "--help"]) == 0
    assert COMMANDS[name] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["demo", "--nonsense"]])
def test_what_makes_no_sense_is_refused_with_the_usage(argv, capsys):
    assert refused(argv) == 2
    assert capsys.readouterr().err.startswith("usage: durable-nb")


def test_an_error_of_ours_is_one_line_and_no_traceback(tmp_path, capsys):
    (tmp_path / "something").touch()
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"durable-nb: --keep {tmp_path}: it is not empty. Name a new directory.\n"
    assert shown.out == ""


def test_a_directory_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--keep", str(tmp_path / "file" / "new")]) == 2
    assert capsys.readouterr().err == f"durable-nb: --keep {tmp_path}/file/new: Not a directory.\n"


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
