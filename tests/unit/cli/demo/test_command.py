"""What the demo proves is itself proved: each lie is found out."""

import dataclasses

import pytest

from durable_nb.cli.demo.command import VICTIM, Evidence
from durable_nb.notebook.headless.runner import CellReport, CellState, Report

BEFORE = ("download", "mend", "picture", "compare", "compare/mean", "compare/yesterday", VICTIM)
AFTER = ("compare", VICTIM, "compare/four weeks", "report")


def report(**states):
    cells = [
        CellReport(index, title, CellState(state)) for index, (title, state) in enumerate(states.items())
    ]
    return Report(tuple(cells), 1, 1.0, None)


FIRST = {
    "download": "executed",
    "mend": "executed",
    "picture": "executed",
    "compare": "killed",
    "report": "waiting",
}
SECOND = {
    "download": "replayed",
    "mend": "replayed",
    "picture": "replayed",
    "compare": "executed",
    "report": "executed",
}
TRUE = Evidence(report(**FIRST), report(**SECOND), BEFORE, AFTER)


def test_the_truth_meets_no_objection():
    assert TRUE.objections() == []
    assert TRUE.spared_tasks == ("compare/mean", "compare/yesterday")


@pytest.mark.parametrize(
    ("lie", "objection"),
    [
        ({"first": report(**{**FIRST, "compare": "executed"})}, "the kernel did not die in the middle"),
        ({"before": BEFORE[:-1]}, "the kernel did not die in the middle"),
        ({"second": report(**{**SECOND, "report": "failed"})}, "the second run did not reach the end"),
        ({"after": ("mend", *AFTER)}, "these had finished and ran again: mend"),
        ({"after": ("compare/mean", *AFTER)}, "these had finished and ran again: compare/mean"),
        (
            {"second": report(**{**SECOND, "mend": "executed"})},
            "not everything that had finished was replayed",
        ),
        ({"after": AFTER[:-1]}, "what was reported is not what was executed"),
        ({"before": BEFORE[1:]}, "what was reported is not what was executed"),
    ],
)
def test_each_lie_meets_its_objection(lie, objection):
    assert objection in dataclasses.replace(TRUE, **lie).objections()
