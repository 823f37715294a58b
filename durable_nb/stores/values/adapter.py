"""An adapter that makes a journal of a user's value-level store."""

from __future__ import annotations

import asyncio
import base64
import warnings
import weakref
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from durable_nb import codec
from durable_nb.concurrency.forking import UNOPENED, check_process, forks
from durable_nb.errors import DurableError, DurableNotice, StoreError
from durable_nb.records import (
    Message,
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
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.payloads import keep
from durable_nb.stores.rows import (
    REQUEST_COLUMNS,
    RUN_COLUMNS,
    SIGNAL_COLUMNS,
    STATUS,
    STEP_COLUMNS,
    Row,
    StepRows,
    payload_row,
    recorded_at,
    step_row,
)
from durable_nb.stores.values.base import Store

__all__ = ["StoreJournal"]

T = TypeVar("T")

_warned: weakref.WeakSet[type] = weakref.WeakSet()
_MARK = "durable_nb"
_RUN = "durable_nb:run"
_STEP = "durable_nb:step:{}"
_REQUEST = "durable_nb:request:{}"
_NO_FORMAT = -1  # of a payload that is damaged: a row with it cannot be read
_PAYLOADS = ("payload", "result", "given")
_PAYLOAD_COLUMNS = [
    f"{name}_{part}" for name in _PAYLOADS for part in ("format", "data", "blob", "signature")
]
_LIMITATIONS = (
    "runs and open signals cannot be listed, fresh=True, messages and replacing an invalid signal are "
    "refused, two "
    "processes may own one run, and the steps of a run are read one by one when it is opened"
)


class StoreJournal(Journal):
    """Implements ``Journal`` on a ``Store`` subclass of the user.

    Each record is kept as one dict of plain JSON data, with the value's bytes as text. A ``Store`` cannot
    list its contents, so the steps of a run are numbered: ``durable_nb:step:0`` holds the first step's id.

    Args:
        store: The user's store.
    """

    whole_runs = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ready = False
        self._forks = UNOPENED
        self._lock = asyncio.Lock()
        self._numbered: dict[str, dict[str, None]] = {}
        self._rows = CheckedRows("")

    @property
    def location(self) -> str:
        """The name of the store's class."""
        return type(self._store).__name__

    @property
    def blobs(self) -> None:
        """None: the store holds large values like all others."""
        return

    async def setup(self) -> None:
        """Set the user's store up once, and warn of its limitations."""
        check_process(self._forks)
        async with self._lock:
            if not self._ready:
                await self._call(self._store.setup())
            self._ready, self._forks = True, forks()
            if type(self._store) not in _warned:
                _warned.add(type(self._store))
                message = f"{self.location} implements Store, not Journal: {_LIMITATIONS}"
                warnings.warn(message, DurableNotice, stacklevel=2)

    async def close(self) -> None:
        """Close the user's store if it can be closed."""
        self._ready = False
        close = getattr(self._store, "close", None)
        if close is not None:
            outcome = close()
            if hasattr(outcome, "__await__"):
                await self._call(outcome)

    async def open_run(
        self,
        opening: Run,
        *,
        take_over: bool = False,  # noqa: ARG002 - a Store records no owners
    ) -> RunSnapshot:
        """Create the run, or open it again; see ``Journal.open_run``."""
        recorded = await self.get_run(opening.run_id)
        run = opening._replace(epoch=1, passes=1) if recorded is None else reopened(recorded, opening)
        await self._put_run(run)
        return RunSnapshot(run, await self._steps(run.run_id))

    async def get_run(self, run_id: str) -> Run | None:
        """Return the run without its steps, or None."""
        found, record = await self._call(self._store.get_step(run_id, _RUN))
        return self._rows.run(_row(record, RUN_COLUMNS, run_id=run_id)) if found else None

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """Return the run and its steps, or None."""
        run = await self.get_run(run_id)
        return RunSnapshot(run, await self._steps(run_id)) if run else None

    async def list_runs(self) -> Sequence[Run]:
        """Raise ``StoreError``: a ``Store`` cannot list."""
        raise self._unsupported("list its runs")

    async def progress(self) -> Mapping[str, Progress]:
        """Raise ``StoreError``: a ``Store`` cannot list."""
        raise self._unsupported("list its runs")

    async def rename_run(self, run_id: str, new_id: str) -> None:  # noqa: ARG002 - the contract's signature
        """Raise ``StoreError``: a ``Store`` cannot rename."""
        raise self._unsupported("set a run aside").at(run_id=run_id)

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """Return a step, or None; a plain value in the store counts as the step's result."""
        row = await self._step_row(run_id, step_id)
        return None if row is None else self._rows.steps([row])[0]

    async def put_step(self, step: Step) -> None:
        """Record a step in place of its previous record."""
        await self._number(step.run_id, step.step_id)
        await self._call(self._store.set_step(step.run_id, step.step_id, _record(step), step.attempt))

    async def finish_run(self, run: Run) -> None:
        """Record a run's status, and call ``mark_run_done`` or ``mark_run_failed``."""
        await self._put_run(run)
        self._numbered.pop(run.run_id, None)  # read again if the run continues
        if run.status is RunStatus.DONE:
            await self._call(self._store.mark_run_done(run.run_id))
        if run.status is RunStatus.FAILED and run.result is not None:
            error = str(codec.decode_failure(run.result))
            await self._call(self._store.mark_run_failed(run.run_id, error))

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps as ``reset``, and return how many of them exist."""
        found = [row for step_id in step_ids if (row := await self._step_row(run.run_id, step_id))]
        for row in found:
            (step,) = self._rows.steps([(*row[:STATUS], str(StepStatus.RESET), *row[STATUS + 1 :])])
            await self.put_step(step)
        return len(found)

    async def put_signal(self, signal: Signal, *, ttl: float | None = None) -> bool:
        """Deliver a signal; return True if it is the first of its name. A lifetime raises ``StoreError``."""
        if ttl is not None:
            raise self._unsupported("delete a signal after a time").at(run_id=signal.run_id)
        return bool(await self._call(self._store.set_signal(signal.run_id, signal.name, _record(signal))))

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """Return the signal delivered under a name, or None; a plain value in the store counts as one."""
        found, record = await self._call(self._store.get_signal(run_id, name))
        if not found:
            return None
        if not (isinstance(record, dict) and _MARK in record):
            payload = await keep(self, codec.encode(record), run_id, signal_step(name))
            return Signal(run_id, name, payload)
        return self._rows.signal(_row(record, SIGNAL_COLUMNS, run_id=run_id, name=name))

    async def set_aside_signal(self, signal: Signal, name: str) -> None:  # noqa: ARG002
        """Raise ``StoreError``: a ``Store`` cannot replace a signal."""
        raise self._unsupported("replace an invalid signal").at(run_id=signal.run_id)

    async def put_message(self, message: Message, *, ttl: float | None = None) -> None:  # noqa: ARG002
        """Raise ``StoreError``: a ``Store`` cannot keep a queue."""
        raise self._unsupported("keep messages").at(run_id=message.run_id)

    async def unread(self, run_id: str, topic: str, limit: int) -> Sequence[Message]:  # noqa: ARG002
        """Raise ``StoreError``: a ``Store`` cannot keep a queue."""
        raise self._unsupported("keep messages").at(run_id=run_id)

    async def receive(self, message: Message, step: Step) -> None:  # noqa: ARG002
        """Raise ``StoreError``: a ``Store`` cannot keep a queue."""
        raise self._unsupported("keep messages").at(run_id=message.run_id)

    async def request_signal(self, request: SignalRequest, step: Step | None = None) -> SignalRequest:
        """Record the step that waits for a signal, then the request, beside the run's steps."""
        if step is not None:
            await self.put_step(step)
        recorded = await self.get_request(request.run_id, request.name)
        request = request._replace(asked_at=recorded.asked_at) if recorded else request
        await self._put_request(request.run_id, request.name, _record(request))
        return request

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Delete a request."""
        await self._put_request(run_id, name, None)

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """Return a run's request for a signal of that name, or None."""
        _, record = await self._call(self._store.get_step(run_id, _REQUEST.format(name)))
        return self._rows.request(_row(record, REQUEST_COLUMNS, run_id=run_id, name=name)) if record else None

    async def open_signals(self) -> Sequence[SignalRequest]:
        """Raise ``StoreError``: a ``Store`` cannot list."""
        raise self._unsupported("list the signals that its runs wait for")

    async def _put_request(self, run_id: str, name: str, record: Any) -> None:
        await self._call(self._store.set_step(run_id, _REQUEST.format(name), record))

    async def _put_run(self, run: Run) -> None:
        await self._call(self._store.set_step(run.run_id, _RUN, _record(run)))

    async def _step_row(self, run_id: str, step_id: str) -> Row | None:
        found, record = await self._call(self._store.get_step(run_id, step_id))
        if not found:
            return None
        if isinstance(record, dict) and _MARK in record:
            return _row(record, STEP_COLUMNS, run_id=run_id, step_id=step_id)
        payload = await keep(self, codec.encode(record), run_id, step_id)
        return step_row(Step(run_id, step_id, StepKind.TASK, StepStatus.DONE, payload=payload))

    async def _steps(self, run_id: str) -> StepRows:
        """Return all steps of a run, in the order in which they were recorded."""
        async with self._lock:
            self._numbered.pop(run_id, None)
            step_ids = list(await self._step_ids(run_id))
        rows = [row for step_id in step_ids if (row := await self._step_row(run_id, step_id))]
        return self._rows.steps(sorted(rows, key=recorded_at))

    async def _step_ids(self, run_id: str) -> dict[str, None]:
        """Return the ids of a run's steps, in the order of their numbers."""
        step_ids = self._numbered.get(run_id)
        if step_ids is None:
            step_ids, found = {}, True
            while found:
                found, step_id = await self._call(self._store.get_step(run_id, _STEP.format(len(step_ids))))
                step_ids.update({step_id: None} if found else {})
            self._numbered[run_id] = step_ids
        return step_ids

    async def _number(self, run_id: str, step_id: str) -> None:
        """Write the number of a step before its record, one at a time, so that a crash leaves no gap."""
        async with self._lock:
            step_ids = await self._step_ids(run_id)
            if step_id not in step_ids:
                await self._call(self._store.set_step(run_id, _STEP.format(len(step_ids)), step_id))
                step_ids[step_id] = None

    async def _call(self, call: Awaitable[T]) -> T:
        """Await a call of the user's store, and raise its failures as ``StoreError``."""
        try:
            return await call
        except Exception as error:
            detail = " ".join(str(error).split())
            raise StoreError(
                f"{self.location} raised {type(error).__name__}: {detail}",
                remedy="This error comes from your Store subclass; steps it recorded before are unaffected.",
            ) from error

    def _unsupported(self, action: str) -> DurableError:
        return StoreError(
            f"{self.location} cannot {action}: it implements Store, not Journal",
            remedy="Use a SQLite file, or subclass durable_nb.stores.Journal.",
        )


def _record(record: Run | Step | Signal | SignalRequest) -> dict[str, Any]:
    """Return a record as plain JSON data."""
    plain = record._asdict()
    for name in _PAYLOADS:
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


def _row(record: Any, columns: Sequence[str], **keys: str) -> Row:
    """Return a record as a row, without a checksum; what is missing is None there."""
    plain = {**record, **keys} if isinstance(record, dict) else keys
    parts = [part for name in _PAYLOADS for part in _payload_row(plain.get(name))]
    values = {"crashes": 0, **plain, **dict(zip(_PAYLOAD_COLUMNS, parts, strict=True))}
    return tuple(values.get(name) for name in columns)


def _payload_row(plain: Any) -> Row:
    if plain is None:
        return payload_row(None)
    try:
        data = base64.b64decode(plain["base64"]) if "base64" in plain else plain["data"].encode()
        signature = bytes.fromhex(plain["signature"]) if "signature" in plain else None
        return plain["format"], data, None, signature
    except (TypeError, KeyError, ValueError, AttributeError):
        return _NO_FORMAT, None, None, None
