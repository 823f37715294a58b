"""``durable-nb status RUN_ID``: one run and its steps."""

from __future__ import annotations

import argparse

from durable_nb.cli import runs
from durable_nb.cli.database import asked
from durable_nb.engine.status import one_run
from durable_nb.stores import open_journal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``durable-nb status``."""
    parser.add_argument("run_id", metavar="RUN_ID", help="the run's id")
    runs.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show it.

    Raises:
        RunNotFound: There is no such run.
        StoreError: There is no such database, or it cannot be read.
    """
    print(asked(one_run(open_journal(options.db), options.run_id)))  # noqa: T201 - an answer
    return 0
