"""The capability that makes an agent's operations steps of a run, built on pydantic-ai's durable_exec API."""

from __future__ import annotations

import copy
import uuid
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.durable_exec import BaseDurabilityCapability, DurabilityEngineSpec, RoleBasedOperationConfig
from pydantic_ai.exceptions import ModelRetry, ToolRetryError
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.toolsets import AbstractToolset

from durable_nb import fingerprint, settings
from durable_nb.engine import scopes
from durable_nb.errors import DurableNotice, StepError
from durable_nb.pydantic_ai import approvals, effects
from durable_nb.pydantic_ai.agent_run import AgentSteps
from durable_nb.pydantic_ai.config import TOOL_KEY, Execution, TaskConfig
from durable_nb.pydantic_ai.operations import StepBackend, without_replay_telemetry
from durable_nb.pydantic_ai.streaming import LiveModel, feed
from durable_nb.workflow.backoff import exponential
from durable_nb.workflow.retry import Policy
from durable_nb.workflow.workflow import NOTEBOOK

if TYPE_CHECKING:
    from pydantic_ai.agent import EventStreamHandler
    from pydantic_ai.agent.abstract import AbstractAgent
    from pydantic_ai.models import Model

__all__ = ["NotebookDurability"]


class NotebookDurability(BaseDurabilityCapability[AgentDepsT]):
    """A capability that makes an agent durable inside a run: in a workflow, a task or a durable cell.

    Each model request, tool call, output function and listing of a server's tools is a step. Outside a run
    the agent is executed without checkpoints, and a ``DurableNotice`` is issued.

    Args:
        name: The name of its steps; by default the agent's name.
        event_stream_handler: Receives each event of the first execution once; it is not called on replay.
        model_task_config: Retries and timeout of model requests.
        tool_task_config: Retries and timeout of tool calls. A tool's own
            ``metadata={"durable_nb": TaskConfig(…)}`` takes precedence.
        policy: The defaults of both.

    Example:
        >>> from pydantic_ai import Agent
        >>> agent = Agent("test", name="analyst", capabilities=[NotebookDurability()])
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="durable_nb",
        durable_unit_noun="step",
        durable_container_noun="run",
        toolset_lifecycles={
            "function": "enter-always",
            "mcp": "enter-in-durable-unit",
            "dynamic": "enter-never",
        },
        tool_config_key=TOOL_KEY,
    )

    def __init__(
        self,
        *,
        name: str | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        model_task_config: TaskConfig | None = None,
        tool_task_config: TaskConfig | None = None,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(name=name, event_stream_handler=event_stream_handler)
        self._policy = policy or Policy(settings.RETRIES, exponential())
        self.model_execution = Execution.of(model_task_config, self._policy)
        self._tool_execution = Execution.of(tool_task_config, self._policy)
        self.steps: AgentSteps | None = None
        self.defers = False
        self._steps_by_run_id: dict[str, AgentSteps] = {}  # of agent runs that have not begun

    def bound_to(self, steps: AgentSteps, *, defers: bool) -> NotebookDurability[AgentDepsT]:
        """Return a copy for one agent run.

        Args:
            steps: The steps of the agent run.
            defers: Whether calls that need an approval are the agent's output instead of signals.
        """
        bound = copy.copy(self)
        bound.steps, bound.defers = steps, defers
        return bound

    @property
    def in_durable_context(self) -> bool:
        """Return whether this is the copy for one agent run, inside a durable run."""
        return self.steps is not None

    # Called by pydantic-ai before an agent run begins, in the caller's task.

    def get_default_run_id(self) -> str | None:
        """Return the agent run's id, which is equal each time the run is resumed."""
        steps = self.steps or self._begin({})
        return steps.agent_run_id if steps else None

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return a conversation id derived from the agent run's id; called last before that begins."""
        if self.steps is None and run_id not in self._steps_by_run_id:
            steps = self._begin({"run_id": run_id})  # the user named the agent run
            if steps is None:
                return None
            self._steps_by_run_id[run_id] = self._steps_by_run_id.pop(steps.agent_run_id)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"durable_nb:{run_id}"))

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """Return the time when the agent run first began, from which its ``timeout=`` counts."""
        steps = self.steps or self._steps_by_run_id.get(run_id)
        if steps is None:
            return None

        async def body() -> dict[str, Any]:
            return {"value": datetime.now(UTC)}

        recorded, _ = await steps.step(steps.scope.step_id("began", ""), body, self.model_execution)
        began_at: datetime = recorded["value"]
        return began_at

    def _begin(self, arguments: dict[str, Any]) -> AgentSteps | None:
        scope = scopes.current_scope() or NOTEBOOK.attached
        if scope is None:
            message = f"agent {self.name!r} was called outside a run: executed, not checkpointed"
            warnings.warn(message, DurableNotice, stacklevel=2)
            return None
        if isinstance(scope, scopes.KeyedScope) and not arguments:
            raise StepError(
                "an agent called in an ordinary cell needs a name: "
                "cells have no fixed order to derive one from",
                run_id=scope.run.run_id,
                step=self.name,
                remedy="Call it in a durable cell, pass run_id='…', or use DurableAgent.",
            )
        steps = AgentSteps.inside(scope, self.name, arguments)
        self._steps_by_run_id[steps.agent_run_id] = steps
        return steps

    # Binding: there is one copy for each agent run.

    async def for_run(self, ctx: RunContext[AgentDepsT]) -> AbstractCapability[AgentDepsT]:
        """Return a copy for one agent run."""
        steps = self.steps or self._steps_by_run_id.pop(ctx.run_id or "", None)
        if steps is None or ctx.agent is None:
            return self
        bound = copy.copy(self)
        bound.steps, bound._models_by_id = steps, dict(self._models_by_id)  # noqa: SLF001 - a copy of itself
        bound._resolved_request_models = {}  # noqa: SLF001
        bound._request_model_scope = ContextVar("durable_nb_models", default=None)  # noqa: SLF001
        bound._bind_capability_operations(ctx.agent)  # noqa: SLF001
        bound._bind_workspace_operation(ctx.agent)  # noqa: SLF001
        return bound

    def _bind_for_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> Any:
        named = copy.copy(self)
        named.name = self.name or agent.name or "agent"
        return super(NotebookDurability, named)._bind_for_agent(agent)

    def _bind_to_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        """Do nothing: toolsets are wrapped for each agent run, including those that are added at run time."""

    def _bind_models(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        if agent.model is not None:
            super()._bind_models(agent)

    # Models are live objects: each request goes to the model that it was made for.

    def _model_id_for_request(self, ctx: Any, request_context: Any) -> str | None:  # noqa: ARG002
        return self._find_model_id(request_context.model)

    def _find_model_id(self, model: Model[Any]) -> str | None:
        registered, model_id = self._registered_model_id(model)
        if not registered:
            model_id = f"live-{len(self._models_by_id)}"
            self._models_by_id[model_id] = model
        return model_id

    _find_registered_model_id_for_hook = _find_model_id

    async def _build_durable_model(self, ctx: Any, request_context: Any) -> LiveModel:
        unread = self.steps.unread_requests if self.steps else None
        return LiveModel.of(await super()._build_durable_model(ctx, request_context), unread)

    def _model_stream_event_handler(self) -> Any:
        events, handler = feed.get(), super()._model_stream_event_handler()
        return handler if events is None else events.through(handler)

    def _durable_run_context(self, ctx: RunContext[AgentDepsT]) -> RunContext[AgentDepsT]:
        current = effects.current()
        return super()._durable_run_context(ctx) if current is None else current.context(ctx)

    def get_durable_operation_backend(self) -> StepBackend:
        """Return the backend that makes each operation a step of the run."""
        return StepBackend(
            self,
            RoleBasedOperationConfig(
                model=self.model_execution,
                event=self.model_execution,
                capability=self.model_execution,
                tool=self._tool_execution,
                resolve_tool=self._execution_of_tool,
            ),
        )

    def _execution_of_tool(self, operation_id: Any, tool: Any, name: str) -> Any:  # noqa: ARG002
        own = ((tool.tool_def.metadata if tool is not None else None) or {}).get(TOOL_KEY)
        if own is False:
            return False
        execution = Execution.of(own, self._policy) if isinstance(own, TaskConfig) else self._tool_execution
        schema = getattr(getattr(tool, "call_func", None), "__self__", None)
        function = getattr(schema, "function", None)  # None for tools of a server or of a custom toolset
        return execution if function is None else execution._replace(code=fingerprint.function(function))

    def get_wrapper_toolset(self, toolset: AbstractToolset[AgentDepsT]) -> AbstractToolset[AgentDepsT] | None:
        """Wrap each toolset of an agent run, whenever it was added, with or without an id."""
        if self.steps is None:
            return None
        return toolset.visit_and_replace(lambda leaf: self._wrap_leaf_toolset(leaf) or leaf)

    def _wrap_leaf_toolset(self, ts: AbstractToolset[AgentDepsT]) -> Any:
        wrapped = super()._wrap_leaf_toolset(ts)
        if wrapped is None and not type(ts).__module__.startswith("pydantic_ai."):
            return self._build_function_toolset(ts)  # type: ignore[arg-type]  # custom toolsets are called like it
        return wrapped  # None for toolsets of pydantic-ai without effects outside the run

    # Hooks of an agent run.

    async def before_run(self, ctx: RunContext[AgentDepsT]) -> None:
        """Do nothing: a cancellation token interrupts the run like any cancellation."""

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: Any) -> Any:
        """Keep replayed operations out of traces, unless a DurableAgent does."""
        alone = self.steps is not None and self.steps.unread_requests is None
        with without_replay_telemetry() if alone else nullcontext():
            return await super().wrap_run(ctx, handler=handler)

    async def wrap_node_run(self, ctx: RunContext[AgentDepsT], *, node: Any, handler: Any) -> Any:  # noqa: ARG002
        """Execute a node in the scope of the agent run, to name its steps apart from the caller's."""
        with nullcontext() if self.steps is None else scopes.enter_scope(self.steps.scope):
            return await handler(node)

    async def after_run(self, ctx: RunContext[AgentDepsT], *, result: Any) -> Any:  # noqa: ARG002
        """Record the messages after the last response."""
        if self.steps is not None:
            await self.steps.record_end(result.all_messages(), self.model_execution)
        return result

    async def wrap_output_process(
        self, ctx: RunContext[AgentDepsT], *, output_context: Any, output: Any, handler: Any
    ) -> Any:
        """Make the call of an output function a step; its request for a retry is a result too."""
        if self.steps is None or ctx.partial_output or not output_context.has_function:
            return await handler(output)

        async def body() -> dict[str, Any]:
            before = copy.deepcopy(ctx.usage)  # the function adds to the agent run's own
            recorded = await _outcome(handler, output)
            spent = ctx.usage - before
            return {**recorded, "spent": spent} if spent.has_values() else recorded

        name = f"output:{output_context.function_name or 'function'}"
        step_id = self.steps.scope.step_id(name, "")
        recorded, executed = await self.steps.step(step_id, body, self._tool_execution, ctx=ctx)
        if "spent" in recorded and not executed:
            ctx.usage.incr(recorded["spent"])
        return _returned(recorded)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Wait for the approval of each call that needs one; each answer is a signal of the run."""
        if self.steps is None or not requests.approvals or self.defers or approvals.defers(ctx.agent):
            return None
        return await approvals.ask(self.steps, ctx, requests)


async def _outcome(handler: Any, output: Any) -> dict[str, Any]:
    """Return what is recorded of an output function: its value, or its request for a retry."""
    try:
        return {"value": await handler(output)}
    except ToolRetryError as retry:
        return {"retry": retry.tool_retry}
    except ModelRetry as retry:
        return {"model_retry": retry.message}


def _returned(recorded: Mapping[str, Any]) -> Any:
    """Return what an output function returned, or raise its request for a retry."""
    if "retry" in recorded:
        raise ToolRetryError(recorded["retry"])
    if "model_retry" in recorded:
        raise ModelRetry(recorded["model_retry"])
    return recorded["value"]
