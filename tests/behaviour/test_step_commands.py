"""The commands for one step: show, reset, resolve, fork; and what needs no run to be named."""

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
