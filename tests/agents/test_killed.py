"""SIGKILL after every commit, in every way to call an agent: each request and tool once, the same result."""

import json
import signal
import subprocess
import sys

import pytest

from helpers import TESTS

pytestmark = pytest.mark.timeout(300)  # ten processes in a chain
PROGRAM = TESTS / "helpers" / "killed.py"
MODES = ("run", "handler", "events", "stream", "iter")
QUICK = ("run", "stream")
COMMITS = dict.fromkeys(MODES, 7) | {"stream": 6}
"""Three requests, two tools, the answer to the approval, the messages at the end."""


def run(folder, mode, kill):
    command = [sys.executable, PROGRAM, folder, mode, str(kill)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return json.loads(done.stdout), results, (folder / "bodies.log").read_text().split("\n")[:-1], done.stderr


def check(results, bodies):
    """Each body once; what was resumed and what was replayed are equal, and are what the model was asked."""
    assert sorted(body.split()[0] for body in bodies) == ["pay", "request", "request", "request", "weather"]
    first = results[0]
    assert all(other == first for other in results[1:])
    assert first["output"] == {"text": "ok", "at": "2026-01-01T00:00:00Z"}
    assert first["all"] == first["new"]
    assert "requests=3" in first["usage"]
    assert "tool_calls=2" in first["usage"]
    asked = [body.split() for body in bodies if body.startswith("request")]
    requests = [message for message in first["all"] if message["kind"] == "request"]
    assert [message["instructions"] for message in requests[:3]] == [each[3] for each in asked]
    seen = [message["timestamp"].replace("Z", "+00:00") for message in requests[:3]]
    assert seen == [each[2] for each in asked]


@pytest.mark.parametrize(
    "mode", [mode if mode in QUICK else pytest.param(mode, marks=pytest.mark.slow) for mode in MODES]
)
def test_a_chain_of_processes_each_killed_after_its_first_commit(tmp_path, mode):
    codes, results, bodies, errors = run(tmp_path, mode, 0)
    assert codes == [-signal.SIGKILL] * COMMITS[mode] + [0, 0, 0], errors
    check(results, bodies)


@pytest.mark.long
@pytest.mark.parametrize(("mode", "kill"), [(mode, n + 1) for mode in MODES for n in range(COMMITS[mode])])
def test_killed_after_each_commit_and_resumed(tmp_path, mode, kill):
    codes, results, bodies, errors = run(tmp_path, mode, kill)
    assert codes == [-signal.SIGKILL, 0, 0], errors
    check(results, bodies)
