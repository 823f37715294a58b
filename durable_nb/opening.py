"""Opening a run: a new one, or one that goes on where it stopped."""

from __future__ import annotations

import asyncio
import os
import platform
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from durable_nb import fingerprint
from durable_nb.engine import OpenRun
from durable_nb.errors import DurableNotice, RunChanged, located
from durable_nb.failpoints import hit
from durable_nb.records import Run, RunStatus, set_aside_id
from durable_nb.stores.machine import machine

if TYPE_CHECKING:
    from durable_nb.loop import Colour
    from durable_nb.stores.base import Journal

__all__ = ["check_same", "open_run", "this_process"]


async def open_run(
    journal: Journal, opening: Run, colour: Colour, *, fresh: bool = False, take_over: bool = False
) -> OpenRun:
    """Create a run, or take it up again where it stopped.

    Args:
        journal: Where it is kept.
        opening: The run as its caller sees it: id, workflow, arguments.
        colour: How the caller waits.
        fresh: Set an old history aside under another id, and start over.
        take_over: Open it even if another living process owns it, which can then write no more.

    Raises:
        RunHeld: Another living process owns it.
        RunChanged: The id is on record with other arguments, or for another workflow.
        StoreError: The store cannot be opened.
    """
    with located(run_id=opening.run_id):
        (run, before), cancelled = await colour.settled(
            _open_run(journal, opening, fresh=fresh, take_over=take_over)
        )
    if cancelled:
        await run.mark(RunStatus.CANCELLED, colour)
        raise asyncio.CancelledError
    if before not in (None, run.run.python):
        told = f"run {run.run_id!r} was begun on Python {before}, and goes on on {run.run.python}"
        warnings.warn(told, DurableNotice, stacklevel=2)
    return run


async def _open_run(
    journal: Journal, opening: Run, *, fresh: bool, take_over: bool
) -> tuple[OpenRun, str | None]:
    """The open run, and the Python version of the pass before this one."""
    await journal.setup()
    known = await journal.get_run(opening.run_id)
    if known is not None and fresh:
        if not take_over:
            await journal.check_owner(known.run_id)
        await journal.rename_run(known.run_id, set_aside_id(known.run_id, known.epoch))
    elif known is not None:
        check_same(known, opening)
    now = time.time()
    opening = replace(
        opening,
        owner=this_process(),
        python=".".join(platform.python_version_tuple()[:2]),
        created_at=now,
        updated_at=now,
    )
    snapshot = await journal.open_run(opening, take_over=take_over)
    hit("run.opened")
    before = known.python if known is not None and not fresh else None
    return OpenRun(journal, snapshot.run, snapshot.steps), before


def this_process() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {machine().host}"


def check_same(known: Run, opening: Run) -> None:
    """Refuse a run id that is on record for another workflow, or with other arguments.

    Raises:
        RunChanged: With the difference.
    """
    remedy = "Use another run id, or start this one over: fresh=True (in a notebook: --fresh)."
    if known.workflow not in ("", opening.workflow):  # empty: somebody filled its store beforehand
        raise RunChanged(
            f"it belongs to the workflow {known.workflow!r}, not to {opening.workflow!r}",
            run_id=known.run_id,
            remedy=remedy,
        )
    if fingerprint.differ(known.arguments, opening.arguments):
        raise RunChanged(
            f"it was started with other arguments ({fingerprint.explain(known.shown, opening.shown)})",
            run_id=known.run_id,
            remedy=remedy,
        )
