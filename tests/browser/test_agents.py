"""An agent in a notebook, as a person meets it: killed, resumed by "Run All", approved by clicks."""

import re

import pytest
from playwright.sync_api import expect

from helpers.lab import OPEN

pytestmark = pytest.mark.slow
AGENT = """\
import json, os, signal
from datetime import date
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from durable_nb import DurableAgent

class Account(BaseModel):
    owner: str
    bank: str = "Bank of Berne"

def log(line):
    with open("{run}.log", "a") as file:
        print(line, file=file, flush=True)

ARGUMENTS = dict(to=dict(owner="Ann"), day="2030-01-02", note="rent\\nof May")

def respond(messages, info):
    number = sum(isinstance(message, ModelResponse) for message in messages)
    log(f"request {{number}}")
    if number == 1 and {dies} and open("{run}.log").read().count("request 1") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 0:
        return ModelResponse(parts=[ToolCallPart("look_up", dict(customer="Ann"))])
    if number == 1:
        amount = json.loads(messages[0].parts[0].content)
        return ModelResponse(parts=[ToolCallPart("transfer", dict(ARGUMENTS, amount=amount))])
    told = messages[-1].parts[-1].content
    return ModelResponse(parts=[TextPart(f"The bank says: {{told}}")])

agent = DurableAgent(Agent(FunctionModel(respond), name="clerk"), wf)

@agent.tool_plain
def look_up(customer: str) -> str:
    log("look_up")
    return "active"

@agent.tool_plain(requires_approval=True, docstring_format="google")
def transfer(amount: int, to: Account, day: date | None = None, express: bool = False, note: str = "") -> str:
    "Send money to an account."
    log(f"transfer {{amount}}")
    return f"sent {{amount}} to {{to.owner}} on {{day}}, {{note!r}}"
"""
ASK = """\
%%durable_step pay
for amount in {amounts}:
    result = await agent.run(amount)
    print(result.output)"""


@pytest.fixture
def agent(opened):
    """Opens a notebook with an agent that calls a tool which needs an approval, and runs it up to there."""

    def open_notebook(run, *amounts, dies=False, **options):
        cells = OPEN, AGENT, ASK
        notebook = opened(*(cell.format(run=run, dies=dies, amounts=amounts) for cell in cells), **options)
        notebook.start_all()
        if dies:
            notebook.restarted()
            notebook.start_all()
        notebook.button("Approve", 2).wait_for()
        return notebook

    return open_notebook


def logged(notebook, run):
    return (notebook.server.directory / f"{run}.log").read_text().splitlines()


def test_killed_in_its_run_resumed_by_run_all_and_approved(agent, shot):
    notebook = agent("killed", "300", dies=True)
    expect(notebook.form(2).locator(".dnb-title")).to_have_text("Call transfer?")
    expect(notebook.form(2)).to_contain_text("signal 'approve:pay/clerk/transfer' of run 'killed'")
    shot(notebook, "light")
    notebook.darken()
    shot(notebook, "dark")
    notebook.button("Approve", 2).click()
    notebook.finish()
    said = "The bank says: sent 300 to Ann on 2030-01-02, 'rent\\nof May'"
    notebook.expect_printed(2, said)
    shot(notebook, "answered")
    notebook.restart_and_run_all()
    notebook.finish()
    notebook.expect_printed(2, said)
    once = ["request 0", "look_up", "request 1", "transfer 300", "request 2"]
    assert logged(notebook, "killed") == [*once[:3], *once[2:]]  # the one that died again


def test_the_arguments_edited_with_what_is_wrong_beside_them(agent, shot):
    notebook = agent("edited", "300")
    form = notebook.form(2)
    amount = form.get_by_label("Amount")
    expect(amount).to_have_value("300")
    expect(form.get_by_label("Owner")).to_have_value("Ann")
    expect(form.get_by_label("Day")).to_have_value("2030-01-02")
    expect(form.get_by_label("Note")).to_have_value("rent\nof May")
    amount.fill("2.5")
    notebook.button("Approve with changes", 2).click()
    expect(amount).to_have_attribute("aria-invalid", "true")
    expect(form).to_contain_text("2.5 is not of type 'integer'")
    shot(notebook)
    amount.fill("250")
    notebook.button("Approve with changes", 2).click()
    notebook.finish()
    notebook.expect_printed(2, "The bank says: sent 250 to Ann on 2030-01-02, 'rent\\nof May'")


def test_what_fields_cannot_show_as_json_or_not_at_all_and_a_rejection(agent, shot):
    notebook = agent("others", '"300"', str(2**60), "5000")
    form = notebook.form(2)
    arguments = form.get_by_label("Arguments")  # a text where a number belongs
    expect(arguments).to_have_value(re.compile('"amount": "300"'))
    arguments.fill('{"amount": 250,')
    notebook.button("Approve with changes", 2).click()
    expect(form).to_contain_text("Not valid JSON:")
    arguments.fill('{"amount": 250, "to": {}}')
    notebook.button("Approve with changes", 2).click()
    expect(form).to_contain_text("to.owner: this field is required")
    shot(notebook)
    arguments.fill('{"amount": 250, "to": {"owner": "Bob"}}')
    notebook.button("Approve with changes", 2).click()
    notebook.expect(2, "sent 250 to Bob on None")

    expect(form.locator(".dnb-title")).to_contain_text(str(2**60))  # the page would make another number of it
    assert form.locator("fieldset, textarea").count() == 0
    notebook.button("Approve", 2).click()
    notebook.expect(2, f"sent {2**60} to Ann")

    comment = form.get_by_label("Comment")
    expect(form.get_by_label("Amount")).to_have_value("5000")
    comment.fill("too dear")
    comment.press("Enter")  # sends nothing: which of the two buttons would it be?
    notebook.button("Reject", 2).click()
    notebook.finish()
    notebook.expect(2, "The bank says: too dear")
    assert [line for line in logged(notebook, "others") if "transfer" in line] == [
        "transfer 250",
        f"transfer {2**60}",
    ]
