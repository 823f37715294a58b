"""The backend: what each operation's step is called, what must not have changed, and what is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final, Protocol

from pydantic_ai import durable_exec
from pydantic_ai.durable_exec import (
    CallableOperationBackend,
    CapabilityOperationId,
    EventStreamHandlerId,
    JournalOperationNamer,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.durable_exec._toolset import wrap_tool_call_result
from pydantic_ai.messages import ModelResponse
from pydantic_ai.tools import RunContext

from durable_nb.pydantic_ai.agent_run import BY_HAND, MODEL, AgentSteps
from durable_nb.pydantic_ai.config import Execution, is_hopeless
from durable_nb.pydantic_ai.messages import request_arguments, tail
from durable_nb.pydantic_ai.streaming import feed

__all__ = ["StepBackend", "notices_of_replays", "operation_name"]

_Body = Callable[[], Awaitable[Any]]

_NAMES: Final = {
    "ModelRequestId": MODEL,
    "ModelCompactMessagesId": "compact",
    "ModelCancelSuspendedResponseId": "cancel",
    "EventStreamHandlerId": "event",
    "ToolsetValidateToolArgumentsId": "validate",
    "ToolsetCallToolId": "tool",
}


def operation_name(operation_id: Any) -> str:
    """What the steps of an operation are called, the calls of tools apart. Stored data: it never changes.

    Example:
        >>> operation_name(ModelRequestId(model_name="gpt"))
        'model'
    """
    match operation_id:
        case ToolsetGetToolsId(toolset_kind=kind, toolset_id=name):
            return f"{kind}:{name or ''}.tools"
        case ToolsetGetInstructionsId(toolset_id=name):
            return f"mcp:{name or ''}.instructions"
        case CapabilityOperationId(capability_id=capability, operation=operation):
            return f"{capability}.{operation}"
    variant = type(operation_id).__name__  # the union grows in minor releases
    return _NAMES.get(variant, variant.removesuffix("Id").lower())


class _Durability(Protocol):
    """What is needed here of the capability of an agent run; it may learn its place later."""

    name: str
    place: AgentSteps | None


class StepBackend(CallableOperationBackend[Execution]):
    """Executes each operation of an agent run as a step of our run.

    Args:
        durability: The capability of the agent run.
        config: How operations are executed.
    """

    def __init__(self, durability: _Durability, config: RoleBasedOperationConfig[Execution]) -> None:
        super().__init__(namer=_Namer(durability.name), config=config)
        self._durability = durability

    async def execute(
        self,
        *,
        operation_id: Any,
        name: str,
        body: _Body,
        cache_key: tuple[object, ...],
        config: Execution,
    ) -> object:
        """Execute an operation as a step, or give back what is on record of it."""
        place = self._durability.place
        if place is None:
            return await body()
        ctx = next((each for each in cache_key if isinstance(each, RunContext)), None)
        if isinstance(operation_id, ModelRequestId) and ctx is not None:
            return await _request(place, operation_id, body, cache_key, ctx, config)
        step_id, arguments = _named(place, operation_id, name, cache_key, ctx)

        async def recording() -> dict[str, Any]:
            return {"value": await body()}

        recorded, executed = await place.step(step_id, recording, config, arguments=arguments, ctx=ctx)
        _report(executed=executed)
        if BY_HAND in recorded and isinstance(operation_id, ToolsetCallToolId):
            return await wrap_tool_call_result(_given(recorded["value"]))
        return recorded["value"]


async def _given(value: Any) -> Any:
    return value


class _Namer(JournalOperationNamer):
    def operation_name(self, operation_id: Any) -> str:
        return operation_name(operation_id)


def _named(
    place: AgentSteps, operation_id: Any, name: str, key: tuple[Any, ...], ctx: RunContext[Any] | None
) -> tuple[str, dict[str, Any] | None]:
    """The id of an operation's step, and what of it must not have changed."""
    if isinstance(operation_id, ToolsetCallToolId | ToolsetValidateToolArgumentsId) and ctx is not None:
        tool, arguments = key[0], key[1]
        call = place.call_name(ctx, tool)
        if isinstance(operation_id, ToolsetValidateToolArgumentsId):
            call += ".validate"
        return place.nth(call), dict(arguments)
    if isinstance(operation_id, EventStreamHandlerId):
        event = key[0]
        owner = getattr(event, "tool_call_id", None) or ""
        return place.scope.step_id(f"event:{event.event_kind}:{owner}", ""), None
    return place.scope.step_id(name, ""), None


async def _request(
    place: AgentSteps,
    operation_id: ModelRequestId,
    body: _Body,
    key: tuple[Any, ...],
    ctx: RunContext[Any],
    config: Execution,
) -> Any:
    """Make a model request once; its answer, its events and the messages that it answers are recorded."""
    _, messages, model_settings, parameters, _ = key
    events = feed.get() if operation_id.streaming else None
    first = not any(isinstance(each, ModelResponse) and each.run_id == ctx.run_id for each in messages)
    compared = messages if first else tail(messages)  # what went before is in what the steps before compared
    arguments = request_arguments(operation_id.model_name, compared, model_settings, parameters)

    async def recording() -> dict[str, Any]:
        response = await body()
        seen = {} if events is None else {"events": events.recorded}
        return {"value": response, "tail": tail(ctx.messages), **seen}

    if events is not None:  # a second attempt would show its events twice
        policy = replace(config.policy, give_up_on=lambda each: bool(events.recorded) or is_hopeless(each))
        config = config._replace(policy=policy)
    step_id = place.scope.step_id(MODEL, "")
    recorded, executed = await place.step(step_id, recording, config, arguments=arguments)
    place.asked(ctx.messages, recorded.get("tail", ()))  # none beside what a person gave
    if events is not None and not executed:
        for event in recorded.get("events", ()):
            events.put(event)
    _report(executed=executed)
    return recorded["value"]


def notices_of_replays() -> AbstractContextManager[None]:
    """Keep the telemetry of what is replayed in a block out of traces, where pydantic-ai can."""
    known = "replay_scope" in durable_exec.__all__
    return durable_exec.replay_scope() if known else nullcontext()


def _report(*, executed: bool) -> None:
    """Tell pydantic-ai's telemetry whether an operation was replayed, where it asks."""
    if "record_durable_unit" in durable_exec.__all__:
        durable_exec.record_durable_unit(executed=executed)
