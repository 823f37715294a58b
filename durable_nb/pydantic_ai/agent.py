"""DurableAgent: an agent whose runs are runs of ours, or part of the one they are called in."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.exceptions import UserError
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests, RunContext

from durable_nb import fingerprint, passes, scopes
from durable_nb.entry import check_run_id, finish, one_pass
from durable_nb.errors import InvalidOption, RunHeld
from durable_nb.loop import AWAITING
from durable_nb.pydantic_ai import approvals
from durable_nb.pydantic_ai.background import run_here
from durable_nb.pydantic_ai.config import TaskConfig
from durable_nb.pydantic_ai.durability import NotebookDurability
from durable_nb.pydantic_ai.messages import plain
from durable_nb.pydantic_ai.place import Place
from durable_nb.records import Run, RunStatus
from durable_nb.tasks import Arguments

if TYPE_CHECKING:
    from pydantic_ai.run import AgentRun, AgentRunResult

    from durable_nb.backoff import BackoffStrategy
    from durable_nb.workflow import Workflow

__all__ = ["DurableAgent", "durable_pipeline", "durable_tool"]


class _Opening(NamedTuple):
    """How a run is to be opened."""

    fresh: bool = False
    take_over: bool = False


_opening: ContextVar[_Opening | None] = ContextVar("durable_nb_opening", default=None)


class _UnderWay(RunHeld):
    """The run is under way in this process: a call of ``run`` joins it, an iteration cannot."""

    def __init__(self, known: passes.Pass) -> None:
        super().__init__(
            "it is under way in this process",
            run_id=known.opening.run_id,
            remedy="Join it: await agent.run(…) with the same prompt and run_id.",
        )
        self.known = known


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
        self._places: WeakValueDictionary[str, Place] = WeakValueDictionary()

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
        token = _opening.set(_Opening(fresh, take_over))
        try:
            return await super().run(user_prompt, **options)
        except _UnderWay as joined:
            result: AgentRunResult[Any] = await passes.join(joined.known, AWAITING)
            return result
        finally:
            _opening.reset(token)

    def run_sync(self, user_prompt: Any = None, **options: Any) -> AgentRunResult[Any]:
        """Run the agent from synchronous code, in a notebook's cell too: see ``run``."""
        result: AgentRunResult[Any] = run_here(self.run(user_prompt, **options))
        return result

    @asynccontextmanager
    async def run_stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """Run the agent and stream its output: see ``Agent.run_stream``."""
        async with _pointed_on(), super().run_stream(*args, **options) as result:
            place = self._places.get(result.run_id)
            completed = result._on_complete  # noqa: SLF001 - what it adds to the messages has no other hook
            if place is not None and completed is not None:

                async def complete() -> None:
                    await completed()
                    await place.settle(result.all_messages(), self._durability.model_execution)

                result._on_complete = complete  # noqa: SLF001
            yield result

    @asynccontextmanager
    async def iter(self, user_prompt: Any = None, **options: Any) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        """Iterate over the agent's nodes: see ``Agent.iter``. Code in the block is no part of the run.

        Args:
            user_prompt: The prompt.
            **options: Those of ``Agent.iter``; ``fresh=`` and ``take_over=`` as in ``run``.

        Raises:
            RunHeld: Another living process owns the run, or it is under way in this one.
        """
        asked = _Opening(options.pop("fresh", False), options.pop("take_over", False))
        opened = _opening.get() or asked
        scope = scopes.current() or self.workflow.attached
        run_id = options.pop("run_id", None)
        if scope is not None and run_id is None:
            place = Place.inside(scope, self._durability.name, self._arguments(user_prompt, options))
            async with self._iterated(place, user_prompt, options) as agent_run:
                yield agent_run
            return
        async with self._own_run(run_id, user_prompt, options, opened) as agent_run:
            yield agent_run

    @asynccontextmanager
    async def _own_run(
        self, run_id: str | None, prompt: Any, options: dict[str, Any], opened: _Opening
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        workflow = self.workflow
        opening = self._as_run(run_id, self._arguments(prompt, options))
        scopes.install_task_factory(asyncio.get_running_loop())
        with passes.entered(workflow.journal, opening, AWAITING, fresh=opened.fresh) as (current, is_new):
            if not is_new:
                raise _UnderWay(current)
            async with (
                one_pass(workflow, current, AWAITING, **opened._asdict()) as run,
                self._iterated(Place(run), prompt, options) as agent_run,
            ):
                yield agent_run
            result = agent_run.result
            if result is None:  # the block was left before the end
                await run.mark(RunStatus.INTERRUPTED, AWAITING)
                return
            await finish(run, result.output, AWAITING)
            current.value = result

    @asynccontextmanager
    async def _iterated(
        self, place: Place, prompt: Any, options: dict[str, Any]
    ) -> AsyncIterator[AgentRun[AgentDepsT, Any]]:
        self._places[place.agent_run_id] = place
        defers = approvals.defers_to(options.get("output_type"))
        own = [*(options.pop("capabilities", None) or ()), self._durability.at(place, defers=defers)]
        async with self.wrapped.iter(prompt, capabilities=own, **options) as agent_run:
            yield agent_run

    def _arguments(self, prompt: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """What names a call of the agent, or must be the same where a run id does."""
        given = {name: options.get(name) for name in ("message_history", "deferred_tool_results")}
        return {"prompt": plain(prompt), **{name: plain(value) for name, value in given.items() if value}}

    def _as_run(self, run_id: str | None, arguments: Mapping[str, Any]) -> Run:
        fingerprints = fingerprint.arguments(arguments)
        workflow = f"{self.workflow.name}.{self._durability.name}"
        scope = scopes.current()
        return Run(
            check_run_id(run_id or f"{workflow}-{(fingerprint.value(fingerprints) or '')[:12]}"),
            workflow,
            arguments=fingerprints,
            shown=fingerprint.show(arguments),
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


class _LiveArguments(Arguments):
    """A tool's arguments, without the context that pydantic-ai passes: it is live, and no two are equal."""

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        bound = super().bound(args, kwargs)
        return {name: value for name, value in bound.items() if not isinstance(value, RunContext)}


def durable_tool(
    wf: Workflow, name: str | None = None, retries: int = 2, backoff: BackoffStrategy | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a tool's function a task of a workflow, sync or async: called in a run, it is checkpointed.

    Args:
        wf: The workflow.
        name: What its steps are called; its own name if not given.
        retries: Further attempts after the first.
        backoff: Seconds to wait before each, by the 0-based number of the attempt that failed.

    Example:
        >>> from durable_nb import Workflow
        >>> @durable_tool(Workflow("reports"), retries=1)
        ... async def weather(city: str) -> str: ...
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        task = wf.task(name=name, retries=retries, backoff=backoff)(function)
        task.arguments = _LiveArguments(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def called(*args: Any, **kwargs: Any) -> Any:
                return await task(*args, **kwargs)

            return called

        @functools.wraps(function)
        def called_here(*args: Any, **kwargs: Any) -> Any:
            return task(*args, **kwargs)

        return called_here

    return decorate


def durable_pipeline(wf: Workflow, id: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Make a function that calls agents the entry point of runs: ``wf.workflow(id=…)``.

    Args:
        wf: The workflow.
        id: A template for run ids, filled from the arguments.

    Example:
        >>> from durable_nb import Workflow
        >>> @durable_pipeline(Workflow("reports"), id="report-{topic}")
        ... async def report(topic: str) -> str: ...
    """
    return wf.workflow(id=id)
