"""What a picky maintainer would try with a durable agent; re-entered with nothing left in memory."""

import asyncio
import os
import re
import warnings
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from fastmcp import FastMCP
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel
from pydantic_ai import (
    AbstractToolset,
    Agent,
    ApprovalRequired,
    DeferredToolRequests,
    DeferredToolResults,
    FunctionToolset,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    Tool,
    ToolOutput,
    ToolReturn,
    UsageLimits,
    durable_exec,
)
from pydantic_ai.exceptions import ModelHTTPError, UsageLimitExceeded, UserError
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    BinaryContent,
    CustomEvent,
    ModelResponse,
    PartDeltaEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from durable_nb import DurableAgent, TaskConfig, durable_pipeline, durable_tool
from durable_nb.cli import main
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.status import Used
from durable_nb.errors import (
    DurableNotice,
    InvalidOption,
    RunChanged,
    RunHeld,
    StepChanged,
    StepInDoubt,
    StepNotSaved,
)
from durable_nb.pydantic_ai import NotebookDurability
from durable_nb.pydantic_ai.config import is_permanent
from durable_nb.workflow.backoff import constant

NOW = constant(0.01)


class Died(BaseException):
    """The process ends here, as far as the run can tell."""


def counted(calls, name, result=None, *, dies=()):
    """An async tool that notes its calls; the process ends in those whose number is in `dies`."""

    async def tool(key: str = "") -> str:
        calls.append(f"{name} {key}".strip())
        if len(calls) in dies:
            raise Died
        return result or f"{name} {key}".strip()

    return Tool(tool, name=name, takes_ctx=False)


def steps(wf, run_id="r"):
    return [step.step_id for step in run_blocking(SYNC.store(wf.journal.read_run(run_id))).steps]


async def test_three_equal_parallel_calls_of_which_the_slowest_dies(script, durable):
    calls, release = [], asyncio.Event()
    dies = True

    async def slow(n: int) -> int:
        calls.append(n)
        if len(calls) == 3 and dies:
            await release.wait()
            raise Died
        await asyncio.sleep(0)
        if len(calls) == 3:
            asyncio.get_running_loop().call_later(0.2, release.set)
        return len(calls)

    model = script([("slow", {"n": 1})] * 3, "done")
    with pytest.raises(Died):
        await durable(model, tools=[slow]).run("go", run_id="r")
    dies = False
    agent = durable(model, tools=[slow])
    result = await agent.run("go", run_id="r")
    assert result.output == "done"
    assert len(calls) == 4
    tools = [step for step in steps(agent.workflow) if "tool" in step]
    assert sorted(tools) == ["tool:slow", "tool:slow#1", "tool:slow#2"]


async def test_the_same_tool_call_id_in_two_steps(durable, script):
    calls = []
    same = [ModelResponse(parts=[ToolCallPart("note", {"key": key}, tool_call_id="same")]) for key in "ab"]
    model = script(*same, "done")
    first = await durable(model, tools=[counted(calls, "note")]).run("go", run_id="r")
    second = await durable(model, tools=[counted(calls, "note")]).run("go", run_id="r")
    assert calls == ["note a", "note b"]
    assert second.all_messages() == first.all_messages()


async def test_a_tool_marked_once_that_died_is_in_doubt(script, durable):
    calls = []
    model = script([("charge", {})], "done")
    config = {"tool_task_config": TaskConfig(once=True)}
    with pytest.raises(Died):
        await durable(model, tools=[counted(calls, "charge", dies=[1])], config=config).run("x", run_id="r")
    agent = durable(model, tools=[counted(calls, "charge")], config=config)
    with pytest.raises(StepInDoubt, match=r"run 'r', step 'tool:charge'.*'tool:charge', 'rerun'"):
        await agent.run("x", run_id="r")
    await agent.workflow.resolve("r", "tool:charge", "rerun")
    assert (await agent.run("x", run_id="r")).output == "done"
    assert calls == ["charge", "charge"]


@pytest.mark.parametrize(
    ("answer", "called", "told"),
    [
        (True, ["pay 1"], "pay 1"),
        ({"approved": True, "arguments": {"key": "2"}}, ["pay 2"], "pay 2"),
        (False, [], "denied"),
        ("too much", [], "too much"),
        ({"approved": False, "message": "not today"}, [], "not today"),
    ],
)
async def test_an_approval_that_was_given_while_no_process_ran(script, durable, answer, called, told):
    calls = []
    tool = counted(calls, "pay")
    tool.requires_approval = True
    model = script([("pay", {"key": "1"})], "done")
    task = asyncio.create_task(durable(model, tools=[tool]).run("go", run_id="r"))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])
    assert calls == []
    agent = durable(model, tools=[tool])
    await agent.workflow.complete("r", "approve:pay", answer)
    first = await agent.run("go", run_id="r")
    assert calls == called
    assert told in str(first.all_messages()[2])
    again = await durable(model, tools=[tool]).run("go", run_id="r")
    assert (calls, model.requests) == (called, 2)
    assert again.all_messages() == first.all_messages()


async def test_dynamic_approval(script, durable):
    calls = []

    async def pay(ctx: RunContext[None], amount: int) -> str:
        calls.append((amount, ctx.tool_call_approved))
        if amount > 10 and not ctx.tool_call_approved:
            raise ApprovalRequired
        return f"paid {amount}"

    model = script([("pay", {"amount": 5}), ("pay", {"amount": 50})], "done")
    agent = durable(model, tools=[pay])
    await agent.workflow.complete("r", "approve:pay#1", True)
    first = await agent.run("go", run_id="r")
    second = await durable(model, tools=[pay]).run("go", run_id="r")
    assert calls == [(5, False), (50, False), (50, True)]
    assert second.all_messages() == first.all_messages()


async def test_deferred_requests_as_output_in_two_runs(script, durable):
    calls = []
    tool = counted(calls, "pay")
    tool.requires_approval = True
    model = script([("pay", {})], "done")
    options = {"tools": [tool], "output_type": [str, DeferredToolRequests]}
    asked = await durable(model, **options).run("go", run_id="r1")
    asked = await durable(model, **options).run("go", run_id="r1")
    (call,) = asked.output.approvals
    given = {
        "message_history": asked.all_messages(),
        "deferred_tool_results": DeferredToolResults(approvals={call.tool_call_id: True}),
    }
    first = await durable(model, **options).run(run_id="r2", **given)
    second = await durable(model, **options).run(run_id="r2", **given)
    assert second.output == first.output == "done"
    assert (calls, model.requests) == (["pay"], 2)


async def test_a_sub_agent_that_dies_in_a_tool_and_its_usage(script, durable):
    inner = script([("look", {})], "found")
    calls = []

    def made(dies):
        helper = Agent(
            inner, name="helper", tools=[counted(calls, "look")], capabilities=[NotebookDurability()]
        )

        async def ask(ctx: RunContext[None]) -> str:
            found = await helper.run("find", usage=ctx.usage)
            if dies:
                raise Died
            return found.output

        return durable(outer, tools=[ask])

    outer = script([("ask", {}), ("ask", {})], "done")
    with pytest.raises(Died):
        await made(dies=True).run("go", run_id="r")
    agent = made(dies=False)
    first = await agent.run("go", run_id="r")
    assert "tool:ask/helper/model#1" in steps(agent.workflow)
    assert calls == ["look", "look"]
    assert (inner.requests, outer.requests) == (4, 2)
    second = await made(dies=False).run("go", run_id="r")
    assert second.usage == first.usage
    assert first.usage.requests == 6
    assert first.usage.tool_calls == 4


async def test_model_retry_is_an_outcome(script, durable):
    calls = []

    async def guess(n: int) -> str:
        calls.append(n)
        if n == 1:
            raise ModelRetry("higher")
        return "right"

    model = script([("guess", {"n": 1})], [("guess", {"n": 2})], "done")
    first = await durable(model, tools=[guess]).run("go", run_id="r")
    second = await durable(model, tools=[guess]).run("go", run_id="r")
    assert calls == [1, 2]
    assert second.all_messages() == first.all_messages()


async def test_only_what_may_pass_is_tried_again(script, durable):
    config = {"model_task_config": TaskConfig(retries=2, backoff=NOW)}

    async def requests_until(failure):
        model = script(failure)
        with pytest.raises(type(failure)):
            await durable(model, config=config).run("go", run_id=repr(failure))
        return model.requests

    assert await requests_until(ModelHTTPError(503, "m")) == 3
    assert await requests_until(ModelHTTPError(429, "m")) == 3
    assert await requests_until(ConnectionError("reset")) == 3
    assert await requests_until(ModelHTTPError(401, "m")) == 1
    assert await requests_until(UserError("wrong")) == 1
    assert is_permanent(ExceptionGroup("all", [UserError("a"), ModelHTTPError(400, "m")]))
    assert not is_permanent(ExceptionGroup("all", [UserError("a"), ModelHTTPError(500, "m")]))


async def test_a_tool_that_cannot_be_saved_runs_once(script, durable):
    calls = []

    async def locked() -> object:
        calls.append(1)
        return (item for item in [])

    agent = durable(
        script([("locked", {})], "x"), tools=[locked], config={"tool_task_config": TaskConfig(retries=3)}
    )
    with pytest.raises(StepNotSaved, match="run 'r', step 'tool:locked'"):
        await agent.run("go", run_id="r")
    assert calls == [1]


class City(BaseModel):
    name: str


@dataclass
class Country:
    code: str


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ([City, Country], [("final_result_City", {"name": "Rome"})]),
        (list[City], [("final_result", {"response": [{"name": "Rome"}]})]),
        (NativeOutput(City), '{"name": "Rome"}'),
        (PromptedOutput(City), '{"name": "Rome"}'),
        (ToolOutput(City, name="answer"), [("answer", {"name": "Rome"})]),
    ],
)
async def test_structured_outputs(script, durable, output, line):
    model = script(line)
    model._profile = {"supports_json_schema_output": True}
    first = await durable(model, output_type=output).run("go", run_id="r")
    second = await durable(model, output_type=output).run("go", run_id="r")
    assert model.requests == 1
    assert second.output == first.output
    assert second.all_messages() == first.all_messages()


async def test_an_output_function_runs_once_also_where_it_asks_again(script, durable):
    calls = []

    async def checked(name: str) -> City:
        calls.append(name)
        if name == "Rom":
            raise ModelRetry("in English")
        return City(name=name)

    model = script([("final_result", {"name": "Rom"})], [("final_result", {"name": "Rome"})])
    first = await durable(model, output_type=checked).run("go", run_id="r")
    second = await durable(model, output_type=checked).run("go", run_id="r")
    assert calls == ["Rom", "Rome"]
    assert second.output == first.output == City(name="Rome")
    assert second.all_messages() == first.all_messages()


async def streamed(agent, **options):
    async with agent.run_stream_events("go", run_id="r", **options) as events:
        return [event async for event in events]


async def test_events_come_live_and_are_the_same_on_replay(durable, script):
    model, opened = script("one two three"), asyncio.Event()

    async def slowly(messages, info):
        yield "one "
        await opened.wait()  # the consumer has seen the first: it was handed on before the last was there
        yield "two"

    model.stream_function = slowly
    seen = []
    async with durable(model).run_stream_events("go", run_id="r") as events:
        async for event in events:
            seen.append(event)
            opened.set()
    replayed = await streamed(durable(model))
    assert replayed[:-1] == seen[:-1]
    assert any(isinstance(event, PartDeltaEvent) for event in seen)
    assert replayed[-1].result.all_messages() == seen[-1].result.all_messages()


def slowly(stream):
    async def streamed(messages, info):
        async for text in stream(messages, info):
            yield text
            await asyncio.sleep(0.05)

    return streamed


@pytest.mark.parametrize("debounce", [None, 0.01])
async def test_a_consumer_that_stops_early_leaves_a_whole_response(durable, script, debounce):
    model = script("one two three")
    model.stream_function = slowly(model.stream_function)
    async with durable(model).run_stream("go", run_id="r") as result:
        async for _ in result.stream_text(delta=True, debounce_by=debounce):
            break
    async with durable(model).run_stream("go", run_id="r") as again:
        assert await again.get_output() == "one two three "
    assert model.requests == 1


@dataclass
class Progress(CustomEvent):
    percent: int = 0


async def test_what_a_tool_emits_and_enqueues_is_repeated(durable, script):
    calls = []

    async def work(ctx: RunContext[None]) -> str:
        calls.append(1)
        await ctx.emit(Progress(percent=50))
        ctx.enqueue("and be brief")
        return "worked"

    model = script([("work", {})], "done")
    first = await streamed(durable(model, tools=[work]))
    second = await streamed(durable(model, tools=[work]))
    assert calls == [1]
    for events in (first, second):
        assert [event.percent for event in events if isinstance(event, Progress)] == [50]
    assert "and be brief" in str(first[-1].result.all_messages())
    assert second[-1].result.all_messages() == first[-1].result.all_messages()


class Server(AbstractToolset[None]):
    """A toolset of the user's own whose server may be down."""

    def __init__(self, inner, *, down):
        self.inner, self.down = inner, down

    @property
    def id(self):
        return None

    async def get_tools(self, ctx):
        return await self.inner.get_tools(ctx)

    async def call_tool(self, name, tool_args, ctx, tool):
        if self.down:
            raise ConnectionError("the server is down")
        return await self.inner.call_tool(name, tool_args, ctx, tool)


async def test_a_toolset_of_ones_own_whose_server_is_down_at_replay(durable, script):
    calls = []
    model = script([("look", {})], "done")
    for down in (False, True):
        server = Server(FunctionToolset([counted(calls, "look")]), down=down)
        assert (await durable(model, toolsets=[server]).run("go", run_id="r")).output == "done"
    assert calls == ["look"]


async def test_an_mcp_server_without_an_id_that_is_down_at_replay(durable, script):
    calls = []
    model = script([("look", {"city": "Rome"})], "done")

    def made(down):
        server = FastMCP("weather")

        @server.tool
        def look(city: str) -> str:
            """Look."""
            calls.append(city)
            return f"sun in {city}"

        @asynccontextmanager
        async def connected(_):
            calls.append("connected")
            if down:
                raise ConnectionError("the server is down")
            yield

        server._lifespan = connected
        return durable(model, toolsets=[MCPToolset(server)])

    first = await made(down=False).run("go", run_id="r")
    assert calls[:1] == ["connected"]
    assert "Rome" in calls
    calls.clear()
    second = await made(down=True).run("go", run_id="r")
    assert calls == []
    assert second.all_messages() == first.all_messages()
    assert "sun in Rome" in str(second.all_messages())


async def test_toolsets_without_an_id_added_at_run_time_and_overridden(durable, script):
    calls = []

    def toolset(name):
        return FunctionToolset([counted(calls, name)])

    model = script([("own", {}), ("added", {})], "done")

    async def run():
        agent = durable(model, toolsets=[toolset("own")])
        return await agent.run("go", run_id="r", toolsets=[toolset("added")])

    first, second = await run(), await run()
    assert sorted(calls) == ["added", "own"]
    assert second.all_messages() == first.all_messages()
    calls.clear()
    other = script([("swapped", {})], "swapped")
    for _ in range(2):
        agent = durable(model, toolsets=[toolset("own")])
        with agent.override(model=other, toolsets=[toolset("swapped")]):
            assert (await agent.run("go", run_id="r2")).output == "swapped"
    assert calls == ["swapped"]
    assert (model.requests, other.requests) == (2, 2)


async def test_dynamic_toolsets(durable, script):
    calls = []
    model = script([("look", {})], "done")

    def made():
        agent = durable(model)

        @agent.wrapped.toolset
        def find(ctx: RunContext[None]):
            return FunctionToolset([counted(calls, "look")])

        return agent

    first = await made().run("go", run_id="r")
    second = await made().run("go", run_id="r")
    assert calls == ["look"]
    assert second.all_messages() == first.all_messages()


async def test_fallback_thinking_binary_and_metadata(durable, script):
    seen = BinaryContent(b"\xff\x00", media_type="image/png")

    async def photo() -> ToolReturn:
        return ToolReturn("taken", content=[seen], metadata={"at": datetime(2026, 1, 1, tzinfo=UTC), 1: {2}})

    thought = ModelResponse(parts=[ThinkingPart("hm"), ToolCallPart("photo", {}), TextPart("wait")])
    down, up = script(ModelHTTPError(500, "m"), name="down"), script(thought, "done", name="up")
    down.lines = [ModelHTTPError(500, "m")] * 2
    first = await durable(FallbackModel(down, up), tools=[photo]).run("go", run_id="r")
    second = await durable(FallbackModel(down, up), tools=[photo]).run("go", run_id="r")
    assert (down.requests, up.requests) == (2, 2)
    assert second.all_messages() == first.all_messages()
    assert "datetime" in repr(second.all_messages())


async def test_exact_types_of_what_tools_return(durable, script):
    values = [City(name="Rome"), (1, {2}), {1: b"\xff"}, datetime(2026, 1, 1, tzinfo=UTC)]
    model = script([("give", {"n": n}) for n in range(4)], "done")

    async def give(n: int) -> object:
        return values[n]

    for _ in range(2):
        result = await durable(model, tools=[give]).run("go", run_id="r")
        parts = result.all_messages()[2].parts
        assert [(type(part.content), part.content) for part in parts] == [(type(v), v) for v in values]


async def test_the_same_run_id_with_anything_else_is_refused_with_the_difference(durable, script):
    def tool(text: str) -> str:
        return text

    def other(text: str, loud: bool) -> str:
        return text

    async def run(prompt="go", name="m", function=tool, **options):
        model = script("done", name=name)
        agent = durable(model, tools=[Tool(function, name="say")])
        return await agent.run(prompt, run_id="r", **options), model.requests

    await run()
    assert (await run())[1] == 0
    for changed, difference in [
        ({"prompt": "stop"}, "prompt: 'go' → 'stop'"),
        ({"name": "gpt"}, "model: 'm' → 'gpt'"),
        ({"function": other}, "tool:say"),
        ({"model_settings": {"temperature": 0.5}}, "settings: {} → {'temperature': 0.5}"),
    ]:
        with pytest.raises(RunChanged, match="run 'r'") as caught:
            await run(**changed)
        assert difference in str(caught.value)
        assert "fresh=True" in str(caught.value)
    agent = durable(script("anew"))
    assert (await agent.run("stop", run_id="r", fresh=True)).output == "anew"
    async with durable(script("newer")).iter("new", run_id="r", fresh=True) as run:
        async for _ in run:
            pass
    assert run.result.output == "newer"


async def test_an_edited_tool_replays_with_a_notice(durable, script):
    calls = []

    def old(key: str) -> str:
        calls.append(key)
        return key

    def new(key: str) -> str:
        calls.append(key)
        return key.upper()

    async def run(function):
        agent = durable(model, tools=[Tool(function, name="note")])
        return (await agent.run("go", run_id="r")).all_messages()

    model = script([("note", {"key": "a"})], "done")
    first = await run(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await run(old) == first
    told = "run 'r', step 'tool:note': replayed although its code changed.*'tool:note', 'rerun'"
    with pytest.warns(DurableNotice, match=told):
        assert await run(new) == first
    assert calls == ["a"]


async def test_in_a_workflow_the_step_names_it(again, script):
    model = script("done")

    outputs = []

    async def run(prompt):
        wf = again()
        agent = DurableAgent(Agent(model, name="clerk"), wf)

        @durable_pipeline(wf, id="p")
        async def pipeline():
            both = await asyncio.gather(agent.run(prompt), agent.run("b"))
            last = await agent.run("c")
            outputs.append([each.output for each in [*both, last]])
            raise Died

        with suppress(Died):
            await pipeline()
        return outputs[-1], sorted(steps(wf, "p"))

    found = await run("a")
    assert found == (["done"] * 3, ["clerk/model", "~0/clerk/model", "~1/clerk/model"])
    assert await run("a") == found
    assert (model.requests, len(outputs)) == (3, 2)
    with pytest.raises(StepChanged, match=r"run 'p', step '~0/clerk/model'.*prompt"):
        await run("other")


async def test_what_a_stream_does_beside_it_counts_as_no_branch(again, script):
    """``stream_text`` makes a task for each item: how many there are until a consumer stops is chance."""
    ran, model = [], script("one two three four")
    model.stream_function = slowly(model.stream_function)

    async def main_of(wf, items):
        agent = DurableAgent(Agent(model, name="clerk"), wf)

        @wf.task
        async def note(n):
            ran.append(n)
            return n

        async def branch(n):
            return await note(n)

        @wf.workflow(id="r")
        async def main():
            async with agent.run_stream("go") as result:
                async for text in result.stream_text(debounce_by=0.01):
                    if len(text.split()) == items:
                        break
                inside = [await note(1)]
            async with agent.iter("go") as run:
                assert [node async for node in run]
            return inside + await asyncio.gather(branch(2), branch(3))

        return await main(), set(steps(wf, "r"))

    first = await main_of(again(), 1)
    assert first[0] == [1, 2, 3]
    assert {"clerk/model", "clerk#1/model", "~0/note", "~1/note"} < first[1]
    for items in (3, 9):
        assert (await main_of(again(), items))[0] == [1, 2, 3]
    assert (ran, model.requests) == ([1, 2, 3], 2)


async def test_each_way_to_call_it_names_its_steps_by_place(again, script):
    model = script("done")

    async def found():
        wf = again()
        agent = DurableAgent(Agent(model, name="c"), wf)

        async def stream():
            async with agent.run_stream("go") as result:
                return await result.get_output()

        async def events():
            async with agent.run_stream_events("go") as seen:
                return [event async for event in seen][-1].result.output

        async def nodes():
            async with agent.iter("go") as run:
                async for _ in run:
                    pass
            return run.result.output

        async def run():
            return (await agent.run("go")).output

        ways = (stream, events, nodes, run)

        @wf.workflow(id="r")
        async def main():
            together = await asyncio.gather(*(way() for way in ways))
            return together + [await way() for way in ways]

        return await main(), sorted(steps(wf))

    first = await found()
    assert first == await found()
    assert model.requests == 8
    own = ["c#1/model", "c#2/model", "c/model"]
    assert first[1] == [*own, "~0/c/model", "~1/~0/c/model", "~2/c/model", "~3/c/model", "~4/c/model"]


@pytest.mark.parametrize("way", ["run", "run_stream", "run_stream_events", "iter"])
async def test_each_way_to_call_it_starts_over_or_takes_over(durable, script, way):
    async def call(text, prompt, **options):
        agent = durable(script(text))
        if way == "run":
            return (await agent.run(prompt, run_id="r", **options)).output
        async with getattr(agent, way)(prompt, run_id="r", **options) as opened:
            if way == "run_stream":
                return await opened.get_output()
            items = [item async for item in opened]
        return opened.result.output if way == "iter" else items[-1].result.output

    assert (await call("first", "go")).strip() == "first"
    with pytest.raises(RunChanged, match="fresh=True"):
        await call("other", "stop")
    assert (await call("other", "stop", fresh=True)).strip() == "other"
    assert (await call("third", "stop", take_over=True)).strip() == "other"


async def test_starting_over_starts_the_agents_in_tools_over_too(durable, script):
    inner = durable(script("inner"))
    model, seen = script([("ask", {})], "done"), []

    async def ask() -> str:
        async with helper.iter("find", run_id="inner") as run:
            async for _ in run:
                pass
        seen.append(run.result.output)
        return run.result.output

    helper = durable(inner.wrapped.model, name="helper")
    agent = DurableAgent(Agent(model, name="clerk", tools=[ask]), helper.workflow)
    for _ in range(2):
        await agent.run("go", run_id="r", fresh=True)
    assert seen == ["inner", "inner"]
    assert (model.requests, inner.wrapped.model.requests) == (4, 2)


async def test_fifty_gathered_runs(durable, script):
    model = script([("note", {})], "done")
    calls = []
    agent = durable(model, tools=[counted(calls, "note")])
    for _ in range(2):
        results = await asyncio.gather(*(agent.run("go", run_id=f"r{n}") for n in range(50)))
        assert {result.output for result in results} == {"done"}
    assert (len(calls), model.requests) == (50, 100)


async def test_a_second_call_joins_and_iter_says_that_it_cannot(durable, script):
    opened = asyncio.Event()

    async def wait() -> str:
        await opened.wait()
        return "waited"

    model = script([("wait", {})], "done")
    agent = durable(model, tools=[wait])
    first = asyncio.create_task(agent.run("go", run_id="r"))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(agent.run("go", run_id="r"))
    await asyncio.sleep(0.1)
    with pytest.raises(RunHeld, match="run 'r'"):
        async with agent.iter("go", run_id="r"):
            pass
    opened.set()
    assert (await first) is (await second)
    assert model.requests == 2


async def test_usage_limits_across_a_resume(durable, script):
    calls = []
    model = script([("note", {})], [("note", {})], "done")
    limits = UsageLimits(request_limit=2)
    for _ in range(2):
        with pytest.raises(UsageLimitExceeded):
            await durable(model, tools=[counted(calls, "note")]).run("go", run_id="r", usage_limits=limits)
        assert model.requests == 2
    more = UsageLimits(request_limit=3)
    result = await durable(model, tools=[counted(calls, "note")]).run("go", run_id="r", usage_limits=more)
    assert result.usage.requests == model.requests == 3


async def test_a_plain_agent_with_the_capability_outside_any_run_says_so(script):
    model = script("done")
    agent = Agent(model, name="clerk", capabilities=[NotebookDurability()])
    with pytest.warns(DurableNotice, match="agent 'clerk' was called outside a run"):
        assert (await agent.run("go")).output == "done"


async def test_code_in_the_block_of_iter_is_no_part_of_the_run(durable, script):
    agent = durable(script("done"))
    task = agent.workflow.task(lambda: 1, name="task")
    async with agent.iter("go", run_id="r") as run:
        async for _ in run:
            task()
    task()
    assert steps(agent.workflow) == ["model"]


async def test_one_that_has_the_capability_cannot_be_wrapped(again):
    with pytest.raises(InvalidOption, match="already has the capability NotebookDurability"):
        DurableAgent(Agent("test", capabilities=[NotebookDurability()]), again())


@pytest.mark.parametrize("is_async", [True, False])
async def test_durable_tool(again, script, is_async):
    calls = []
    model = script([("look", {"city": "Rome"})], "done")
    for _ in range(2):
        wf = again()

        async def look(ctx: RunContext[str], city: str) -> str:
            calls.append((ctx.deps, city))
            return city

        def look_here(ctx: RunContext[str], city: str) -> str:
            calls.append((ctx.deps, city))
            return city

        tool = durable_tool(wf, name="look")(look if is_async else look_here)
        agent = DurableAgent(Agent(model, name="clerk", tools=[Tool(tool, name="look")], deps_type=str), wf)
        await agent.run("go", run_id="r", deps="live")
    assert calls == [("live", "Rome")]


async def test_a_handler_of_the_capability_sees_each_event_once(again, script):
    seen = []
    model = script([("note", {})], "done")

    async def handler(ctx, events):
        seen.extend([event.event_kind async for event in events])

    for _ in range(2):
        wf = again()
        agent = Agent(
            model,
            name="clerk",
            tools=[counted([], "note")],
            capabilities=[NotebookDurability(event_stream_handler=handler)],
        )

        @wf.workflow(id="r")
        async def main():
            return (await agent.run("go")).output  # noqa: B023

        assert await main() == "done "
        assert seen.count("function_tool_result") == 1
        assert seen.count("final_result") == 1
    assert model.requests == 2


async def test_the_status_says_what_it_used_and_what_replay_saved(durable, script, capsys):
    calls = []
    model = script([("note", {})], "done")
    with pytest.raises(Died):
        await durable(model, tools=[counted(calls, "note", dies=[1])]).run("go", run_id="r")
    agent = durable(model, tools=[counted(calls, "note")])
    usage = (await agent.run("go", run_id="r")).usage
    status = await agent.workflow.status("r")
    assert status.spent == (2, usage.input_tokens, usage.output_tokens) == (usage.requests, *status.spent[1:])
    assert status.saved == Used.by(status.steps[:1])
    assert (status.saved.requests, status.run.passes) == (1, 2)
    headings, numbers = (re.split(r"  +", line) for line in str(status).split("\n\n")[2].splitlines())
    assert headings == ["requests", "input tokens", "output tokens", "requests saved", "tokens saved"]
    assert numbers == [str(each) for each in (*status.spent, 1, sum(status.saved[1:]))]
    assert main(["status", "r", "--db", str(agent.workflow.db)]) == 0
    assert capsys.readouterr().out == f"{status}\n"


async def test_the_status_of_a_run_counts_sub_agents_streams_and_workflows(again, script):
    inner, model = script("found"), script([("ask", {})], "done")

    def made(wf, ends):
        helper = Agent(inner, name="helper", capabilities=[NotebookDurability()])

        async def ask() -> str:
            return (await helper.run("find")).output

        agent = DurableAgent(Agent(model, name="clerk", tools=[ask]), wf)

        @wf.workflow(id="r")
        async def main():
            async with agent.run_stream("go") as result:
                output = await result.get_output()
            if not ends:
                raise Died
            return output

        return main

    for passed in (1, 2):
        wf = again()
        with suppress(Died):
            assert await made(wf, ends=passed == 2)() == "done "
        status = await wf.status("r")
        assert status.spent.requests == 3
        assert status.saved == (status.spent if passed == 2 else Used())
    assert (model.requests, inner.requests) == (2, 1)
    assert again().sync.status("r").spent == status.spent


@pytest.mark.skipif("replay_scope" not in durable_exec.__all__, reason="pydantic-ai cannot tell: too old")
async def test_replayed_work_leaves_no_span_and_counts_no_token_twice(durable, script):
    calls, spans, metrics = [], InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    settings = InstrumentationSettings(tracer_provider=tracing, meter_provider=MeterProvider([metrics]))
    model = script([("note", {"key": "1"})], [("note", {"key": "2"})], "done")

    async def run(dies):
        spans.clear()
        agent = durable(model, tools=[counted(calls, "note", dies=dies)])
        agent.wrapped.instrument = settings
        with suppress(Died):
            await agent.run("go", run_id="r")
        return [span.name for span in spans.get_finished_spans()]

    assert await run(dies=[2]) == [
        "chat script", "execute_tool note", "chat script", "execute_tool note", "invoke_agent clerk"
    ]  # fmt: skip
    assert await run(dies=[]) == ["execute_tool note", "chat script", "invoke_agent clerk"]
    assert await run(dies=[]) == []
    (scope,) = metrics.get_metrics_data().resource_metrics[0].scope_metrics
    (tokens,) = (each for each in scope.metrics if each.name == "gen_ai.client.token.usage")
    assert sum(point.count for point in tokens.data.data_points) == 2 * model.requests == 6


def test_run_sync_in_a_script(durable, script):
    model = script("done")
    assert durable(model).run_sync("go", run_id="r").output == "done"
    assert durable(model).run_sync("go", run_id="r").output == "done"
    assert model.requests == 1


async def test_run_sync_under_a_running_loop(durable, script):
    model = script("done")
    assert durable(model).run_sync("go", run_id="r").output == "done"
    assert durable(model).run_sync("go").output == "done"
    assert durable(model).run_sync("go").output == "done"
    assert model.requests == 2
    assert isinstance(durable(TestModel()).run_sync("say").usage, RunUsage)


def test_run_sync_in_what_run_sync_runs_is_refused(durable, script):
    inner = durable(script("inner"), name="inner")

    async def ask() -> str:
        return str(inner.run_sync("go").output)

    outer = durable(script([("ask", {})], "done"), tools=[ask])
    with pytest.raises(InvalidOption, match=r"Use: await agent\.run"):
        outer.run_sync("go", run_id="r")
    assert inner.run_sync("go").output == "inner"


def test_run_sync_in_a_forked_child_is_a_run_of_its_own(durable, script):
    agent = durable(script("done"))
    assert agent.run_sync("go").output == "done"
    child = os.fork()
    if not child:
        try:
            os._exit(7 if agent.run_sync("go").output == "done" else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_a_run_that_is_under_way_is_not_joined_by_the_agent_whose_tool_has_met_it(durable, script):
    gate = asyncio.Event()

    async def wait() -> str:
        await gate.wait()
        return "waited"

    inner = durable(script([("wait", {})], "INNER"), name="inner", tools=[wait])

    async def stream() -> str:
        async with inner.run_stream("go", run_id="b") as result:
            return str(await result.get_output())

    outer = durable(script([("stream", {})], "OUTER"), name="outer", tools=[stream])
    first = asyncio.create_task(inner.run("go", run_id="b"))
    await asyncio.sleep(0.2)
    with pytest.raises(RunHeld, match="run 'b'"):
        await outer.run("go", run_id="a")
    gate.set()
    assert (await first).output == "INNER"
    assert (await outer.run("go", run_id="a")).output == "OUTER"


@pytest.mark.parametrize("option", ["fresh", "take_over"])
async def test_starting_over_is_refused_where_the_agent_is_part_of_another_run(durable, script, option):
    agent = durable(script("done"))

    @agent.workflow.workflow(id="main")
    async def main():
        return await agent.run("go", **{option: True})

    with pytest.raises(InvalidOption, match="Pass run_id="):
        await main()


async def test_a_model_request_in_doubt_is_resolved_with_a_response(durable, script):
    once = {"model_task_config": TaskConfig(once=True)}
    with pytest.raises(ConnectionError):
        await durable(script(ConnectionError()), config=once).run("go", run_id="r")
    agent = durable(script("unasked"), config=once)
    await agent.workflow.resolve("r", "model", "value", ModelResponse(parts=[TextPart("by hand")]))
    for _ in range(2):
        result = await durable(script("unasked"), config=once).run("go", run_id="r")
        assert result.output == "by hand"


async def test_a_timeout_counts_from_the_first_pass(durable, script):
    broken = durable(script(ConnectionError(), name="same"))
    with pytest.raises(ConnectionError):
        await broken.run("go", run_id="r", timeout=1.0)
    await asyncio.sleep(1.1)
    whole = script("done", name="same")
    with pytest.raises(TimeoutError):
        await durable(whole).run("go", run_id="r", timeout=1.0)
    assert whole.requests == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await durable(whole).run("go", run_id="r", timeout=60)).output == "done"
    assert steps(broken.workflow) == ["began", "model"]
