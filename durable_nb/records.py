"""What a store keeps, as frozen records: runs, steps, signals, and the words for where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Payload", "Run", "RunSnapshot", "RunStatus", "Signal", "Step", "StepKind", "StepStatus"]


class RunStatus(StrEnum):
    """Where a run stands. ``interrupted`` means that no living owner is left."""

    RUNNING = "running"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """Where a step stands. ``reset`` means that the user asked for it to run again."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    RESET = "reset"


class StepKind(StrEnum):
    """What sort of call a step records."""

    TASK = "task"
    CELL = "cell"
    SIGNAL = "signal"
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Payload:
    """A value as bytes.

    Attributes:
        format: Which codec wrote it, such as ``json`` or ``pickle``.
        data: The bytes; empty when ``blob`` is set.
        blob: The content address of the bytes where they are too large for a row.
        signature: An HMAC over format and bytes, for formats that execute code when loaded.
    """

    format: str
    data: bytes
    blob: str | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow or a notebook.

    Attributes:
        run_id: What names it; unique in a database.
        workflow: Which workflow it executes: the workflow's name, for a function ``workflow.function``.
        status: Where it stands.
        epoch: The fencing token; each opening of the run takes the next one.
        passes: How often its code was entered.
        code: Fingerprint of the workflow function, if it has one.
        arguments: Fingerprint of the workflow's arguments, if it has any.
        shown: Bounded reprs of those arguments, by name, as JSON.
        python: The Python version of the last pass, such as ``3.11``.
        parent: The run that started this one, if any.
        owner: Who opened it last, for people to read.
        result: What it returned, or how it failed.
        created_at: Seconds since the epoch, UTC.
        updated_at: Seconds since the epoch, UTC.
    """

    run_id: str
    workflow: str
    status: RunStatus = RunStatus.RUNNING
    epoch: int = 0
    passes: int = 0
    code: str | None = None
    arguments: str | None = None
    shown: str | None = None
    python: str | None = None
    parent: str | None = None
    owner: str | None = None
    result: Payload | None = None
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run, as it was last recorded.

    Attributes:
        run_id: The run it belongs to.
        step_id: What names it in the run, such as ``load/fetch#1``.
        kind: What sort of call it records.
        status: Where it stands.
        attempt: Which execution of the body this is, from 1.
        epoch: The fencing epoch it was written under.
        began: When it began, on the run's own counter.
        recorded: When it was recorded, on the run's own counter.
        code: Fingerprint of the function or cell.
        arguments: Fingerprint of the arguments; None where they have none.
        shown: Bounded reprs of the arguments, by name, as JSON.
        reads: What a cell read: names and where they came from, as JSON.
        once: Whether the body must never be started twice unasked.
        payload: The result of a step that is done, the failure of one that failed.
        started_at: Seconds since the epoch, UTC.
        finished_at: Seconds since the epoch, UTC; None while it is open.
        delivered_by: Who delivered a signal's value, or resolved a step by hand.
    """

    run_id: str
    step_id: str
    kind: StepKind
    status: StepStatus
    attempt: int = 1
    epoch: int = 0
    began: int = 0
    recorded: int = 0
    code: str | None = None
    arguments: str | None = None
    shown: str | None = None
    reads: str | None = None
    once: bool = False
    payload: Payload | None = None
    started_at: float = 0.0
    finished_at: float | None = None
    delivered_by: str | None = None

    @property
    def seconds(self) -> float:
        """How long the recorded execution took, in seconds."""
        return max(0.0, self.finished_at - self.started_at) if self.finished_at else 0.0


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run and all its steps, read at one moment, in the order in which they were recorded."""

    run: Run
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Signal:
    """A value delivered from outside; the first valid delivery of a name wins.

    Attributes:
        run_id: The run it is for, which need not exist yet.
        name: The signal's name.
        payload: The value.
        delivered_by: Who delivered it, for people to read.
        delivered_at: Seconds since the epoch, UTC.
    """

    run_id: str
    name: str
    payload: Payload
    delivered_by: str = ""
    delivered_at: float = 0.0
