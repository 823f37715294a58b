"""Whatever goes wrong with a Redis server, as one of our errors: the one place where that is decided."""

from __future__ import annotations

import re
from typing import TypeVar

from redis import exceptions

from durable_nb.errors import DurableError, RunHeld, StoreError, StoreUnavailable, StoreUnreadable

__all__ = ["foreign", "forgotten", "is_passing", "translated", "written_again"]

E = TypeVar("E", bound=BaseException)

_PASSING = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.MasterDownError,
)
"""What a restart, a failover or a network brings, and time heals: the same command may be sent again."""

_PASSING_WORDS = ("BUSY ", "NOREPLICAS ")
"""The same, where the client has no exception of its own: somebody's long script, replicas that are away."""

_IN_SCRIPT = re.compile(r"Error running script .*?: -(([A-Z]+) .*)", re.DOTALL)
"""What a server before 7 says of a command that failed in a script."""

_OF_CODES = {
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "NOPERM": exceptions.NoPermissionError,
}

_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str, str], ...] = (
    (
        (exceptions.NoPermissionError,),
        StoreUnavailable,
        "does not permit its user what is needed",
        "Permit it our keys and channel: redis-cli ACL SETUSER USER +@all '~durable:*' '&durable:*'.",
    ),
    (
        _REFUSED,
        StoreUnavailable,
        "does not let us in",
        "Check the user and the password in the URL: redis://USER:PASSWORD@HOST:PORT/0.",
    ),
    (
        (exceptions.OutOfMemoryError,),
        StoreUnavailable,
        "is full",
        "Give the server more memory (maxmemory), or delete what is not needed; what was finished is kept.",
    ),
    (
        (exceptions.ReadOnlyError,),
        StoreUnavailable,
        "is a replica, which takes no writes",
        "Give the URL of the server that it follows: redis-cli INFO replication.",
    ),
    (
        _PASSING,
        StoreUnavailable,
        "cannot be reached",
        "Start the server, or check the URL, then run it again; what was finished before is kept.",
    ),
)


def is_passing(error: BaseException) -> bool:
    """Whether the same command may succeed in a while."""
    error = _itself(error)
    if isinstance(error, exceptions.ResponseError) and str(error).startswith(_PASSING_WORDS):
        return True
    return isinstance(error, _PASSING) and not isinstance(error, _REFUSED)


def translated(error: Exception, location: str) -> DurableError:
    """Any failure of a server, as one of our errors, in one line and with a remedy.

    Args:
        error: What redis or the system raised; one of ours is handed through.
        location: The server's URL, without its password.

    Example:
        >>> translated(OSError("refused"), "redis://localhost:6379/0").what
        "'redis://localhost:6379/0' cannot be reached: refused"
    """
    if isinstance(error, DurableError):
        return error
    error = _itself(error)
    said = " ".join(str(error).split())
    for kinds, kind, what, remedy in _MEANINGS:
        if isinstance(error, kinds):
            return kind(f"{location!r} {what}: {said}", remedy=remedy)
    if said.startswith("WRONGTYPE"):
        return foreign(location, said)
    if said.startswith("MISCONF"):
        return StoreUnavailable(
            f"{location!r} takes no writes, since it cannot save its data: {said}",
            remedy="See its log, and free its disk; then run it again: what was finished before is kept.",
        )
    return StoreError(f"{location!r} did not take it: {said}", remedy="Nothing was written.")


def _itself(error: E) -> E | exceptions.ResponseError:
    """An error as it would be outside a script."""
    found = _IN_SCRIPT.match(str(error)) if isinstance(error, exceptions.ResponseError) else None
    return _OF_CODES.get(found[2], exceptions.ResponseError)(found[1]) if found else error


def foreign(location: str, said: str) -> StoreUnreadable:
    """The error for keys under our prefix that are not ours."""
    return StoreUnreadable(
        f"{location!r} holds keys of another application under our prefix: {said}",
        remedy="They were left as they are; choose another prefix: RedisStore(url, prefix=…).",
    )


def forgotten(location: str, run_id: str, step: str | None) -> RunHeld:
    """The error for a write to a run of which the server knows less than we."""
    return RunHeld(
        f"{location!r} has forgotten the run: it was emptied, or restarted without its log of writes",
        run_id=run_id,
        step=step,
        remedy="Nothing was written. Restore the server's data, or run it again: what it has forgotten is "
        "then executed anew. To have it kept: redis-cli CONFIG SET appendonly yes.",
    )


def written_again(location: str, run_id: str, lost: int) -> str:
    """What a person should know of a server that came back without what it had acknowledged."""
    return (
        f"{location!r} has lost the last {lost} writes of run {run_id!r}, which it had acknowledged: "
        "they were written again. To have none lost: redis-cli CONFIG SET appendfsync always"
    )
