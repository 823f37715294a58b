"""What all tests share."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

from durable_nb import Workflow

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["force_replay", "redis_servers"]


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
