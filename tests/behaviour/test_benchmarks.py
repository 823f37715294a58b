"""The benchmarks work: each prints its lines, and what does not depend on the machine's speed holds."""

import subprocess
import sys

import pytest

from helpers import ROOT


def test_cells_measures_every_bar(tmp_path):
    program = [sys.executable, ROOT / "benchmarks" / "cells.py", "--scale", "0.02"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert len(lines) == 14, done.stderr
    assert done.returncode == any(line.startswith("OVER") for line in lines)
    counted = [line for line in lines if "bytes" in line and "fsync" not in line]
    assert [line[:4] for line in counted] == ["ok  ", "ok  "]


@pytest.mark.long
def test_signals_are_measured_against_their_bars(tmp_path):
    program = [sys.executable, ROOT / "benchmarks" / "signals.py"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert len(done.stdout.splitlines()) == 3, done.stderr


@pytest.mark.long
def test_steps_measures_every_bar(tmp_path):
    program = [sys.executable, ROOT / "benchmarks" / "steps.py", "--scale", "0.02"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    lines = done.stdout.splitlines()
    assert len(lines) == 7, done.stderr
    assert done.returncode == any(line.startswith("OVER") for line in lines)


@pytest.mark.long
def test_the_checks_of_a_step_are_measured(tmp_path):
    program = [sys.executable, ROOT / "benchmarks" / "checks.py", "--scale", "0.02"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert done.returncode == any(line.startswith("OVER") for line in lines)


def test_paths_are_counted(tmp_path):
    """A replay of a task changes no thread, and each path has its row."""
    program = [sys.executable, ROOT / "benchmarks" / "paths.py"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    rows = {line[:30].strip(): line[30:].split() for line in done.stdout.splitlines()[1:]}
    assert len(rows) == 7, done.stderr
    assert rows["task, replay"][-1] == "1"
    assert int(rows["task, replay"][0]) < 50
