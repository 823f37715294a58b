"""Whatever goes wrong with a Redis server, as one of our errors: the one place where that is decided."""

from __future__ import annotations

from redis import exceptions

from durable_nb.errors import DurableError, StoreError, StoreUnavailable, StoreUnreadable

__all__ = ["is_passing", "translated"]

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

_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str, str], ...] = (
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
        _PASSING,
        StoreUnavailable,
        "cannot be reached",
        "Start the server, or check the URL, then run it again; what was finished before is kept.",
    ),
)


def is_passing(error: BaseException) -> bool:
    """Whether the same command may succeed in a while."""
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
    said = " ".join(str(error).split())
    for kinds, kind, what, remedy in _MEANINGS:
        if isinstance(error, kinds):
            return kind(f"{location!r} {what}: {said}", remedy=remedy)
    if said.startswith("WRONGTYPE"):
        return StoreUnreadable(
            f"{location!r} holds keys of another application under our prefix: {said}",
            remedy="They were left as they are; choose another prefix: RedisStore(url, prefix=…).",
        )
    return StoreError(f"{location!r} did not take it: {said}", remedy="Nothing was written.")
