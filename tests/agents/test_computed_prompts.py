"""What functions of an agent compute anew when its run is resumed: prompts, histories, usage."""

import asyncio
import itertools
import time

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from durable_nb import DurableAgent
from durable_nb.errors import RunChanged

PROMPT = "What is the time?"


def clerk(again, prepare=None, *, fails, static="Be brief.", **options):
    """A durable agent, as after a restart, with a tool that fails as long as it is told to."""
    agent = Agent(TestModel(), name="clerk", system_prompt=static, **options)

    @agent.tool_plain
    def pay() -> str:
        if fails:
            raise ConnectionResetError
        return "paid"

    if prepare is not None:
        prepare(agent)
    return DurableAgent(agent, again(default_retries=0))


def prompts(result):
    parts = [part for message in result.all_messages() for part in message.parts]
    return [part.content for part in parts if isinstance(part, SystemPromptPart)]


def resumed(again, prepare=None, **options):
    """The result of a run whose first pass fails after its first request."""
    fails = [True]
    with pytest.raises(ConnectionResetError):
        clerk(again, prepare, fails=fails, **options).run_sync(PROMPT, run_id="r")
    fails.clear()
    return clerk(again, prepare, fails=fails, **options).run_sync(PROMPT, run_id="r")


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_system_prompt_with_a_clock_is_the_recorded_one(again, dynamic):
    clock = itertools.count()

    def prepare(agent):
        @agent.system_prompt(dynamic=dynamic)
        def date() -> str:
            return f"The date is {next(clock)}."

    assert "The date is 0." in prompts(resumed(again, prepare))
    assert next(clock) > 1  # it was computed anew


def test_a_system_prompt_that_was_edited_is_a_change(again):
    fails = [True]

    def prepare(agent):
        agent.system_prompt(lambda: "today")

    with pytest.raises(ConnectionResetError):
        clerk(again, prepare, fails=fails).run_sync(PROMPT, run_id="r")
    with pytest.raises(RunChanged, match="prompt"):
        clerk(again, prepare, fails=[], static="Be long.").run_sync(PROMPT, run_id="r")


def test_a_history_processor_with_a_clock_is_resumed(again):
    clock = itertools.count()

    def now(messages):
        return [ModelRequest(parts=[SystemPromptPart(f"It is {next(clock)} o'clock.")]), *messages]

    result = resumed(again, capabilities=[ProcessHistory(now)])
    assert "It is 0 o'clock." in prompts(result)
    assert result.output == '{"pay":"paid"}'


def test_a_run_with_another_prompt_is_refused_in_spite_of_a_processor(again):
    fails = [True]
    options = {"capabilities": [ProcessHistory(lambda messages: messages)]}
    with pytest.raises(ConnectionResetError):
        clerk(again, fails=fails, **options).run_sync(PROMPT, run_id="r")
    with pytest.raises(RunChanged):
        clerk(again, fails=fails, **options).run_sync("Another one", run_id="r")


def test_the_usage_of_an_output_function_is_replayed(again):
    asked = []

    def model(messages, info):
        asked.append(1)
        return ModelResponse(parts=[TextPart("from the other")])

    other = Agent(FunctionModel(model), name="other")

    async def hand_over(ctx: RunContext, question: str) -> str:
        return (await other.run(question, usage=ctx.usage)).output

    def run():
        agent = Agent(TestModel(), name="main", output_type=hand_over)
        return DurableAgent(agent, again(default_retries=0)).run_sync("Ask", run_id="r")

    first, second = run(), run()
    assert len(asked) == 1
    assert first.output == second.output == "from the other"
    assert first.usage.requests == second.usage.requests == 2
    assert first.usage == second.usage


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("synchronous", [False, True])
def test_a_run_that_a_tool_has_cancelled_stays_so_until_that_is_reset(again, nested, synchronous):
    cancels, called = [True], []

    def run():
        wf = again(default_retries=0)
        agent = Agent(TestModel(), name="guarded")

        def guard(ctx: RunContext) -> str:
            called.append(1)
            if cancels:
                ctx.cancel()
                time.sleep(0.1)  # in a thread, a cancellation could interrupt the run here
            return "stop"

        async def guard_on_loop(ctx: RunContext) -> str:
            return guard(ctx)

        agent.tool(guard if synchronous else guard_on_loop, name="guard")
        durable = DurableAgent(agent, wf)
        if not nested:
            return wf, lambda: durable.run_sync("Go", run_id="r").output

        @wf.workflow(id="r")
        async def main():
            return (await durable.run("Go")).output

        return wf, lambda: asyncio.run(main())

    for _ in range(2):
        _, go = run()
        with pytest.raises(RunCancelled):
            go()
    assert len(called) == 1
    cancels.clear()
    wf, go = run()
    (step,) = (one.step_id for one in wf.sync.status("r").steps if one.step_id.endswith("tool:guard"))
    wf.sync.reset("r", step)
    assert go() == '{"guard":"stop"}'
    assert len(called) == 2


def test_an_agent_has_the_name_that_it_is_given(again):
    wf = again(default_retries=0)
    agent = DurableAgent(Agent(TestModel(), name="clerk"), wf, name="teller")
    assert agent.run_sync("Hello", run_id="r").output
    assert wf.sync.status("r").run.workflow == "shop.teller"
