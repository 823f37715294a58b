"""The database that a command looks into."""

from __future__ import annotations

import argparse
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from durable_nb import settings
from durable_nb.errors import StoreUnavailable
from durable_nb.loop import BLOCKING, drive
from durable_nb.stores import Journal, open_journal

__all__ = ["add_db", "asked", "existing"]

T = TypeVar("T")


def add_db(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which database."""
    told = f"the database; {settings.DB} here if not given"
    parser.add_argument("--db", default=settings.DB, metavar="URL", help=told)


def existing(db: str) -> Journal:
    """The journal of a database that is there; a mistyped path makes no new one.

    Raises:
        StoreUnavailable: There is none.
    """
    journal = open_journal(db)
    if journal.address is not None and not Path(journal.address).exists():
        raise StoreUnavailable(f"there is no database {journal.address!r}", remedy="Name it: --db PATH")
    asked(journal.setup())
    return journal


def asked(work: Coroutine[Any, Any, T]) -> T:
    """What a journal answers."""
    return drive(BLOCKING.store(work))
