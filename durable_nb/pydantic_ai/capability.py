"""The capability that makes an agent's operations steps of a run, on pydantic-ai's own API for that."""

from __future__ import annotations

import copy
import uuid
import warnings
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
from durable_nb.pydantic_ai.operations import StepBackend, notices_of_replays
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
    """Makes an agent durable wherever it is used inside a run: a workflow, a task, a durable cell.

    Each model request, tool call, output function and discovery of a server's tools is a step. Outside every
    run the agent is the plain one, and a notice says so.

    Args:
        name: What its steps are called; the agent's own name if not given.
        event_stream_handler: Sees the events of the first execution, once each; it is not called on replay.
        model_task_config: How model requests are executed.
        tool_task_config: How tools are called; ``metadata={"durable_nb": TaskConfig(…)}`` is one tool's own.
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
        self.place: AgentSteps | None = None
        self.defers = False
        self._begun: dict[str, AgentSteps] = {}

    def at(self, place: AgentSteps, *, defers: bool) -> NotebookDurability[AgentDepsT]:
        """The same for one agent run.

        Args:
            place: Where it keeps its steps.
            defers: Whether calls that need an approval are the agent's output, and nobody is asked.
        """
        bound = copy.copy(self)
        bound.place, bound.defers = place, defers
        return bound

    @property
    def in_durable_context(self) -> bool:
        """Whether this is the capability of one agent run, inside a run of ours."""
        return self.place is not None

    # What pydantic-ai asks before a run begins, in the task of whoever called the agent.

    def get_default_run_id(self) -> str | None:
        """The run's id and the agent's place in it: the same in each pass."""
        place = self.place or self._begin({})
        return place.agent_run_id if place else None

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """An id that follows from the run's; the last question before the run begins."""
        if self.place is None and run_id not in self._begun:
            place = self._begin({"run_id": run_id})  # the user named the agent run
            if place is None:
                return None
            self._begun[run_id] = self._begun.pop(place.agent_run_id)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"durable_nb:{run_id}"))

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """When the agent run first began, which its ``timeout=`` counts from."""
        place = self.place or self._begun.get(run_id)
        if place is None:
            return None

        async def body() -> dict[str, Any]:
            return {"value": datetime.now(UTC)}

        recorded, _ = await place.step(place.scope.step_id("began", ""), body, self.model_execution)
        began: datetime = recorded["value"]
        return began

    def _begin(self, arguments: dict[str, Any]) -> AgentSteps | None:
        scope = scopes.current_scope() or NOTEBOOK.attached
        if scope is None:
            message = f"agent {self.name!r} was called outside a run: executed, not checkpointed"
            warnings.warn(message, DurableNotice, stacklevel=2)
            return None
        if isinstance(scope, scopes.KeyedScope) and not arguments:
            raise StepError(
                "in an ordinary cell there is no order that names the call of an agent",
                run_id=scope.run.run_id,
                step=self.name,
                remedy="Call it in a durable cell, give run_id='…', or use DurableAgent.",
            )
        place = AgentSteps.inside(scope, self.name, arguments)
        self._begun[place.agent_run_id] = place
        return place

    # One copy for each agent run.

    async def for_run(self, ctx: RunContext[AgentDepsT]) -> AbstractCapability[AgentDepsT]:
        """The capability of one agent run."""
        place = self.place or self._begun.pop(ctx.run_id or "", None)
        if place is None or ctx.agent is None:
            return self
        bound = copy.copy(self)
        bound.place, bound._models_by_id = place, dict(self._models_by_id)  # noqa: SLF001 - a copy of itself
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
        """Nothing: toolsets are wrapped for each run, those added at run time too."""

    def _bind_models(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        if agent.model is not None:
            super()._bind_models(agent)

    # Models are live objects: whichever a request was to go to is the one it goes to.

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
        left = self.place.left if self.place else None
        return LiveModel.of(await super()._build_durable_model(ctx, request_context), left)

    def _model_stream_event_handler(self) -> Any:
        events, handler = feed.get(), super()._model_stream_event_handler()
        return handler if events is None else events.through(handler)

    def _durable_run_context(self, ctx: RunContext[AgentDepsT]) -> RunContext[AgentDepsT]:
        found = effects.current()
        return super()._durable_run_context(ctx) if found is None else found.context(ctx)

    def get_durable_operation_backend(self) -> StepBackend:
        """The backend that makes each operation a step of the run."""
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
        function = getattr(schema, "function", None)  # none where a server, or a toolset of one's own, has it
        return execution if function is None else execution._replace(code=fingerprint.function(function))

    def get_wrapper_toolset(self, toolset: AbstractToolset[AgentDepsT]) -> AbstractToolset[AgentDepsT] | None:
        """Wrap each toolset of a run, whenever it was added, with an id or without."""
        if self.place is None:
            return None
        return toolset.visit_and_replace(lambda leaf: self._wrap_leaf_toolset(leaf) or leaf)

    def _wrap_leaf_toolset(self, ts: AbstractToolset[AgentDepsT]) -> Any:
        wrapped = super()._wrap_leaf_toolset(ts)
        if wrapped is None and not type(ts).__module__.startswith("pydantic_ai."):
            return self._build_function_toolset(ts)  # type: ignore[arg-type]  # all are called in one way
        return wrapped  # None for pydantic-ai's own: they have no effect outside the run

    # The life of a run.

    async def before_run(self, ctx: RunContext[AgentDepsT]) -> None:
        """Nothing: a cancellation token ends a pass like any cancellation, and the next one goes on."""

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: Any) -> Any:
        """Keep the telemetry of replayed work out of traces, unless whoever ends the run does."""
        mine = self.place is not None and self.place.left is None
        with notices_of_replays() if mine else nullcontext():
            return await super().wrap_run(ctx, handler=handler)

    async def wrap_node_run(self, ctx: RunContext[AgentDepsT], *, node: Any, handler: Any) -> Any:  # noqa: ARG002
        """Keep the branches that pydantic-ai makes apart from those of its caller."""
        with nullcontext() if self.place is None else scopes.enter_scope(self.place.scope):
            return await handler(node)

    async def after_run(self, ctx: RunContext[AgentDepsT], *, result: Any) -> Any:  # noqa: ARG002
        """Record the messages that follow the last response."""
        if self.place is not None:
            await self.place.settle(result.all_messages(), self.model_execution)
        return result

    async def wrap_output_process(
        self, ctx: RunContext[AgentDepsT], *, output_context: Any, output: Any, handler: Any
    ) -> Any:
        """Call an output function once; that it asks for another try is an outcome too."""
        if self.place is None or ctx.partial_output or not output_context.has_function:
            return await handler(output)

        async def body() -> dict[str, Any]:
            try:
                return {"value": await handler(output)}
            except ToolRetryError as retry:
                return {"retry": retry.tool_retry}
            except ModelRetry as retry:
                return {"model_retry": retry.message}

        name = f"output:{output_context.function_name or 'function'}"
        step_id = self.place.scope.step_id(name, "")
        recorded, _ = await self.place.step(step_id, body, self._tool_execution, ctx=ctx)
        if "retry" in recorded:
            raise ToolRetryError(recorded["retry"])
        if "model_retry" in recorded:
            raise ModelRetry(recorded["model_retry"])
        return recorded["value"]

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Ask a person about each call that needs an approval; the answer is a signal of the run."""
        if self.place is None or not requests.approvals or self.defers or approvals.defers(ctx.agent):
            return None
        return await approvals.ask(self.place, ctx, requests)
