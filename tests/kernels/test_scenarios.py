"""Every scenario in durable cells of a real kernel, killed, and run again in a new one."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest

from helpers import pythonpath
from helpers.kernel import Kernel
from helpers.marks import marked, marking
from helpers.scenarios import FIFTY, GROUPS


@dataclass
class Pass:
    """One time through a scenario's cells.

    Attributes:
        cells: What came back from each.
        found: The expressions' values, as text.
        use: What using each name raised that could not be saved.
    """

    cells: list
    found: list
    use: dict


def play(kernel, scenario, *, killed):
    """Run a scenario's cells in a namespace without anything of the one before, and look."""
    kernel.run(f"%reset -f\n%durable_workflow {scenario.run_id} --db {kernel.cwd / 'runs.db'}")
    cells = []
    for number, body in enumerate(scenario.parted):
        if not body.startswith("# ordinary"):
            body = f"%%durable_step cell{number}\n" + marking(f"{scenario.run_id}/{number}", body)
        cells.append(kernel.run(body))
    looked = kernel.run("\n".join(f"print(repr({expression}))" for expression in scenario.expect))
    use = {name: kernel.run(f"{name}.used").error for name in scenario.named} if killed else {}
    return Pass(cells, looked.text.splitlines() or [looked.error], use)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Gives each scenario's first pass, its pass after the kill, and how often each cell began, by group."""

    @cache
    def play_group(name):
        home = tmp_path_factory.mktemp(name)
        kernel = Kernel(home, home / "home", **pythonpath(), MARKS=str(home / "marks"))
        try:
            passes = []
            for killed in (False, True):
                assert kernel.run("%load_ext durable_nb").status == "ok"
                passes.append([play(kernel, one, killed=killed) for one in GROUPS[name]])
                kernel.sigkill()
                if not killed:
                    kernel.restart()
        finally:
            kernel.shutdown()
        began = Counter(marked(home / "marks"))
        return {one.number: (*both, began) for one, *both in zip(GROUPS[name], *passes, strict=True)}

    return play_group


def expected(scenario):
    return [repr(value) for value in scenario.expect.values()] or [None]


ALL = [pytest.param(group, one, id=str(one.number)) for group, them in GROUPS.items() for one in them]


@pytest.mark.parametrize(("group", "scenario"), ALL)
def test_the_scenario_itself_holds(played, group, scenario):
    first, _, _ = played(group)[scenario.number]
    assert [cell.error for cell in first.cells] == [None] * len(first.cells)
    assert first.found == expected(scenario)


@pytest.mark.parametrize(("group", "scenario"), ALL)
def test_it_comes_back(played, group, scenario):
    first, second, began = played(group)[scenario.number]
    assert [cell.error for cell in second.cells] == [None] * len(second.cells)
    assert second.found == expected(scenario)
    assert [count for cell, count in began.items() if cell.startswith(scenario.run_id + "/")] == [
        1 for body in scenario.parted if not body.startswith("# ordinary")
    ]
    for before, after in zip(first.cells, second.cells, strict=True):
        assert before.visible == after.visible


def is_named(scenario, name, first, second):
    """Whether it was named when its step committed, and its use says the step and what to do."""
    warned = any(f"⚠ {name} is not saved: " in cell.told for cell in first.cells)
    words = (scenario.named[name], "StepNotRestored", "step 'cell0'", "ordinary cell")
    return warned and all(word in (second.use[name] or "") for word in words)


NAMED = [case for case in ALL if case.values[1].named]


@pytest.mark.parametrize(("group", "scenario"), NAMED)
def test_what_cannot_be_saved_is_named_at_once_and_when_used(played, group, scenario):
    first, second, _ = played(group)[scenario.number]
    lines = "\n".join(cell.told for cell in first.cells)
    assert {name for name in scenario.named if is_named(scenario, name, first, second)} == set(scenario.named)
    assert lines.count("is not saved") == len(scenario.named), lines


def test_the_table_has_all_fifty():
    assert [one.number for one in FIFTY] == list(range(1, 51))


def test_47_of_50_come_back_and_the_others_are_named(played):
    results = {number: both for group in GROUPS for number, both in played(group).items()}
    right, named = set(), set()
    for one in FIFTY:
        first, second, _ = results[one.number]
        if second.found == expected(one):
            right.add(one.number)
        if one.named and all(is_named(one, name, first, second) for name in one.named):
            named.add(one.number)
    assert right == set(range(1, 51))
    assert named == {23, 25, 26, 27, 29}
