"""What kind of Redis server there is, and whether it would lose what it has acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from durable_nb.errors import StoreTooNew
from durable_nb.stores.redis.keys import Keys
from durable_nb.stores.redis.link import Link

__all__ = ["LAYOUT", "Server", "check_layout", "examined"]

LAYOUT: Final = 1
"""The version of how runs are kept under a prefix."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself.

    Attributes:
        is_cluster: Whether it is one of a cluster.
        notices: What a person should know of its settings.
    """

    is_cluster: bool
    notices: tuple[str, ...]


async def check_layout(link: Link, keys: Keys, location: str) -> None:
    """Note our version under the prefix, or find out that a newer one is there.

    Raises:
        StoreTooNew: A newer durable_nb keeps its runs there.
    """
    await link.call("SETNX", keys.layout, LAYOUT)
    there = int(await link.call("GET", keys.layout))
    if there > LAYOUT:
        raise StoreTooNew(
            f"{location!r} was written by a newer durable_nb (its version is {there}, ours is {LAYOUT})",
            remedy="It was left as it is; install that durable_nb (pip install -U durable_nb), or choose "
            "another prefix: RedisStore(url, prefix=…).",
        )


async def examined(link: Link, location: str) -> Server:
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
    return Server(is_cluster, tuple(notices))


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
