"""Prompts as a person meets them: in a real page, answered by clicks, keys, and from elsewhere."""

import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from helpers.lab import OPEN

pytestmark = pytest.mark.slow
ASK = "answer = await wf.signal('approval', prompt='Publish the article?')\nprint(answer)"


def deliver(notebook, run, name, value):
    command = [sys.executable, "-m", "durable_nb.cli", "signal", run, name, value, "--db", f"{run}.db"]
    return subprocess.run(command, cwd=notebook.server.directory, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("face", "dark"), [("doc", True), ("notebooks", False)])
def test_approved_by_a_click(asked, shot, face, dark):
    run = f"approve-{face}-{dark}".lower()
    notebook = asked(run, ASK, face=face, dark=dark)
    notebook.expect(1, "Publish the article?")
    shot(notebook, "waiting")
    notebook.button("Approve").click()
    notebook.finish()
    notebook.expect_printed(1, "{'approved': True, 'comment': ''}")
    notebook.expect(1, "answered by")
    assert notebook.form().count() == 0
    shot(notebook, "answered")


def test_rejected_with_a_comment_by_keys_alone(asked):
    notebook = asked("reject", ASK)
    comment = notebook.form().get_by_label("Comment")
    comment.focus()
    notebook.page.keyboard.type("a b m x: no")  # each of these is a command of the notebook's own
    notebook.page.keyboard.press("Tab")
    notebook.page.keyboard.press("Tab")
    notebook.page.keyboard.press("Enter")
    notebook.finish()
    notebook.expect_printed(1, "{'approved': False, 'comment': 'a b m x: no'}")
    assert notebook.page.locator(".jp-Cell").count() == 2
    expect(notebook.page.locator(".jp-Cell").nth(1)).to_be_focused()  # not the top of the page


SCHEMA = """\
from datetime import date
from enum import Enum
from pydantic import BaseModel, Field

class Size(Enum):
    small = "small"
    large = "large"

class Address(BaseModel):
    street: str
    city: str = "Berne"

class Part(BaseModel):
    weight: float = Field(gt=0)
    inner: "Part | None" = None

class Order(BaseModel):
    name: str = Field(description="Who gets it")
    amount: int = Field(3, ge=1, le=10)
    price: float
    express: bool = False
    size: Size = Size.small
    day: date | None = None
    gift: bool | None = None
    part: Part | None = None
    spare_part: Part | None = None
    address: Address
    tags: list[str] = ["new"]

order = await wf.signal("order", prompt="Check the order", schema=Order)
print(order)"""


def test_a_form_says_what_is_wrong_beside_the_field(asked, shot):
    notebook = asked("form", SCHEMA)
    fields = notebook.form()
    fields.get_by_label("Amount").fill("11")
    notebook.button("Add Part").click()
    notebook.button("Add Inner").click()
    fields.get_by_label("Weight").last.fill("-1")
    fields.get_by_label("Weight").first.fill("1")
    notebook.button("Submit").click()
    fields.locator("[aria-invalid=true]").nth(4).wait_for()
    expect(fields).to_contain_text("-1 is less than or equal to the minimum of 0")
    shot(notebook, "wrong")
    expect(fields.get_by_label("Name")).to_be_focused()  # the first one in the page
    expect(fields.get_by_label("Name")).to_have_attribute("aria-required", "true")
    assert fields.get_by_label("Amount").get_attribute("aria-required") is None  # it has a default
    for label in ("Name", "Amount", "Price", "Street"):
        field = fields.get_by_label(label)
        assert field.get_attribute("aria-invalid") == "true", label
        problem = notebook.page.locator(f"#{field.get_attribute('aria-describedby')}").inner_text()
        assert (
            "11 is greater than the maximum of 10" if label == "Amount" else "this field is required"
        ) in problem
    for label, value in {"Name": "Ann", "Amount": "2", "Price": "2.5", "Street": "Main St"}.items():
        fields.get_by_label(label).fill(value)
    fields.get_by_label("Weight").last.fill("0.5")
    fields.get_by_label("Express").check()
    fields.get_by_label("Size").select_option("large")
    fields.get_by_label("Day").fill("2030-01-02")
    notebook.button("Add").click()
    notebook.page.keyboard.type("urgent")
    fields.get_by_label("Day").press("Enter")
    notebook.finish()
    notebook.expect_printed(
        1,
        "name='Ann' amount=2 price=2.5 express=True size=<Size.large: 'large'> day=datetime.date(2030, 1, 2) "
        "gift=None part=Part(weight=1.0, inner=Part(weight=0.5, inner=None)) spare_part=None "
        "address=Address(street='Main St', city='Berne') tags=['new', 'urgent']",
    )


def test_choices_are_buttons(asked, shot):
    notebook = asked("choices", "print(repr(await wf.signal('n', choices=['red', 3])))")
    shot(notebook)
    notebook.button("3").click()
    notebook.finish()
    notebook.expect_printed(1, "3")


def test_answered_from_elsewhere_it_says_by_whom_and_stays_so(asked):
    notebook = asked("elsewhere", ASK)
    deliver(notebook, "elsewhere", "approval", '{"approved": true, "comment": "cli"}')
    notebook.finish()
    notebook.expect_printed(1, "{'approved': True, 'comment': 'cli'}")
    saved = json.dumps(notebook.save()["cells"][1]["outputs"])
    assert re.search(r"answered by process \d+ on \S+ at \d{4}-", saved)
    assert "dnb-form" not in saved


def test_while_the_kernel_is_blocked_and_after_a_reload(asked, shot):
    blocking = "import time\nanswer = wf.sync.signal('approval')\nprint('got', answer['approved'])"
    notebook = asked("blocked", blocking)
    notebook.save()
    notebook.open()
    notebook.page.wait_for_selector(".dnb button")
    notebook.button("Approve").click()
    notebook.form().get_by_text("answered by").wait_for()
    shot(notebook)


def test_killed_while_it_waits(asked):
    notebook = asked("killed", ASK)
    notebook.kill_kernel()
    notebook.start_all()
    notebook.button("Approve").click()
    notebook.finish()
    notebook.expect_printed(1, "{'approved': True, 'comment': ''}")


def test_a_click_after_a_restart_shows_the_command(asked, shot):
    notebook = asked("stale", ASK)
    notebook.kill_kernel()
    notebook.button("Approve").click()
    notebook.form().get_by_text("The kernel does not reply").wait_for()
    notebook.expect(1, "durable-nb signal stale approval VALUE --db")
    shot(notebook)


def test_two_at_once_while_another_branch_goes_on(asked, shot):
    all_of_them = "wf.signal('a', choices=[1]), wf.signal('b', choices=[2]), work()"
    work = "import asyncio\nasync def work():\n    await asyncio.sleep(0.1)\n    print('went on')"
    notebook = asked("two", f"{work}\nprint(await asyncio.gather({all_of_them}))")
    notebook.form().nth(1).wait_for()
    notebook.expect(1, "went on")
    shot(notebook)
    for choice in "21":
        notebook.button(choice).click()
    notebook.finish()
    notebook.expect(1, "[1, 2, None]")


@pytest.mark.long
def test_an_untrusted_notebook_shows_the_command(asked, opened, shot):
    notebook = asked("untrusted", ASK)
    saved = notebook.save()
    other = opened("1")
    saved["cells"][1]["source"] = "changed, so that its signature does not hold"
    path = notebook.server.directory / other.name
    path.write_text(json.dumps(saved))
    other.open()
    other.expect(1, "Publish the article?", "durable-nb signal untrusted approval VALUE --db")
    assert other.cell(1).locator("button").count() == 0
    shot(other)


HOSTILE = "</script><img src=x onerror=\"document.title='hit'\"><b>bold</b>"


def test_what_users_wrote_is_text(asked, opened):
    cell = f"""\
text = {HOSTILE!r}
from pydantic import BaseModel, Field
class Form(BaseModel):
    name: str = Field(text, title=text, description=text)
await wf.complete({"hostile"!r}, text, text + "value")
print(await wf.signal(text, prompt=text, choices=[text]))
print(await wf.signal(text + '2', prompt=text, schema=Form))"""
    notebook = asked("hostile", cell)
    notebook.expect(1, f"{HOSTILE}value".replace("'", "\\'"))
    notebook.button(HOSTILE).click()
    notebook.button("Submit").click()
    notebook.finish()
    notebook.expect_printed(1, f"name={HOSTILE!r}")
    shown = notebook.cell(1)
    assert shown.inner_text().count(HOSTILE) >= 3
    assert shown.locator("img").count() == 0
    assert shown.locator("b").get_by_text("bold", exact=True).count() == 0
    assert notebook.page.title() != "hit"


FORGED = """
content => new Promise(done => {
  const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel
  const message = {
    header: {msg_id: 'forged', msg_type: 'durable_signal_request', session: kernel.clientId, version: '5.3'},
    parent_header: {}, metadata: {}, content, channel: 'control', buffers: [],
  }
  const future = kernel.sendControlMessage(message, true)
  future.onReply = reply => done(reply.content)
})
"""


def test_a_forged_message_and_a_late_one_are_refused(asked):
    notebook = asked("forged", ASK)
    script = notebook.page.content()
    token = re.search(r'"token": "([^"]+)", "kernel"', script)[1]
    guess = {"token": "guessed", "value": {"approved": True, "comment": ""}}
    assert notebook.page.evaluate(FORGED, guess) == {"status": "unknown"}
    notebook.button("Reject").click()
    notebook.finish()
    late = notebook.page.evaluate(FORGED, {"token": token, "value": {"approved": True, "comment": ""}})
    assert late["status"] == "over"
    notebook.expect_printed(1, "{'approved': False, 'comment': ''}")


IN_DOUBT = """\
%%durable_step pay --once
import os, pathlib, signal
first = not pathlib.Path("doubt.log").exists()
print("paying", file=open("doubt.log", "a"))
if first:
    os.kill(os.getpid(), signal.SIGKILL)
paid = 1"""


def test_a_step_in_doubt_is_asked_about(opened, shot):
    notebook = opened(OPEN.format(run="doubt"), IN_DOUBT, "print(paid)")
    notebook.start_all()
    notebook.restarted()
    notebook.start_all()
    notebook.button("run again").wait_for()
    shot(notebook)
    notebook.button("run again").click()
    notebook.finish()
    notebook.expect_printed(2, "1")
    assert (notebook.server.directory / "doubt.log").read_text() == "paying\npaying\n"


CHARGE = '%%durable_step charge --on-drift ask\nprint("charged", amount)'


def test_a_change_is_asked_about(opened, shot):
    notebook = opened(OPEN.format(run="ask"), 'amount = int(open("amount").read())', CHARGE)
    amount = notebook.server.directory / "amount"
    amount.write_text("1")
    notebook.run_all()
    notebook.expect(2, "charged 1")
    amount.write_text("2")
    notebook.start_all()
    notebook.button("keep", 2).wait_for()
    shot(notebook)
    notebook.button("run again", 2).click()
    notebook.finish()
    notebook.expect(2, "charged 2")
