"""An agent in a notebook, as a person meets it: killed, resumed by "Run All", approved by clicks."""

import re

import pytest
from playwright.sync_api import expect

from .lab import OPEN

AGENT = """\
import os, signal
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

CALLS = [
    ToolCallPart("look_up", dict(customer="Ann")),
    ToolCallPart(
        "transfer",
        dict(amount={amount}, to=dict(owner="Ann"), day="2030-01-02", note="rent\\nof May"),
    ),
]

def respond(messages, info):
    number = sum(isinstance(message, ModelResponse) for message in messages)
    log(f"request {{number}}")
    if number == 1 and {dies} and open("{run}.log").read().count("request 1") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 2:
        return ModelResponse(parts=[CALLS[number]])
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
ASK = "%%durable_step pay\nresult = await agent.run('Pay the rent')\nprint(result.output)"


@pytest.fixture
def agent(opened):
    """Opens a notebook with an agent that calls a tool which needs an approval, and runs it up to there."""

    def open_notebook(run, *, amount=300, dies=False, **options):
        cells = OPEN.format(run=run), AGENT.format(run=run, amount=amount, dies=dies), ASK
        notebook = opened(*cells, **options)
        notebook.start_all()
        if dies:
            notebook.restarted()
            notebook.start_all()
        notebook.button("Approve", 2).wait_for()
        return notebook

    return open_notebook


def logged(notebook, run):
    return (notebook.server.directory / f"{run}.log").read_text().splitlines()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_killed_in_its_run_resumed_by_run_all_and_approved(agent, shot, dark):
    run = f"agent-{dark}".lower()
    notebook = agent(run, dies=True, dark=dark)
    expect(notebook.form(2).locator(".dnb-title")).to_have_text("Call transfer?")
    shot(notebook, "waiting")
    notebook.button("Approve", 2).click()
    notebook.finish()
    said = "The bank says: sent 300 to Ann on 2030-01-02, 'rent\\nof May'"
    notebook.expect_printed(2, said)
    shot(notebook, "answered")
    notebook.restart_and_run_all()
    notebook.finish()
    notebook.expect_printed(2, said)
    assert logged(notebook, run) == [
        "request 0", "look_up", "request 1", "request 1", "transfer 300", "request 2",
    ]  # fmt: skip


def test_the_arguments_edited_with_what_is_wrong_beside_them(agent, shot):
    notebook = agent("edited")
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


def test_rejected_with_a_message(agent):
    notebook = agent("rejected")
    comment = notebook.form(2).get_by_label("Comment")
    comment.fill("too dear")
    comment.press("Enter")  # sends nothing: which of the two buttons would it be?
    notebook.button("Reject", 2).click()
    notebook.finish()
    notebook.expect_printed(2, "The bank says: too dear")


def test_arguments_that_fields_would_not_show_as_they_are(agent, shot):
    notebook = agent("json", amount="'300'")
    arguments = notebook.form(2).get_by_label("Arguments")
    expect(arguments).to_have_value(re.compile('"amount": "300"'))
    arguments.fill('{"amount": 250,')
    notebook.button("Approve with changes", 2).click()
    expect(notebook.form(2)).to_contain_text("This is no JSON:")
    arguments.fill('{"amount": 250, "to": {}}')
    notebook.button("Approve with changes", 2).click()
    expect(notebook.form(2)).to_contain_text("to.owner: this is needed")
    shot(notebook)
    arguments.fill('{"amount": 250, "to": {"owner": "Bob"}}')
    notebook.button("Approve with changes", 2).click()
    notebook.finish()
    notebook.expect_printed(2, "The bank says: sent 250 to Bob on None, ''")


def test_numbers_that_a_page_would_change_cannot_be_edited(agent):
    notebook = agent("large", amount=2**60)
    expect(notebook.form(2).locator(".dnb-title")).to_contain_text(f'Call transfer({{"amount":{2**60}')
    assert notebook.form(2).get_by_label("Amount").count() == 0
    notebook.button("Approve", 2).click()
    notebook.finish()
    notebook.expect(2, f"sent {2**60} to Ann")
