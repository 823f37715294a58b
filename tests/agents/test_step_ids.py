"""The ids of an agent's steps, which are stored in users' databases: each test fails if one of them changes.

A changed id is not an improvement to be entered here: runs that were recorded under the old one execute their
model requests and tool calls again.
"""

import pytest
from fastmcp import FastMCP
from pydantic_ai import Agent, ToolOutput
from pydantic_ai import durable_exec as ids
from pydantic_ai.mcp import MCPToolset

from durable_nb import DurableAgent
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.pydantic_ai import NotebookDurability
from durable_nb.pydantic_ai.operations import operation_name


def lookup(city: str) -> str:
    return f"{city}: sunny"


def final(answer: str) -> str:
    return answer.upper()


@pytest.fixture
def server():
    """An MCP server with one tool."""
    server = FastMCP("weather")

    @server.tool
    def forecast(city: str) -> str:
        """Return a forecast."""
        return f"rain in {city}"

    return server


@pytest.fixture
def options(script, server):
    """An agent that calls a tool twice and an MCP server's tool once, and ends with an output function."""
    return {
        "model": script(
            [("lookup", {"city": "Rome"}), ("lookup", {"city": "Oslo"})],
            [("forecast", {"city": "Rome"})],
            [("final", {"answer": "done"})],
        ),
        "tools": [lookup],
        "toolsets": [MCPToolset(server, id="weather")],
        "output_type": ToolOutput(final, name="final"),
    }


def step_ids(wf, run_id):
    return {step.step_id for step in run_blocking(SYNC.store(wf.journal.read_run(run_id))).steps}


IDS = {
    "model",
    "model#1",
    "model#2",
    "tool:lookup",
    "tool:lookup#1",
    "tool:forecast",
    "mcp:weather.tools",
    "output:final",
    "end",
}


async def test_a_run_of_the_agents_own(again, options):
    agent = DurableAgent(Agent(name="clerk", **options), again())
    assert (await agent.run("go", run_id="r")).output == "DONE"
    assert step_ids(agent.workflow, "r") == IDS


async def test_streamed(again, options):
    agent = DurableAgent(Agent(name="clerk", **options), again())
    async with agent.run_stream_events("go", run_id="r") as events:
        async for _ in events:
            pass
    assert step_ids(agent.workflow, "r") == IDS


@pytest.mark.parametrize("kind", ["DurableAgent", "NotebookDurability"])
async def test_part_of_a_run(again, options, kind):
    wf = again()
    if kind == "DurableAgent":
        agent = DurableAgent(Agent(name="clerk", **options), wf)
    else:
        agent = Agent(name="clerk", capabilities=[NotebookDurability()], **options)

    @wf.workflow
    async def main():
        return (await agent.run("go")).output

    assert await main.run("r") == "DONE"
    assert step_ids(wf, "r") == {f"clerk/{each}" for each in IDS}


async def test_the_approval_of_a_call(again, script):
    agent = Agent(script([("pay", {"amount": 1})], "done"), name="clerk")

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int) -> str:
        return f"paid {amount}"

    durable = DurableAgent(agent, again())
    await durable.workflow.complete("r", "approve:pay", True)
    await durable.run("go", run_id="r")
    assert step_ids(durable.workflow, "r") == {"model", "signal:approve:pay", "tool:pay", "model#1"}


def test_the_names_of_operations():
    names = [
        operation_name(each)
        for each in [
            ids.ModelRequestId(model_name="m"),
            ids.ModelRequestId("other", streaming=True, model_name="m"),
            ids.ModelCompactMessagesId(model_name="m"),
            ids.ModelCancelSuspendedResponseId(model_name="m"),
            ids.EventStreamHandlerId(),
            ids.ToolsetGetToolsId("mcp", toolset_id="web"),
            ids.ToolsetGetToolsId("dynamic", toolset_id=None),
            ids.ToolsetGetInstructionsId("web"),
            ids.ToolsetCallToolId("function", toolset_id="own"),
            ids.CapabilityOperationId("search", operation="find"),
            type("SomethingNewId", (), {})(),
        ]
    ]
    assert names == [
        "model",
        "model",
        "compact",
        "cancel",
        "event",
        "mcp:web.tools",
        "dynamic:.tools",
        "mcp:web.instructions",
        "tool",
        "search.find",
        "somethingnew",
    ]
