"""A kernel is killed inside a durable cell marked once: it is refused until a person has answered."""

import re
import time

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow shop --db runs.db --badge full"
CHARGE = """%%durable_step charge --once
import os, time
with open("charged.log", "a") as log:
    print("charged", file=log, flush=True)
if not os.path.exists("go-on"):
    time.sleep(60)
receipt = 7
receipt"""
AFTER = "%%durable_step after\nafter = 'after'"
IN_DOUBT = (
    "StepInDoubt: run 'shop', step 'charge': it was started but never recorded as finished (started at "
    "WHEN); its side effects may or may not have happened. If they did not: %durable_resolve charge rerun; "
)


def charged(kernel):
    log = kernel.cwd / "charged.log"
    return log.read_text().count("charged") if log.exists() else 0


def restarted(kernel):
    kernel.sigkill()
    kernel.restart()
    assert kernel.run(OPEN).status == "ok"


def refused(kernel):
    cell = kernel.run(CHARGE)
    assert cell.reply["ename"] == "UsageError"
    said = re.sub(r"20\d\d-\d\d-\d\d [\d:]{8}", "WHEN", cell.reply["evalue"])
    assert said.startswith(IN_DOUBT), said
    assert "\n" not in said
    assert "step_id=" not in said


@pytest.fixture
def killed(kernel):
    """A notebook whose kernel was killed inside the once cell, and which was run again."""
    assert kernel.run(OPEN).status == "ok"
    kernel.start(CHARGE)
    deadline = time.monotonic() + 30
    while not charged(kernel) and time.monotonic() < deadline:
        time.sleep(0.02)
    (kernel.cwd / "go-on").touch()
    restarted(kernel)
    refused(kernel)
    refused(kernel)
    assert charged(kernel) == 1
    return kernel


def test_rerun_runs_it_once_more(killed):
    assert killed.run("%durable_resolve charge rerun").text == "step 'charge' will run again\n"
    assert killed.run(CHARGE).result["text/plain"] == "7"
    restarted(killed)
    assert killed.run(CHARGE).result["text/plain"] == "7"
    assert killed.run("print(receipt)").text == "7\n"
    assert charged(killed) == 2


def test_a_value_makes_it_done(killed):
    said = killed.run("""n = 3\n%durable_resolve charge value {"by hand": 'it is', "n": n}""")
    assert said.text == "step 'charge' is done, with the result {'by hand': 'it is', 'n': 3}\n"
    for _ in range(2):
        cell = killed.run(CHARGE)
        assert cell.result["text/plain"] == "{'by hand': 'it is', 'n': 3}"
        assert "resolved by hand" in str(cell.outputs)
        assert killed.run("print(_, 'receipt' in globals())").text.endswith("'n': 3} False\n")
        assert killed.run(AFTER).status == "ok"
        restarted(killed)
    assert charged(killed) == 1


def test_given_up_it_fails(killed):
    assert killed.run("%durable_resolve charge fail").text == "step 'charge' is marked as failed\n"
    for _ in range(2):
        cell = killed.run(CHARGE)
        assert cell.reply["evalue"].startswith(
            "StepFailed: run 'shop', step 'charge': the step was given up on "
        )
        restarted(killed)
    assert charged(killed) == 1
    edited = killed.run(f"{CHARGE} + 1")
    assert "StepChanged: run 'shop', step 'charge': its code changed" in edited.reply["evalue"]
    assert "step_id=" not in edited.reply["evalue"]
    assert "%durable_workflow shop --fresh" in edited.reply["evalue"]
    assert killed.run("%durable_reset charge").status == "ok"
    assert killed.run(CHARGE).status == "ok"
    assert charged(killed) == 2


def test_the_workflow_of_the_notebook_can_be_told_too(killed):
    assert killed.run("wf.sync.resolve('shop', 'charge', 'rerun')").status == "ok"
    assert killed.run(CHARGE).status == "ok"
    refused_by = "the step is not in doubt: it is done"
    assert refused_by in killed.run("await wf.resolve('shop', 'charge', 'fail')").error


def test_a_once_task_in_an_ordinary_cell(kernel):
    kernel.run(OPEN)
    body = "open('paid.log', 'a').write('paid ')\n    raise KeyboardInterrupt"
    kernel.run(f"@wf.task(once=True)\ndef pay():\n    {body}")
    kernel.run("pay(step_id='pay')")
    assert "StepInDoubt" in kernel.run("pay(step_id='pay')").error
    assert kernel.run("%durable_resolve pay value 5").status == "ok"
    assert kernel.run("print(pay(step_id='pay'))").text == "5\n"
    assert (kernel.cwd / "paid.log").read_text() == "paid "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("charge", "the following arguments are required: answer"),
        ("charge maybe", "invalid choice: 'maybe'"),
        ("'charge", "No closing quotation"),
        (
            "chrage rerun",
            "StepNotFound: run 'shop', step 'chrage': no step of that name. Steps: none yet.",
        ),
        ("charge rerun 3", "answer 'rerun' takes no value"),
    ],
)
def test_lines_that_make_no_sense(kernel, line, words):
    kernel.run(OPEN)
    cell = kernel.run(f"%durable_resolve {line}")
    assert cell.reply["ename"] == "UsageError"
    assert words in cell.reply["evalue"]
