"""A call without ``await`` in a cell: nothing is committed, and the message says what to type."""

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow r --db runs.db"
TASK = "@wf.task\nasync def fetch(n): return n"
TAKEN = {
    "a condition": "if wf.signal('boss says yes'): print('PAID')",
    "a negation": "print('PAID') if not fetch(1) else None",
    "a boolean operator": "x = fetch(1) and print('PAID')",
    "a filter": "x = list(filter(None, [fetch(1)]))",
    "a comparison": "if fetch(1) == 2: pass\nelse: print('PAID')",
    "a sum": "x = fetch(1) + 1",
    "an attribute": "x = wf.signal('boss says yes').approved",
    "a loop": "for x in fetch(1): print('PAID')",
}
SAVED = {
    "a name": "r = fetch(1)",
    "a list": "r = [fetch(n) for n in range(2)]",
    "a dict": "r = {'one': fetch(1)}",
    "an attribute of an object": "import types\nr = types.SimpleNamespace(); r.x = fetch(1)",
    "the default of a function": "def r(x=fetch(1)): return x",
    "the last value": "1\nwf.signal('boss says yes')",
}


@pytest.mark.parametrize("cell", [*TAKEN.values(), *SAVED.values()], ids=[*TAKEN, *SAVED])
@pytest.mark.filterwarnings("ignore")
def test_the_cell_fails_and_is_not_committed(shared, cell, request):
    shared.run(OPEN)
    shared.run(TASK)
    failed = shared.run(f"%%durable_step s\n{cell}")
    assert "await is missing" in failed.reply["evalue"]
    assert "PAID" not in failed.text
    saved = cell in SAVED.values()
    assert ("Write `await` before the call" in failed.reply["evalue"]) == saved
    fixed = shared.run("%%durable_step s\nr = await fetch(1)")
    assert (fixed.facts["action"], shared.run("r").result["text/plain"]) == ("executed", "1")


def test_its_repr_says_so_in_an_ordinary_cell(shared):
    shared.run(OPEN)
    assert shared.run("wf.signal('ok')").result["text/plain"] == "<wf.signal('ok'): await is missing>"
