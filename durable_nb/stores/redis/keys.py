"""What our keys on a Redis server are called."""

from __future__ import annotations

import functools
from urllib.parse import quote

from durable_nb.errors import InvalidOption

__all__ = ["Keys", "same_slot"]


class Keys:
    """The names of keys, all under one prefix.

    Args:
        prefix: What they begin with.

    Raises:
        InvalidOption: It is empty, or has braces, which say where in a cluster a key belongs.

    Example:
        >>> Keys("durable").run("orders/7~2")
        'durable:{run/orders%2F7}~2'
    """

    def __init__(self, prefix: str) -> None:
        if not prefix or "{" in prefix or "}" in prefix:
            raise InvalidOption(
                f"prefix={prefix!r} makes no sense",
                remedy="Give some text without braces, such as 'durable'.",
            )
        self.runs = f"{prefix}:runs"
        self.layout = f"{prefix}:layout"
        self.channel = f"{prefix}:signals"
        self.asking = f"{prefix}:asking"
        self._prefix = prefix

    def run(self, run_id: str) -> str:
        """The hash of a run. What stands in braces decides in which slot of a cluster it is."""
        base, mark, rest = run_id.partition("~")
        return f"{self._prefix}:{{run/{_quoted(base)}}}{mark}{_quoted(rest)}"

    def chunks(self, run_id: str) -> str:
        """The hash of the pieces of a run's large values, in the same slot."""
        return f"{self.run(run_id)}:chunks"

    def both(self, run_id: str) -> tuple[str, str]:
        """The two hashes of a run."""
        return self.run(run_id), self.chunks(run_id)

    def session(self, token: str) -> str:
        """The sign of life of a process."""
        return f"{self._prefix}:session:{token}"


def same_slot(run_id: str, other_id: str) -> bool:
    """Whether two runs are in one slot of a cluster for sure: a run set aside stays with its successor."""
    return run_id.partition("~")[0] == other_id.partition("~")[0]


@functools.lru_cache
def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "surrogatepass"), safe="")
