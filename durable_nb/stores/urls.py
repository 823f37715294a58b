"""URLs of stores, and their options."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["is_redis", "with_options", "without_options"]


_REDIS = re.compile("rediss?://.*", re.IGNORECASE)


def is_redis(place: object) -> bool:
    """Return whether ``place`` is the URL of a Redis server."""
    return isinstance(place, str) and _REDIS.fullmatch(place) is not None


def without_options(url: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return a URL without the named options, and those options.

    Example:
        >>> without_options("redis://host/0?prefix=shop&protocol=3", ["prefix"])
        ('redis://host/0?protocol=3', {'prefix': 'shop'})
    """
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    others = urlencode([(name, value) for name, value in given if name not in names], safe="/:")
    found = {name: value for name, value in given if name in names}
    return (urlunsplit(parts._replace(query=others)), found) if found else (url, found)


def with_options(url: str, options: Mapping[str, str]) -> str:
    """Return a URL with further options.

    Example:
        >>> with_options("redis://host/0", {"prefix": "shop"})
        'redis://host/0?prefix=shop'
    """
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options, safe='/:')}" if options else url
