"""Translation of a Redis server's failures into the errors of this package; no other module decides that."""

from __future__ import annotations

import re
from typing import TypeVar

from redis import exceptions

from durable_nb.errors import DurableError, RunHeld, StoreError, StoreUnavailable, StoreUnreadable

__all__ = ["foreign_keys", "is_transient", "lost_writes_notice", "other_slot", "run_forgotten", "translated"]

E = TypeVar("E", bound=BaseException)

_TRANSIENT = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.MasterDownError,
)
"""Errors of a restart, a failover or a network, after which the command may be sent again."""

_TRANSIENT_CODES = ("BUSY ", "NOREPLICAS ")
"""Transient errors without an exception class in the client: a long script, missing replicas."""

_IN_SCRIPT = re.compile(r"Error running script .*?: -(([A-Z]+) .*)", re.DOTALL)
"""The message of a server before 7 about a command that failed in a script."""

_CLASSES = {
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "NOPERM": exceptions.NoPermissionError,
}

_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str, str], ...] = (
    (
        (exceptions.NoPermissionError,),
        StoreUnavailable,
        "does not give the user the permissions needed",
        "Permit the keys and the channel: redis-cli ACL SETUSER USER +@all '~durable:*' '&durable:*'.",
    ),
    (
        _REFUSED,
        StoreUnavailable,
        "rejected the login",
        "Check the user and the password in the URL: redis://USER:PASSWORD@HOST:PORT/0.",
    ),
    (
        (exceptions.OutOfMemoryError,),
        StoreUnavailable,
        "is full",
        "Give the server more memory (maxmemory), or delete unneeded keys; finished steps are kept.",
    ),
    (
        (exceptions.ReadOnlyError,),
        StoreUnavailable,
        "is a replica, which accepts no writes",
        "Give the URL of its primary server, which redis-cli INFO replication shows.",
    ),
    (
        _TRANSIENT,
        StoreUnavailable,
        "cannot be reached",
        "Start the server, or check the URL, and run again; finished steps are kept.",
    ),
)


def is_transient(error: BaseException) -> bool:
    """Return whether the command may succeed if it is sent again later."""
    error = _unwrapped(error)
    if isinstance(error, exceptions.ResponseError) and str(error).startswith(_TRANSIENT_CODES):
        return True
    return isinstance(error, _TRANSIENT) and not isinstance(error, _REFUSED)


def translated(error: Exception, location: str) -> DurableError:
    """Return the ``StoreError`` for a failure of a server, in one line and with a remedy.

    Args:
        error: The exception of redis or the system; a ``DurableError`` is returned as it is.
        location: The server's URL, without its password.

    Example:
        >>> translated(OSError("refused"), "redis://localhost:6379/0").what
        "'redis://localhost:6379/0' cannot be reached: refused"
    """
    if isinstance(error, DurableError):
        return error
    error = _unwrapped(error)
    detail = " ".join(str(error).split())
    for kinds, kind, what, remedy in _MEANINGS:
        if isinstance(error, kinds):
            return kind(f"{location!r} {what}: {detail}", remedy=remedy)
    if detail.startswith("WRONGTYPE"):
        return foreign_keys(location, detail)
    if detail.startswith("MISCONF"):
        return StoreUnavailable(
            f"{location!r} accepts no writes, since it cannot save its data: {detail}",
            remedy="Check the server's log and disk, and run again; finished steps are kept.",
        )
    return StoreError(f"{location!r} rejected the write: {detail}", remedy="Nothing was written.")


def _unwrapped(error: E) -> E | exceptions.ResponseError:
    """Return an error of a command in a script as the command itself would raise it."""
    found = _IN_SCRIPT.match(str(error)) if isinstance(error, exceptions.ResponseError) else None
    return _CLASSES.get(found[2], exceptions.ResponseError)(found[1]) if found else error


def foreign_keys(location: str, detail: str) -> StoreUnreadable:
    """Return the error for keys under the prefix that another application wrote."""
    return StoreUnreadable(
        f"{location!r} holds keys of another application under this prefix: {detail}",
        remedy="They were not changed; choose another prefix: RedisStore(url, prefix=…).",
    )


def run_forgotten(location: str, run_id: str, step: str | None) -> RunHeld:
    """Return the error for a write to a run that the server has lost, wholly or in part."""
    return RunHeld(
        f"{location!r} has lost the run: it was flushed, or restarted without an append-only file",
        run_id=run_id,
        step=step,
        remedy="Nothing was written. Restore the server's data, or run again, which executes the lost steps "
        "anew. To prevent this: redis-cli CONFIG SET appendonly yes.",
    )


def other_slot(run_id: str, new_id: str) -> StoreError:
    """Return the error for a rename that could move a run to another server of a cluster."""
    return StoreError(
        f"cannot rename to {new_id!r}: on a Redis cluster that id may belong to another server",
        run_id=run_id,
        remedy=f"Choose an id such as {run_id.partition('~')[0]}~old, or start the run over: fresh=True.",
    )


def lost_writes_notice(location: str, run_id: str, lost: int) -> str:
    """Return the notice about a server that came back without writes it had acknowledged."""
    return (
        f"{location!r} lost the last {lost} writes of run {run_id!r}, which it had acknowledged: "
        "they were written again. To prevent this: redis-cli CONFIG SET appendfsync always"
    )
