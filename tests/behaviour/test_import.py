"""`import durable_nb` is light, and what it promises is there."""

import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

import durable_nb

HEAVY = [
    "IPython",
    "aiosqlite",
    "cloudpickle",
    "ipykernel",
    "jupyter_client",
    "nbclient",
    "nbformat",
    "numpy",
    "pandas",
    "pydantic",
    "pydantic_ai",
    "redis",
    "rich",
]


def loaded_after(code):
    """The top-level modules that a fresh interpreter has after some code."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_import_works_in_a_folder_that_was_deleted():
    code = (
        "import asyncio, os, tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())\n"
        "import durable_nb; print(durable_nb.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{durable_nb.__version__}\n", "")


def test_import_loads_nothing_heavy():
    assert loaded_after("import durable_nb").intersection(HEAVY) == set()


DECLARED = """
from durable_nb import Workflow
wf = Workflow("w")
@wf.task
def task(): ...
@wf.workflow
def main(): ...
"""


def test_a_workflow_is_declared_without_anything_heavy():
    assert loaded_after(DECLARED).intersection(HEAVY) == set()


def test_the_check_sees_what_is_loaded():
    assert "numpy" in loaded_after("import numpy")


def test_every_public_name_is_there():
    missing = [name for name in durable_nb.__all__ if not hasattr(durable_nb, name)]
    assert missing == []
    assert sorted(set(durable_nb.__all__)) == sorted(durable_nb.__all__)


def test_the_types_are_shipped():
    assert files("durable_nb").joinpath("py.typed").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `pip install` would build it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=Path(durable_nb.__file__).parents[1], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_has_the_demo_the_types_and_no_tests(wheel):
    assert {
        "durable_nb/py.typed",
        "durable_nb/cli/demo/demo.ipynb",
        "durable_nb/cli/demo/command.py",
    } <= wheel
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"durable_nb"}
