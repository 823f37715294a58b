"""DurableAgent: an agent whose runs are runs of a workflow, or part of the run that it is called in."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.exceptions import UserError
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests

from durable_nb import fingerprint
from durable_nb.concurrency import interrupts
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import branches, scopes
from durable_nb.engine.naming import check_run_id
from durable_nb.errors import InvalidOption, ResetStep, RunHeld
from durable_nb.pydantic_ai import approvals
from durable_nb.pydantic_ai.agent_run import AgentSteps
from durable_nb.pydantic_ai.capability import NotebookDurability
from durable_nb.pydantic_ai.config import TaskConfig
from durable_nb.pydantic_ai.messages import plain
from durable_nb.pydantic_ai.operations import without_replay_telemetry
from durable_nb.pydantic_ai.run_sync import run_coroutine
from durable_nb.pydantic_ai.streaming import awaited_at_end
from durable_nb.records import Run, RunStatus
from durable_nb.workflow import active_runs
from durable_nb.workflow.entrypoint import finish, one_pass

if TYPE_CHECKING:
    from pydantic_ai.run import AgentRun, AgentRunResult

    from durable_nb.engine.passes import Pass
    from durable_nb.workflow.workflow import Workflow

__all__ = ["DurableAgent"]


class _OpenOptions(NamedTuple):
    """Options for opening a run."""

    fresh: bool = False
    take_over: bool = False


class _AlreadyActive(RunHeld):
    """The run is already in progress in this process: ``run`` joins it, an iteration cannot."""

    def __init__(self, active: Pass) -> None:
        super().__init__(
            "the run is already in progress in this process",
            run_id=active.opening.run_id,
            remedy="To join it: await agent.run(…) with the same prompt and run_id.",
        )
        self.active = active
        self.nested = False  # whether it was raised inside another agent's run, which must not join it


class DurableAgent(WrapperAgent[AgentDepsT, Any]):
    """An agent whose model requests and tool calls are checkpointed; its results are pydantic-ai's own.

    An agent that is called in a run, in a durable cell, or in an ordinary cell while a run is open, is part
    of that run. Otherwise, or with ``run_id=``, the call is a run of its own; called with the same id after a
    crash it resumes.

    Args:
        agent: The agent. Its dependencies are live objects, which are never saved.
        wf: The workflow that its runs belong to.
        name: The name of its steps; by default the agent's name.
        model_task_config: Retries and timeout of model requests; by default the workflow's.
        tool_task_config: Retries and timeout of tool calls; by default the workflow's.

    Raises:
        InvalidOption: The agent already has the capability NotebookDurability.

    Example:
        >>> from pydantic_ai import Agent
        >>> from durable_nb import Workflow
        >>> analyst = DurableAgent(Agent("test", name="analyst"), Workflow("reports"))
        >>> # await analyst.run("What happened?", run_id="monday")
    """

    def __init__(
        self,
        agent: AbstractAgent[AgentDepsT, Any],
        wf: Workflow,
        name: str | None = None,
        model_task_config: TaskConfig | None = None,
        tool_task_config: TaskConfig | None = None,
    ) -> None:
        super().__init__(agent)
        if NotebookDurability.from_agent(agent) is not None:
            raise InvalidOption(
                "the agent already has the capability NotebookDurability",
                remedy="Use the agent itself, without DurableAgent.",
            )
        self.workflow = wf
        self._durability: NotebookDurability[AgentDepsT] = NotebookDurability(
            name=name or agent.name or "agent",
            model_task_config=model_task_config,
            tool_task_config=tool_task_config,
            policy=wf.policy,
        )
        self._steps: WeakValueDictionary[str, AgentSteps] = WeakValueDictionary()
        self._open_options = _OpenOptions()

    @property
    def tool(self) -> Any:
        """The wrapped agent's decorator for tools."""
        return self.wrapped.tool  # type: ignore[attr-defined]  # agents of pydantic-ai have it

    @property
    def tool_plain(self) -> Any:
        """The wrapped agent's decorator for tools without a context."""
        return self.wrapped.tool_plain  # type: ignore[attr-defined]

    async def signal(self, name: str) -> Any:
        """Wait in a run for a signal: see ``Workflow.signal``."""
        return await self.workflow.signal(name)

    async def run(
        self,
        user_prompt: Any = None,
        *,
        fresh: bool = False,
        take_over: bool = False,
        **options: Any,
    ) -> AgentRunResult[Any]:
        """Run the agent: see ``Agent.run``. A call for a run that is in progress in this process joins it.

        Args:
            user_prompt: The prompt.
            fresh: Keep an earlier history of ``run_id`` under another id, and start over.
            take_over: Take the run over from another live process.
            **options: Options of ``Agent.run``; ``run_id=`` is the id of the run.

        Raises:
            RunChanged: The run was recorded with another prompt, model, tool or setting.
            RunHeld: Another live process owns the run.

        Example:
            >>> # result = await agent.run("What happened?", run_id="monday")
        """
        try:
            return await super(DurableAgent, self._with_options(fresh, take_over)).run(user_prompt, **options)
        except _AlreadyActive as joined:
            if joined.nested:
                raise
            result: AgentRunResult[Any] = await active_runs.join(joined.active, ASYNC)
            return result

    def run_sync(self, user_prompt: Any = None, **options: Any) -> AgentRunResult[Any]:
        """Run the agent from synchronous code, also in a notebook's cell: see ``run``.

        Raises:
            InvalidOption: The caller is itself running inside ``run_sync``.
        """
        result: AgentRunResult[Any] = run_coroutine(self.run(user_prompt, **options))
        return result

    @asynccontextmanager
    async def run_stream(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AsyncIterator[Any]:
        """Run the agent and stream its output: see ``Agent.run_stream`` and ``run``."""
        agent = self._with_options(fresh, take_over)
        async with (
            _noting_approvals(),
            super(DurableAgent, agent).run_stream(user_prompt, **options) as result,
        ):
            steps = self._steps.get(result.run_id)
            on_complete = result._on_complete  # noqa: SLF001 - the only hook for the messages that it adds
            if steps is not None and on_complete is not None:

                async def complete() -> None:
                    await on_complete()
                    await steps.record_end(result.all_messages(), self._durability.model_execution)

                result._on_complete = complete  # noqa: SLF001
            yield result

    def run_stream_events(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AbstractAsyncContextManager[Any]:
        """Run the agent and stream its events: see ``Agent.run_stream_events`` and ``run``."""
        agent = self._with_options(fresh, take_over)
        return super(DurableAgent, agent).run_stream_events(user_prompt, **options)

    @asynccontextmanager
    async def iter(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        """Iterate over the agent's nodes: see ``Agent.iter``. Code in the block is not part of the agent run.

        Args:
            user_prompt: The prompt.
            fresh: Keep an earlier history of ``run_id`` under another id, and start over.
            take_over: Take the run over from another live process.
            **options: Options of ``Agent.iter``; ``run_id=`` is the id of the run.

        Raises:
            RunHeld: Another live process owns the run, or it is already in progress in this process.
            InvalidOption: ``fresh`` or ``take_over`` is given, and the agent is part of another run.
        """
        agent, run_id = self._with_options(fresh, take_over), options.pop("run_id", None)
        inside = scopes.current_scope()
        scope = inside or self.workflow.attached
        if scope is None or run_id is not None:
            async with agent._own_run(run_id, user_prompt, options) as agent_run:  # noqa: SLF001
                yield agent_run
            return
        if any(agent._open_options):  # noqa: SLF001 - a copy of itself
            raise InvalidOption(
                "fresh= and take_over= need a run of the agent's own, but it is part of another run",
                remedy=("Pass run_id='…' too, or execute the agent's step again: ", ResetStep()),
            )
        steps = AgentSteps.inside(scope, self._durability.name, self._arguments(user_prompt, options))
        with ExitStack() as stack:
            stack.callback(scope.current.unsettled.join, steps.scope.path)
            if inside is not None:
                name = steps.scope.path.removeprefix(inside.path).rstrip("/")
                stack.enter_context(scopes.enter_scope(inside.with_named_branches(name)))
            async with self._iterate(steps, user_prompt, options) as agent_run:
                yield agent_run

    def _with_options(self, fresh: bool, take_over: bool) -> DurableAgent[AgentDepsT]:
        """Return a copy with the options: pydantic-ai calls its ``iter``, which opens the run."""
        agent = copy.copy(self)
        old = self._open_options
        agent._open_options = _OpenOptions(fresh or old.fresh, take_over or old.take_over)  # noqa: SLF001 - a copy
        return agent

    @asynccontextmanager
    async def _own_run(
        self, run_id: str | None, prompt: Any, options: dict[str, Any]
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        workflow = self.workflow
        opening = self._run_record(run_id, self._arguments(prompt, options))
        branches.install_task_factory(asyncio.get_running_loop())
        fresh = self._open_options.fresh
        with active_runs.begin_or_find(workflow.journal, opening, ASYNC, fresh=fresh) as (current, is_new):
            if not is_new:
                raise _AlreadyActive(current)
            with interrupts.guarded_pass():
                async with (
                    one_pass(workflow, current, ASYNC, **self._open_options._asdict()) as caller,
                    self._iterate(AgentSteps(current), prompt, options) as agent_run,
                ):
                    yield agent_run
                result = agent_run.result
                if result is None:  # the block was left before the end
                    await caller.mark(RunStatus.INTERRUPTED)
                    return
                await finish(caller, result.output)
                current.value = result

    @asynccontextmanager
    async def _iterate(
        self, steps: AgentSteps, prompt: Any, options: dict[str, Any]
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        self._steps[steps.agent_run_id] = steps
        defers = approvals.includes_deferred(options.get("output_type"))
        durability = self._durability.bound_to(steps, defers=defers)
        capabilities = [*(options.pop("capabilities", None) or ()), durability]
        steps.unread_requests = []
        try:
            with without_replay_telemetry():
                async with (
                    awaited_at_end(steps.unread_requests),
                    self.wrapped.iter(prompt, capabilities=capabilities, **options) as agent_run,
                ):
                    yield agent_run
        except _AlreadyActive as inner:
            inner.nested = True
            raise

    def _arguments(self, prompt: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that identify a call of the agent, or must be equal where a run id does."""
        given = {name: options.get(name) for name in ("message_history", "deferred_tool_results")}
        return {"prompt": plain(prompt), **{name: plain(value) for name, value in given.items() if value}}

    def _run_record(self, run_id: str | None, arguments: Mapping[str, Any]) -> Run:
        fingerprints = fingerprint.arguments(arguments)
        workflow = f"{self.workflow.name}.{self._durability.name}"
        scope = scopes.current_scope()
        return Run(
            check_run_id(run_id or f"{workflow}-{(fingerprint.value(fingerprints) or '')[:12]}"),
            workflow,
            arguments=fingerprints,
            arguments_repr=fingerprint.show(arguments),
            parent=None if scope is None else scope.run.run_id,
        )


@asynccontextmanager
async def _noting_approvals() -> AsyncIterator[None]:
    """Add a note to pydantic-ai's error about an approval that ``run_stream`` needs."""
    try:
        yield
    except UserError as error:
        if DeferredToolRequests.__name__ in str(error):
            error.add_note("durable_nb: run_stream() cannot wait for an approval. Use run_stream_events().")
        raise
