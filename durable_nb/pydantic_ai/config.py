"""How an agent's operations are executed, and which failures are worth another attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_ai import exceptions

from durable_nb.workflow.retry import Policy

if TYPE_CHECKING:
    from durable_nb.workflow.backoff import BackoffStrategy

__all__ = ["TOOL_KEY", "Execution", "TaskConfig", "is_hopeless"]

TOOL_KEY: Final = "durable_nb"
"""Under which key a tool's metadata holds its own ``TaskConfig``, or False: no checkpoint for this tool."""

_WORTH_ANOTHER: Final = frozenset({408, 409, 429})
"""Client errors that pass: request timeout, conflict, too many requests."""

_HOPELESS: Final = (
    exceptions.UserError,
    exceptions.UsageLimitExceeded,
    exceptions.UnexpectedModelBehavior,
    exceptions.ModelRetry,
    exceptions.ToolRetryError,
)


@dataclass(frozen=True)
class TaskConfig:
    """How the steps of an agent are executed; what is not given is the workflow's default.

    Args:
        retries: Further attempts after the first. Set the provider SDK's own ``max_retries`` to 0.
        backoff: Seconds to wait before each, by the 0-based number of the attempt that failed.
        once: Never start the body twice unasked; then there are no retries unless ``retries`` is given.
        timeout: Seconds an attempt may take.

    Example:
        >>> TaskConfig(retries=5, timeout=60)
        TaskConfig(retries=5, backoff=None, once=False, timeout=60)
    """

    retries: int | None = None
    backoff: BackoffStrategy | None = None
    once: bool = False
    timeout: float | None = None


class Execution(NamedTuple):
    """How one operation is executed: what a ``TaskConfig`` and the workflow's default come to.

    Attributes:
        policy: Its attempts.
        once: Whether its body must never be started twice unasked.
        code: Fingerprint of the function that is called, where there is one.
    """

    policy: Policy
    once: bool = False
    code: str | None = None

    @classmethod
    def of(cls, config: TaskConfig | None, default: Policy) -> Execution:
        """Fill in what a config leaves open."""
        config = config or TaskConfig()
        retries = config.retries
        if retries is None:
            retries = 0 if config.once else default.retries
        policy = replace(
            default,
            retries=retries,
            backoff=config.backoff or default.backoff,
            timeout=config.timeout,
            give_up_on=is_hopeless,
        )
        return cls(policy, config.once)


def is_hopeless(failure: Exception) -> bool:
    """Whether another attempt must fail in the same way, by what pydantic-ai's errors say."""
    if isinstance(failure, ExceptionGroup):
        return all(is_hopeless(each) for each in failure.exceptions)
    if isinstance(failure, exceptions.ModelHTTPError):
        return failure.status_code < 500 and failure.status_code not in _WORTH_ANOTHER
    return isinstance(failure, _HOPELESS)
