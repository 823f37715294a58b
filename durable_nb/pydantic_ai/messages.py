"""Messages: comparing them when a run is resumed, and restoring those that the resumed run has rebuilt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.agent import WrapperAgent
from pydantic_ai.capabilities import AbstractCapability, ProcessHistory
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart

if TYPE_CHECKING:
    from pydantic_ai.models import ModelRequestParameters

__all__ = ["comparable", "plain", "request_arguments", "restore", "tail"]

_VOLATILE: Final = frozenset(
    {
        "conversation_id",
        "id",
        "instructions",
        "metadata",
        "provider_response_id",
        "run_id",
        "timestamp",
        "tool_call_id",
        "workspace_ref",
    }
)
"""Fields that differ each time a run is resumed, or that are not arguments."""


def plain(value: Any) -> Any:
    """Return a message, part or prompt as plain data, without fields that differ when a run is resumed.

    Args:
        value: A value of pydantic-ai, or a list or mapping of such values; others are unchanged.

    Example:
        >>> from pydantic_ai.messages import TextPart
        >>> plain([TextPart("hi", id="msg_1")])[0]["content"]
        'hi'
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value if not _is_dynamic(item)]
    if not (dataclasses.is_dataclass(value) and type(value).__module__.startswith("pydantic_ai.")):
        return value
    fields = ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    return {
        name: plain(item)
        for name, item in fields
        if item is not None and name not in _VOLATILE and not name.startswith("_")
    }


def _is_dynamic(part: Any) -> bool:
    return isinstance(part, SystemPromptPart) and part.dynamic_ref is not None


def comparable(messages: Sequence[ModelMessage], agent: Any) -> list[ModelMessage]:
    """Return messages as they are compared when a run is resumed: without what functions compute anew.

    These are the system prompts that functions of the agent return, and, where history processors change the
    messages, all of them: the call's prompt is compared with the run, and what tools return is on record.

    Args:
        messages: The messages.
        agent: The agent; None if it is not known.
    """
    while isinstance(agent, WrapperAgent):
        agent = agent.wrapped
    if agent is not None and _processes_history(agent.root_capability):
        return []
    static = getattr(agent, "_system_prompts", ())
    if not getattr(agent, "_system_prompt_functions", ()):
        return list(messages)
    return [_without_prompts(message, static) for message in messages]


def _without_prompts(message: ModelMessage, static: Sequence[str]) -> ModelMessage:
    if not isinstance(message, ModelRequest):
        return message
    parts = [
        part for part in message.parts if not isinstance(part, SystemPromptPart) or part.content in static
    ]
    return dataclasses.replace(message, parts=parts)


def _processes_history(capability: AbstractCapability[Any]) -> bool:
    found: list[AbstractCapability[Any]] = []
    capability.apply(found.append)
    return any(isinstance(each, ProcessHistory) for each in found)


def request_arguments(
    model: str, messages: Sequence[ModelMessage], settings: Any, parameters: ModelRequestParameters
) -> dict[str, Any]:
    """Return the arguments of a model request that must be equal for its replay, by name.

    Args:
        model: The model's name.
        messages: The messages to compare.
        settings: The model's settings.
        parameters: Tools and output as they are sent to the model.
    """
    tools = [*parameters.function_tools, *parameters.output_tools]
    return {
        "model": model,
        "prompt": plain(list(messages)),
        "settings": dict(settings or {}),
        "output": (parameters.output_mode, plain(parameters.output_object)),
        **{f"tool:{tool.name}": (tool.description, tool.parameters_json_schema) for tool in tools},
    }


def tail(messages: Sequence[ModelMessage]) -> list[ModelRequest]:
    """Return the requests after the last response, which the next response answers."""
    found: list[ModelRequest] = []
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            break
        found.insert(0, message)
    return found


def restore(messages: Sequence[ModelMessage], recorded: Sequence[ModelRequest]) -> None:
    """Restore the recorded tail of a resumed run's messages in place, with its times and instructions.

    Args:
        messages: All messages of the agent run.
        recorded: The recorded tail.
    """
    for message, record in zip(tail(messages), recorded, strict=False):
        vars(message).update(vars(record))
