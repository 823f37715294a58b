"""Signals: values that come from outside. The waiter reads what was delivered back from the store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.errors import located
from durable_nb.payloads import fetch, keep
from durable_nb.records import Call, Payload, RunStatus, Signal, StepKind, signal_step

if TYPE_CHECKING:
    from durable_nb.engine import Begun, OpenRun
    from durable_nb.loop import Colour
    from durable_nb.stores.base import Journal

__all__ = ["deliver", "pack", "wait"]


async def deliver(journal: Journal, signal: Signal) -> bool:
    """Deliver a signal to a run, which need not exist yet; the first delivery of a name wins.

    Runs on the loop thread.

    Returns:
        True if this was the first.
    """
    await journal.setup()
    payload = await keep(journal, signal.payload, signal.run_id, signal_step(signal.name))
    return await journal.put_signal(replace(signal, payload=payload))


async def wait(run: OpenRun, step_id: str, name: str, poll: float, colour: Colour) -> Any:
    """Wait for a signal, and record what came; one that came before, or before a restart, is there at once.

    Args:
        run: The run that waits.
        step_id: The id of the step that records it.
        name: The signal's name.
        poll: Seconds between two looks at the store.
        colour: How the caller waits.
    """
    begun = await run.begin_step(Call(step_id, StepKind.SIGNAL), colour)
    with located(run_id=run.run_id, step=step_id):
        if begun.replayed:
            return codec.decode(await run.load(begun.step, colour))
        return await _first_delivery(run, begun, name, poll, colour)


async def _first_delivery(run: OpenRun, begun: Begun, name: str, poll: float, colour: Colour) -> Any:
    signal = await colour.store(run.journal.get_signal(run.run_id, name))
    if signal is None:
        await run.note_started(begun, colour)
        await run.mark(RunStatus.WAITING, colour)
        while signal is None:
            await colour.sleep(poll)
            run.check_stopped()
            signal = await colour.store(run.journal.get_signal(run.run_id, name))
        await run.mark(RunStatus.RUNNING, colour)
    payload = await colour.store(fetch(run.journal, signal.payload, run.run_id, signal_step(name)))
    step = await run.complete_step(begun, payload, colour, delivered_by=signal.delivered_by)
    return codec.decode(await run.load(step, colour))


def pack(run_id: str, name: str, value: Any, delivered_by: str) -> Signal:
    """A signal, ready to be delivered.

    Raises:
        StepNotSaved: The value cannot be saved.
    """
    with located(run_id=run_id, step=signal_step(name)):
        payload: Payload = codec.encode(value)
    return Signal(run_id, name, payload, delivered_by, time.time())
