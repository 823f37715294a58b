"""Executing a body, and again after a failure, as its policy says. Nothing else is ever retried."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from durable_nb.engine import scopes
from durable_nb.engine.failpoints import hit
from durable_nb.errors import (
    DurableError,
    ExecutorLost,
    InvalidOption,
    StepFailed,
    StepTimeout,
    error_context,
)
from durable_nb.records import StepKind

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle
    from durable_nb.workflow.backoff import BackoffStrategy

__all__ = ["Failures", "Policy", "attempts", "is_ours"]

Failures: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
"""Which failures are meant: an exception class, a tuple of them, or a predicate."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a body is executed.

    Attributes:
        retries: Further attempts after the first.
        backoff: Seconds to wait before each, by the 0-based number of the attempt that failed.
        retry_on: The failures after which another attempt is made; all of them if not given.
        give_up_on: The failures after which none is made, whatever ``retry_on`` says.
        timeout: Seconds an attempt may take; without end if not given.

    Raises:
        InvalidOption: A number makes no sense.
    """

    retries: int
    backoff: BackoffStrategy
    retry_on: Failures = Exception
    give_up_on: Failures = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InvalidOption(f"retries={self.retries} makes no sense", remedy="Give 0 or more.")
        if self.timeout is not None and self.timeout <= 0:
            raise InvalidOption(f"timeout={self.timeout} makes no sense", remedy="Give seconds, above 0.")

    def tries_again(self, failure: Exception, attempt: int) -> bool:
        """Whether another attempt follows the 0-based one that failed like this."""
        if attempt >= self.retries or is_ours(failure):
            return False
        return _meant(failure, self.retry_on) and not _meant(failure, self.give_up_on)


async def attempts(
    run: RunHandle, handle: StepHandle, body: Callable[[], Any], policy: Policy, mode: CallMode
) -> Any:
    """Execute a body until it succeeds or its policy gives up; then raise its own exception, with a note."""
    kind = scopes.CellScope if handle.call.kind is StepKind.CELL else scopes.Scope
    for attempt in itertools.count():
        try:
            # A scope for each attempt: the counts of nested steps begin anew, so that finished ones replay.
            with (
                scopes.entered(kind(run, f"{handle.call.step_id}/")),
                error_context(run_id=run.run_id, step=handle.call.step_id),
            ):
                hit("body.before")
                value = await mode.body(body, policy.timeout)
                hit("body.after")
                return value
        except Exception as failure:
            if not policy.tries_again(failure, attempt):
                _tell(failure, run, handle, attempt + 1, policy)
                raise
        await mode.sleep(policy.backoff(attempt))
    raise AssertionError("unreachable")


def is_ours(failure: BaseException) -> bool:
    """Whether a failure is about durability, not the body's own: neither retried nor recorded."""
    return isinstance(failure, DurableError) and not isinstance(
        failure, ExecutorLost | StepFailed | StepTimeout
    )


def _meant(failure: Exception, failures: Failures) -> bool:
    if isinstance(failures, type | tuple):
        return isinstance(failure, failures)
    return failures(failure)


def _tell(failure: Exception, run: RunHandle, handle: StepHandle, count: int, policy: Policy) -> None:
    if is_ours(failure) or not policy.retries:
        return
    times = "1 attempt" if count == 1 else f"{count} attempts"
    failure.add_note(f"durable_nb: run {run.run_id!r}, step {handle.call.step_id!r} failed after {times}")
