"""An agent's own run in other processes: interrupted, and held by another one, which then dies."""

import signal
import subprocess
import sys

import pytest

from durable_nb import Workflow

PROGRAM = """
import asyncio, sys, time
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from durable_nb import DurableAgent, TaskConfig, Workflow

way, place, calm = sys.argv[1:]

def say(*words):
    print(*words, flush=True)

def respond(messages, info):
    number = sum(isinstance(message, ModelResponse) for message in messages)
    say("request", number)
    return ModelResponse(parts=[[ToolCallPart("first"), ToolCallPart("second"), TextPart("done")][number]])

async def first() -> str:
    say("first")
    return "first"

async def second() -> str:
    say("second")
    if calm == "no" and place == "busy":
        time.sleep(60)
    elif calm == "no":
        await asyncio.sleep(60)
    return "second"

agent = Agent(FunctionModel(respond), name="clerk", tools=[first, second])
once = TaskConfig(once=place == "once")
agent = DurableAgent(agent, Workflow("w", db="runs.db"), tool_task_config=once)

async def main():
    if way == "iter":
        async with agent.iter("go", run_id="r") as run:
            async for _ in run:
                pass
        return run.result.output
    return (await agent.run("go", run_id="r")).output

say(agent.run_sync("go", run_id="r").output if way == "run_sync" else asyncio.run(main()))
"""


def started(cwd, *arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("way", "place"),
    [("run", "awaiting"), ("run", "busy"), ("iter", "awaiting"), ("iter", "busy"), ("run_sync", "awaiting")],
)
def test_an_interrupt_ends_it_and_the_next_call_goes_on(tmp_path, way, place):
    process = started(tmp_path, way, place, "no")
    said = [process.stdout.readline() for _ in range(4)]
    assert said == ["request 0\n", "first\n", "request 1\n", "second\n"], process.communicate()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert (process.returncode, output) == (-signal.SIGINT, "")
    with Workflow("w", db=tmp_path / "runs.db") as wf:
        status = wf.sync.status("r")
    assert status.run.status == "interrupted"
    assert [step.step_id for step in status.steps] == ["model", "tool:first", "model#1"]
    output, errors = started(tmp_path, way, place, "yes").communicate(timeout=60)
    assert (output.split("\n"), errors) == (["second", "request 2", "done", ""], "")


def in_its_second_tool(cwd, place):
    process = started(cwd, "run", place, "no")
    while (line := process.stdout.readline()) != "second\n":
        assert line, process.communicate()
    return process


def test_killed_in_a_tool_that_must_not_be_called_twice(tmp_path):
    first = in_its_second_tool(tmp_path, "once")
    first.kill()
    first.communicate()
    output, errors = started(tmp_path, "run", "once", "yes").communicate(timeout=60)
    assert output == ""
    assert "StepInDoubt: run 'r', step 'tool:second'" in errors
    with Workflow("w", db=tmp_path / "runs.db") as wf:
        wf.sync.resolve("r", "tool:second", "value", "paid by hand")
    output, errors = started(tmp_path, "run", "once", "yes").communicate(timeout=60)
    assert (output.split("\n"), errors) == (["request 2", "done", ""], "")


def test_of_two_processes_one_has_the_run_until_it_dies(tmp_path):
    first = in_its_second_tool(tmp_path, "awaiting")
    output, errors = started(tmp_path, "run", "awaiting", "yes").communicate(timeout=60)
    assert output == ""
    assert "RunHeld: run 'r': " in errors
    assert f"by process {first.pid} on " in errors
    assert "take_over=True" in errors
    first.kill()
    first.communicate()
    output, errors = started(tmp_path, "run", "awaiting", "yes").communicate(timeout=60)
    assert (output.split("\n"), errors) == (["second", "request 2", "done", ""], "")
