"""The backend that makes each operation of an agent run a step: its id, its arguments and its result."""

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

from durable_nb.pydantic_ai.agent_run import MODEL, RESOLVED, AgentSteps
from durable_nb.pydantic_ai.config import Execution, is_permanent
from durable_nb.pydantic_ai.messages import comparable, request_arguments, tail
from durable_nb.pydantic_ai.streaming import feed

__all__ = ["StepBackend", "operation_name", "without_replay_telemetry"]

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
    """Return the name of an operation's steps; tool calls, output functions and events add to it.

    The names are parts of step ids, which are stored in users' databases: a name must never change, or runs
    that were recorded under it execute their operations again. ``tests/agents/test_step_ids.py`` checks them.

    Args:
        operation_id: One of pydantic-ai's operation ids.

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
    variant = type(operation_id).__name__  # minor releases of pydantic-ai add variants
    return _NAMES.get(variant, variant.removesuffix("Id").lower())


class _Durability(Protocol):
    """The part of the capability that the backend uses; ``steps`` may be set after the backend is created."""

    name: str
    steps: AgentSteps | None


class StepBackend(CallableOperationBackend[Execution]):
    """Executes each operation of an agent run as a step.

    Args:
        durability: The capability of the agent run.
        config: The execution of each kind of operation.
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
        """Execute an operation as a step, or replay it."""
        steps = self._durability.steps
        if steps is None:
            return await body()
        ctx = next((each for each in cache_key if isinstance(each, RunContext)), None)
        if isinstance(operation_id, ModelRequestId) and ctx is not None:
            return await _request_step(steps, operation_id, body, cache_key, ctx, config)
        step_id, arguments = _identify(steps, operation_id, name, cache_key, ctx)

        async def recording() -> dict[str, Any]:
            return {"value": await body()}

        recorded, executed = await steps.step(step_id, recording, config, arguments=arguments, ctx=ctx)
        _report_unit(executed=executed)
        if RESOLVED in recorded and isinstance(operation_id, ToolsetCallToolId):
            return await wrap_tool_call_result(_awaitable(recorded["value"]))
        return recorded["value"]


async def _awaitable(value: Any) -> Any:
    return value


class _Namer(JournalOperationNamer):
    def operation_name(self, operation_id: Any) -> str:
        return operation_name(operation_id)


def _identify(
    steps: AgentSteps, operation_id: Any, name: str, key: tuple[Any, ...], ctx: RunContext[Any] | None
) -> tuple[str, dict[str, Any] | None]:
    """Return the id of an operation's step, and the arguments that must be equal for a replay."""
    if isinstance(operation_id, ToolsetCallToolId | ToolsetValidateToolArgumentsId) and ctx is not None:
        tool, arguments = key[0], key[1]
        call = steps.call_name(ctx, tool)
        if isinstance(operation_id, ToolsetValidateToolArgumentsId):
            call += ".validate"
        return steps.next_execution_id(call), dict(arguments)
    if isinstance(operation_id, EventStreamHandlerId):
        event = key[0]
        owner = getattr(event, "tool_call_id", None) or ""
        return steps.scope.step_id(f"event:{event.event_kind}:{owner}", ""), None
    return steps.scope.step_id(name, ""), None


async def _request_step(
    steps: AgentSteps,
    operation_id: ModelRequestId,
    body: _Body,
    key: tuple[Any, ...],
    ctx: RunContext[Any],
    config: Execution,
) -> Any:
    """Execute or replay a model request; its response, its events and the messages before are recorded."""
    _, messages, model_settings, parameters, _ = key
    events = feed.get() if operation_id.streaming else None
    first = not any(isinstance(each, ModelResponse) and each.run_id == ctx.run_id for each in messages)
    compared = messages if first else tail(messages)  # earlier steps compared the messages before
    compared = comparable(compared, ctx.agent)
    arguments = request_arguments(operation_id.model_name, compared, model_settings, parameters)

    async def recording() -> dict[str, Any]:
        response = await body()
        streamed = {} if events is None else {"events": events.recorded}
        return {"value": response, "tail": tail(ctx.messages), **streamed}

    if events is not None:  # a second attempt would emit its events twice
        policy = replace(config.policy, give_up_on=lambda each: bool(events.recorded) or is_permanent(each))
        config = config._replace(policy=policy)
    step_id = steps.scope.step_id(MODEL, "")
    recorded, executed = await steps.step(step_id, recording, config, arguments=arguments)
    steps.restore_request(ctx.messages, recorded.get("tail", ()))  # a step that was resolved has none
    if events is not None and not executed:
        for event in recorded.get("events", ()):
            events.put(event)
    _report_unit(executed=executed)
    return recorded["value"]


def without_replay_telemetry() -> AbstractContextManager[None]:
    """Keep operations that are replayed inside the block out of traces, if pydantic-ai supports that."""
    supported = "replay_scope" in durable_exec.__all__
    return durable_exec.replay_scope() if supported else nullcontext()


def _report_unit(*, executed: bool) -> None:
    """Report whether an operation was executed or replayed to pydantic-ai's telemetry, if it asks."""
    if "record_durable_unit" in durable_exec.__all__:
        durable_exec.record_durable_unit(executed=executed)
