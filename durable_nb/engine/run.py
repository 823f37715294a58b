"""A run that this process owns, and a step's life from its call to its checkpoint."""

from __future__ import annotations

import asyncio
import itertools
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_nb import codec, fingerprint
from durable_nb.concurrency.bridge import check_process, wait_for_pending
from durable_nb.concurrency.pending import PENDING
from durable_nb.engine.decision import decide
from durable_nb.engine.explain import refusal
from durable_nb.engine.failpoints import hit
from durable_nb.engine.history import History
from durable_nb.errors import DurableNotice, error_context
from durable_nb.records import (
    Action,
    Call,
    Decision,
    Payload,
    Run,
    RunStatus,
    Step,
    StepKind,
    StepStatus,
)
from durable_nb.stores.payloads import fetch, is_at_hand, keep, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.errors import RunHeld
    from durable_nb.stores.base import Journal

__all__ = ["RunHandle", "StepHandle"]


@dataclass(slots=True)
class StepHandle:
    """A step between its call and its checkpoint.

    Attributes:
        call: The call.
        decision: The decision about the call.
        step: The record: of the checkpoint to replay, or of the attempt that begins.
    """

    call: Call
    decision: Decision
    step: Step

    @property
    def replayed(self) -> bool:
        """Return whether the call gets its checkpoint, and the body is not executed."""
        return self.decision.action is Action.REPLAY


class RunHandle:
    """A run that this process owns: its history in memory, and the only way to add steps to it.

    Args:
        journal: The journal of the run.
        run: The run, under the epoch that this pass has taken.
        steps: Its recorded steps.

    Attributes:
        claims: The ids of the steps whose calls are running, each with an object that identifies the call.
        stopped: Whether its synchronous pass is asked to end.
        waits: How many of its calls wait for a signal or for time to pass.
        replays: The ids of the calls that replayed in this pass, in order.
        lost_error: The error that says which process has cancelled or taken over the run, once it has.
        on_lost: Called on the loop thread when the run is lost; without it a ``DurableNotice`` is given.
    """

    def __init__(self, journal: Journal, run: Run, steps: Sequence[Step]) -> None:
        self.journal = journal
        self.run = run
        self.history = History(steps)
        self._counter = itertools.count(self.history.last_seq + 1)
        self.claims: dict[str, object] = {}
        self.stop_requested = False
        self.waiting_calls = 0
        self.replays: list[str] = []
        self.lost_error: RunHeld | None = None
        self.on_lost: Callable[[], None] | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.run_id

    def check_stopped(self) -> None:
        """Raise ``CancelledError`` if the pass is asked to end, ``RunHeld`` if the run is lost."""
        if self.lost_error is not None:
            raise self.lost_error
        if self.stop_requested:
            raise asyncio.CancelledError

    def lose(self, error: RunHeld) -> None:
        """Note that another process owns the run now. Called on the loop thread."""
        self.lost_error = error
        if self.on_lost is not None:
            self.on_lost()
        else:
            warnings.warn(str(error), DurableNotice, stacklevel=2)

    def tick(self) -> int:
        """Return the next sequence number of the run."""
        return next(self._counter)

    def decide(self, call: Call) -> Decision:
        """Return the decision about a call as things stand; nothing is run or written."""
        return self._decide(self.history.record_of(call), call)

    def _decide(self, record: Step | None, call: Call) -> Decision:
        if record is not None and record.status is StepStatus.FAILED and call.called_seq:
            call = call._replace(run_continued=self.history.continued_after(record))
        return decide(record, call)

    async def begin_step(
        self, call: Call, mode: CallMode, arguments: Mapping[str, Any] | None = None
    ) -> StepHandle:
        """Decide about a call. If it runs, and is a cell or marked ``once``, commit that it has started.

        Args:
            call: The call.
            mode: How the caller waits.
            arguments: The arguments by name, to show which differ.

        Raises:
            StepChanged: The arguments or the code changed, and the policy is to refuse or to ask.
            StepInDoubt: A step marked ``once`` was started but never finished.
        """
        check_process()
        if PENDING:
            # An interrupted call of this step may be about to be recorded.
            await wait_for_pending(mode)
        if not self.journal.whole_runs and call.step_id not in self.history:
            await self._reload(call.step_id, mode)
        record = self.history.record_of(call)
        decision = self._decide(record, call)
        if decision.action is Action.ASK:  # another process may have recorded the answer
            await self._reload(call.step_id, mode)
            record = self.history.record_of(call)
            decision = self._decide(record, call)
        if decision.action is Action.REPLAY and record is not None:
            self.replays.append(call.step_id)
            if record.step_id != call.step_id:
                record = await self._move_renamed(record, call, mode)
            return StepHandle(call, decision, record)
        if decision.action is not Action.RUN:
            raise refusal(decision, record, call, self.run_id, arguments)
        step = self._new_record(call, record, arguments)
        if call.once or call.kind is StepKind.CELL:
            await mode.store(self._commit(step))
            hit("step.started")
        return StepHandle(call, decision, step)

    async def note_started(self, handle: StepHandle, mode: CallMode) -> None:
        """Commit that a step has started, so that other processes can look it up."""
        await mode.store(self._commit(handle.step))

    async def _move_renamed(self, record: Step, call: Call, mode: CallMode) -> Step:
        """Commit a renamed step, and those inside it, under the new name; return its record."""
        old = record.step_id
        for step in (*self.history.inside(old), record):
            name = call.step_id + step.step_id.removeprefix(old)
            await mode.store(self._rename(step, name))
        return self.history[call.step_id]

    async def _rename(self, step: Step, name: str) -> None:
        names = (self.run_id, step.step_id), (self.run_id, name)
        payload = step.payload and moved(self.journal, step.payload, *names)
        await self._put(step._replace(step_id=name, epoch=self.run.epoch, payload=payload))

    async def _reload(self, step_id: str, mode: CallMode) -> None:
        step = await mode.store(self.journal.get_step(self.run_id, step_id))
        if step is not None:
            self.history[step_id] = step

    async def complete_step(
        self,
        handle: StepHandle,
        payload: Payload,
        mode: CallMode,
        *,
        delivered_by: str | None = None,
        used: str | None = None,
    ) -> Step:
        """Commit the checkpoint of a step whose body has succeeded; when this returns, it is on disk."""
        handle.step = handle.step._replace(delivered_by=delivered_by, usage=used)
        return await self._record(handle, StepStatus.DONE, payload, mode)

    async def fail_step(self, handle: StepHandle, failure: Exception, mode: CallMode) -> Step:
        """Commit that a step has failed for good."""
        return await self._record(handle, StepStatus.FAILED, codec.encode_failure(failure), mode)

    async def load(self, step: Step, mode: CallMode) -> Payload:
        """Return the payload of a recorded step, ready to be decoded.

        Raises:
            UntrustedCheckpoint: The payload would run code, and no known key has signed it.
        """
        payload = step.payload or codec.encode(None)
        if is_at_hand(payload):
            return payload
        return await mode.store(fetch(self.journal, payload, self.run_id, step.step_id))

    async def reset(self, step_ids: list[str], mode: CallMode) -> None:
        """Have steps run again at their next call; until then their results stay."""
        await wait_for_pending(mode)
        await mode.store(self.journal.reset_steps(self.run, step_ids))
        for step_id in step_ids:
            self.history[step_id] = self.history[step_id]._replace(status=StepStatus.RESET)

    async def mark(self, status: RunStatus, mode: CallMode, result: Payload | None = None) -> None:
        """Commit the status of the run, and its result or failure."""
        await mode.commit(self.write_status(status, result))

    async def write_status(self, status: RunStatus, result: Payload | None = None) -> None:
        """Write the status of the run, and its result or failure, to the store. Runs on the loop thread."""
        run = self.run._replace(status=status, updated_at=time.time())
        stored = await keep(self.journal, result, self.run_id, "") if result else None
        self.run = run._replace(result=stored)
        await self.journal.finish_run(self.run)
        hit("run.marked")

    async def _record(self, handle: StepHandle, status: StepStatus, payload: Payload, mode: CallMode) -> Step:
        step = handle.step._replace(
            status=status,
            payload=payload,
            recorded_seq=self.tick(),
            finished_at=time.time(),
        )
        step = await mode.commit(self._commit(step))
        hit("step.recorded")
        return step

    async def _commit(self, step: Step) -> Step:
        # History changes here, after the commit and on the loop thread: a cancelled caller changes neither.
        with error_context(run_id=self.run_id, step=step.step_id):
            if step.payload is not None:
                hit("blob.before")
                payload = await keep(self.journal, step.payload, self.run_id, step.step_id)
                step = step._replace(payload=payload)
                hit("blob.after")
            return await self._put(step)

    async def _put(self, step: Step) -> Step:
        hit("commit.before")
        await self.journal.put_step(step)
        hit("commit.after")
        self.history[step.step_id] = step
        return step

    def _new_record(self, call: Call, record: Step | None, arguments: Mapping[str, Any] | None) -> Step:
        return Step(
            self.run_id,
            call.step_id,
            call.kind,
            StepStatus.STARTED,
            attempt=record.attempt + 1 if record else 1,
            epoch=self.run.epoch,
            called_seq=call.called_seq or self.tick(),
            code=call.code,
            arguments=call.arguments,
            arguments_repr=fingerprint.show(arguments),
            lineage=record.lineage if record else None,
            once=call.once,
            started_at=time.time(),
        )
