"""The commands for one step: show, reset, resolve, fork; and what needs no run to be named."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from durable_nb import Workflow
from durable_nb.cli import main
from durable_nb.errors import StepFailed


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A workflow whose second step fails as long as it is told to, after one pass."""
    monkeypatch.chdir(tmp_path)
    wf = Workflow("shop", db="durable.db", default_retries=0)
    wf.fails, wf.calls = [True], []

    @wf.task
    def price(item, *, tax=0.2):
        wf.calls.append("price")
        return {"item": item, "total": 10 * (1 + tax)}

    @wf.task
    def pay(total):
        wf.calls.append("pay")
        if wf.fails:
            raise OSError("the bank is closed")
        return "paid"

    @wf.workflow(id="order")
    def order():
        return pay(price("pen")["total"])

    wf.order = order
    with pytest.raises(OSError, match="bank"):
        order()
    yield wf
    wf.close()


def told(capsys, *words):
    capsys.readouterr()
    code = main(words)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_step_is_shown_with_its_arguments_and_its_result_or_error(shop, capsys):
    code, text, _ = told(capsys, "show", "order", "price")
    assert code == 0
    facts = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["status", "done"] in facts
    assert ["argument", "item = 'pen'"] in facts
    assert ["argument", "tax = 0.2"] in facts
    assert ["result", "{'item': 'pen', 'total': 12.0}"] in facts
    assert "OSError: the bank is closed" in told(capsys, "show", "order", "pay")[1]


def test_a_reset_step_runs_again(shop, capsys):
    assert told(capsys, "reset", "order", "price")[0] == 0
    shop.fails.clear()
    with pytest.warns(Warning, match="reset"):
        assert shop.order() == "paid"
    assert shop.calls == ["price", "pay", "price", "pay"]


def test_a_step_is_resolved_with_a_value(shop, capsys):
    code, text, _ = told(capsys, "resolve", "order", "pay", "value", '"by hand"')
    assert (code, text) == (0, "run 'order': step 'pay' is answered: value\n")
    assert shop.order() == "by hand"
    assert shop.calls == ["price", "pay"]


def test_a_step_is_given_up(shop, capsys):
    assert told(capsys, "resolve", "order", "pay", "fail")[0] == 0
    with pytest.raises(StepFailed):
        shop.order()


def test_a_run_is_forked_before_a_step(shop, capsys):
    code, text, _ = told(capsys, "fork", "order", "copy", "--before", "pay")
    assert (code, text) == (0, "steps copied from run 'order' to run 'copy': 1\n")
    assert shop.sync.status("copy").steps[0].step_id == "price"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "nope", "price"), 1, "not found"),
        (("show", "order", "nope"), 2, "no step of that name"),
        (("reset", "order", "nope"), 2, "no step of that name"),
        (("resolve", "order", "pay", "fail", "1"), 2, "takes no value"),
        (("fork", "order", "order"), 1, "taken"),
        (("fork", "order", "copy", "--before", "nope"), 2, "no step"),
        (("show", "order", "price", "--db", "none.db"), 1, "no database"),
    ],
)
def test_what_is_not_there_is_said(shop, capsys, words, code, message):
    found, out, err = told(capsys, *words)
    assert (found, out) == (code, "")
    assert message in err


def test_the_only_run_needs_no_name(shop, capsys):
    assert told(capsys, "status")[1] == told(capsys, "status", "order")[1]
    told(capsys, "fork", "order", "copy")
    code, _, err = told(capsys, "status")
    assert code == 2
    assert "has 2 runs: expected RUN_ID" in err


def test_without_a_command_the_help_is_shown(capsys):
    code, text, _ = told(capsys)
    assert code == 0
    assert "durable-nb [-h]" in text
    assert "copy the history of a run" in text


def test_programs_get_lines_of_json(shop, capsys):
    (run,) = map(json.loads, told(capsys, "runs", "--json")[1].splitlines())
    assert (run["run_id"], run["status"], run["done"], run["waits_for"]) == ("order", "failed", 1, [])
    first, price, pay = map(json.loads, told(capsys, "status", "--json")[1].splitlines())
    assert first == run
    assert price["arguments"] == {"item": "'pen'", "tax": "0.2"}
    assert (price["step_id"], price["status"], price["attempt"]) == ("price", "done", 1)
    assert (pay["step_id"], pay["status"]) == ("pay", "failed")
    assert told(capsys, "signals", "--json")[1] == ""


def test_a_request_for_a_signal_as_json(shop, capsys):
    @shop.workflow(id="asks")
    def asks():
        return shop.sync.signal("ok", prompt="Go on?", choices=["yes", "no"])

    answers = []
    waits = threading.Thread(target=lambda: answers.append(asks()))
    waits.start()
    while not (text := told(capsys, "signals", "--json")[1]):
        time.sleep(0.05)
    request = json.loads(text)
    assert (request["run_id"], request["signal"], request["choices"]) == ("asks", "ok", ["yes", "no"])
    assert request["prompt"] == "Go on?"
    assert told(capsys, "signal", "asks", "ok", "yes")[0] == 0
    waits.join()
    assert answers == ["yes"]


def test_the_environment_names_the_database(shop):
    command = [sys.executable, "-m", "durable_nb.cli", "status"]
    found = subprocess.run(
        command, env={**os.environ, "DURABLE_NB_DB": "other.db"}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "no database at" in found.stderr
    assert "other.db" in found.stderr
