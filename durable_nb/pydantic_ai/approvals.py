"""Approval of tool calls: each answer is a signal of the run, which may be delivered before the question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

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

__all__ = ["as_approval", "ask", "defers", "includes_deferred"]

_COMMENT: Final = "If you reject the call, the model receives this comment."


def defers(agent: Any) -> bool:
    """Return whether an agent returns calls that need an approval as its output."""
    return includes_deferred(getattr(agent, "output_type", None))


def includes_deferred(output_type: Any) -> bool:
    """Return whether an output type includes ``DeferredToolRequests``."""
    return DeferredToolRequests in (output_type if isinstance(output_type, Sequence) else [output_type])


async def ask(steps: AgentSteps, ctx: RunContext[Any], requests: DeferredToolRequests) -> DeferredToolResults:
    """Wait for the answer about each call that needs an approval, one after another.

    Args:
        steps: The steps of the agent run.
        ctx: The agent run's context.
        requests: The calls.
    """
    results = DeferredToolResults()
    for call in requests.approvals:
        results.approvals[call.tool_call_id] = await _ask(steps, ctx, call)
    return results


async def _ask(steps: AgentSteps, ctx: RunContext[Any], call: ToolCallPart) -> ToolApproved | ToolDenied:
    name = steps.call_name(replace(ctx, tool_call_id=call.tool_call_id), call.tool_name)
    given = call.args_as_json_str()
    shown = given if len(given) <= settings.SHOWN_CALL else f"{given[: settings.SHOWN_CALL]} …"
    schema = _schema(call.tool_name, json.loads(given), ctx.tools.get(call.tool_name))
    return as_approval(
        await steps.approval(name, f"Call {call.tool_name}({shown})?", Accepted(schema=schema))
    )


def _schema(name: str, given: Any, tool: ToolDefinition | None) -> dict[str, Any]:
    """Return the schema of an answer: yes, possibly with other arguments, or no, possibly with a message."""
    parameters = (
        _relocate(tool.parameters_json_schema, "#/properties/arguments") if tool else {"type": "object"}
    )
    described = {"title": "Arguments", "default": given, "description": (tool and tool.description) or ""}
    return {
        "format": APPROVAL,
        "title": f"Call {name}?",
        "type": ["object", "boolean", "string"],
        "properties": {
            "approved": {"type": "boolean"},
            "arguments": {**parameters, **described},
            "comment": {"type": "string", "title": "Comment", "description": _COMMENT},
            "message": {"type": "string"},
        },
        "required": ["approved"],
    }


def _relocate(schema: Any, pointer: str) -> Any:
    """Return a schema to be nested at a JSON pointer of another one, with its references adjusted."""
    if isinstance(schema, list):
        return [_relocate(each, pointer) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _relocate(each, pointer) for key, each in schema.items()}
    if str(schema.get("$ref", "")).startswith("#"):
        inner["$ref"] = pointer + schema["$ref"][1:]
    return inner


def as_approval(answer: Any) -> ToolApproved | ToolDenied:
    """Convert an answer to pydantic-ai's result of an approval.

    Args:
        answer: True, False, a message with the reason for a denial, or a dict: ``approved``, and the
            ``arguments`` to use instead, or the ``message`` for the model, which a prompt calls ``comment``.

    Example:
        >>> as_approval("too much").message
        'too much'
    """
    if isinstance(answer, str):
        approved = yes_or_no(answer)
        return ToolDenied(answer) if approved is None else as_approval(approved)
    if isinstance(answer, bool):
        return ToolApproved() if answer else ToolDenied()
    if answer["approved"]:
        return ToolApproved(override_args=answer.get("arguments"))
    message = answer.get("message") or answer.get("comment")
    return ToolDenied(message) if message else ToolDenied()
