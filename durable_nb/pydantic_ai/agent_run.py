"""Where one agent run keeps its steps: their names, and the way of an operation through the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.messages import ModelMessage, ModelResponse

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.status import Used
from durable_nb.errors import RunChanged, StepChanged
from durable_nb.pydantic_ai import effects
from durable_nb.pydantic_ai.messages import restore, tail
from durable_nb.records import Call
from durable_nb.signals.waiting import Question
from durable_nb.workflow.perform import perform
from durable_nb.workflow.waits import wait_for_signal

if TYPE_CHECKING:
    from pydantic_ai.tools import RunContext

    from durable_nb.engine.run import RunHandle
    from durable_nb.pydantic_ai.config import Execution
    from durable_nb.pydantic_ai.streaming import Requests
    from durable_nb.signals.accepted import Accepted

__all__ = ["APPROVAL", "BY_HAND", "MODEL", "AgentSteps"]

MODEL: Final = "model"
"""What the steps of model requests are called."""

APPROVAL: Final = "approve:"
"""What the name of the signal that approves a tool call begins with."""

BY_HAND: Final = "by hand"
"""Stands beside the value of a step that a person gave it: ``%durable_resolve``."""


class AgentSteps:
    """Where one agent run keeps its steps.

    Args:
        run: The open run.
        path: What the ids of its steps begin with: empty where the run is the agent's own.
        on_change: What becomes of a step whose arguments changed.

    Attributes:
        left: Streamed requests whose reader is gone, for whoever ends the agent run; None where nobody does.
    """

    def __init__(self, run: RunHandle, path: str = "", *, on_change: str = settings.TASK_ON_CHANGE) -> None:
        self.run = run
        self.left: Requests | None = None
        self.scope = scopes.Scope(run, path)
        self._on_change = on_change
        self._calls: dict[tuple[int, str], str] = {}
        self._executions: Counter[str] = Counter()
        self._asked: ModelMessage | None = None

    @classmethod
    def inside(cls, scope: scopes.Scope, name: str, arguments: Mapping[str, Any]) -> AgentSteps:
        """The place of an agent that is called in a run: the scope names it, like a task.

        In a durable cell a step that changed runs again: only an edit of the cell can have changed it.
        """
        path = scope.step_id(name, fingerprint.arguments(arguments)) + "/"
        edited = isinstance(scope, scopes.CellScope)
        return cls(scope.run, path, on_change="rerun" if edited else settings.TASK_ON_CHANGE)

    @property
    def agent_run_id(self) -> str:
        """The id that pydantic-ai knows the agent run by, the same in each pass."""
        path = self.scope.path.rstrip("/")
        return f"{self.run.run_id}/{path}" if path else self.run.run_id

    def call_name(self, ctx: RunContext[Any], tool: str) -> str:
        """What a tool call is called: the calls of one response are numbered as they stand there.

        Ids of calls are no names: a provider may repeat them in another response, or draw them by chance.
        """
        responses = [message for message in ctx.messages if isinstance(message, ModelResponse)]
        key = len(responses), ctx.tool_call_id or ""
        if responses and key not in self._calls:
            for part in responses[-1].tool_calls:
                own = len(responses), part.tool_call_id
                if own not in self._calls:
                    self._calls[own] = self.scope.step_id(f"tool:{part.tool_name}", "")
        if key not in self._calls:  # no response asked for it: another tool did
            return self.scope.step_id(f"tool:{tool}", "")
        return self._calls[key]

    def nth(self, name: str) -> str:
        """The id of the next execution of what has that name: a deferred call is executed once more."""
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
        """Give back what is on record of an operation, or execute it and record that.

        Args:
            step_id: The step.
            body: The operation; what it gives is recorded by name.
            execution: How it is executed.
            arguments: What must not have changed, by name.
            ctx: The agent run's context, to which recorded effects are done again.

        Returns:
            What was recorded, and whether the body was executed just now.

        Raises:
            RunChanged: The arguments changed, and the run is the agent's own.
            StepChanged: They changed, and it is part of another run.
        """
        executed = False

        async def attempt() -> dict[str, Any]:
            nonlocal executed
            executed = True
            with effects.entered() as found:
                return {**await body(), **found.recorded()}

        call = Call(
            step_id,
            code=execution.code,
            arguments=fingerprint.arguments(arguments) if arguments else None,
            on_change=self._on_change,
            once=execution.once,
            called_seq=self.scope.tick(),
        )
        try:
            recorded = await perform(
                self.run, call, attempt, arguments or {}, execution.policy, ASYNC, used=_used
            )
        except StepChanged as changed:
            raise self._as_run_changed(changed) from None
        if not executed and self.run.history[step_id].delivered_by is not None:
            recorded = {"value": recorded, BY_HAND: True}
        if ctx is not None:
            effects.repeat(recorded, ctx, executed=executed)
        return recorded, executed

    async def settle(self, messages: Sequence[ModelMessage], execution: Execution) -> None:
        """Record what follows the last response when the agent run ends, or put it back."""
        if not (last := tail(messages)) or last[-1] is self._asked:
            return

        async def body() -> dict[str, Any]:
            return {"tail": tail(messages)}

        recorded, _ = await self.step(self.scope.step_id("end", ""), body, execution)
        restore(messages, recorded.get("tail", ()))

    def asked(self, messages: Sequence[ModelMessage], recorded: Sequence[Any]) -> None:
        """Put back the messages that a recorded response has answered."""
        restore(messages, recorded)
        self._asked = messages[-1] if messages else None

    async def approval(self, name: str, prompt: str, accepted: Accepted) -> Any:
        """Wait for a person to say whether a tool may be called."""
        signal = APPROVAL + (self.scope.path + name.removeprefix(self.scope.path).removeprefix("tool:"))
        return await wait_for_signal(self.scope, Question(signal, prompt, accepted), ASYNC)

    def _as_run_changed(self, changed: StepChanged) -> StepChanged | RunChanged:
        if self.scope.path:
            return changed
        return RunChanged(
            f"step {changed.step!r}: {changed.what}",
            run_id=self.run.run_id,
            remedy="Use another run id, or start this one over: fresh=True.",
        )


def _used(recorded: Mapping[str, Any]) -> str | None:
    response = recorded.get("value")
    if not isinstance(response, ModelResponse):
        return None
    return Used(1, response.usage.input_tokens, response.usage.output_tokens).as_json()
