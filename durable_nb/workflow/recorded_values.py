"""Values of time and chance that a run records, so that its own code gets them again on replay."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.records import Call, StepKind
from durable_nb.workflow.awaitables import awaited
from durable_nb.workflow.backoff import constant
from durable_nb.workflow.perform import perform
from durable_nb.workflow.retry import Policy

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["ONE_ATTEMPT", "RecordedValues", "SyncRecordedValues"]

T = TypeVar("T")

ONE_ATTEMPT: Final = Policy(0, constant(0))
"""The policy of a body that is executed once."""


class RecordedValues:
    """The methods of a workflow that return recorded values, for async code."""

    @awaited
    async def now(self: WorkflowLike, *, step_id: str | None = None) -> datetime:
        """Return the time at which a run came here first, in UTC; a replay returns the same.

        Args:
            step_id: The name of the step. Calls are named by their order; in an ordinary cell and in a thread
                of its own a call has none, and needs a name.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).
            StepError: The call has no order, and no name.

        Example:
            >>> async def is_late(wf: Workflow, due: datetime) -> bool:
            ...     return await wf.now() > due
        """
        return await _recorded(self, "now", _utc_now, step_id, ASYNC)

    @awaited
    async def random(self: WorkflowLike, *, step_id: str | None = None) -> float:
        """Return a random number from 0 to 1, without 1; a replay returns the same: see ``now``.

        Args:
            step_id: The name of the step.

        Example:
            >>> async def is_in_sample(wf: Workflow) -> bool:
            ...     return await wf.random() < 0.1
        """
        return await _recorded(self, "random", random.random, step_id, ASYNC)

    @awaited
    async def uuid4(self: WorkflowLike, *, step_id: str | None = None) -> uuid.UUID:
        """Return a random UUID, such as a key of a request; a replay returns the same: see ``now``.

        Args:
            step_id: The name of the step.

        Example:
            >>> async def request_key(wf: Workflow) -> str:
            ...     return str(await wf.uuid4())
        """
        return await _recorded(self, "uuid4", uuid.uuid4, step_id, ASYNC)


class SyncRecordedValues:
    """These methods for synchronous code.

    Attributes:
        _workflow: The workflow.
    """

    _workflow: WorkflowLike

    def now(self, *, step_id: str | None = None) -> datetime:
        """Return the time at which a run came here first: see ``Workflow.now``."""
        return run_blocking(_recorded(self._workflow, "now", _utc_now, step_id, SYNC))

    def random(self, *, step_id: str | None = None) -> float:
        """Return a random number from 0 to 1, without 1: see ``Workflow.random``."""
        return run_blocking(_recorded(self._workflow, "random", random.random, step_id, SYNC))

    def uuid4(self, *, step_id: str | None = None) -> uuid.UUID:
        """Return a random UUID: see ``Workflow.uuid4``."""
        return run_blocking(_recorded(self._workflow, "uuid4", uuid.uuid4, step_id, SYNC))


def _recorded(
    workflow: WorkflowLike, name: str, make: Callable[[], T], step_id: str | None, mode: CallMode
) -> Coroutine[Any, Any, T]:
    name = f"wf.{name}"
    scope = scopes.required_scope(workflow.attached, f"{name}()")
    call = Call(
        scope.ordered_id(name) if step_id is None else scope.named_id(step_id, name),
        StepKind.VALUE,
        called_seq=scope.tick(),
        branched=scope.branched,
    )

    async def make_async() -> T:
        return make()

    body = make_async if mode is ASYNC else make
    return perform(Caller(scope.current, mode), call, body, ONE_ATTEMPT)


def _utc_now() -> datetime:
    return datetime.now(UTC)
