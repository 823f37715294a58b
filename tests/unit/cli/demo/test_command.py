"""What the demo proves is itself proved: each lie is found out."""

import dataclasses

import pytest

from durable_nb.cli.demo.command import KILLED_TASK, Evidence
from durable_nb.notebook.headless.runner import CellReport, CellState, Report

BEFORE = ("download", "mend", "picture", "compare", "compare/mean", "compare/yesterday", KILLED_TASK)
AFTER = ("compare", KILLED_TASK, "compare/four weeks", "report")


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
    assert TRUE.failed_checks() == []
    assert TRUE.replayed_tasks == ("compare/mean", "compare/yesterday")


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (
            {"first": report(**{**FIRST, "compare": "executed"})},
            "the kernel was not killed in the middle of a cell",
        ),
        ({"before": BEFORE[:-1]}, "the kernel was not killed in the middle of a cell"),
        ({"second": report(**{**SECOND, "report": "failed"})}, "the second run did not finish"),
        ({"after": ("mend", *AFTER)}, "executed again although finished: mend"),
        ({"after": ("compare/mean", *AFTER)}, "executed again although finished: compare/mean"),
        (
            {"second": report(**{**SECOND, "mend": "executed"})},
            "not every finished cell was replayed",
        ),
        ({"after": AFTER[:-1]}, "the reports do not match the log"),
        ({"before": BEFORE[1:]}, "the reports do not match the log"),
    ],
)
def test_each_lie_meets_its_objection(lie, message):
    assert message in dataclasses.replace(TRUE, **lie).failed_checks()
