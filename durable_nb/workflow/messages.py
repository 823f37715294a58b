"""Messages between runs, and from outside: a queue for each topic, from which a run takes each once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from durable_nb import codec, fingerprint
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.errors import InvalidOption, SignalTimeout, error_context
from durable_nb.records import Call, StepKind, StepStatus, message_step
from durable_nb.signals.mailbox import (
    Reservation,
    decoded,
    make_message,
    no_message,
    send_message,
    wait_for_message,
)
from durable_nb.stores.host import this_process
from durable_nb.workflow.awaitables import AwaitedCall, awaited
from durable_nb.workflow.perform import VALUES, perform
from durable_nb.workflow.recorded_values import ONE_ATTEMPT
from durable_nb.workflow.waits import as_seconds

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.caller import StepHandle
    from durable_nb.engine.scopes import Scope
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["Messages", "SyncMessages"]


class Messages:
    """The methods of a workflow that send and receive messages, for async code."""

    @awaited
    async def send(
        self: WorkflowLike,
        run_id: str,
        topic: str,
        value: Any = None,
        *,
        ttl: float | timedelta | None = None,
    ) -> None:
        """Send a message to a run, from any process, also before it exists; it receives each one once.

        In a run this is a step: a run that is resumed does not send it a second time.

        Args:
            run_id: The run.
            topic: The topic, a queue of the run's.
            value: The value.
            ttl: Seconds, or a timedelta, after which it is deleted if the run has not begun; None keeps it.

        Raises:
            StepNotSaved: The value cannot be saved.
            StepChanged: A resumed run sends another value here than it did.
            StoreError: The store keeps no messages: it is a `Store`, not a `Journal`.

        Example:
            >>> async def say(wf: Workflow) -> None:
            ...     await wf.send("chat-7", "messages", "hello")
        """
        await _send(self, run_id, topic, value, ttl, ASYNC)

    def receive(self: WorkflowLike, topic: str, *, timeout: float | timedelta | None = None) -> Received:
        """Wait in a run for the next message of a topic: ``await`` gives it, ``async for`` all of them.

        Each message is received once, in the order in which they were sent. The call is a step, which is
        recorded together with the receipt: a replay returns the same message.

        Args:
            topic: The topic.
            timeout: Seconds, or a timedelta, after which the wait ends; a restart does not reset it.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).
            StepError: It is called in an ordinary cell or in a thread of its own, where calls have no order.
            SignalTimeout: No message came in time (also a TimeoutError); ``async for`` ends instead.

        Example:
            >>> async def echo(wf: Workflow) -> None:
            ...     async for message in wf.receive("messages"):
            ...         print(message)
        """
        seconds = as_seconds(timeout)
        return Received(lambda: _receive(self, topic, seconds, ASYNC), f"wf.receive({topic!r})")


class SyncMessages:
    """These methods for synchronous code.

    Attributes:
        _workflow: The workflow.
    """

    _workflow: WorkflowLike

    def send(
        self, run_id: str, topic: str, value: Any = None, *, ttl: float | timedelta | None = None
    ) -> None:
        """Send a message to a run: see ``Workflow.send``."""
        run_blocking(_send(self._workflow, run_id, topic, value, ttl, SYNC))

    def receive(self, topic: str, *, timeout: float | timedelta | None = None) -> Any:
        """Wait in a run for the next message of a topic: see ``Workflow.receive``."""
        return run_blocking(_receive(self._workflow, topic, as_seconds(timeout), SYNC))


class Received(AwaitedCall):
    """What ``wf.receive`` returns: a coroutine of one message, and an asynchronous iterator of all.

    Args:
        receive: Returns the coroutine of the next message.
        call: The call, as the user would write it.
    """

    def __init__(self, receive: Callable[[], Coroutine[Any, Any, Any]], call: str) -> None:
        super().__init__(receive(), call)
        self._receive = receive

    async def __aiter__(self) -> AsyncIterator[Any]:
        self.close()  # the coroutine of one message is not awaited
        while True:
            try:
                message = await self._receive()
            except SignalTimeout:
                return
            yield message


async def _send(
    workflow: WorkflowLike,
    run_id: str,
    topic: str,
    value: Any,
    ttl: float | timedelta | None,
    mode: CallMode,
) -> None:
    check_run_id(run_id), check_name(topic, "a topic", InvalidOption)
    seconds, scope = as_seconds(ttl), scopes.current_scope()
    if scope is None:
        message = make_message(run_id, topic, value, uuid.uuid4().hex, this_process())
        await mode.store(send_message(workflow.journal, message, ttl=seconds))
        return
    arguments = {"run_id": run_id, "topic": topic, "value": value}
    known = fingerprint.arguments(arguments)
    call = Call(
        scope.step_id(f"send:{topic}", known),
        StepKind.VALUE,
        arguments=known,
        called_seq=scope.tick(),
        branched=scope.branched,
    )
    by = f"run {scope.run.run_id!r}, step {call.step_id!r}"

    def put() -> Coroutine[Any, Any, None]:
        message = make_message(run_id, topic, value, _delivery(scope, call.step_id), by)
        return mode.store(send_message(workflow.journal, message, ttl=seconds))

    body = put if mode is ASYNC else lambda: run_blocking(put())
    await perform(Caller(scope.current, mode), call, body, ONE_ATTEMPT, arguments)


def _delivery(scope: Scope, step_id: str) -> str:
    """Return an id that is equal after a crash: a step that was sent but not recorded sends nothing new."""
    run, record = scope.run.run, scope.run.history.get(step_id)
    attempt = record.attempt if record else 0
    text = repr((run.run_id, run.created_at, step_id, attempt))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


async def _receive(workflow: WorkflowLike, topic: str, timeout: float | None, mode: CallMode) -> Any:
    check_name(topic, "a topic", InvalidOption)
    scope = scopes.required_scope(workflow.attached, f"receive({topic!r})")
    step_id = scope.ordered_id(message_step(topic), "Call it in a durable cell, or in a @wf.workflow.")
    call = Call(step_id, StepKind.MESSAGE, called_seq=scope.tick(), branched=scope.branched)
    caller = Caller(scope.current, mode)
    with error_context(run_id=caller.run.run_id, step=step_id):
        handle = await caller.begin(call)
        if handle.replayed:
            return VALUES.unpack(caller, handle, await caller.replay(handle))
        if handle.earlier is not None and handle.earlier.status is StepStatus.STARTED:
            handle.step = handle.step._replace(started_at=handle.earlier.started_at)
        with caller.noting_cancellation(handle):
            return await _record_message(caller, handle, topic, timeout)


async def _record_message(caller: Caller, handle: StepHandle, topic: str, timeout: float | None) -> Any:
    reservation = Reservation(caller.run, topic)
    try:
        message = await wait_for_message(caller, handle.step, topic, reservation, timeout)
        payload = None if message is None else codec.encode(await decoded(caller, message))
    except BaseException:
        reservation.release()
        raise
    if message is None or payload is None:
        assert timeout is not None
        late = no_message(handle.step, topic, timeout, caller.run.journal.address)
        await caller.fail(handle, late)
        raise late
    try:
        await caller.complete(handle, payload, delivered_by=message.sent_by, message=message)
    except Exception:  # not after an interrupt: the commit goes on
        reservation.release()
        raise
    return codec.decode(payload)  # what a replay returns
