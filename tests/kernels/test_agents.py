"""An agent in a notebook: its kernel is killed in the middle of its run, "Run All" goes on."""

import time

SETUP = """
%load_ext durable_nb
%durable_workflow notes --db runs.db
import os, time
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from durable_nb import DurableAgent

def log(line):
    with open("bodies.log", "a") as file:
        print(line, file=file, flush=True)
        os.fsync(file.fileno())

def respond(messages, info):
    number = sum(isinstance(message, ModelResponse) for message in messages)
    log(f"request {number}")
    if number == 1 and not os.path.exists("second-time"):
        time.sleep(60)
    return ModelResponse(parts=[TextPart("sunny") if number else ToolCallPart("weather", {"city": "Rome"})])

def weather(city: str) -> str:
    log("weather")
    return city

agent = DurableAgent(Agent(FunctionModel(respond), name="clerk", tools=[weather]), wf)
"""
CELL = """%%durable_step ask
result = await agent.run("How is it?")
print(result.output, result.usage.requests)
"""
SYNC = """
first = agent.run_sync("And in a cell?")
second = agent.run_sync("And on its own?", run_id="own")
print(first.output, second.output)
"""
CELLS = [SETUP, CELL, SYNC]


def test_killed_in_an_agent_and_resumed_by_run_all(kernel):
    kernel.run(SETUP)
    kernel.start(CELL)
    log = kernel.cwd / "bodies.log"
    deadline = time.monotonic() + 60
    while not log.exists() or "request 1" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kernel.sigkill()
    (kernel.cwd / "second-time").touch()

    for _ in range(2):
        kernel.restart()
        cells = [kernel.run(cell) for cell in CELLS]
        assert [cell.error for cell in cells] == [None] * 3
        assert cells[1].text == "sunny 2\n"
        assert "notice" not in cells[1].facts  # the agent cannot be saved, and nobody expects that
        assert cells[2].text == "sunny sunny\n"
    (status,) = kernel.run("%durable_status").outputs
    headings, numbers = status["data"]["text/plain"].split("\n\n")[2].splitlines()
    assert (headings.split()[0], numbers.split()[0]) == ("requests", "4")
    once = ["request 0", "weather", "request 1"]
    assert log.read_text().split("\n")[:-1] == [*once, "request 1", *once, *once]
