"""A run says that it waits, as long as anything in it does."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from durable_nb.errors import RunError, StoreError
from durable_nb.records import RunStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from durable_nb.concurrency.bridge import Colour
    from durable_nb.engine.run import OpenRun

__all__ = ["waiting"]


@asynccontextmanager
async def waiting(run: OpenRun, colour: Colour) -> AsyncIterator[None]:
    """Mark a run as waiting in the block, unless another block has; as running after the last of them."""
    run.waits += 1
    try:
        if run.waits == 1:
            await run.mark(RunStatus.WAITING, colour)
        yield
    except GeneratorExit:  # thrown away half-way: nothing can be awaited any more
        run.waits -= 1
        raise
    except BaseException:
        with suppress(StoreError, RunError):  # what ended the waiting is the one to see
            await _go_on(run, colour)
        raise
    await _go_on(run, colour)


async def _go_on(run: OpenRun, colour: Colour) -> None:
    run.waits -= 1
    if not run.waits:
        await run.mark(RunStatus.RUNNING, colour)
