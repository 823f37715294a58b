"""Delivery: a signal is written to the store, from any process, and found there by the call that waits."""

from __future__ import annotations

import asyncio
import shlex
import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.engine.status import format_time
from durable_nb.errors import StoreUnreadable, error_context
from durable_nb.records import Signal, signal_step
from durable_nb.signals import accepted
from durable_nb.stores.payloads import fetch, keep

if TYPE_CHECKING:
    from durable_nb.records import Payload, SignalRequest
    from durable_nb.stores.base import Journal

__all__ = [
    "answer_command",
    "deliver",
    "describe_delivery",
    "format_time",
    "load_payload",
    "make_signal",
    "put_signal",
]


async def deliver(journal: Journal, signal: Signal, value: Any, *, ttl: float | None = None) -> Signal | None:
    """Deliver a signal to a run, which need not exist yet; the first delivery of a name wins.

    Runs on the loop thread.

    Args:
        journal: The journal of the run.
        signal: The signal.
        value: Its value, for the check.
        ttl: Seconds after which it is deleted if the run has not begun; None to keep it.

    Returns:
        None if this was the first delivery; else the signal that was delivered before.

    Raises:
        SignalInvalid: The call that waits does not accept the value; nothing was delivered.
    """
    await journal.setup()
    with error_context(run_id=signal.run_id, step=signal_step(signal.name)):
        request = await journal.get_request(signal.run_id, signal.name)
        try:
            known = await journal.get_signal(signal.run_id, signal.name)
        except StoreUnreadable:  # it is replaced
            known = None
        if request is not None and known is None:
            await asyncio.to_thread(accepted.check_value, request, value)  # it may take a second
        while not await put_signal(journal, signal, ttl=ttl):
            if known := await journal.get_signal(signal.run_id, signal.name):
                return known  # else it has expired meanwhile
        return None


async def put_signal(journal: Journal, signal: Signal, *, ttl: float | None = None) -> bool:
    """Write a signal to the store, unchecked; return whether it was the first. Runs on the loop thread."""
    payload = await keep(journal, signal.payload, signal.run_id, signal_step(signal.name))
    return await journal.put_signal(signal._replace(payload=payload), ttl=ttl)


async def load_payload(journal: Journal, signal: Signal) -> Payload:
    """Return the payload of a delivered signal, with the bytes of its blob. Runs on the loop thread."""
    return await fetch(journal, signal.payload, signal.run_id, signal_step(signal.name))


def make_signal(run_id: str, name: str, value: Any, delivered_by: str) -> Signal:
    """Return a signal, ready to be delivered.

    Args:
        run_id: The run that waits for it, or will.
        name: The name of the signal.
        value: The value.
        delivered_by: The process that delivers it, for people.

    Raises:
        StepNotSaved: The value cannot be saved.
    """
    with error_context(run_id=run_id, step=signal_step(name)):
        payload = codec.encode(value)
    return Signal(run_id, name, payload, delivered_by, time.time())


def describe_delivery(signal: Signal, earlier: Signal | None) -> str:
    """Return the outcome of a delivery as text for people.

    Args:
        signal: The signal.
        earlier: The signal that was delivered before it, if any.
    """
    if earlier is None:
        return f"signal {signal.name!r} delivered to run {signal.run_id!r}"
    return (
        f"nothing was changed: signal {signal.name!r} of run {signal.run_id!r} was answered by "
        f"{earlier.delivered_by or 'an unnamed process'} at {format_time(earlier.delivered_at)}"
    )


def answer_command(request: SignalRequest, address: str | None) -> str:
    """Return the command, or the call, that answers a request from another process.

    Args:
        request: The request.
        address: The path or URL that opens the store in another process; None if there is none.
    """
    if address is None:
        return f"await wf.complete({request.run_id!r}, {request.name!r}, VALUE)"
    run_id, name, db = map(shlex.quote, (request.run_id, request.name, address))
    return f"durable-nb signal {run_id} {name} VALUE --db {db}"
