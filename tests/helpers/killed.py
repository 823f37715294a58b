"""One agent, called in each way, in processes that are killed after each commit in turn.

``python killed.py FOLDER MODE KILL``: with ``KILL`` 0 a chain of processes, each killed after its first
commit, until one comes to the end; with ``KILL`` N one that is killed after its Nth, and one that goes on.
Processes are forked from this one, which has imported everything and has no thread yet.
"""

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

os.environ["DURABLE_NB_FAILPOINTS"] = "commit.after=delay:0"  # counted from the first: see armed

from pydantic import BaseModel
from pydantic_ai import Agent, AgentRunResultEvent
from pydantic_ai.messages import (
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
)
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from durable_nb import DurableAgent, Workflow
from durable_nb.engine import failpoints

MODES = ("run", "handler", "events", "stream", "iter")


class Report(BaseModel):
    text: str
    at: datetime


def log(what):
    file = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(file, f"{what}\n".encode())
    os.fsync(file)
    os.close(file)


def reply(messages):
    """The tool call of the next response; logs the request that it answers."""
    number = sum(isinstance(message, ModelResponse) for message in messages)
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    log(f"request {number} {last.timestamp.isoformat()} {last.instructions}")
    at = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    calls = [
        ("weather", {"city": "Rome"}),
        ("pay", {"amount": 3}),
        ("final_result", {"text": "ok", "at": at}),
    ]
    return calls[number]


def respond(messages, info):
    name, arguments = reply(messages)
    return ModelResponse(parts=[ToolCallPart(name, arguments)])


async def stream(messages, info):
    name, arguments = reply(messages)
    text = json.dumps(arguments)
    yield {0: DeltaToolCall(name=name, json_args="", tool_call_id=f"call-{name}")}
    for start in range(0, len(text), 8):
        yield {0: DeltaToolCall(json_args=text[start : start + 8])}


def made(approve):
    agent = Agent(FunctionModel(respond, stream_function=stream), name="clerk", output_type=Report)

    @agent.tool_plain
    def weather(city: str) -> tuple[str, set[int], datetime]:
        log("weather")
        return city, {1, 2}, datetime(2026, 1, 1, tzinfo=UTC)

    @agent.tool_plain(requires_approval=approve)
    async def pay(amount: int) -> str:
        log("pay")
        return f"paid {amount}"

    @agent.instructions
    def clock() -> str:
        return f"pid-{os.getpid()}"

    return agent


async def called(agent, mode):  # noqa: C901 - one way after the other
    """Call the agent in one way; what it came to, and the events that a consumer saw."""
    seen = []

    async def handler(ctx, events):
        async for event in events:
            seen.append(event)

    given = {"run_id": "r"}
    if mode == "run":
        return await agent.run("hello", **given), seen
    if mode == "handler":
        return await agent.run("hello", event_stream_handler=handler, **given), seen
    if mode == "stream":
        async with agent.run_stream("hello", **given) as result:
            await result.get_output()
        return result, seen
    if mode == "iter":
        async with agent.iter("hello", **given) as run:
            async for _ in run:
                pass
        return run.result, seen
    async with agent.run_stream_events("hello", **given) as events:
        async for event in events:
            seen.append(event)
    last = seen.pop()
    assert isinstance(last, AgentRunResultEvent)
    return last.result, seen


async def main(mode):
    with Workflow("killed", db="runs.db") as wf:
        agent = DurableAgent(made(mode != "stream"), wf)  # which pydantic-ai refuses to stream
        await wf.complete("r", "approve:pay", True)
        result, seen = await called(agent, mode)
        output = await result.get_output() if mode == "stream" else result.output
    found = {
        "output": output.model_dump(mode="json"),
        "all": json.loads(ModelMessagesTypeAdapter.dump_json(result.all_messages())),
        "new": json.loads(ModelMessagesTypeAdapter.dump_json(result.new_messages())),
        "usage": repr(result.usage),
        "events": [event.event_kind for event in seen],
    }
    with Path("results.jsonl").open("a") as file:
        print(json.dumps(found), file=file)


def forked(mode, kill):
    """Call the agent in a process of its own, killed after that many commits; 0: not at all."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        if kill:
            failpoints._plan["commit.after"] = (failpoints._kill, "", kill)
        asyncio.run(main(mode))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    mode, kill = sys.argv[2], int(sys.argv[3])
    codes = [forked(mode, kill or 1)]
    while kill == 0 and codes[-1] == -signal.SIGKILL:
        codes.append(forked(mode, 1))
    codes += [forked(mode, 0), forked(mode, 0)]
    print(json.dumps(codes))
