"""``durable-nb plan NOTEBOOK --run-id ID``: what would replay, what would run, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from durable_nb import settings
from durable_nb.errors import RunNotFound
from durable_nb.loop import BLOCKING, drive
from durable_nb.notebook.magics import parse_step
from durable_nb.notebook.plan import plan, spell_plan
from durable_nb.resolving import recorded_run
from durable_nb.stores import open_journal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--run-id", required=True, metavar="ID", help="the run")
    parser.add_argument("--db", default=settings.DB, metavar="URL", help="where it is kept")


def run(options: argparse.Namespace) -> int:
    """Print the plan; takes no ownership, and runs nothing of the notebook's.

    Raises:
        RunNotFound: There is no such run.
        InvalidOption: The file is no notebook.
    """
    if "://" not in options.db and not Path(options.db).exists():
        raise RunNotFound(
            f"there is no database {options.db}",
            run_id=options.run_id,
            remedy="Name the one that %durable_workflow shows: --db PATH.",
        )
    recorded = drive(recorded_run(open_journal(options.db), options.run_id, BLOCKING))
    transform = TransformerManager().transform_cell  # type: ignore[no-untyped-call]
    planned = plan(recorded, options.notebook, parse=parse_step, transform=transform)
    print(spell_plan(planned))  # noqa: T201 - a command's answer
    return 0
