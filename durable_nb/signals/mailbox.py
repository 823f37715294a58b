"""Messages: sent to a run under a topic, from any process, and received by it one after the other."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from durable_nb import codec, settings
from durable_nb.errors import SignalPending, SignalTimeout, error_context
from durable_nb.records import Message, message_step
from durable_nb.signals import watcher
from durable_nb.signals.prompter import current_prompter
from durable_nb.stores.payloads import fetch, is_at_hand, keep

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller
    from durable_nb.engine.run import RunHandle
    from durable_nb.records import Step
    from durable_nb.stores.base import Journal

__all__ = [
    "Reservation",
    "decoded",
    "make_message",
    "no_message",
    "send_command",
    "send_message",
    "wait_for_message",
]


def make_message(run_id: str, topic: str, value: Any, delivery: str, sent_by: str) -> Message:
    """Return a message, ready to be sent.

    Args:
        run_id: The run that receives it, or will.
        topic: The topic.
        value: The value.
        delivery: The id of the delivery; hexadecimal.
        sent_by: The process or the step that sends it, for people.

    Raises:
        StepNotSaved: The value cannot be saved.
    """
    with error_context(run_id=run_id, step=message_step(topic)):
        payload = codec.encode(value)
    return Message(run_id, topic, payload, delivery, sent_by, time.time())


async def send_message(journal: Journal, message: Message, *, ttl: float | None = None) -> None:
    """Send a message to a run, which need not exist yet. Runs on the loop thread.

    Args:
        journal: The journal of the run.
        message: The message.
        ttl: Seconds after which it is deleted if the run has not begun; None to keep it.
    """
    await journal.setup()
    step = message_step(message.topic)
    with error_context(run_id=message.run_id, step=step):
        payload = await keep(journal, message.payload, message.run_id, step)
        await journal.put_message(message._replace(payload=payload), ttl=ttl)


def send_command(run_id: str, topic: str, address: str | None) -> str:
    """Return the command, or the call, that sends a message from another process.

    Args:
        run_id: The run.
        topic: The topic.
        address: The path or URL that opens the store in another process; None if there is none.
    """
    if address is None:
        return f"await wf.send({run_id!r}, {topic!r}, VALUE)"
    run_id, topic, db = map(shlex.quote, (run_id, topic, address))
    return f"durable-nb send {run_id} {topic} VALUE --db {db}"


class Reservation:
    """Takes the first unread message of a topic that no other call of the run has taken.

    Args:
        run: The run.
        topic: The topic.
    """

    def __init__(self, run: RunHandle, topic: str) -> None:
        self._run, self._topic = run, topic
        self._taken = run.messages.setdefault(topic, set())
        self._held: list[int] = []
        self._is_over = False

    async def take(self) -> Message | None:
        """Return a message, reserved for this call, or None. Runs on the loop thread."""
        found = await self._run.journal.unread(self._run.run_id, self._topic, len(self._taken) + 1)
        free = next((message for message in found if message.number not in self._taken), None)
        if free is not None:
            self._taken.add(free.number)
            self._held.append(free.number)
            if self._is_over:  # the caller has left meanwhile
                self.release()
        return free

    def release(self) -> None:
        """Leave the message to other calls; called from any thread."""
        self._is_over = True
        try:
            self._taken.discard(self._held.pop())
        except IndexError:  # there is none, or the other thread has released it
            return


async def wait_for_message(
    caller: Caller, step: Step, topic: str, reservation: Reservation, timeout: float | None
) -> Message | None:
    """Wait until there is a message, and return it; None if none came in time.

    Args:
        caller: The caller of the run that receives it.
        step: The step of the call; recorded as started if it has to wait.
        topic: The topic.
        reservation: What takes the message.
        timeout: Seconds after which the wait ends, from the start of the step; None waits without end.

    Raises:
        SignalPending: The notebook is run without a front end, and has no one to prompt.
    """
    mode, journal = caller.mode, caller.run.journal
    message = await mode.wait_cancellable(reservation.take())
    if message is not None:
        return message
    await mode.store(caller.run.commit(step))
    left = None if timeout is None else max(0.0, min(timeout, timeout - (time.time() - step.started_at)))
    prompter = current_prompter()
    headless = prompter.headless_timeout() if prompter and not prompter.askers() else None
    waiting = watcher.wait_for(
        journal,
        reservation.take,
        poll=settings.SIGNAL_POLL,
        seconds=min([each for each in (left, headless) if each is not None], default=None),
        check=caller.current.check_stopped,
    )
    message = await mode.wait_cancellable(waiting) or await mode.wait_cancellable(reservation.take())
    if message is None and headless is not None and (left is None or headless < left):
        raise _pending(caller, step, topic)
    return message


def _pending(caller: Caller, step: Step, topic: str) -> SignalPending:
    command = send_command(step.run_id, topic, caller.run.journal.address)
    return SignalPending(
        f"waiting for a message under {topic!r}, and this session has no one to prompt",
        run_id=step.run_id,
        step=step.step_id,
        remedy=f"Send one, then resume the run: {command}",
    )


def no_message(step: Step, topic: str, timeout: float, address: str | None) -> SignalTimeout:
    """Return the error of a call that has received no message in time."""
    command = send_command(step.run_id, topic, address)
    return SignalTimeout(
        f"no message under {topic!r} within {timeout:g} s",
        run_id=step.run_id,
        step=step.step_id,
        remedy=f"The run waits again when it is resumed. To send one: {command}",
    )


async def decoded(caller: Caller, message: Message) -> Any:
    """Return the value of a message.

    Raises:
        UntrustedCheckpoint: It would run code when loaded, and has no trusted signature.
        StepNotRestored: It cannot be loaded.
    """
    payload = message.payload
    if not is_at_hand(payload):
        work = fetch(caller.run.journal, payload, message.run_id, message_step(message.topic))
        payload = await caller.mode.store(work)
    return codec.decode(payload)
