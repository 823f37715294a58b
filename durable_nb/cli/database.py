"""The database that a command looks into."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.status import set_up
from durable_nb.stores import Journal, open_journal

__all__ = ["asked", "existing"]

T = TypeVar("T")


def existing(db: str) -> Journal:
    """The journal of a database that is there.

    Raises:
        StoreUnavailable: There is none.
    """
    journal = open_journal(db)
    asked(set_up(journal))
    return journal


def asked(work: Coroutine[Any, Any, T]) -> T:
    """What a journal answers."""
    return run_blocking(SYNC.store(work))
