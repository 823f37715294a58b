"""Forked children: what their parent had open is not theirs, and what else they use they open themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from durable_nb.errors import ForkedProcess

__all__ = ["UNOPENED", "check_process", "forks", "in_forked_child", "is_inherited"]

UNOPENED: Final = -1
"""Stands for the number of forks at which something was opened that never was."""


class _Count:
    forks = 0


def _count() -> None:
    _Count.forks += 1


def in_forked_child(forget: Callable[[], object]) -> None:
    """Have a function called in each forked child: it forgets what belongs to the parent or its threads."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def forks() -> int:
    """Return how many forks led to this process."""
    return _Count.forks


def is_inherited(opened: int) -> bool:
    """Return whether something was opened before this process was forked.

    Args:
        opened: What `forks` returned when it was opened; `UNOPENED` if it was not.
    """
    return opened not in (_Count.forks, UNOPENED)


def check_process(opened: int) -> None:
    """Raise ``ForkedProcess`` if something was opened before this process was forked; see `is_inherited`."""
    if opened not in (_Count.forks, UNOPENED):  # not `is_inherited`: this is called for every step
        raise ForkedProcess(
            f"process {os.getpid()} was forked from the one that has it open",
            remedy="Make its durable calls in the parent; outside of it, a child may use other runs.",
        )


in_forked_child(_count)
