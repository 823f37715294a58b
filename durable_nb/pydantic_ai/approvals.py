"""Approving tool calls: the question is a signal of the run, answered from anywhere, even before it comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.tools import (
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    ToolApproved,
    ToolDenied,
)

from durable_nb import settings
from durable_nb.signals.accepted import APPROVAL, Accepted
from durable_nb.signals.typed import yes_or_no

if TYPE_CHECKING:
    from pydantic_ai.messages import ToolCallPart
    from pydantic_ai.tools import ToolDefinition

    from durable_nb.pydantic_ai.agent_run import AgentSteps

__all__ = ["answered", "ask", "defers", "defers_to"]


def defers(agent: Any) -> bool:
    """Whether an agent gives calls that need an approval back as its output."""
    return defers_to(getattr(agent, "output_type", None))


def defers_to(output_type: Any) -> bool:
    """The same of an output type."""
    return DeferredToolRequests in (output_type if isinstance(output_type, Sequence) else [output_type])


async def ask(place: AgentSteps, ctx: RunContext[Any], requests: DeferredToolRequests) -> DeferredToolResults:
    """Wait for the answer about each call that needs an approval, one after the other.

    Args:
        place: Where the agent run keeps its steps.
        ctx: The agent run's context.
        requests: The calls.
    """
    results = DeferredToolResults()
    for call in requests.approvals:
        results.approvals[call.tool_call_id] = await _ask(place, ctx, call)
    return results


async def _ask(place: AgentSteps, ctx: RunContext[Any], call: ToolCallPart) -> ToolApproved | ToolDenied:
    name = place.call_name(replace(ctx, tool_call_id=call.tool_call_id), call.tool_name)
    given = call.args_as_json_str()
    shown = given if len(given) <= settings.SHOWN_CALL else f"{given[: settings.SHOWN_CALL]} …"
    schema = _schema(call.tool_name, json.loads(given), ctx.tools.get(call.tool_name))
    return answered(await place.approval(name, f"Call {call.tool_name}({shown})?", Accepted(schema=schema)))


def _schema(name: str, given: Any, tool: ToolDefinition | None) -> dict[str, Any]:
    """What may be said of a call: yes, also to other arguments, or no, also with a message."""
    place = "#/properties/arguments"
    parameters = _moved(tool.parameters_json_schema, place) if tool else {"type": "object"}
    described = {"title": "Arguments", "default": given, "description": (tool and tool.description) or ""}
    told_to_model = "If you reject, the model is told."
    return {
        "format": APPROVAL,
        "title": f"Call {name}?",
        "type": ["object", "boolean", "string"],
        "properties": {
            "approved": {"type": "boolean"},
            "arguments": {**parameters, **described},
            "comment": {"type": "string", "title": "Comment", "description": told_to_model},
            "message": {"type": "string"},
        },
        "required": ["approved"],
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema as a part of another one: its references begin at the top of that."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _moved(each, place) for key, each in schema.items()}
    if str(schema.get("$ref", "")).startswith("#"):
        inner["$ref"] = place + schema["$ref"][1:]
    return inner


def answered(answer: Any) -> ToolApproved | ToolDenied:
    """What an answer means.

    Args:
        answer: True, False, a message that says why not, or a dict: ``approved``, and the ``arguments`` to
            call with instead, or the ``message`` for the model; a prompt calls that ``comment``.

    Example:
        >>> answered("too much").message
        'too much'
    """
    if isinstance(answer, str):
        said = yes_or_no(answer)
        return ToolDenied(answer) if said is None else answered(said)
    if isinstance(answer, bool):
        return ToolApproved() if answer else ToolDenied()
    if answer["approved"]:
        return ToolApproved(override_args=answer.get("arguments"))
    message = answer.get("message") or answer.get("comment")
    return ToolDenied(message) if message else ToolDenied()
