"""What all tests share."""

import os

import pytest


@pytest.fixture
def missing():
    """Says that a part of this machine is not there: a failure in CI, elsewhere a loud skip."""

    def say(what, install):
        told = f"NOT TESTED: {what}; {install}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)

    return say
