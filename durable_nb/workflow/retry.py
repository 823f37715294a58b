"""Executing a body, and retrying it as its policy says; nothing but bodies is ever retried."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, TypeAlias

from durable_nb.concurrency.bridge import ASYNC
from durable_nb.concurrency.timeouts import can_interrupt
from durable_nb.engine import scopes
from durable_nb.engine.failpoints import hit
from durable_nb.errors import (
    DurableError,
    ExecutorLost,
    InvalidOption,
    StepFailed,
    StepTimeout,
)
from durable_nb.records import StepKind

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.caller import Caller
    from durable_nb.records import Call
    from durable_nb.workflow.backoff import BackoffStrategy

__all__ = ["Failures", "Policy", "execute_with_retries", "is_ours"]

Failures: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
"""A selection of failures: an exception class, a tuple of them, or a predicate."""


def _check(option: str, value: object, is_valid: bool, expected: str, example: str) -> None:
    if not is_valid:
        message = f"invalid {option}={value!r}: expected {expected}"
        raise InvalidOption(message, remedy=f"For example: {option}={example}.")


@dataclass(frozen=True, slots=True)
class Policy:
    """The retries and the timeout of a body.

    Attributes:
        retries: Attempts after the first one.
        backoff: Seconds to wait before each, by the 0-based number of the attempt that failed.
        retry_on: The failures after which another attempt is made; by default all.
        give_up_on: The failures after which none is made; overrides ``retry_on``.
        timeout: Seconds that an attempt may take; None sets no limit.

    Raises:
        InvalidOption: One of them has another type than documented, or is out of range.
    """

    retries: int
    backoff: BackoffStrategy
    retry_on: Failures = Exception
    give_up_on: Failures = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        retries: Any = self.retries  # the annotations are not checked where users call us
        limit: Any = self.timeout
        is_count = isinstance(retries, SupportsIndex) and index(retries) >= 0
        is_limit = limit is None or (isinstance(limit, SupportsFloat) and float(limit) > 0)
        _check("retries", retries, is_count, "an integer >= 0", "3")
        _check("timeout", limit, is_limit, "a number of seconds > 0", "30")
        _check("backoff", self.backoff, callable(self.backoff), "a function of the attempt", "exponential()")
        for option, chosen in (("retry_on", self.retry_on), ("give_up_on", self.give_up_on)):
            classes = chosen if isinstance(chosen, tuple) else (chosen,)
            expected = "an exception class, a tuple of them, or a function"
            _check(option, chosen, all(map(callable, classes)), expected, "OSError")

    def check_thread(self, mode: CallMode) -> None:
        """Raise ``InvalidOption`` if the body has a timeout, and nothing could end it in this thread."""
        if self.timeout is None or mode is ASYNC or can_interrupt():
            return
        raise InvalidOption(
            f"invalid timeout={self.timeout:g} outside the main thread: Python cannot end code in a thread, "
            "expected an executor or an async task",
            remedy="Use @wf.task(timeout=…, executor=lambda: ProcessPoolExecutor(4)), or make it async def.",
        )

    def retries_after(self, failure: Exception, attempt: int) -> bool:
        """Return whether another attempt follows.

        Args:
            failure: The failure of the last attempt.
            attempt: The 0-based number of that attempt.
        """
        if attempt >= self.retries or is_ours(failure):
            return False
        return _matches(failure, self.retry_on) and not _matches(failure, self.give_up_on)


async def execute_with_retries(caller: Caller, call: Call, body: Callable[[], Any], policy: Policy) -> Any:
    """Execute a body until it succeeds, and return its result; raise its last failure if the policy gives up.

    Args:
        caller: The caller.
        call: The call.
        body: The function to execute.
        policy: The retries and the timeout.
    """
    kind = scopes.CellScope if call.kind is StepKind.CELL else scopes.Scope
    for attempt in itertools.count():
        try:
            # A new scope for each attempt: nested steps are counted from 0, so that finished ones replay.
            with scopes.enter_scope(kind(caller.current, f"{call.step_id}/")):
                hit("body.before")
                value = await caller.mode.body(body, policy.timeout)
                hit("body.after")
                return value
        except Exception as failure:
            if not policy.retries_after(failure, attempt):
                if policy.retries and not is_ours(failure):
                    _note_attempts(failure, caller.run.run_id, call.step_id, attempt + 1)
                raise
        finally:
            caller.current.unsettled.discard_inside(call.step_id)
        await caller.mode.sleep(policy.backoff(attempt))
    raise AssertionError("unreachable")


def is_ours(failure: BaseException) -> bool:
    """Return whether a failure is this package's, not the body's own: neither retried nor recorded."""
    return isinstance(failure, DurableError) and not isinstance(
        failure, ExecutorLost | StepFailed | StepTimeout
    )


def _matches(failure: Exception, failures: Failures) -> bool:
    if isinstance(failures, type | tuple):
        return isinstance(failure, failures)
    return failures(failure)


def _note_attempts(failure: Exception, run_id: str, step: str, count: int) -> None:
    times = "1 attempt" if count == 1 else f"{count} attempts"
    failure.add_note(f"durable_nb: run {run_id!r}, step {step!r} failed after {times}")
