"""The names of keys on a Redis server."""

from __future__ import annotations

import functools
from urllib.parse import quote

from durable_nb.errors import InvalidOption

__all__ = ["Keys", "same_slot"]


class Keys:
    """The names of keys, all under one prefix.

    Args:
        prefix: The text that all keys begin with.

    Raises:
        InvalidOption: It is empty, or contains braces, which would change the slot of a key in a cluster.

    Example:
        >>> Keys("durable").run("orders/7~2")
        'durable:{run/orders%2F7}~2'
    """

    def __init__(self, prefix: str) -> None:
        if not prefix or "{" in prefix or "}" in prefix:
            raise InvalidOption(
                f"invalid prefix={prefix!r}: expected a text without braces, such as 'durable'"
            )
        self.runs = f"{prefix}:runs"
        self.layout = f"{prefix}:layout"
        self.channel = f"{prefix}:signals"
        self.asking = f"{prefix}:asking"
        self._prefix = prefix

    def run(self, run_id: str) -> str:
        """Return the key of a run's hash; the part in braces decides its slot in a cluster."""
        base, mark, rest = run_id.partition("~")
        return f"{self._prefix}:{{run/{_quoted(base)}}}{mark}{_quoted(rest)}"

    def chunks(self, run_id: str) -> str:
        """Return the key of the chunks of a run's large values, which is in the slot of the run."""
        return f"{self.run(run_id)}:chunks"

    def both(self, run_id: str) -> tuple[str, str]:
        """Return the keys of both hashes of a run."""
        return self.run(run_id), self.chunks(run_id)

    def session(self, token: str) -> str:
        """Return the key of a session."""
        return f"{self._prefix}:session:{token}"


def same_slot(run_id: str, other_id: str) -> bool:
    """Return whether two runs are certain to share a slot: a run set aside stays beside its successor."""
    return run_id.partition("~")[0] == other_id.partition("~")[0]


@functools.lru_cache
def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "surrogatepass"), safe="")
