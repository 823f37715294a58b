"""What to do about an error is data: the notebook, a script and the command line each spell it their way."""

import pickle

import pytest

from durable_nb import Workflow, errors
from durable_nb.cli.spelling import COMMAND_LINE
from durable_nb.errors import ResetStep, RunHeld, RunNotFound, StepInDoubt, TakeOver
from durable_nb.notebook.spelling import NOTEBOOK

FACES = {"script": {}, "notebook": NOTEBOOK, "command": COMMAND_LINE}
ACTIONS = errors.RemedyAction.__subclasses__()


@pytest.fixture
def face():
    return lambda spelling: errors.spell_actions(lambda _: spelling)


def test_each_face_spells_each_action(face):
    for spelling in FACES.values():
        face(spelling)
        for action in ACTIONS:
            assert "{" not in str(action("r", "s", db="d.db"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("script", ".run('a b', …, take_over=True)"),
        ("notebook", "%durable_workflow 'a b' --take-over"),
        (
            "command",
            "%durable_workflow 'a b' --take-over in a notebook, .run('a b', …, take_over=True) in a script",
        ),
    ],
)
def test_one_error_on_three_faces(face, name, line):
    face(FACES[name])
    held = RunHeld("held", run_id="a b", remedy=("Take it over: ", TakeOver(), "."))
    assert str(held) == f"run 'a b': held. Take it over: {line}."


def test_an_action_takes_run_and_step_from_where_the_error_came_to_be_known(face):
    face({})
    error = errors.StepNotRestored("damaged", remedy=("Run it again: ", ResetStep()))
    with pytest.raises(errors.StepNotRestored) as caught, errors.error_context(run_id="r", step="load"):
        raise error
    assert str(caught.value).endswith("Run it again: wf.sync.resolve('r', 'load', 'rerun')")


def test_an_error_keeps_its_actions_through_a_pickle_and_speaks_for_the_face_that_reads_it(face):
    error = RunHeld("held", run_id="r", remedy=("Take it over: ", TakeOver()))
    again = pickle.loads(pickle.dumps(error))
    face(NOTEBOOK)
    assert again.remedy == error.remedy
    assert again.remedy_text == "Take it over: %durable_workflow r --take-over"


def test_a_script_reads_no_magic(face, db):
    face({})
    wf = Workflow("shop", db=db)

    @wf.task(once=True)
    def pay():
        raise OSError("the line is dead")

    @wf.workflow
    def order():
        return pay()

    for _ in range(2):
        with pytest.raises((OSError, StepInDoubt)) as caught:
            order.run("r")
    assert isinstance(caught.value, StepInDoubt)
    assert "%durable" not in str(caught.value)
    assert "wf.sync.resolve('r', 'pay', 'fail')" in str(caught.value)
    with pytest.raises(RunNotFound) as caught:
        wf.sync.status("elsewhere")
    assert f"durable-nb runs --db {db}" in str(caught.value)
    wf.close()


def test_what_an_error_tells_to_type_works(face, db):
    """The remedy of a step in doubt, typed as it stands, has the step run again."""
    face({})
    wf = Workflow("shop", db=db)
    attempts = []

    @wf.task(once=True)
    def pay():
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("the line is dead")
        return "paid"

    @wf.workflow
    def order():
        return pay()

    for _ in range(2):
        with pytest.raises((OSError, StepInDoubt)) as caught:
            order.run("r")
    action = next(each for each in caught.value.remedy if isinstance(each, errors.ResolveRerun))
    line = str(action.__class__(caught.value.run_id, caught.value.step))
    eval(line, {"wf": wf})
    assert order.run("r") == "paid"
    wf.close()


def test_a_notebook_spells_the_run_of_a_workflow_function_as_a_script_does():
    """`%durable_reset` knows the run that the notebook has opened, and no other."""
    from IPython.core.interactiveshell import InteractiveShell

    from durable_nb.notebook.session import Session

    session = Session(InteractiveShell())
    session._requested_id = "mine"
    errors.spell_actions(session.spelling)
    assert str(ResetStep("mine", "load")) == "%durable_reset load"
    assert str(ResetStep("order-7", "load")) == "wf.sync.resolve('order-7', 'load', 'rerun')"
    assert str(errors.OpenRun()) == "%durable_workflow RUN_ID"
    assert str(errors.ListRuns("order-7", db="d.db")) == "%durable_runs --db d.db"
