"""DurableAgent: an agent whose runs are runs of ours, or part of the one they are called in."""

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
from durable_nb.pydantic_ai.operations import notices_of_replays
from durable_nb.pydantic_ai.run_sync import run_here
from durable_nb.pydantic_ai.streaming import finishing
from durable_nb.records import Run, RunStatus
from durable_nb.workflow import active_runs
from durable_nb.workflow.entrypoint import finish, one_pass

if TYPE_CHECKING:
    from pydantic_ai.run import AgentRun, AgentRunResult

    from durable_nb.workflow.workflow import Workflow

__all__ = ["DurableAgent"]


class _Opening(NamedTuple):
    """How a run is to be opened."""

    fresh: bool = False
    take_over: bool = False


class _UnderWay(RunHeld):
    """The run is under way in this process: a call of ``run`` joins it, an iteration cannot."""

    def __init__(self, known: active_runs.Pass) -> None:
        super().__init__(
            "it is under way in this process",
            run_id=known.opening.run_id,
            remedy="Join it: await agent.run(…) with the same prompt and run_id.",
        )
        self.known = known
        self.nested = False  # whether another agent's run has met it on the way: that one joins nothing


class DurableAgent(WrapperAgent[AgentDepsT, Any]):
    """An agent of which each model request and each tool call is checkpointed; results are pydantic-ai's own.

    Called in a run, a durable cell or an ordinary cell under an open run, it is part of that run. Elsewhere,
    or with ``run_id=``, it is a run of its own: the same id after a crash goes on where it stopped.

    Args:
        agent: The agent. Its dependencies stay live objects and are never saved.
        wf: The workflow that its runs belong to.
        name: What its steps are called; the agent's own name if not given.
        model_task_config: How model requests are executed.
        tool_task_config: How tools are called.

    Raises:
        InvalidOption: The agent has the capability already.

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
            raise InvalidOption("the agent has NotebookDurability already", remedy="Call the agent as it is.")
        self.workflow = wf
        self._durability: NotebookDurability[AgentDepsT] = NotebookDurability(
            name=name or agent.name or "agent",
            model_task_config=model_task_config,
            tool_task_config=tool_task_config,
            policy=wf.policy,
        )
        self._places: WeakValueDictionary[str, AgentSteps] = WeakValueDictionary()
        self._opening = _Opening()

    @property
    def tool(self) -> Any:
        """The agent's own decorator for tools."""
        return self.wrapped.tool  # type: ignore[attr-defined]  # agents of pydantic-ai have it

    @property
    def tool_plain(self) -> Any:
        """The agent's own decorator for tools without a context."""
        return self.wrapped.tool_plain  # type: ignore[attr-defined]

    async def signal(self, name: str) -> Any:
        """Wait in a run for a value from outside: see ``Workflow.signal``."""
        return await self.workflow.signal(name)

    async def run(
        self,
        user_prompt: Any = None,
        *,
        fresh: bool = False,
        take_over: bool = False,
        **options: Any,
    ) -> AgentRunResult[Any]:
        """Run the agent: see ``Agent.run``. A second call of a run that is under way here joins it.

        Args:
            user_prompt: The prompt.
            fresh: Set an old history of ``run_id`` aside, and start over.
            take_over: Take the run from another living process.
            **options: Those of ``Agent.run``, ``run_id=`` among them.

        Raises:
            RunChanged: The run id is on record with another prompt, model, tool or setting.
            RunHeld: Another living process owns the run.
        """
        try:
            return await super(DurableAgent, self._to_open(fresh, take_over)).run(user_prompt, **options)
        except _UnderWay as joined:
            if joined.nested:
                raise
            result: AgentRunResult[Any] = await active_runs.join(joined.known, ASYNC)
            return result

    def run_sync(self, user_prompt: Any = None, **options: Any) -> AgentRunResult[Any]:
        """Run the agent from synchronous code, in a notebook's cell too: see ``run``."""
        result: AgentRunResult[Any] = run_here(self.run(user_prompt, **options))
        return result

    @asynccontextmanager
    async def run_stream(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AsyncIterator[Any]:
        """Run the agent and stream its output: see ``Agent.run_stream`` and ``run``."""
        agent = self._to_open(fresh, take_over)
        async with _pointed_on(), super(DurableAgent, agent).run_stream(user_prompt, **options) as result:
            place = self._places.get(result.run_id)
            completed = result._on_complete  # noqa: SLF001 - what it adds to the messages has no other hook
            if place is not None and completed is not None:

                async def complete() -> None:
                    await completed()
                    await place.settle(result.all_messages(), self._durability.model_execution)

                result._on_complete = complete  # noqa: SLF001
            yield result

    def run_stream_events(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AbstractAsyncContextManager[Any]:
        """Run the agent and stream its events: see ``Agent.run_stream_events`` and ``run``."""
        agent = self._to_open(fresh, take_over)
        return super(DurableAgent, agent).run_stream_events(user_prompt, **options)

    @asynccontextmanager
    async def iter(
        self, user_prompt: Any = None, *, fresh: bool = False, take_over: bool = False, **options: Any
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        """Iterate over the agent's nodes: see ``Agent.iter``. Code in the block is no part of its run.

        Args:
            user_prompt: The prompt.
            fresh: Set an old history of ``run_id`` aside, and start over.
            take_over: Take the run from another living process.
            **options: Those of ``Agent.iter``.

        Raises:
            RunHeld: Another living process owns the run, or it is under way in this one.
            InvalidOption: ``fresh`` or ``take_over`` where the agent is part of another run.
        """
        agent, run_id = self._to_open(fresh, take_over), options.pop("run_id", None)
        inside = scopes.current_scope()
        scope = inside or self.workflow.attached
        if scope is None or run_id is not None:
            async with agent._own_run(run_id, user_prompt, options) as agent_run:  # noqa: SLF001
                yield agent_run
            return
        if any(agent._opening):  # noqa: SLF001 - a copy of itself
            raise InvalidOption(
                "fresh= and take_over= are for a run of the agent's own, and here it is part of another",
                remedy=("Give run_id='…' as well; or run the step again: ", ResetStep()),
            )
        place = AgentSteps.inside(scope, self._durability.name, self._arguments(user_prompt, options))
        with ExitStack() as stack:
            if inside is not None:
                name = place.scope.path.removeprefix(inside.path).rstrip("/")
                stack.enter_context(scopes.enter_scope(inside.with_named_branches(name)))
            async with self._iterated(place, user_prompt, options) as agent_run:
                yield agent_run

    def _to_open(self, fresh: bool, take_over: bool) -> DurableAgent[AgentDepsT]:
        """The same agent, for calls that pydantic-ai leads on to ``iter``, which opens the run."""
        agent = copy.copy(self)
        was = self._opening
        agent._opening = _Opening(fresh or was.fresh, take_over or was.take_over)  # noqa: SLF001 - a copy of itself
        return agent

    @asynccontextmanager
    async def _own_run(
        self, run_id: str | None, prompt: Any, options: dict[str, Any]
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        workflow = self.workflow
        opening = self._as_run(run_id, self._arguments(prompt, options))
        branches.install_task_factory(asyncio.get_running_loop())
        fresh = self._opening.fresh
        with active_runs.begin_or_find(workflow.journal, opening, ASYNC, fresh=fresh) as (current, is_new):
            if not is_new:
                raise _UnderWay(current)
            with interrupts.guarded_pass():
                async with (
                    one_pass(workflow, current, ASYNC, **self._opening._asdict()) as run,
                    self._iterated(AgentSteps(run), prompt, options) as agent_run,
                ):
                    yield agent_run
                result = agent_run.result
                if result is None:  # the block was left before the end
                    await run.mark(RunStatus.INTERRUPTED, ASYNC)
                    return
                await finish(run, result.output, ASYNC)
                current.value = result

    @asynccontextmanager
    async def _iterated(
        self, place: AgentSteps, prompt: Any, options: dict[str, Any]
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        self._places[place.agent_run_id] = place
        defers = approvals.defers_to(options.get("output_type"))
        own = [*(options.pop("capabilities", None) or ()), self._durability.at(place, defers=defers)]
        place.left = []
        try:
            with notices_of_replays():
                async with (
                    finishing(place.left),
                    self.wrapped.iter(prompt, capabilities=own, **options) as agent_run,
                ):
                    yield agent_run
        except _UnderWay as inner:
            inner.nested = True
            raise

    def _arguments(self, prompt: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """What names a call of the agent, or must be the same where a run id does."""
        given = {name: options.get(name) for name in ("message_history", "deferred_tool_results")}
        return {"prompt": plain(prompt), **{name: plain(value) for name, value in given.items() if value}}

    def _as_run(self, run_id: str | None, arguments: Mapping[str, Any]) -> Run:
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
async def _pointed_on() -> AsyncIterator[None]:
    try:
        yield
    except UserError as error:
        if DeferredToolRequests.__name__ in str(error):
            error.add_note("durable_nb: run_stream cannot wait for an approval: use run_stream_events.")
        raise
