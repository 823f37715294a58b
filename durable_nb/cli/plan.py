"""``durable-nb plan NOTEBOOK --run-id ID``: what would replay, what would run, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from durable_nb.cli import runs
from durable_nb.cli.database import existing
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.resolve import recorded_run
from durable_nb.notebook.magic_options import parse_step
from durable_nb.notebook.plan import plan, spell_plan

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="the notebook's file")
    parser.add_argument("--run-id", required=True, metavar="RUN_ID", help="the run's id")
    runs.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the plan; takes no ownership, and runs nothing of the notebook's.

    Raises:
        RunNotFound: There is no such run.
        StoreUnavailable: There is no such database.
        InvalidOption: The file is no notebook.
    """
    recorded = run_blocking(recorded_run(existing(options.db), options.run_id, SYNC))
    transform = TransformerManager().transform_cell  # type: ignore[no-untyped-call]
    planned = plan(recorded, options.notebook, parse=parse_step, transform=transform)
    print(spell_plan(planned))  # noqa: T201 - a command's answer
    return 0
