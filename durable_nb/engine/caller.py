"""A step's life from its call to its checkpoint, as the thread that calls it sees it."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from durable_nb import codec, fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC, wait_for_pending
from durable_nb.concurrency.forking import check_process
from durable_nb.concurrency.pending import PENDING
from durable_nb.engine.endings import record_endings
from durable_nb.engine.explain import refusal
from durable_nb.engine.failpoints import hit
from durable_nb.errors import ResetStep, StepChanged
from durable_nb.records import Action, Call, Decision, Step, StepKind, StepStatus
from durable_nb.stores.payloads import fetch, is_at_hand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.in_place import Watch
    from durable_nb.engine.passes import Pass
    from durable_nb.engine.run import RunHandle
    from durable_nb.records import Message, Payload, RunStatus

__all__ = ["Caller", "StepHandle"]

T = TypeVar("T")


@dataclass(slots=True)
class StepHandle:
    """A step between its call and its checkpoint.

    Attributes:
        call: The call.
        decision: The decision about the call.
        step: The record: of the checkpoint to replay or to ask about, or of the attempt that begins.
        earlier: The record that the decision was made from; None at the first call.
        arguments: The arguments by name, if the call has any.
        watch: What finds the changes that the body makes in them.
    """

    call: Call
    decision: Decision
    step: Step
    earlier: Step | None = None
    arguments: Mapping[str, Any] | None = None
    watch: Watch | None = None

    @property
    def replayed(self) -> bool:
        """Return whether the call gets its checkpoint, and the body is not executed."""
        return self.decision.action is Action.REPLAY


class Caller:
    """A caller of an open run: it waits in one way, and is part of one pass.

    Args:
        current: The pass, whose run is open.
        mode: How the caller waits.
    """

    __slots__ = ("current", "mode", "run")

    def __init__(self, current: Pass, mode: CallMode) -> None:
        assert current.run is not None
        self.current = current
        self.run: RunHandle = current.run
        self.mode = mode

    async def begin(self, call: Call, arguments: Mapping[str, Any] | None = None) -> StepHandle:
        """Decide about a call, and commit what it settles: see ``settle``.

        Args:
            call: The call.
            arguments: The arguments by name, to show which differ.

        Returns:
            The step. If the decision is to ask, the caller asks the user and begins again, or raises the
            ``refusal``.

        Raises:
            StepChanged: The arguments or the code changed, and the policy is to refuse; or its caller
                cancelled it, as the record says, and does not now.
        """
        record, call, decision = await self._decide(call)
        if record is None or decision.action is Action.RUN:
            await self.settle(call)
            return StepHandle(call, decision, self._attempt(call, record, arguments), record, arguments)
        if decision.action is Action.REFUSE:
            raise refusal(decision, record, call, arguments)
        if decision.action is Action.REPLAY:
            self.current.replays.append(call.step_id)
            if record.step_id != call.step_id:
                record = await self.mode.store(self.run.move_renamed(record, call.step_id))
            if record.status is StepStatus.CANCELLED:
                await self._until_cancelled(record)
        return StepHandle(call, decision, record, record, arguments)

    async def _decide(self, call: Call) -> tuple[Step | None, Call, Decision]:
        check_process(self.current.forks)
        if PENDING:  # an interrupted call of this step may be about to be recorded
            await wait_for_pending(self.mode)
        run = self.run
        if not run.journal.whole_runs and call.step_id not in run.history:
            await self.mode.store(run.reload(call.step_id))
        record, call, decision = run.decide(call)
        if decision.action is Action.ASK:  # another process may have recorded the answer
            await self.mode.store(run.reload(call.step_id))
            record, call, decision = run.decide(call)
        if record is not None and _may_have_run_before(record):
            kept = await self.mode.store(run.earlier_result(record.step_id))
            decision = decision._replace(notice=kept is not None, kept=kept.attempt if kept else 0)
        return record, call, decision

    async def settle(self, call: Call) -> None:
        """Commit that the run continues, with this call, after steps that failed or were cancelled."""
        unsettled = self.current.unsettled
        if not unsettled:
            return
        unsettled.discard(call.step_id)
        before = unsettled.before(call)
        if self.current.is_ending():  # what was cancelled was cancelled with the pass, and runs again
            before = [step for step in before if step.status is StepStatus.FAILED]
        if before:
            await self.mode.commit(self.run.settle(before))
        for step in before:
            unsettled.discard(step.step_id)

    async def _until_cancelled(self, record: Step) -> None:
        """Wait until the caller cancels a step as it did before, so that its code takes the same branch."""
        if self.mode is ASYNC:
            await self.mode.sleep(max(settings.CANCEL_PATIENCE, 2 * record.seconds))
        raise StepChanged(
            f"it was cancelled by its caller after {record.seconds:.3g} s, and is not cancelled now",
            run_id=record.run_id,
            step=record.step_id,
            remedy=("To run it again: ", ResetStep()),
        )

    @contextmanager
    def noting_cancellation(self, handle: StepHandle) -> Iterator[None]:
        """Note in a block that the step's own caller has cancelled it, as ``asyncio.timeout`` does."""
        try:
            yield
        except asyncio.CancelledError:
            if self.mode is ASYNC and _is_cancelled():  # not by its own body, which may raise the same
                step = handle.step._replace(status=StepStatus.CANCELLED, finished_at=time.time())
                self.current.unsettled.add(step._replace(recorded_seq=self.run.tick()))
            raise

    def _attempt(self, call: Call, record: Step | None, arguments: Mapping[str, Any] | None) -> Step:
        return Step(
            self.run.run_id,
            call.step_id,
            call.kind,
            StepStatus.STARTED,
            attempt=record.attempt + 1 if record else 1,
            epoch=self.run.run.epoch,
            called_seq=call.called_seq or self.run.tick(),
            code=call.code,
            arguments=call.arguments,
            arguments_repr=fingerprint.show(arguments),
            lineage=record.lineage if record else call.lineage,
            once=call.once,
            started_at=time.time(),
        )

    async def start(self, handle: StepHandle) -> None:
        """Commit that a step has started, if it is a cell or marked ``once``; called before its body.

        Raises:
            CrashLoop: The process of too many passes in a row died in the body.
        """
        if self.run.notes_body:
            mended = handle.earlier is not None and fingerprint.differ(handle.earlier.code, handle.call.code)
            await self.mode.store(self.run.note_body(handle.call.step_id, mended=mended))
            record_endings(self.run)
        if handle.call.once or handle.call.kind is StepKind.CELL:
            await self.mode.store(self.run.commit(handle.step))
            hit("step.started")

    async def complete(
        self,
        handle: StepHandle,
        payload: Payload,
        *,
        status: StepStatus = StepStatus.DONE,
        delivered_by: str | None = None,
        finished_at: float | None = None,
        message: Message | None = None,
    ) -> None:
        """Commit the checkpoint of a step; when this returns, it is on disk.

        Args:
            handle: The step, whose record becomes the one committed.
            payload: Its result, or its failure.
            status: Its status.
            delivered_by: Who delivered the result, if no body has made it.
            finished_at: When it ends, if that is not now, in seconds since the epoch.
            message: The message that it has received, if any.
        """
        step = handle.step._replace(
            status=status,
            payload=payload,
            recorded_seq=self.run.tick(),
            finished_at=finished_at or time.time(),
            delivered_by=delivered_by,
        )
        handle.step = await self.in_order(self.mode.commit(self.run.commit(step, message)), step.recorded_seq)
        hit("step.recorded")

    async def fail(
        self,
        handle: StepHandle,
        failure: Exception,
        *,
        payload: Payload | None = None,
        delivered_by: str | None = None,
    ) -> None:
        """Commit that a step has failed for good; its failure may be encoded already, as ``payload``."""
        payload = payload or codec.encode_failure(failure)
        await self.complete(handle, payload, status=StepStatus.FAILED, delivered_by=delivered_by)
        if delivered_by is None:
            self.current.unsettled.add(handle.step)

    async def in_order(self, work: Awaitable[T], seq: float, ended_at: float = 0.0) -> T:
        """Await some work, and return its value when the results recorded earlier have been returned.

        Args:
            work: Gets or commits the result; it depends on no other call.
            seq: The sequence number of the result.
            ended_at: What decides between results of one number, as for sleeps.
        """
        turns = self.current.turns() if self.mode is ASYNC else None
        return await (work if turns is None else turns.take(work, seq, ended_at))

    async def replay(self, handle: StepHandle) -> Payload:
        """Return the payload of the checkpoint, when the results recorded earlier have been returned."""
        return await self.in_order(self.load(handle.step), handle.step.recorded_seq)

    async def load(self, step: Step) -> Payload:
        """Return the payload of a recorded step, ready to be decoded.

        Raises:
            UntrustedCheckpoint: The payload would run code, and no known key has signed it.
        """
        payload = step.payload or codec.encode(None)
        if payload.format == codec.FORGOTTEN:
            raise codec.forgotten()
        if is_at_hand(payload):
            return payload
        return await self.mode.store(fetch(self.run.journal, payload, self.run.run_id, step.step_id))

    async def reset(self, step_ids: list[str]) -> None:
        """Have steps run again at their next call; until then their results stay."""
        await wait_for_pending(self.mode)
        await self.mode.store(self.run.reset_steps(step_ids))

    async def mark(self, status: RunStatus, result: Payload | None = None) -> None:
        """Commit the status of the run, and its result or failure."""
        await self.mode.commit(self.run.write_status(status, result))


def _may_have_run_before(record: Step) -> bool:
    """Return whether a step without a result may have had one, which is kept."""
    return record.status is StepStatus.RESET or (record.status is StepStatus.STARTED and record.attempt > 1)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
