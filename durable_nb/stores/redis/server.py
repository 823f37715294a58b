"""What kind of Redis server there is, and whether it would lose what it has acknowledged."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from durable_nb.errors import DurableNotice, InvalidOption, StoreTooNew
from durable_nb.stores.redis.connection import Link, Pipe, Spread
from durable_nb.stores.redis.errors import foreign
from durable_nb.stores.redis.keys import Keys

__all__ = ["LAYOUT", "reached"]

L = TypeVar("L", bound=Link)

LAYOUT: Final = 1
"""The version of how runs are kept under a prefix."""


async def reached(url: str, keys: Keys, location: str) -> Link:
    """The way to a server or a cluster that is fit for us; says what of its settings would lose data.

    Args:
        url: The server, or one of a cluster's.
        keys: How keys are called there.
        location: The URL for people.

    Raises:
        InvalidOption: The URL makes no sense.
        StoreUnavailable: Nobody answers there.
        StoreTooNew: A newer durable_nb keeps its runs there.
    """
    link: Link = _linked(Pipe, url, location)
    try:
        server = await _examined(link, location)
        if server.is_cluster:
            await link.close()
            link = _linked(Spread, url, location)
        await _check_layout(link, keys, location)
    except BaseException:
        await link.close()
        raise
    for notice in server.notices:
        warnings.warn(notice, DurableNotice, stacklevel=2)
    return link


@dataclass(frozen=True, slots=True)
class _Server:
    """What a server says of itself.

    Attributes:
        is_cluster: Whether it is one of a cluster.
        notices: What a person should know of its settings.
    """

    is_cluster: bool
    notices: tuple[str, ...]


def _linked(kind: Callable[[str, str], L], url: str, location: str) -> L:
    """The way to a server.

    Raises:
        InvalidOption: Its URL makes no sense.
    """
    try:
        return kind(url, location)
    except (TypeError, ValueError) as error:
        # Without what a ValueError says: a password with a slash in it is taken for a port, and quoted.
        said = f" ({error})" if isinstance(error, TypeError) else ""
        raise InvalidOption(
            f"db={location!r} is no URL of a Redis server{said}",
            remedy="Write redis://USER:PASSWORD@HOST:PORT/0, what is special in the password quoted: "
            "urllib.parse.quote(password, safe='').",
        ) from None


async def _check_layout(link: Link, keys: Keys, location: str) -> None:
    """Note our version under the prefix, or find out that a newer one is there.

    Raises:
        StoreTooNew: A newer durable_nb keeps its runs there.
        StoreUnreadable: Another application keeps something there.
    """
    await link.call("SETNX", keys.layout, LAYOUT)
    said = await link.call("GET", keys.layout)
    if said is not None and not said.isdigit():
        raise foreign(location, f"{keys.layout!r} is no version of ours")
    there = int(said or LAYOUT)
    if there > LAYOUT:
        raise StoreTooNew(
            f"{location!r} was written by a newer durable_nb (its version is {there}, ours is {LAYOUT})",
            remedy="It was left as it is; install that durable_nb (pip install -U durable_nb), or choose "
            "another prefix: RedisStore(url, prefix=…).",
        )


async def _examined(link: Link, location: str) -> _Server:
    """Look at a server's settings.

    Args:
        link: The way to it.
        location: Its URL, for messages.
    """
    said = _fields(await link.call("INFO"))
    is_cluster = said.get("cluster_enabled") == "1"
    notices = []
    if said.get("aof_enabled") == "0":
        notices.append(
            f"{location!r} forgets finished steps when it is killed, since it keeps no log of writes: "
            "set appendonly yes (redis-cli CONFIG SET appendonly yes)"
        )
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        notices.append(
            f"{location!r} may throw runs away when its memory is full (maxmemory-policy is {policy}): "
            "set it to noeviction (redis-cli CONFIG SET maxmemory-policy noeviction)"
        )
    return _Server(is_cluster, tuple(notices))


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
