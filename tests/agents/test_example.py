"""The five patterns through the real OpenAI provider, against a server of ours, killed and resumed."""

import os
import signal
import subprocess
import sys

import pytest

from helpers import ROOT
from helpers.stub import Stub

EXAMPLE = ROOT / "examples" / "agents.py"
PRINTED = [
    "helper:  re Say hello ",
    "patient:  re Be patient ",
    "research:  re Sum up: re how long; re how deep ",
    "review:  re Draft report ",
    "briefer: brief: Rome: sunny",
]


@pytest.fixture
def stub():
    server = Stub(fail=1)
    yield server
    server.close()


def run(cwd, stub, **env):
    known = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": stub.url, **env}
    command = [sys.executable, EXAMPLE]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **known}, capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.timeout(400)  # four processes that each import a provider's SDK
def test_the_five_patterns_killed_and_resumed(tmp_path, stub):
    for kill in (3, 4):
        code, _, errors = run(tmp_path, stub, DURABLE_NB_FAILPOINTS=f"commit.after=kill@{kill}")
        assert code == -signal.SIGKILL, errors
    code, printed, errors = run(tmp_path, stub)
    assert (code, errors) == (0, "")
    assert [line for line in printed if not line.startswith("asking")] == PRINTED
    before = list(stub.asked)
    assert run(tmp_path, stub) == (0, PRINTED, "")
    assert stub.asked == before
    # Of two searches under way at once, a kill after the commit of one may lose the answer to the other.
    assert len(set(before)) == 9
    assert len(before) <= 10
