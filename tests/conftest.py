"""What all tests share."""

import contextlib
import os
import signal
import subprocess

import pytest
from hypothesis import HealthCheck, settings

from durable_nb import Workflow, errors

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in what it starts with &
os.environ.setdefault("DURABLE_NB_SECRET", "of the tests")  # no test writes a key into anybody's home
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")  # how fast the machine is today is not tested
pytest_plugins = ["helpers.force_replay", "helpers.redis_servers"]


def pytest_collection_modifyitems(config, items):
    """A campaign takes an hour: it runs if it is asked for by name, as in ``pytest -m campaign``."""
    if "campaign" not in config.option.markexpr:
        left = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(autouse=True)
def spelled_as_in_a_script():
    """A test that opens a shell, or runs a command, gives the whole process its face."""
    errors.spell_actions(lambda _: errors.SCRIPT)


@pytest.fixture
def missing():
    """Says that a part of this machine is not there: a failure in CI, elsewhere a loud skip."""

    def say(what, install):
        told = f"NOT TESTED: {what}; {install}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)

    return say


@pytest.fixture
def db(tmp_path):
    """Where a test keeps its runs."""
    return tmp_path / "runs.db"


@pytest.fixture
def again(db):
    """Gives a workflow over the same file with nothing left in memory, as after a restart."""
    with contextlib.ExitStack() as opened:

        def make(name="shop", **options):
            opened.close()
            return opened.enter_context(Workflow(name, **{"db": db, **options}))

        yield make


@pytest.fixture
def small_disk(tmp_path, missing):
    """A real file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        missing(f"mounting is not permitted here ({mounted.stderr.decode().strip()})", "run as root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
