"""The steps of one agent run: their ids, and the execution or replay of each operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.messages import ModelMessage, ModelResponse

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.status import Used
from durable_nb.errors import RunChanged, StartOver, StepChanged
from durable_nb.pydantic_ai import dependencies, effects
from durable_nb.pydantic_ai.messages import restore, tail
from durable_nb.records import Call
from durable_nb.signals.waiting import Question
from durable_nb.workflow import changes
from durable_nb.workflow.perform import StepCodec, perform
from durable_nb.workflow.waits import wait_for_signal

if TYPE_CHECKING:
    from pydantic_ai.tools import RunContext

    from durable_nb.engine.caller import StepHandle
    from durable_nb.engine.passes import Pass
    from durable_nb.pydantic_ai.config import Execution
    from durable_nb.pydantic_ai.streaming import Requests
    from durable_nb.records import Payload
    from durable_nb.signals.accepted import Accepted

__all__ = ["APPROVAL_PREFIX", "MODEL", "RESOLVED", "AgentSteps"]

MODEL: Final = "model"
"""The name of the steps of model requests."""

APPROVAL_PREFIX: Final = "approve:"
"""The prefix of the signals that approve tool calls."""

RESOLVED: Final = "by hand"
"""The key that marks the value of a step as given by a user who resolved it, not returned by the body."""


class AgentSteps:
    """The steps of one agent run.

    Args:
        current: The pass that it is part of, whose run is open.
        path: The prefix of the ids of its steps: empty if the run is the agent's own.
        branched: The scopes from which it was called, each with the sequence number of that moment.
        on_change: The policy for a step whose arguments changed.

    Attributes:
        unread_requests: Streamed requests whose reader was cancelled, to be awaited when the agent run ends;
            None if nothing awaits them, so that they are cancelled instead.
    """

    def __init__(
        self,
        current: Pass,
        path: str = "",
        branched: tuple[tuple[str, int], ...] = (),
        *,
        on_change: str = settings.TASK_ON_CHANGE,
    ) -> None:
        self.unread_requests: Requests | None = None
        self.scope = scopes.Scope(current, path, branched)
        self.run = self.scope.run
        self._on_change = on_change
        self._calls: dict[tuple[int, str], str] = {}
        self._executions: Counter[str] = Counter()
        self._last_request: ModelMessage | None = None

    @classmethod
    def inside(cls, scope: scopes.Scope, name: str, arguments: Mapping[str, Any]) -> AgentSteps:
        """Return the steps of an agent that is called in a run: the scope names the agent run, like a task.

        In a durable cell a step whose arguments changed is executed again, since only an edit of the cell can
        have changed them.

        Args:
            scope: The scope of the call.
            name: The agent's name.
            arguments: The arguments of the call by name.
        """
        path = scope.step_id(name, fingerprint.arguments(arguments)) + "/"
        edited = isinstance(scope, scopes.CellScope)
        branched = (*scope.branched, (scope.path, scope.tick()))
        return cls(scope.current, path, branched, on_change="rerun" if edited else settings.TASK_ON_CHANGE)

    @property
    def agent_run_id(self) -> str:
        """The id of the agent run for pydantic-ai; equal each time the run is resumed."""
        path = self.scope.path.rstrip("/")
        return f"{self.run.run_id}/{path}" if path else self.run.run_id

    def call_name(self, ctx: RunContext[Any], tool: str) -> str:
        """Return the name of a tool call: the calls of one response are numbered in their order.

        The provider's ids of calls are not used: they may be repeated in another response, or be random.

        Args:
            ctx: The agent run's context; its ``tool_call_id`` identifies the call in the last response.
            tool: The tool's name.
        """
        responses = [message for message in ctx.messages if isinstance(message, ModelResponse)]
        key = len(responses), ctx.tool_call_id or ""
        if responses and key not in self._calls:
            for part in responses[-1].tool_calls:
                other = len(responses), part.tool_call_id
                if other not in self._calls:
                    self._calls[other] = self.scope.step_id(f"tool:{part.tool_name}", "")
        if key not in self._calls:  # called by another tool, not by a response
            return self.scope.step_id(f"tool:{tool}", "")
        return self._calls[key]

    def next_execution_id(self, name: str) -> str:
        """Return the id of the next execution of a tool call: a deferred call is executed a second time."""
        before = self._executions[name]
        self._executions[name] += 1
        return f"{name}.{before}" if before else name

    async def step(
        self,
        step_id: str,
        body: Callable[[], Awaitable[dict[str, Any]]],
        execution: Execution,
        *,
        arguments: Mapping[str, Any] | None = None,
        ctx: RunContext[Any] | None = None,
    ) -> tuple[dict[str, Any], bool]:
        """Replay an operation, or execute it and record its result.

        Args:
            step_id: The step's id.
            body: The operation; it returns the values to record by name.
            execution: Retries, timeout and ``once`` of the operation.
            arguments: The arguments that must be equal for a replay, by name.
            ctx: The agent run's context, to which the recorded effects are applied.

        Returns:
            The recorded values, and whether the body was executed by this call.

        Raises:
            RunChanged: The arguments changed, and the run is the agent's own.
            StepChanged: The arguments changed, and the agent run is part of another run.
        """

        async def attempt() -> dict[str, Any]:
            with effects.collected() as found:
                return {**await body(), **found.recorded()}

        kept = _AgentCodec(self.scope.current, ctx.deps if ctx is not None else None)
        call = Call(
            step_id,
            code=execution.code,
            arguments=fingerprint.arguments(arguments) if arguments else None,
            on_change=self._on_change,
            once=execution.once,
            called_seq=self.scope.tick(),
            branched=self.scope.branched,
        )
        try:
            caller = Caller(self.scope.current, ASYNC)
            recorded = await perform(caller, call, attempt, execution.policy, arguments, kept)
        except StepChanged as changed:
            raise self._as_run_changed(changed) from None
        if ctx is not None:
            effects.apply(recorded, ctx, executed=kept.executed)
        return recorded, kept.executed

    async def record_end(self, messages: Sequence[ModelMessage], execution: Execution) -> None:
        """Record the messages after the last response when the agent run ends, or restore them.

        Args:
            messages: All messages of the agent run.
            execution: How the step is executed.
        """
        if not (last := tail(messages)) or last[-1] is self._last_request:
            return

        async def body() -> dict[str, Any]:
            return {"tail": tail(messages)}

        recorded, _ = await self.step(self.scope.step_id("end", ""), body, execution)
        restore(messages, recorded.get("tail", ()))

    def restore_request(self, messages: Sequence[ModelMessage], recorded: Sequence[Any]) -> None:
        """Restore the messages that a recorded response answered.

        Args:
            messages: All messages of the agent run, modified in place.
            recorded: The recorded messages.
        """
        restore(messages, recorded)
        self._last_request = messages[-1] if messages else None

    async def approval(self, name: str, prompt: str, accepted: Accepted) -> Any:
        """Wait for the user's answer whether a tool may be called, and return it.

        Args:
            name: The name of the tool call, as ``call_name`` returns it.
            prompt: The question.
            accepted: The answers that are accepted.
        """
        signal = APPROVAL_PREFIX + (
            self.scope.path + name.removeprefix(self.scope.path).removeprefix("tool:")
        )
        return await wait_for_signal(self.scope, Question(signal, prompt, accepted), ASYNC)

    def _as_run_changed(self, changed: StepChanged) -> StepChanged | RunChanged:
        if self.scope.path:
            return changed
        return RunChanged(
            f"step {changed.step!r}: {changed.what}",
            run_id=self.run.run_id,
            remedy=("Use another run id, or start the run over: ", StartOver()),
        )


class _AgentCodec(StepCodec):
    """Keeps the values of an operation by name, and what a model request has used.

    Args:
        current: The pass.
        deps: The dependencies that the body may change, which are named.

    Attributes:
        executed: Whether the body was executed.
    """

    executed = True

    def __init__(self, current: Pass, deps: Any) -> None:
        self._current = current
        self._deps = deps

    def executing(self, caller: Caller, handle: StepHandle) -> AbstractContextManager[object]:
        """Return a context manager that watches the dependencies while the body is executed."""
        return changes.watching(caller, handle, {dependencies.WATCHED: self._deps})

    def pack(self, handle: StepHandle, value: Any) -> Payload:
        """Return the values as they are kept."""
        response = value.get("value")
        if isinstance(response, ModelResponse):
            used = Used(1, response.usage.input_tokens, response.usage.output_tokens)
            handle.step = handle.step._replace(usage=used.as_json())
        dependencies.note(handle)
        return super().pack(handle, value)

    def pack_failure(self, handle: StepHandle, failure: Exception) -> Payload:
        """Return the failure as it is kept."""
        dependencies.note(handle)
        dependencies.say_what_is_lost(self._current, handle)
        return super().pack_failure(handle, failure)

    def completed(self, handle: StepHandle) -> None:
        """Tell the user what a step that is committed does not have on record."""
        super().completed(handle)
        dependencies.say_what_is_lost(self._current, handle)

    def unpack(self, caller: Caller, handle: StepHandle, payload: Payload) -> Any:
        """Return the values; of a step that a user has resolved, the one that was given."""
        self.executed = False
        dependencies.say_what_was_lost(self._current, handle)
        value = super().unpack(caller, handle, payload)
        return value if handle.step.delivered_by is None else {"value": value, RESOLVED: True}
