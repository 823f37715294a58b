"""Approving tool calls: what an answer may be, said by one schema wherever it is given."""

import asyncio
import json
import subprocess
import sys

import pytest
from pydantic import BaseModel
from pydantic_ai.tools import Tool, ToolApproved, ToolDenied

from durable_nb.concurrency.bridge import ASYNC
from durable_nb.errors import SignalInvalid
from durable_nb.pydantic_ai.approvals import as_approval
from durable_nb.records import SignalRequest
from durable_nb.signals.accepted import Accepted, problems
from durable_nb.signals.typed import editable_arguments, hint, read_answer


class Account(BaseModel):
    owner: str
    heir: "Account | None" = None


@pytest.fixture
def called():
    """What the tool was called with."""
    return []


@pytest.fixture
def clerk(durable, script, called):
    """Makes an agent whose model wants to call a tool that needs an approval."""

    def make():
        agent = durable(script([("pay", {"amount": 300, "to": {"owner": "Ann"}})], "done"))

        @agent.tool_plain(requires_approval=True)
        def pay(amount: int, to: Account, note: str = "") -> str:
            """Send money."""
            called.append((amount, to.owner, note))
            return f"paid {amount}"

        return agent

    return make


async def until_asked(agent):
    """The request for the approval, as soon as there is one."""
    journal = agent.workflow.journal
    await ASYNC.store(journal.setup())
    async with asyncio.timeout(30):
        while not (waiting := await ASYNC.store(journal.open_signals())):
            await asyncio.sleep(0.01)
    return waiting[0]


@pytest.fixture
async def asked(clerk):
    """An agent that waits for an approval: itself, its run, and the request."""
    agent = clerk()
    task = asyncio.create_task(agent.run("go", run_id="r"))
    yield agent, task, await until_asked(agent)
    task.cancel()
    await asyncio.wait([task])


OTHER = {"approved": True, "arguments": {"amount": 250, "to": {"owner": "Bob"}}}


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y", {"approved": True, "comment": ""}),
        ("n too dear", {"approved": False, "comment": "too dear"}),
        ('y {"amount": 250, "to": {"owner": "Bob"}}', OTHER),
    ],
)
async def test_what_a_person_types_at_a_prompt(asked, called, typed, answer):
    agent, task, request = asked
    assert request.prompt == 'Call pay({"amount":300,"to":{"owner":"Ann"}})?'
    assert hint(request) == "y | n, and a comment | y {other arguments}"
    assert read_answer(request, typed) == answer
    await agent.workflow.complete("r", "approve:pay", answer)
    result = await task
    if answer["approved"]:
        assert called == [(250, "Bob", "") if "arguments" in answer else (300, "Ann", "")]
    else:
        assert (called, "too dear" in str(result.all_messages())) == ([], True)


@pytest.mark.parametrize(
    ("answer", "path", "text"),
    [
        (42, [], "42 is not of type 'object', 'boolean', 'string'"),
        ({"comment": "fine"}, ["approved"], "this field is required"),
        ({"approved": "yes"}, ["approved"], "'yes' is not of type 'boolean'"),
        ({"approved": True, "arguments": {"amount": 1}}, ["arguments", "to"], "this field is required"),
        (
            {"approved": True, "arguments": {"amount": 1, "to": {"owner": "Ann", "heir": {"owner": 3}}}},
            ["arguments", "to", "heir", "owner"],
            "3 is not of type 'string'",
        ),
    ],
)
async def test_an_answer_that_means_nothing_is_refused_and_says_where(asked, called, answer, path, text):
    agent, task, request = asked
    (problem,) = problems(request, answer)
    assert (problem.path, problem.text) == (path, text)
    with pytest.raises(SignalInvalid, match="run 'r', step 'signal:approve:pay'"):
        await agent.workflow.complete("r", "approve:pay", answer)
    assert called == []
    await agent.workflow.complete("r", "approve:pay", True)
    assert (await task).output == "done"


@pytest.mark.parametrize(
    "early", [42, {"approved": True, "arguments": {"amount": "much"}}, {"approved", True}]
)
async def test_one_that_came_too_early_is_set_aside_and_the_next_is_waited_for(clerk, called, early):
    agent = clerk()
    await agent.workflow.complete("r", "approve:pay", early)
    task = asyncio.create_task(agent.run("go", run_id="r"))
    assert "is not accepted" in (await until_asked(agent)).refused
    await agent.workflow.complete("r", "approve:pay", True)
    await task
    assert called == [(300, "Ann", "")]


async def test_in_a_terminal_it_says_what_is_accepted(asked, called, tmp_path):
    _, task, _ = asked

    def command(*arguments):
        line = [sys.executable, "-m", "durable_nb.cli", *arguments, "--db", tmp_path / "runs.db"]
        return asyncio.to_thread(subprocess.run, line, capture_output=True, text=True)

    listed = (await command("signals")).stdout
    edited = '{"approved": true, "arguments": {"amount": 300, "to": {"owner": "Ann"}}}'
    assert f"accepts: true | false | TEXT (the reason to reject) | {edited}, or other arguments" in listed
    refused = await command("signal", "r", "approve:pay", edited.replace("300", '"much"'))
    assert "arguments.amount: 'much' is not of type 'integer'" in refused.stderr
    assert (await command("signal", "r", "approve:pay", edited.replace("300", "250"))).returncode == 0
    await task
    assert called == [(250, "Ann", "")]


def test_a_form_with_a_field_called_arguments_is_no_tool_call():
    schema = {"type": "object", "properties": {"arguments": {"default": {}}}}
    assert editable_arguments(SignalRequest("r", "go", schema=json.dumps(schema))) is None


@pytest.mark.parametrize("broken", [{"$ref": "#/nowhere"}, {"pattern": r"\p{L}+"}])
def test_a_schema_that_is_not_understood_lets_the_tool_itself_say_what_it_takes(broken):
    accepted = Accepted(schema={"type": "object", "properties": {"name": broken}})
    assert accepted.validated({"name": "Ann"}) == {"name": "Ann"}
    with pytest.raises(SignalInvalid):
        accepted.validated(3)


def test_words_are_answers_too():
    assert isinstance(as_approval("Yes"), ToolApproved)
    assert as_approval("n") == as_approval(False) == ToolDenied()
    assert as_approval("yes, but cheaper").message == "yes, but cheaper"


async def test_in_another_run_the_place_of_the_agents_steps_stands_before(durable, script):
    def pay(amount: int) -> str:
        return f"paid {amount}"

    agent = durable(script([("pay", {"amount": 1})], "done"), tools=[Tool(pay, requires_approval=True)])

    @agent.workflow.workflow(id="main")
    async def main():
        return (await agent.run("go")).output

    await agent.workflow.complete("main", "approve:clerk/pay", True)
    assert await main() == "done"
