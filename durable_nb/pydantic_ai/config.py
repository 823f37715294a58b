"""Configuration of an agent's operations, and the failures that are not retried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_ai import exceptions

from durable_nb.workflow.retry import Policy

if TYPE_CHECKING:
    from durable_nb.workflow.backoff import BackoffStrategy

__all__ = ["TOOL_KEY", "Execution", "TaskConfig", "is_permanent"]

TOOL_KEY: Final = "durable_nb"
"""The key of a tool's metadata for its own ``TaskConfig``, or for False: the tool is not checkpointed."""

_TRANSIENT: Final = frozenset({408, 409, 429})
"""HTTP client errors that are retried: request timeout, conflict, too many requests."""

_PERMANENT: Final = (
    exceptions.UserError,
    exceptions.UsageLimitExceeded,
    exceptions.UnexpectedModelBehavior,
    exceptions.ModelRetry,
    exceptions.ToolRetryError,
)


@dataclass(frozen=True)
class TaskConfig:
    """Execution of an agent's steps; the workflow's defaults apply to arguments that are not given.

    Args:
        retries: Number of further attempts after the first. Set the provider SDK's ``max_retries`` to 0.
        backoff: Takes the 0-based number of the attempt that failed, and returns the seconds to wait before
            the next one.
        once: Never start the body a second time without asking; then ``retries`` is 0 by default.
        timeout: Limit of each attempt in seconds.

    Example:
        >>> TaskConfig(retries=5, timeout=60)
        TaskConfig(retries=5, backoff=None, once=False, timeout=60)
    """

    retries: int | None = None
    backoff: BackoffStrategy | None = None
    once: bool = False
    timeout: float | None = None


class Execution(NamedTuple):
    """Execution of one operation: its ``TaskConfig``, completed by the workflow's defaults.

    Attributes:
        policy: Retries, backoff and timeout.
        once: Whether the body must never be started a second time without asking.
        code: Fingerprint of the function that is called, None if there is none.
    """

    policy: Policy
    once: bool = False
    code: str | None = None

    @classmethod
    def of(cls, config: TaskConfig | None, default: Policy) -> Execution:
        """Return the execution for a config.

        Args:
            config: The config, None for the defaults.
            default: The workflow's defaults.
        """
        config = config or TaskConfig()
        retries = config.retries
        if retries is None:
            retries = 0 if config.once else default.retries
        policy = replace(
            default,
            retries=retries,
            backoff=config.backoff or default.backoff,
            timeout=config.timeout,
            give_up_on=is_permanent,
        )
        return cls(policy, config.once)


def is_permanent(failure: Exception) -> bool:
    """Return whether another attempt would fail too, as far as pydantic-ai's errors tell.

    Example:
        >>> is_permanent(exceptions.UserError("no such tool"))
        True
    """
    if isinstance(failure, ExceptionGroup):
        return all(is_permanent(each) for each in failure.exceptions)
    if isinstance(failure, exceptions.ModelHTTPError):
        return failure.status_code < 500 and failure.status_code not in _TRANSIENT
    return isinstance(failure, _PERMANENT)
