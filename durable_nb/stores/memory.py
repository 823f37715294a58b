"""A journal in the memory of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from durable_nb.errors import StoreUnavailable
from durable_nb.records import Message, Progress, Run, RunSnapshot, Signal, SignalRequest, Step, StepStatus
from durable_nb.stores.base import Journal, reopened
from durable_nb.stores.blobs.folder import Blobs, MemoryBlobs
from durable_nb.stores.errors import id_taken, lost_run, unknown_run
from durable_nb.stores.rows import Row, StepRows, read_step, recorded_at, step_row

__all__ = ["MemoryJournal"]


class MemoryJournal(Journal):
    """Keeps runs as long as the process lives: for tests, and for trying things out.

    ``close`` keeps what is recorded, and ``setup`` opens it again: one object can stand in for a database
    that outlives several workflows.

    Example:
        >>> journal = MemoryJournal()
        >>> wf = Workflow("etl", db=journal)
    """

    def __init__(self) -> None:
        self._open = False
        self._runs: dict[str, Run] = {}
        self._steps: dict[str, dict[str, Row]] = {}
        self._versions: dict[str, dict[str, list[Step]]] = {}
        self._signals: dict[str, dict[str, Signal]] = {}
        self._requests: dict[tuple[str, str], SignalRequest] = {}
        self._messages: dict[str, dict[str, list[Message]]] = {}
        self._received: dict[str, set[tuple[str, int]]] = {}
        self._expiring: list[tuple[float, str, Callable[[], object]]] = []
        self._delivered = 0
        self._blobs = MemoryBlobs()

    @property
    def location(self) -> str:
        """The text ``memory``."""
        return "memory"

    @property
    def blobs(self) -> Blobs:
        """The place of large payloads, which is memory too."""
        return self._blobs

    async def setup(self) -> None:
        """Open the journal, for the first time or again after ``close``."""
        self._open = True

    async def close(self) -> None:
        """Raise ``StoreUnavailable`` from all other calls until the next ``setup``."""
        self._open = False

    async def open_run(
        self,
        opening: Run,
        *,
        take_over: bool = False,  # noqa: ARG002 - only one process can open it
    ) -> RunSnapshot:
        """Create the run, or open it again under the next epoch; see ``Journal.open_run``."""
        self._check_open()
        known = self._runs.get(opening.run_id)
        self._drop_expired()
        if known is None:
            epoch = max((run.epoch for run in self._runs.values()), default=0) + 1
            run = opening._replace(epoch=epoch, passes=1, result=None)
        else:
            run = reopened(known, opening)
        self._runs[run.run_id] = run
        return self._snapshot(run)

    async def get_run(self, run_id: str) -> Run | None:
        """Return the run without its steps, or None."""
        self._check_open()
        return self._runs.get(run_id)

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """Return the run and its steps, or None."""
        self._check_open()
        run = self._runs.get(run_id)
        return None if run is None else self._snapshot(run)

    async def list_runs(self) -> Sequence[Run]:
        """Return all runs, the one with the latest ``updated_at`` first."""
        self._check_open()
        return sorted(self._runs.values(), key=lambda run: (-run.updated_at, -run.created_at, run.run_id))

    async def progress(self) -> Mapping[str, Progress]:
        """Return the progress of each run."""
        self._check_open()
        return {run_id: self._progress(StepRows([*rows.values()])) for run_id, rows in self._steps.items()}

    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Rename a run with its steps, its signals, its messages and its requests."""
        self._check_open()
        if run_id not in self._runs:
            raise unknown_run(run_id)
        signals = self._signals.get(run_id, {})
        others = self._signals.get(new_id, {})
        topics = self._messages.get(run_id, {})
        taken = signals.keys() & others.keys() or topics.keys() & self._messages.get(new_id, {}).keys()
        if new_id in self._runs or taken:
            raise id_taken(run_id, new_id)
        self._runs[new_id] = self._runs.pop(run_id)._replace(run_id=new_id)
        recorded = self._steps.pop(run_id, {})
        self._steps[new_id] = {step_id: (new_id, *row[1:]) for step_id, row in recorded.items()}
        versions = self._versions.pop(run_id, {}).items()
        self._versions[new_id] = {
            step_id: [step._replace(run_id=new_id) for step in steps] for step_id, steps in versions
        }
        moved = {name: signal._replace(run_id=new_id) for name, signal in signals.items()}
        self._signals[new_id] = others | moved
        self._signals.pop(run_id, None)
        for topic, messages in self._messages.pop(run_id, {}).items():
            moved_to = [message._replace(run_id=new_id) for message in messages]
            self._messages.setdefault(new_id, {})[topic] = moved_to
        self._received[new_id] = self._received.pop(run_id, set())
        for key in [key for key in self._requests if key[0] == run_id]:
            self._requests[new_id, key[1]] = self._requests.pop(key)._replace(run_id=new_id)

    async def put_step(self, step: Step) -> None:
        """Record a step in place of its previous record; fenced by ``step.epoch``."""
        self._check_open()
        self._check_epoch(step.run_id, step.epoch, step.step_id)
        earlier = await self.get_step(step.run_id, step.step_id)
        if earlier is not None and earlier.payload is not None and earlier.attempt < step.attempt:
            self._versions.setdefault(step.run_id, {}).setdefault(step.step_id, []).append(earlier)
        self._steps.setdefault(step.run_id, {})[step.step_id] = step_row(step)

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """Return a step as it was last recorded, or None."""
        self._check_open()
        row = self._steps.get(run_id, {}).get(step_id)
        return None if row is None else read_step(row)

    async def versions(self, run_id: str, step_id: str) -> Sequence[Step]:
        """Return the earlier results of a step, the oldest first."""
        self._check_open()
        return tuple(self._versions.get(run_id, {}).get(step_id, ()))

    async def drop_versions(self, run_id: str) -> int:
        """Delete the earlier results of a run's steps, and return how many there were."""
        self._check_open()
        return sum(map(len, self._versions.pop(run_id, {}).values()))

    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""
        self._check_open()
        known = self._check_epoch(run.run_id, run.epoch)
        self._runs[run.run_id] = known._replace(
            status=run.status, result=run.result, updated_at=run.updated_at, crashes=run.crashes
        )

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps as ``reset``, and return how many of them exist; fenced by ``run.epoch``."""
        self._check_open()
        self._check_epoch(run.run_id, run.epoch)
        steps = self._steps.get(run.run_id, {})
        found = set(step_ids) & steps.keys()
        for step_id in found:
            steps[step_id] = step_row(read_step(steps[step_id])._replace(status=StepStatus.RESET))
        return len(found)

    async def put_signal(self, signal: Signal, *, ttl: float | None = None) -> bool:
        """Deliver a signal; return True if it is the first of its name. The run need not exist."""
        self._check_open()
        self._drop_expired()
        self._delivered += 1
        signals = self._signals.setdefault(signal.run_id, {})
        if ttl is not None and signal.name not in signals:
            drop = partial(signals.pop, signal.name, None)
            self._expiring.append((time.time() + ttl, signal.run_id, drop))
        return signals.setdefault(signal.name, signal) is signal

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """Return the signal delivered under a name, or None."""
        self._check_open()
        return self._signals.get(run_id, {}).get(name)

    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Rename a delivered signal, so that its name is free for another delivery."""
        self._check_open()
        signals = self._signals.get(signal.run_id, {})
        if signals.get(signal.name) == signal:
            signals[name] = signals.pop(signal.name)._replace(name=name)

    async def put_message(self, message: Message, *, ttl: float | None = None) -> None:
        """Append a message to its topic, unless one of its ``delivery`` is there."""
        self._check_open()
        self._drop_expired()
        self._delivered += 1
        messages = self._messages.setdefault(message.run_id, {}).setdefault(message.topic, [])
        if message.delivery in {known.delivery for known in messages}:
            return
        message = message._replace(number=messages[-1].number + 1 if messages else 1)
        messages.append(message)
        if ttl is not None:
            self._expiring.append((time.time() + ttl, message.run_id, partial(messages.remove, message)))

    async def unread(self, run_id: str, topic: str, limit: int) -> Sequence[Message]:
        """Return the first messages of a topic that were not received yet."""
        self._check_open()
        received = self._received.get(run_id, set())
        messages = self._messages.get(run_id, {}).get(topic, [])
        return [message for message in messages if (topic, message.number) not in received][:limit]

    async def receive(self, message: Message, step: Step) -> None:
        """Record a step, and that it has received a message."""
        await self.put_step(step)
        self._received.setdefault(message.run_id, set()).add((message.topic, message.number))

    async def version(self) -> int:
        """Return the number of deliveries so far."""
        return self._delivered

    async def request_signal(self, request: SignalRequest, step: Step | None = None) -> SignalRequest:
        """Record a request for a signal, and the step that waits for it."""
        self._check_open()
        if step is not None:
            await self.put_step(step)
        key = request.run_id, request.name
        asked_at = self._requests.get(key, request).asked_at
        self._requests[key] = request._replace(asked_at=asked_at)
        return self._requests[key]

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Delete a request."""
        self._check_open()
        self._requests.pop((run_id, name), None)

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """Return a run's request for a signal of that name, or None."""
        self._check_open()
        return self._requests.get((run_id, name))

    async def open_signals(self) -> Sequence[SignalRequest]:
        """Return the requests for signals that were not delivered yet, the oldest first."""
        self._check_open()
        waiting = [
            request
            for (run_id, name), request in self._requests.items()
            if name not in self._signals.get(run_id, {})
        ]
        return sorted(waiting, key=lambda request: (request.asked_at, request.run_id, request.name))

    def _drop_expired(self) -> None:
        """Delete what was sent to runs that did not begin in time."""
        waiting = [each for each in self._expiring if each[1] not in self._runs]
        self._expiring = [each for each in waiting if each[0] > time.time()]
        for each in waiting:
            if each not in self._expiring:
                each[2]()

    def _progress(self, steps: Sequence[Step]) -> Progress:
        done = sum(step.status is StepStatus.DONE for step in steps)
        return Progress(done, tuple(sorted(step.step_id for step in steps if step.waits)))

    def _snapshot(self, run: Run) -> RunSnapshot:
        rows = self._steps.get(run.run_id, {}).values()
        return RunSnapshot(run, StepRows(sorted(rows, key=recorded_at)))

    def _check_epoch(self, run_id: str, epoch: int, step: str | None = None) -> Run:
        present = self._runs.get(run_id)
        if present is None or present.epoch != epoch:
            raise lost_run(run_id, present, step=step)
        return present

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the journal in memory is not open", remedy="Call await setup() first.")
