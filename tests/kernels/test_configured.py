"""Every notebook of a profile of IPython is durable, without a line in it."""

import json
from pathlib import Path

import pytest

from helpers.notebooks import OpenNotebook, facts
from helpers.pages import section

CONFIG = section("docs/every-cell.md", "In every notebook").blocks("text")[0]
CONFIG = CONFIG.replace("/home/ada/durable.db", "profile.db")


@pytest.fixture
def configured(kernel):
    profile = Path(kernel._env["IPYTHONDIR"]) / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_config.py").write_text(CONFIG)
    kernel.restart()
    return kernel


def run_of(done, name):
    (line,) = [one["metadata"]["durable_nb"] for one in done[name].outputs if "▸" in str(one.get("data"))]
    return line["run"]


def test_a_notebook_opens_its_run_and_goes_on_after_a_kill(configured):
    book = OpenNotebook(configured, imports="import math", a="a = 1\nprint('ran')", b="a + 1")
    first = book.run_all()
    assert first["imports"].outputs == []
    assert facts(first, "step") == {"imports": None, "a": "a-1", "b": "a-1-2"}
    assert "profile.db · new" in first["a"].told
    book.restart()
    second = book.run_all()
    assert run_of(second, "a") == run_of(first, "a")
    assert "resuming, 2 finished" in second["a"].told
    assert facts(second, "action") == {"imports": None, "a": "replayed", "b": "replayed"}
    assert second["a"].text == "ran\n"


def test_a_new_notebook_of_the_same_name_inherits_nothing(configured):
    book = OpenNotebook(configured, a="a = 1")
    first = book.run_all()
    book.cells = {"other": "a = 1"}
    book.restart()
    done = book.run_all()
    assert run_of(done, "other") != run_of(first, "a")
    assert facts(done, "action") == {"other": "executed"}


def test_a_notebook_that_opens_a_run_itself_keeps_that(configured):
    opens = "%load_ext durable_nb\n%durable_workflow mine"
    book = OpenNotebook(configured, opens=opens, a="a = 1")
    done = book.run_all()
    assert run_of(done, "opens") == "mine"
    assert facts(done, "step")["a"] == "a-1"
    assert "profile.db" in done["opens"].told
    assert book.kernel.run("%durable_workflow --done").error is None
    assert book.kernel.run("b = 2").outputs == []


def test_a_notebook_that_another_kernel_runs_is_refused(configured, kernel_factory):
    book = OpenNotebook(configured, a="a = 1")
    book.run_all()
    env = {"IPYTHONDIR": configured._env["IPYTHONDIR"], "JPY_SESSION_NAME": str(book.file)}
    other = kernel_factory(**env)
    refused = other.run("a = 1", cell="a")
    assert refused.status == "error"
    assert "RunHeld" in json.dumps(refused.outputs)
    assert "NameError" in other.run("a", store_history=False).error


def test_where_the_notebook_is_unknown_a_line_says_what_to_type(configured):
    told = configured.run("a = 1").text
    assert "To open one: %durable_workflow RUN_ID --cells all" in told
    assert configured.run("b = 1").outputs == []


def test_an_invalid_option_is_refused(configured):
    profile = Path(configured._env["IPYTHONDIR"]) / "profile_default" / "ipython_config.py"
    profile.write_text(CONFIG.replace('"all"', '"some"'))
    configured.restart()
    error = configured.run("%reload_ext durable_nb").error
    assert "TraitError" in error
    assert "'some'" in error
