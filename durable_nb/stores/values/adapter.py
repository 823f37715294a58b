"""A user's value-level store as a journal: everything exact, without what such a store cannot give."""

from __future__ import annotations

import asyncio
import base64
import warnings
import weakref
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from durable_nb import codec
from durable_nb.errors import DurableError, DurableNotice, StoreError
from durable_nb.records import (
    Payload,
    Progress,
    Run,
    RunSnapshot,
    RunStatus,
    Signal,
    SignalRequest,
    Step,
    StepKind,
    StepStatus,
    signal_step,
)
from durable_nb.stores.base import Journal, reopened
from durable_nb.stores.payloads import keep
from durable_nb.stores.values.base import Store

__all__ = ["StoreJournal"]

T = TypeVar("T")

_warned: weakref.WeakSet[type] = weakref.WeakSet()
_MARK = "durable_nb"
_RUN = "durable_nb:run"
_STEP = "durable_nb:step:{}"
_REQUEST = "durable_nb:request:{}"
_LACKING = (
    "no list of runs, nor of what they wait for, no setting aside of a run (fresh=True) or of an invalid "
    "signal, no protection against two owners of one run, and a run's steps are read one by one when it is "
    "opened"
)


class StoreJournal(Journal):
    """Speaks the engine's contract to a ``Store`` subclass of the user's.

    Each record is kept as one dict of plain JSON data, the value's bytes inside it as text. Such a store
    cannot list what it has, so that a run's steps are numbered in it: ``durable_nb:step:0`` holds an id.

    Args:
        store: The user's store.
    """

    whole_runs = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ready = False
        self._lock = asyncio.Lock()
        self._numbered: dict[str, dict[str, None]] = {}

    @property
    def location(self) -> str:
        """Which class of store it is."""
        return type(self._store).__name__

    @property
    def blobs(self) -> None:
        """Nowhere: a large value goes into the store like any other."""
        return

    async def setup(self) -> None:
        """Set the user's store up, once, and say what it cannot give."""
        async with self._lock:
            if not self._ready:
                await self._asked(self._store.setup())
            self._ready = True
            if type(self._store) not in _warned:
                _warned.add(type(self._store))
                message = f"{self.location} has only the value-level calls: {_LACKING}"
                warnings.warn(message, DurableNotice, stacklevel=2)

    async def close(self) -> None:
        """Close the user's store if it can be closed."""
        self._ready = False
        close = getattr(self._store, "close", None)
        if close is not None:
            outcome = close()
            if hasattr(outcome, "__await__"):
                await self._asked(outcome)

    async def open_run(
        self,
        opening: Run,
        *,
        take_over: bool = False,  # noqa: ARG002 - such a store has no owners
    ) -> RunSnapshot:
        """Create the run, or take it over for another pass."""
        known = await self.get_run(opening.run_id)
        run = opening._replace(epoch=1, passes=1) if known is None else reopened(known, opening)
        await self._put_run(run)
        return RunSnapshot(run, await self._steps(run.run_id))

    async def get_run(self, run_id: str) -> Run | None:
        """The run alone, or None."""
        found, record = await self._asked(self._store.get_step(run_id, _RUN))
        return _run_from(record) if found else None

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """The run and its steps, or None."""
        run = await self.get_run(run_id)
        return RunSnapshot(run, await self._steps(run_id)) if run else None

    async def list_runs(self) -> Sequence[Run]:
        """Refused: such a store cannot list."""
        raise self._cannot("list its runs")

    async def progress(self) -> Mapping[str, Progress]:
        """Refused: such a store cannot list."""
        raise self._cannot("list its runs")

    async def rename_run(self, run_id: str, new_id: str) -> None:  # noqa: ARG002 - the contract's signature
        """Refused: such a store cannot rename."""
        raise self._cannot("set a run aside").at(run_id=run_id)

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """One step, or None; a value that somebody else has put there counts as its result."""
        found, record = await self._asked(self._store.get_step(run_id, step_id))
        if not found:
            return None
        if not (isinstance(record, dict) and _MARK in record):
            payload = await keep(self, codec.encode(record), run_id, step_id)
            return Step(run_id, step_id, StepKind.TASK, StepStatus.DONE, payload=payload)
        fields = _fields(record)
        fields.update(kind=StepKind(fields["kind"]), status=StepStatus(fields["status"]))
        return Step(**fields)

    async def put_step(self, step: Step) -> None:
        """Record a step, over what was recorded under its id."""
        await self._number(step.run_id, step.step_id)
        await self._asked(self._store.set_step(step.run_id, step.step_id, _record(step), step.attempt))

    async def finish_run(self, run: Run) -> None:
        """Record where a run stands, and mark it where the store has a mark for that."""
        await self._put_run(run)
        self._numbered.pop(run.run_id, None)  # read again where it goes on
        if run.status is RunStatus.DONE:
            await self._asked(self._store.mark_run_done(run.run_id))
        if run.status is RunStatus.FAILED and run.result is not None:
            error = str(codec.decode_failure(run.result))
            await self._asked(self._store.mark_run_failed(run.run_id, error))

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps ``reset``."""
        steps = [step for step_id in step_ids if (step := await self.get_step(run.run_id, step_id))]
        for step in steps:
            await self.put_step(step._replace(status=StepStatus.RESET))
        return len(steps)

    async def put_signal(self, signal: Signal) -> bool:
        """Deliver a signal; True if it was the first of its name."""
        return bool(await self._asked(self._store.set_signal(signal.run_id, signal.name, _record(signal))))

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """What was delivered under that name, or None; a plain value may come from elsewhere."""
        found, record = await self._asked(self._store.get_signal(run_id, name))
        if not found:
            return None
        if not (isinstance(record, dict) and _MARK in record):
            payload = await keep(self, codec.encode(record), run_id, signal_step(name))
            return Signal(run_id, name, payload)
        return Signal(**_fields(record))

    async def set_aside_signal(self, signal: Signal, name: str) -> None:  # noqa: ARG002
        """Refused: in such a store the first delivery stays."""
        raise self._cannot("set a signal aside, and an invalid one stays").at(run_id=signal.run_id)

    async def request_signal(self, request: SignalRequest) -> SignalRequest:
        """Record what a run waits for, beside its steps."""
        known = await self.get_request(request.run_id, request.name)
        request = request._replace(asked_at=known.asked_at) if known else request
        await self._put_request(request.run_id, request.name, _record(request))
        return request

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Forget a request."""
        await self._put_request(run_id, name, None)

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """What a run waits for under that name, or None."""
        _, record = await self._asked(self._store.get_step(run_id, _REQUEST.format(name)))
        return SignalRequest(**_fields(record)) if record else None

    async def open_signals(self) -> Sequence[SignalRequest]:
        """Refused: such a store cannot list."""
        raise self._cannot("list what its runs wait for")

    async def _put_request(self, run_id: str, name: str, record: Any) -> None:
        await self._asked(self._store.set_step(run_id, _REQUEST.format(name), record))

    async def _put_run(self, run: Run) -> None:
        await self._asked(self._store.set_step(run.run_id, _RUN, _record(run)))

    async def _steps(self, run_id: str) -> tuple[Step, ...]:
        """All steps of a run, in the order in which they were recorded."""
        async with self._lock:
            self._numbered.pop(run_id, None)
            known = list(await self._known(run_id))
        steps = [step for step_id in known if (step := await self.get_step(run_id, step_id))]
        return tuple(sorted(steps, key=lambda step: step.recorded_seq))

    async def _known(self, run_id: str) -> dict[str, None]:
        """The ids of a run's steps, as they are numbered."""
        known = self._numbered.get(run_id)
        if known is None:
            known, found = {}, True
            while found:
                found, step_id = await self._asked(self._store.get_step(run_id, _STEP.format(len(known))))
                known.update({step_id: None} if found else {})
            self._numbered[run_id] = known
        return known

    async def _number(self, run_id: str, step_id: str) -> None:
        """Note the id of a step before its record, one after the other: no crash leaves a gap."""
        async with self._lock:
            known = await self._known(run_id)
            if step_id not in known:
                await self._asked(self._store.set_step(run_id, _STEP.format(len(known)), step_id))
                known[step_id] = None

    async def _asked(self, call: Awaitable[T]) -> T:
        """What the user's store answers; whatever goes wrong there is no failure of the body's."""
        try:
            return await call
        except Exception as error:
            said = " ".join(str(error).split())
            raise StoreError(
                f"{self.location} raised {type(error).__name__}: {said}",
                remedy="It is a store of your own: what was acknowledged before is kept as it kept it.",
            ) from error

    def _cannot(self, what: str) -> DurableError:
        return StoreError(
            f"{self.location} cannot {what}: it has only the value-level calls",
            remedy="Use a SQLite file, or write a Journal: durable_nb.stores.base.",
        )


def _record(record: Run | Step | Signal | SignalRequest) -> dict[str, Any]:
    """A record as plain JSON data."""
    plain = record._asdict()
    for name in ("payload", "result"):
        if plain.get(name) is not None:
            plain[name] = _plain_payload(plain[name])
    return {_MARK: 1, **plain}


def _plain_payload(payload: Payload) -> dict[str, Any]:
    try:
        text = {"data": payload.data.decode()}
    except UnicodeDecodeError:
        text = {"base64": base64.b64encode(payload.data).decode()}
    if payload.signature is not None:
        text["signature"] = payload.signature.hex()
    return {"format": payload.format, **text}


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    """What a record's class is made of; what a newer version added is left out."""
    fields = {name: value for name, value in record.items() if name != _MARK}
    for name in ("payload", "result"):
        if fields.get(name) is not None:
            plain = fields[name]
            data = base64.b64decode(plain["base64"]) if "base64" in plain else plain["data"].encode()
            signature = bytes.fromhex(plain["signature"]) if "signature" in plain else None
            fields[name] = Payload(plain["format"], data, signature=signature)
    return fields


def _run_from(record: Any) -> Run:
    fields = _fields(record)
    return Run(**{**fields, "status": RunStatus(fields["status"])})
