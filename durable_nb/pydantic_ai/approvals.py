"""Approving tool calls: the question is a signal of the run, answered from anywhere, even before it comes."""

from __future__ import annotations

import warnings
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

from durable_nb.errors import DurableNotice

if TYPE_CHECKING:
    from pydantic_ai.messages import ToolCallPart

    from durable_nb.pydantic_ai.place import Place

__all__ = ["answered", "ask", "defers", "defers_to"]


def defers(agent: Any) -> bool:
    """Whether an agent gives calls that need an approval back as its output."""
    return defers_to(getattr(agent, "output_type", None))


def defers_to(output_type: Any) -> bool:
    """The same of an output type."""
    return DeferredToolRequests in (output_type if isinstance(output_type, Sequence) else [output_type])


async def ask(place: Place, ctx: RunContext[Any], requests: DeferredToolRequests) -> DeferredToolResults:
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


async def _ask(place: Place, ctx: RunContext[Any], call: ToolCallPart) -> ToolApproved | ToolDenied:
    name = place.call_name(replace(ctx, tool_call_id=call.tool_call_id), call.tool_name)
    answer = await place.approval(name, f"Call {call.tool_name}({call.args_as_json_str()})?")
    understood = answered(answer)
    if understood is None:
        told = (
            f"run {place.run.run_id!r}, step {name!r}: the answer {answer!r:.60} was taken for a no. "
            "Answer with True, False, a message that says why not, or {'approved': True, 'arguments': …}"
        )
        warnings.warn(told, DurableNotice, stacklevel=2)
    return understood or ToolDenied()


def answered(answer: Any) -> ToolApproved | ToolDenied | None:
    """What an answer means; None where it means nothing.

    Args:
        answer: True, False, a message that says why not, or a dict: ``approved``, and the ``arguments`` to
            call with instead, or the ``message`` for the model; a prompt calls that ``comment``.

    Example:
        >>> answered("too much").message
        'too much'
    """
    if isinstance(answer, str):
        return ToolDenied(answer)
    if isinstance(answer, bool):
        return ToolApproved() if answer else ToolDenied()
    if not isinstance(answer, dict) or not isinstance(answer.get("approved"), bool):
        return None
    if answer["approved"]:
        return ToolApproved(override_args=answer.get("arguments"))
    message = answer.get("message") or answer.get("comment")
    return ToolDenied(message) if message else ToolDenied()
