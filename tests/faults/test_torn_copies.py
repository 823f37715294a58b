"""Databases whose files were torn apart: each is a named error, or a re-run of what was not acknowledged."""

import os
import subprocess
import sys

import pytest

from helpers import pythonpath


def campaign(*arguments):
    """Carry out trials in a process that can still be forked: it has opened no store."""
    command = [sys.executable, "-m", "helpers.torn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **pythonpath()})
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_a_few_torn_copies():
    assert " 16 trials, " in campaign("few", 16)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_torn_copies_for_three_minutes():
    assert "0 silent re-runs, 0 wrong values, 0 tracebacks" in campaign("long", 400, 170)
