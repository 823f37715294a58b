"""Lifetimes: of runs that have ended, and of what waits for runs that do not exist."""

from __future__ import annotations

from durable_nb.errors import InvalidOption

__all__ = ["checked_ttl", "lifetime"]


def checked_ttl(ttl: int | str | None) -> int | None:
    """Return the option ``ttl`` of a store in seconds, or None.

    Args:
        ttl: The option, as an argument or as text in a URL.

    Raises:
        InvalidOption: It is no number of seconds, or below 1.
    """
    try:
        seconds = None if ttl is None else int(ttl)
    except ValueError:
        seconds = 0
    if seconds is not None and seconds < 1:
        raise InvalidOption(f"invalid ttl={ttl!r}: expected a number of seconds, 1 or more, or None")
    return seconds


def lifetime(ttl: float | None, default: float | None) -> int | str:
    """Return a lifetime in milliseconds, from one in seconds or a default; empty if there is none.

    Args:
        ttl: The lifetime in seconds, or None.
        default: The one that the store has for it then.
    """
    ttl = default if ttl is None else ttl
    return "" if ttl is None else max(1, int(ttl * 1000))
