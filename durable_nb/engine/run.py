"""A run that this process owns: its record, in its store and in memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

from durable_nb import settings
from durable_nb.engine.crashes import crash_loop
from durable_nb.engine.decision import decide
from durable_nb.engine.failpoints import hit
from durable_nb.engine.files import changes
from durable_nb.engine.history import History
from durable_nb.records import Decision, Run, RunStatus, Step, StepStatus
from durable_nb.stores.payloads import keep, moved
from durable_nb.stores.rows import StepRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from durable_nb.records import Call, Message, Payload, SignalRequest
    from durable_nb.stores.base import Journal

__all__ = ["RunHandle"]


class RunHandle:
    """A run that this process owns: its history in memory, and the only way to add steps to it.

    Its coroutines run on the loop thread. ``Caller`` is the side of the threads that call.

    Args:
        journal: The journal of the run.
        run: The run, under the epoch that this pass has taken.
        steps: Its recorded steps.

    Attributes:
        tick: Returns the next sequence number of the run.
        messages: The numbers of the messages that its calls have taken in this pass, by topic.
        stopped: True if a body was not executed, since its process died too often.
    """

    def __init__(self, journal: Journal, run: Run, steps: Iterable[Step]) -> None:
        self.journal = journal
        self.run = run
        self.run_id = run.run_id
        self.history = History(steps)
        self.tick = itertools.count(self.history.last_seq + 1).__next__
        self.messages: dict[str, set[int]] = {}
        self.stopped = False
        self._body_noted = False

    def decide(self, call: Call) -> tuple[Step | None, Call, Decision]:
        """Return the record of a call, the call with the files that have changed since, and the decision.

        Nothing is run or written.
        """
        record = self.history.record_of(call)
        if record is not None and record.lineage and record.status is StepStatus.DONE:
            call = call._replace(files=tuple(changes(record, lambda: self.history.writers)))
        if record is not None and call.called_seq and self._was_caught(record):
            record = record._replace(status=StepStatus.CAUGHT)
        return record, call, decide(record, call)

    def _was_caught(self, record: Step) -> bool:
        # Before there was a status for it, the steps that came after a failure said that it was caught.
        # In this pass `Caller.settle` says so.
        earlier = record.status is StepStatus.FAILED and record.epoch < self.run.epoch
        return earlier and self.history.continued_after(record, same_pass=True)

    async def earlier_result(self, step_id: str) -> Step | None:
        """Return the last attempt of a step whose result was, or will be, replaced; None if there is none.

        A failure is no result, and a damaged record is left out.
        """
        versions = StepRows.of(await self.journal.versions(self.run_id, step_id))
        kept = list(versions.intact())
        record = self.history.get(step_id)
        if record is not None and record.status is StepStatus.RESET:
            kept.append(record)
        results = [step for step in kept if step.payload and step.payload.format != "failure"]
        return results[-1] if results else None

    async def commit(self, step: Step, message: Message | None = None) -> Step:
        """Commit a step, with its payload, and the message it has received; return it as it is recorded."""
        if step.payload is not None:
            hit("blob.before")
            step = step._replace(payload=await keep(self.journal, step.payload, self.run_id, step.step_id))
            hit("blob.after")
        return await self._put(step, message)

    async def commit_again(self, step: Step) -> Step:
        """Commit a step whose payload is one that the store keeps already."""
        return await self._put(step)

    async def _put(self, step: Step, message: Message | None = None) -> Step:
        hit("commit.before")
        put = self.journal.put_step(step) if message is None else self.journal.receive(message, step)
        await put
        hit("commit.after")
        # History changes here, after the commit and on the loop thread: a cancelled caller changes neither.
        self.history[step.step_id] = step
        return step

    async def settle(self, ended: Sequence[Step]) -> None:
        """Commit that the run continued after these steps, which failed or were cancelled."""
        await asyncio.gather(*(self._put(self._settled(step)) for step in ended))

    def _settled(self, step: Step) -> Step:
        if step.status is StepStatus.FAILED:
            return step._replace(status=StepStatus.CAUGHT)
        # It may have been recorded as done while its caller cancelled it: its result stays on record.
        recorded = self.history.get(step.step_id)
        done = recorded is not None and recorded.attempt == step.attempt
        return step._replace(payload=recorded.payload) if recorded and done else step

    async def commit_request(self, request: SignalRequest, step: Step | None) -> SignalRequest:
        """Commit a request for a signal and the step that waits for it; return the request as recorded."""
        hit("commit.before")
        recorded = await self.journal.request_signal(request, step)
        hit("commit.after")
        if step is not None:
            self.history[step.step_id] = step
        return recorded

    async def move_renamed(self, record: Step, new_id: str) -> Step:
        """Commit a renamed step, and those inside it, under the new id; return its record."""
        for step in (*self.history.inside(record.step_id), record):
            name = new_id + step.step_id.removeprefix(record.step_id)
            names = (self.run_id, step.step_id), (self.run_id, name)
            payload = step.payload and moved(self.journal, step.payload, *names)
            renamed = step._replace(step_id=name, epoch=self.run.epoch, payload=payload)
            await self.journal.put_step(renamed)
            self.history[name] = renamed
        return self.history[new_id]

    async def reload(self, step_id: str) -> None:
        """Read a step again: another process may have recorded it."""
        step = await self.journal.get_step(self.run_id, step_id)
        if step is not None:
            self.history[step_id] = step

    async def reset_steps(self, step_ids: list[str]) -> None:
        """Have steps run again at their next call; until then their results stay."""
        await self.journal.reset_steps(self.run, step_ids)
        if self.run.crashes:
            await self.forget_crashes()
        for step_id in step_ids:
            self.history.reset(step_id)

    @property
    def notes_body(self) -> bool:
        """True if the first body of this pass is to be noted: the process of the last pass has died."""
        return self.run.crashes > 0 and not self._body_noted

    async def note_body(self, step_id: str, *, mended: bool) -> None:
        """Commit that a body begins, in a pass after one that died.

        Args:
            step_id: The step.
            mended: Whether its code differs from that of the last attempt.

        Raises:
            CrashLoop: Too many passes in a row died so.
        """
        if not self.notes_body:  # bodies that begin at the same time count as one
            return
        if mended:
            self.run = self.run._replace(crashes=0)
        if self.run.crashes >= settings.CRASHES:
            self.stopped = True
            raise crash_loop(self.run, step_id)
        self._body_noted = True
        await self._count_crashes(self.run.crashes + 1)

    async def forget_crashes(self) -> None:
        """Commit that no pass counts as one that died; a run that was stopped can be resumed then."""
        self.stopped = False
        if self.run.status is RunStatus.FAILED:
            self.run = self.run._replace(status=RunStatus.INTERRUPTED, result=None)
        await self._count_crashes(0)

    async def _count_crashes(self, crashes: int) -> None:
        self.run = self.run._replace(crashes=crashes)
        await self.journal.finish_run(self.run)

    async def write_status(self, status: RunStatus, result: Payload | None = None) -> None:
        """Commit the status of the run, and its result or failure."""
        crashes = self.run.crashes if self.stopped else 0
        run = self.run._replace(status=status, updated_at=time.time(), crashes=crashes)
        stored = await keep(self.journal, result, self.run_id, "") if result else None
        self.run = run._replace(result=stored)
        await self.journal.finish_run(self.run)
        hit("run.marked")
