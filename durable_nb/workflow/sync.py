"""``Workflow.sync``: the methods of a workflow for synchronous code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from durable_nb import settings
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.status import Status, one_run
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.waiting import NOTHING, Question
from durable_nb.workflow import active_runs, waits
from durable_nb.workflow.map import map_in_threads
from durable_nb.workflow.messages import SyncMessages
from durable_nb.workflow.recorded_values import SyncRecordedValues
from durable_nb.workflow.run_methods import SyncRunMethods

if TYPE_CHECKING:
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["SyncWorkflow"]

R = TypeVar("R")


class SyncWorkflow(SyncMessages, SyncRecordedValues, SyncRunMethods):
    """The async methods of a workflow as synchronous ones, which block the caller.

    Args:
        workflow: The workflow.
        resolve: The coroutine function behind its ``resolve``, which takes the call mode last.

    Example:
        >>> def approve(wf: Workflow) -> bool:
        ...     return wf.sync.complete("order-a17", "approval", True)
    """

    def __init__(self, workflow: WorkflowLike, resolve: Callable[..., Coroutine[Any, Any, None]]) -> None:
        self._workflow = workflow
        self._resolve = resolve

    def signal(
        self,
        name: str,
        poll: float = settings.SIGNAL_POLL,
        *,
        prompt: str | None = None,
        schema: Any = None,
        choices: Sequence[Any] | None = None,
        timeout: float | timedelta | None = None,
        default: Any = NOTHING,
    ) -> Any:
        """Wait in a run for a value from outside: see ``Workflow.signal``."""
        accepted, seconds = Accepted(schema, choices), waits.as_seconds(timeout)
        question = Question(name, prompt, accepted, seconds, default, poll)
        return run_blocking(waits.ask_question(self._workflow, question, SYNC))

    def complete(
        self, run_id: str, name: str, payload: Any = None, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Deliver a signal to a run: see ``Workflow.complete``."""
        return run_blocking(waits.complete(self._workflow, run_id, name, payload, SYNC, ttl=ttl))

    def sleep(self, seconds: float | timedelta) -> None:
        """Let time pass in a run: see ``Workflow.sleep``."""
        run_blocking(waits.sleep(self._workflow, seconds, SYNC))

    def sleep_until(self, moment: datetime) -> None:
        """Wait in a run until a moment: see ``Workflow.sleep_until``."""
        run_blocking(waits.sleep_until(self._workflow, moment, SYNC))

    def map(
        self, function: Callable[..., R], /, *iterables: Iterable[Any], limit: int | None = None
    ) -> list[R]:
        """Call a function for each item, several at a time in threads: see ``Workflow.map``."""
        return map_in_threads(function, iterables, limit)

    def resolve(self, run_id: str, step_id: str, answer: str, value: Any = None) -> None:
        """Resolve a step in doubt: see ``Workflow.resolve``."""
        run_blocking(self._resolve(run_id, step_id, answer, value, SYNC))

    def reset(self, run_id: str, step_id: str) -> None:
        """Have a step run again at its next call: see ``Workflow.reset``."""
        run_blocking(self._resolve(run_id, step_id, "rerun", None, SYNC))

    def status(self, run_id: str) -> Status:
        """Return the status of a run: see ``Workflow.status``."""
        return run_blocking(SYNC.store(one_run(self._workflow.journal, check_run_id(run_id))))

    def cancel(self, run_id: str) -> bool:
        """Cancel a run: see ``Workflow.cancel``."""
        return run_blocking(active_runs.cancel_run(self._workflow.journal, check_run_id(run_id), SYNC))
