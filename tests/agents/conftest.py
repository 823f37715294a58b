"""Agents for tests: a model that follows a script, and what it was asked."""

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from durable_nb import DurableAgent


class Script(FunctionModel):
    """Answers the nth request of a conversation with the nth line: a text, or calls as (tool, arguments)."""

    def __init__(self, *lines, name="script"):
        super().__init__(self._respond, stream_function=self._stream, model_name=name)
        self.lines = lines
        self.requests = 0

    def _line(self, messages):
        self.requests += 1
        line = self.lines[sum(isinstance(message, ModelResponse) for message in messages)]
        if isinstance(line, Exception):
            raise line
        return line

    def _respond(self, messages, info):
        line = self._line(messages)
        if isinstance(line, ModelResponse):
            return line
        if isinstance(line, str):
            return ModelResponse(parts=[TextPart(line)])
        return ModelResponse(parts=[ToolCallPart(tool, args) for tool, args in line])

    async def _stream(self, messages, info):
        line = self._line(messages)
        if isinstance(line, str):
            for word in line.split(" "):
                yield f"{word} "
        else:
            import json

            for index, (tool, args) in enumerate(line):
                yield {index: DeltaToolCall(name=tool, json_args=json.dumps(args))}


@pytest.fixture
def script():
    return Script


@pytest.fixture
def durable(again):
    """Gives a durable agent over the same file with nothing left in memory, as after a restart."""

    def make(model, *, name="clerk", tools=(), config=None, **options):
        agent = Agent(model, name=name, tools=tools, **options)
        return DurableAgent(agent, again(default_retries=0), **(config or {}))

    return make
