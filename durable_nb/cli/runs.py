"""``durable-nb runs``: the runs of a database."""

from __future__ import annotations

import argparse

from durable_nb import settings
from durable_nb.cli.database import asked
from durable_nb.engine.status import all_runs
from durable_nb.stores import open_journal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``durable-nb runs``."""
    parser.add_argument(
        "--db", metavar="URL", default=settings.DB, help=f"a path or redis://…, by default {settings.DB}"
    )


def run(options: argparse.Namespace) -> int:
    """Show them.

    Raises:
        StoreError: There is no such database, or it cannot be read.
    """
    print(asked(all_runs(open_journal(options.db))))  # noqa: T201 - a command's answer
    return 0
