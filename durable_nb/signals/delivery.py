"""Signals: values that come from outside. Whoever delivers one writes it to the store, and nowhere else."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.errors import error_context
from durable_nb.records import Signal, signal_step
from durable_nb.signals import accepted
from durable_nb.stores.payloads import fetch, keep

if TYPE_CHECKING:
    from durable_nb.records import Payload, SignalRequest
    from durable_nb.stores.base import Journal

__all__ = ["command", "deliver", "describe", "load", "pack", "put", "spell_moment"]


async def deliver(journal: Journal, signal: Signal, value: Any) -> Signal | None:
    """Deliver a signal to a run, which need not exist yet; the first delivery of a name wins.

    Runs on the loop thread.

    Args:
        journal: Where the run is, or will be.
        signal: The signal.
        value: What is in it.

    Returns:
        None if this was the first; else the one that was there before.

    Raises:
        SignalInvalid: The call that waits for it would not accept it; nothing was delivered.
    """
    await journal.setup()
    with error_context(run_id=signal.run_id, step=signal_step(signal.name)):
        request = await journal.get_request(signal.run_id, signal.name)
        known = await journal.get_signal(signal.run_id, signal.name)
        if request is not None and known is None:
            accepted.check(request, value)
        if await put(journal, signal):
            return None
        return await journal.get_signal(signal.run_id, signal.name)


async def put(journal: Journal, signal: Signal) -> bool:
    """Write a signal to the store, unchecked; gives whether it was the first. Runs on the loop thread."""
    payload = await keep(journal, signal.payload, signal.run_id, signal_step(signal.name))
    return await journal.put_signal(signal._replace(payload=payload))


async def load(journal: Journal, signal: Signal) -> Payload:
    """The payload of a delivered signal, its bytes fetched if they are a blob. Runs on the loop thread."""
    return await fetch(journal, signal.payload, signal.run_id, signal_step(signal.name))


def pack(run_id: str, name: str, value: Any, delivered_by: str) -> Signal:
    """A signal, ready to be delivered.

    Raises:
        StepNotSaved: The value cannot be saved.
    """
    with error_context(run_id=run_id, step=signal_step(name)):
        payload = codec.encode(value)
    return Signal(run_id, name, payload, delivered_by, time.time())


def describe(signal: Signal, earlier: Signal | None) -> str:
    """What became of a delivery, for people.

    Args:
        signal: The signal.
        earlier: The one that was there before, if any.
    """
    if earlier is None:
        return f"signal {signal.name!r} is delivered to run {signal.run_id!r}"
    return (
        f"run {signal.run_id!r} has signal {signal.name!r} already: nothing was changed. It was answered by "
        f"{earlier.delivered_by or 'somebody unnamed'} at {spell_moment(earlier.delivered_at)}"
    )


def command(request: SignalRequest, address: str | None) -> str:
    """What to type elsewhere to answer a request.

    Args:
        request: The request.
        address: What opens the store elsewhere; None where nothing does.
    """
    if address is None:
        return f"await wf.complete({request.run_id!r}, {request.name!r}, VALUE)"
    run_id, name, db = map(shlex.quote, (request.run_id, request.name, address))
    return f"durable-nb signal {run_id} {name} VALUE --db {db}"


def spell_moment(seconds: float) -> str:
    """A moment for people, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
