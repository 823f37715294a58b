"""The table of what replays and what runs, row by row."""

import pytest

from durable_nb.engine.decision import decide
from durable_nb.errors import StepChanged, StepInDoubt
from durable_nb.records import Action, Call, Step, StepKind, StepStatus

DONE = Step("r", "s", StepKind.TASK, StepStatus.DONE, code="c1", arguments="n=1 m=2")
STARTED = Step("r", "s", StepKind.CELL, StepStatus.STARTED, code="c1")
FAILED = Step("r", "s", StepKind.TASK, StepStatus.FAILED, code="c1")
CAUGHT = FAILED._replace(status=StepStatus.CAUGHT)
CANCELLED = FAILED._replace(status=StepStatus.CANCELLED)
GIVEN_UP = FAILED._replace(delivered_by="a person")
RESET = Step("r", "s", StepKind.TASK, StepStatus.RESET, code="c1")
SAME = Call("s", code="c1", arguments="n=1 m=2")


@pytest.mark.parametrize(
    ("record", "call", "action"),
    [
        (None, SAME, Action.RUN),
        (DONE, SAME, Action.REPLAY),
        (RESET, SAME, Action.RUN),
        (None, SAME._replace(again=True), Action.RUN),
        (DONE, SAME._replace(again=True), Action.RUN),
        (GIVEN_UP, SAME._replace(again=True), Action.RUN),
        (DONE, SAME._replace(files=("a.csv is gone",)), Action.REPLAY),
        (DONE, SAME._replace(files=("a.csv is gone",), on_drift="rerun"), Action.RUN),
        (DONE, SAME._replace(files=("a.csv is gone",), on_drift="rerun", once=True), Action.ASK),
        (DONE, SAME._replace(files=("a.csv is gone",), on_drift="error"), Action.REFUSE),
        (STARTED, SAME, Action.RUN),
        (STARTED, SAME._replace(once=True), Action.ASK),
        (FAILED, SAME, Action.RUN),
        (CAUGHT, SAME, Action.REPLAY),
        (CAUGHT, SAME._replace(failure="retry"), Action.RUN),
        (CAUGHT, SAME._replace(arguments="n=7 m=2"), Action.REPLAY),
        (CAUGHT._replace(arguments="n=1 m=2"), SAME._replace(arguments="n=7 m=2"), Action.REFUSE),
        (CAUGHT, SAME._replace(code="c2", on_edit="rerun"), Action.RUN),
        (CAUGHT._replace(status=StepStatus.RESET), SAME, Action.RUN),
        (FAILED, SAME._replace(failure="final"), Action.REPLAY),
        (FAILED, SAME._replace(failure="final", once=True), Action.REPLAY),
        (FAILED, SAME._replace(failure="retry"), Action.RUN),
        (FAILED, SAME._replace(failure="retry", once=True), Action.ASK),
        (CANCELLED, SAME, Action.REPLAY),
        (CANCELLED, SAME._replace(once=True), Action.REPLAY),
        (CANCELLED._replace(arguments="n=1 m=2"), SAME._replace(arguments="n=7 m=2"), Action.REFUSE),
        (FAILED, SAME._replace(kind=StepKind.CELL), Action.RUN),
        (FAILED, SAME._replace(once=True), Action.ASK),
        (CAUGHT, SAME._replace(once=True), Action.REPLAY),
        (STARTED._replace(once=True), SAME, Action.ASK),
        (RESET, SAME._replace(once=True), Action.RUN),
        (GIVEN_UP, SAME, Action.REPLAY),
        (GIVEN_UP, SAME._replace(once=True, code="c2", arguments="n=7 m=2"), Action.REPLAY),
        (GIVEN_UP, SAME._replace(kind=StepKind.CELL), Action.REPLAY),
        (GIVEN_UP._replace(status=StepStatus.RESET), SAME, Action.RUN),
        (DONE, SAME._replace(code="c2"), Action.REPLAY),
        (DONE, SAME._replace(code="c2", on_edit="rerun"), Action.RUN),
        (DONE, SAME._replace(code="c2", on_edit="ask"), Action.ASK),
        (DONE, SAME._replace(code="c2", on_edit="error"), Action.REFUSE),
        (DONE, SAME._replace(code="c2", on_edit="rerun", once=True), Action.ASK),
        (DONE, SAME._replace(code=None), Action.REPLAY),
        (DONE, SAME._replace(arguments="n=7 m=2"), Action.REFUSE),
        (DONE, SAME._replace(arguments="n=7 m=2", on_change="rerun"), Action.RUN),
        (DONE, SAME._replace(arguments="n=7 m=2", on_change="keep"), Action.REPLAY),
        (DONE, SAME._replace(arguments="n=7 m=2", on_change="rerun", once=True), Action.ASK),
        (DONE, SAME._replace(arguments="n=7 m=2", on_change="keep", code="c2", on_edit="rerun"), Action.RUN),
        (DONE, SAME._replace(arguments="n=7 m=2", on_change="rerun", code="c2"), Action.RUN),
        (DONE, SAME._replace(arguments="n=7 m=2", code="c2", on_edit="rerun"), Action.REFUSE),
        (DONE, SAME._replace(arguments="n=1"), Action.REFUSE),
        (GIVEN_UP, SAME._replace(code="c2"), Action.REPLAY),
        (GIVEN_UP, SAME._replace(code="c2", on_edit="rerun"), Action.RUN),
        (GIVEN_UP, SAME._replace(code="c2", on_edit="rerun", once=True), Action.ASK),
        (DONE, SAME._replace(edit="x = 2", on_edit="rerun"), Action.RUN),
        (DONE, SAME._replace(edit="x = 2", on_edit="error"), Action.REFUSE),
        (DONE, SAME._replace(edit="x = 2", on_edit="rerun", once=True), Action.ASK),
        (DONE, SAME._replace(edit="x = 2", on_edit="keep", drift="`x`", on_drift="rerun"), Action.REPLAY),
        (DONE, SAME._replace(drift="`x`"), Action.REPLAY),
        (DONE, SAME._replace(drift="`x`", on_drift="rerun"), Action.RUN),
        (DONE, SAME._replace(drift="`x`", on_drift="ask"), Action.ASK),
        (DONE, SAME._replace(drift="`x`", on_drift="error"), Action.REFUSE),
        (DONE, SAME._replace(step_id="new", renamed="s"), Action.REPLAY),
        (DONE, SAME._replace(step_id="new", renamed="s", drift="`x`", on_drift="rerun"), Action.RUN),
        (RESET, SAME._replace(edit="x = 2", on_edit="keep"), Action.RUN),
        (DONE, SAME._replace(arguments="n=1 m=?"), Action.REPLAY),
        (DONE, SAME._replace(arguments="n=7 m=?"), Action.REFUSE),
    ],
)
def test_each_row_of_the_table(record, call, action):
    assert decide(record, call).action is action


def test_what_is_replayed_although_it_changed_is_told():
    assert decide(DONE, SAME._replace(code="c2")).notice
    assert not decide(DONE, SAME).notice


def test_a_changed_argument_is_an_error_of_its_own_class():
    assert decide(DONE, SAME._replace(arguments="n=7 m=2")).error is StepChanged


def test_a_step_marked_once_that_may_have_run_is_in_doubt():
    assert decide(STARTED, SAME._replace(once=True)).error is StepInDoubt


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (1, "drifted: `x`; 0 is gone"),
        (3, "drifted: `x`; 0 is gone; 1 is gone; 2 is gone"),
        (4, "drifted: `x`; 0 is gone; 1 is gone; 2 is gone; and 1 more file"),
        (5, "drifted: `x`; 0 is gone; 1 is gone; 2 is gone; and 2 more files"),
    ],
)
def test_three_files_are_named_and_further_ones_counted(count, reason):
    files = tuple(f"{number} is gone" for number in range(count))
    found = decide(DONE, SAME._replace(drift="`x`", files=files))
    assert (found.reason, found.more) == (reason, files[3:])
