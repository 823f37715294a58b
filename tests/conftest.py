"""What all tests share."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["force_replay"]


@pytest.fixture
def missing():
    """Says that a part of this machine is not there: a failure in CI, elsewhere a loud skip."""

    def say(what, install):
        told = f"NOT TESTED: {what}; {install}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)

    return say
