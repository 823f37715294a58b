"""What IPython's own configuration says, and the run that a notebook then has without being asked for."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import traitlets
from traitlets.config import Configurable

from durable_nb import settings
from durable_nb.errors import StoreUnreadable
from durable_nb.notebook.every_cell import CELLS
from durable_nb.notebook.lineage.compare import lineage_of
from durable_nb.notebook.shell import frontend
from durable_nb.records import RunStatus, StepKind, original_id

if TYPE_CHECKING:
    from pathlib import Path

    from durable_nb.records import Step
    from durable_nb.stores import Journal

__all__ = ["DurableNb", "own_run"]


class DurableNb(Configurable):
    """The options of durable_nb in a profile of IPython, such as ``c.DurableNb.cells = "all"``."""

    cells = traitlets.Enum(
        CELLS, settings.CELLS, help="Which cells are durable; with 'all', each notebook opens a run."
    ).tag(config=True)
    db = traitlets.Unicode(None, allow_none=True, help="The database: a path or a URL.").tag(config=True)
    max_result = traitlets.Int(settings.MAX_RESULT, help="Bytes of the largest value that is kept.").tag(
        config=True
    )
    max_database = traitlets.Int(
        None, allow_none=True, help="Bytes of a database, with its files, from which on a cell says so."
    ).tag(config=True)


async def own_run(journal: Journal, file: Path) -> str:
    """Return the id of the last run of a notebook; a new one if no cell of it has been executed.

    A notebook is the one that a run was recorded from if it has the same path, and cells of the run: a new
    notebook of an old name has other cells.

    Args:
        journal: The database.
        file: The notebook's file.
    """
    await journal.setup()
    runs, cells = await journal.list_runs(), {cell.id for cell in frontend.code_cells(file)}
    taken = {run.run_id for run in runs}
    for run in runs:
        is_first = original_id(run.run_id) == run.run_id and run.status is not RunStatus.DAMAGED
        if is_first and run.run_id.startswith(f"{file.stem}-"):
            snapshot = await journal.read_run(run.run_id)
            if snapshot and any(_is_of(step, file, cells) for step in snapshot.steps):
                return run.run_id
    new = f"{file.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    return new if new not in taken else f"{new}-{time.time_ns()}"


def _is_of(step: Step, file: Path, cells: set[str | None]) -> bool:
    with suppress(StoreUnreadable):  # the run says so when it is opened
        if step.kind is StepKind.CELL and step.lineage:
            lineage = lineage_of(step)
            return lineage.notebook == str(file) and (lineage.cell in cells or None in cells)
    return False
