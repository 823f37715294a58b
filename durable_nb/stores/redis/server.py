"""Connecting to a Redis server or cluster, and checking the settings by which it would lose data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from durable_nb.errors import DurableNotice, InvalidOption, StoreTooNew
from durable_nb.stores.redis.connection import ClusterConnection, Connection, PipelinedConnection
from durable_nb.stores.redis.errors import foreign_keys
from durable_nb.stores.redis.keys import Keys

__all__ = ["LAYOUT", "connect"]

C = TypeVar("C", bound=Connection)

LAYOUT: Final = 2
"""The version of the layout of keys under a prefix."""

_DIGITS: Final = 10
"""A version number has fewer."""


async def connect(url: str, keys: Keys, location: str) -> Connection:
    """Connect to a server or a cluster, and warn of settings by which it would lose data.

    Args:
        url: The URL of the server, or of one server of a cluster.
        keys: The names of its keys.
        location: The URL without its password, for messages.

    Raises:
        InvalidOption: The URL is invalid.
        StoreUnavailable: The server cannot be reached.
        StoreTooNew: A newer durable_nb keeps its runs there.
    """
    connection: Connection = _new_connection(PipelinedConnection, url, location)
    try:
        server = await _inspect(connection, location)
        if server.is_cluster:
            await connection.close()
            connection = _new_connection(ClusterConnection, url, location)
        await _check_layout(connection, keys, location)
    except BaseException:
        await connection.close()
        raise
    for notice in server.notices:
        warnings.warn(notice, DurableNotice, stacklevel=2)
    return connection


@dataclass(frozen=True, slots=True)
class _Server:
    """The settings of a server.

    Attributes:
        is_cluster: True if it belongs to a cluster.
        notices: Warnings about its settings.
    """

    is_cluster: bool
    notices: tuple[str, ...]


def _new_connection(kind: Callable[[str, str], C], url: str, location: str) -> C:
    """Return a connection of the given class, which is not open yet.

    Raises:
        InvalidOption: The URL is invalid.
    """
    try:
        return kind(url, location)
    except (TypeError, ValueError) as error:
        # Without a ValueError's text: it may quote a password with a slash as an invalid port.
        detail = f" ({error})" if isinstance(error, TypeError) else ""
        raise InvalidOption(
            f"invalid db={location!r}: not a URL of a Redis server{detail}",
            remedy="Write redis://USER:PASSWORD@HOST:PORT/0, with the password quoted by "
            "urllib.parse.quote(password, safe='').",
        ) from None


async def _check_layout(connection: Connection, keys: Keys, location: str) -> None:
    """Check the layout version under the prefix, and write ours if there is none, or an older one.

    Raises:
        StoreTooNew: A newer durable_nb keeps its runs there.
        StoreUnreadable: Another application uses the prefix.
    """
    await connection.call("SETNX", keys.layout, LAYOUT)
    found = await connection.call("GET", keys.layout)
    if found is not None and not (found.isdigit() and len(found) < _DIGITS):
        raise foreign_keys(location, f"{keys.layout!r} is not a version number")
    version = int(found or LAYOUT)
    if version > LAYOUT:
        raise StoreTooNew(
            f"{location!r} was written by a newer durable_nb (format {version}; ours is {LAYOUT})",
            remedy="Nothing was changed; upgrade with pip install -U durable_nb, or choose another prefix: "
            "RedisStore(url, prefix=…).",
        )
    if version < LAYOUT:  # what older versions wrote is read; they could not read what this one writes
        await connection.call("SET", keys.layout, LAYOUT)


async def _inspect(connection: Connection, location: str) -> _Server:
    """Read a server's settings.

    Args:
        connection: The connection to it.
        location: Its URL, for messages.
    """
    info = _fields(await connection.call("INFO"))
    is_cluster = info.get("cluster_enabled") == "1"
    notices = []
    if info.get("aof_enabled") == "0":
        notices.append(
            f"{location!r} loses finished steps when it is killed, since its append-only file is off: "
            "redis-cli CONFIG SET appendonly yes"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        notices.append(
            f"{location!r} may evict runs when its memory is full, since its maxmemory-policy is {policy}: "
            "redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    return _Server(is_cluster, tuple(notices))


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
