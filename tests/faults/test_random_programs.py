"""Random workflow programs, killed at random points and resumed, do what they do without kills."""

import os
import re
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, seed, settings

from helpers import programs, pythonpath

SHAPES = {name.removeprefix("do_") for name in vars(programs.Interpreter) if name.startswith("do_")}


def campaign(*arguments):
    """Compare programs in a process that can still be forked: it has opened no store."""
    command = [sys.executable, "-m", "helpers.oracle", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **pythonpath()})
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.timeout(600)
def test_a_few_random_programs():
    summary = campaign("few", 8)
    assert re.search(r": 8 programs, \d+ kills, 0 differences", summary)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_random_programs_for_three_minutes():
    summary = campaign("long", 500, 170)
    assert re.search(r" [1-9]\d* kills, 0 differences", summary)


SABOTAGE = """
    import sys
    from durable_nb.engine.caller import Caller
    from durable_nb.workflow import changes
    from helpers.oracle import Difference, compare

    async def in_order(self, work, seq, ended_at=0.0):
        return await work

    async def settle(self, call): ...

    def result_alone(payload, arguments, *, only_result, restore=changes.in_place.restore):
        return restore(payload, arguments, only_result=True)

    {sabotage}
    try:
        compare({program}, [{kill}], [], False)
    except Difference as difference:
        print("found:", difference)
"""
FAULTS = {
    "order": ("Caller.in_order = in_order", [("completed", [*range(8)][::-1])], ("step.recorded", 8)),
    "changes": (
        "changes.in_place.restore = result_alone",
        [("in_place", ["add"], [("call", 0)])],
        ("step.recorded", 2),
    ),
    "failures": ("Caller.settle = settle", [("sometimes", 0)], ("body.after", 1)),
    "nothing": ("", [("completed", [3, 2, 1, 0]), ("sometimes", 0)], ("body.after", 6)),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_library_is_found(fault):
    sabotage, program, kill = FAULTS[fault]
    code = textwrap.dedent(SABOTAGE).format(sabotage=sabotage, program=program, kill=kill)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **pythonpath()}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("found:") is (fault != "nothing"), done.stdout


def test_the_programs_have_nodes_of_all_shapes():
    found = set()

    @seed(1)
    @settings(max_examples=300, database=None)
    @given(program=programs.programs)
    def collect(program):
        found.update(programs.shapes(program))

    collect()
    assert found == SHAPES
