"""The records that travel between the floors: what a store keeps, what a call asks, what was decided.

Named tuples, since a replay makes tens of thousands of them: a frozen dataclass takes ten times as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, StrEnum
from typing import NamedTuple

from durable_nb.errors import DurableError

__all__ = [
    "BRANCH",
    "KEY",
    "Action",
    "Call",
    "Decision",
    "Payload",
    "Run",
    "RunSnapshot",
    "RunStatus",
    "Signal",
    "SignalRequest",
    "Step",
    "StepKind",
    "StepStatus",
    "joining_scopes",
    "original_id",
    "scope_of",
    "set_aside_id",
    "signal_step",
]

KEY = "["
"""What the arguments begin with in the name of a step that they name: ``fetch[9f1c…]``."""

BRANCH = "~"
"""What the name of a concurrent branch begins with, in a step id: ``load/~0/fetch``."""

_SET_ASIDE = re.compile(r"(~\d+)+$")


def scope_of(step_id: str) -> str:
    """The path of the scope that a step was called in: empty, or ending in a slash.

    Example:
        >>> scope_of("load/fetch#1")
        'load/'
    """
    return step_id[: step_id.rfind("/") + 1]


def original_id(run_id: str) -> str:
    """The id under which a run was executed, also after ``fresh=True`` has set it aside under another.

    Example:
        >>> original_id("etl~3")
        'etl'
    """
    return _SET_ASIDE.sub("", run_id) or run_id


def signal_step(name: str) -> str:
    """What the step is called that records a signal."""
    return f"signal:{name}"


def set_aside_id(run_id: str, epoch: int) -> str:
    """The id under which a run is set aside for one that starts over."""
    return f"{run_id}~{epoch}"


def joining_scopes(step_id: str) -> Iterator[str]:
    """The path of a step's scope, then those of the scopes that join its branch, innermost first.

    Example:
        >>> list(joining_scopes("load/~0/~1/fetch"))
        ['load/~0/~1/', 'load/~0/', 'load/']
    """
    path = scope_of(step_id)
    yield path
    while path.rstrip("/").rpartition("/")[2].startswith(BRANCH):
        path = scope_of(path[:-1])
        yield path


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


class Payload(NamedTuple):
    """A value as bytes.

    Attributes:
        format: Which codec wrote it, such as ``json`` or ``pickle``.
        data: The bytes; empty when ``blob`` is set.
        blob: The content address of the bytes where they are too large for a row.
        signature: An HMAC over run, step, format and bytes, for formats that execute code when loaded.
        parts: What belongs to ``data`` and is kept apart from it, on the way to a store or back: ``bytes``,
            which come back as such; views of memory, which come back as memory that may be written to; or
            the error in place of a part that cannot be read. Empty in a store, where ``data`` speaks of them.
    """

    format: str
    data: bytes
    blob: str | None = None
    signature: bytes | None = None
    parts: tuple[bytes | memoryview | DurableError, ...] = ()


class Run(NamedTuple):
    """One execution of a workflow or a notebook.

    Attributes:
        run_id: What names it; unique in a database.
        workflow: Which workflow it executes: the workflow's name, for a function ``workflow.function``.
        status: Where it stands.
        epoch: The fencing token; each opening of the run takes the next one.
        passes: How often its code was entered.
        code: Fingerprint of the workflow function, if it has one.
        arguments: Fingerprint of the workflow's arguments, if it has any.
        arguments_repr: Bounded reprs of those arguments, by name, as JSON.
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
    arguments_repr: str | None = None
    python: str | None = None
    parent: str | None = None
    owner: str | None = None
    result: Payload | None = None
    created_at: float = 0.0
    updated_at: float = 0.0


class Step(NamedTuple):
    """One step of a run, as it was last recorded.

    Attributes:
        run_id: The run it belongs to.
        step_id: What names it in the run, such as ``load/fetch#1``.
        kind: What sort of call it records.
        status: Where it stands.
        attempt: Which execution of the body this is, from 1.
        epoch: The fencing epoch it was written under.
        called_seq: Sequence number of the call, on the run's own counter; 0 where calls have no order.
        recorded_seq: Sequence number of the record, on the same counter.
        code: Fingerprint of the function or cell.
        arguments: Fingerprint of the arguments; None where they have none.
        arguments_repr: Bounded reprs of the arguments, by name, as JSON.
        lineage: What a cell read: names and where they came from, as JSON.
        once: Whether the body must never be started twice unasked.
        payload: The result of a step that is done, the failure of one that failed.
        started_at: Seconds since the epoch, UTC.
        finished_at: Seconds since the epoch, UTC; None while it is open.
        delivered_by: Who delivered a signal's value, or resolved a step by hand.
        usage: What its body used up besides time, such as tokens, as JSON; None where nothing was counted.
    """

    run_id: str
    step_id: str
    kind: StepKind
    status: StepStatus
    attempt: int = 1
    epoch: int = 0
    called_seq: int = 0
    recorded_seq: int = 0
    code: str | None = None
    arguments: str | None = None
    arguments_repr: str | None = None
    lineage: str | None = None
    once: bool = False
    payload: Payload | None = None
    started_at: float = 0.0
    finished_at: float | None = None
    delivered_by: str | None = None
    usage: str | None = None

    @property
    def seconds(self) -> float:
        """How long the recorded execution took, in seconds."""
        return max(0.0, self.finished_at - self.started_at) if self.finished_at else 0.0

    @property
    def is_awaited(self) -> bool:
        """Whether it records a signal that was asked for and has not come."""
        return self.kind is StepKind.SIGNAL and self.status is StepStatus.STARTED


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
        done: How many of its steps are done.
        waits_for: The steps that record signals it has asked for and not got.
    """

    done: int = 0
    waits_for: tuple[str, ...] = ()


class RunSnapshot(NamedTuple):
    """A run and all its steps, read at one moment, in the order in which they were recorded."""

    run: Run
    steps: tuple[Step, ...] = ()


class Signal(NamedTuple):
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


class SignalRequest(NamedTuple):
    """What a run waits for, for whoever can answer.

    Attributes:
        run_id: The run that waits.
        name: The signal's name.
        prompt: What to tell whoever is asked.
        schema: The JSON schema of the values that are accepted, as JSON.
        choices: The list of the values that are accepted, as JSON.
        refused: Why the last value that was delivered was set aside.
        asked_by: Who waits, for people to read.
        asked_at: Since when, in seconds since the epoch, UTC.
    """

    run_id: str
    name: str
    prompt: str | None = None
    schema: str | None = None
    choices: str | None = None
    refused: str | None = None
    asked_by: str = ""
    asked_at: float = 0.0


class Action(Enum):
    """What becomes of a call."""

    REPLAY = "replay"
    RUN = "run"
    ASK = "ask"
    REFUSE = "refuse"


class Call(NamedTuple):
    """A call of a step, as the table sees it.

    Attributes:
        step_id: What names it in its run.
        kind: What sort of call it is.
        code: Fingerprint of its function or cell; None where there is no source.
        edit: How what it reads comes from elsewhere than on record, for people; empty where it does not.
        drift: Which values that it reads differ although their code is the same, for people.
        renamed: The id of a step that is gone and has its code and reads; empty where there is none.
        arguments: Fingerprints of its arguments, ``name=fingerprint``, ``name=?`` for one that has none.
        on_edit: What to do when its own code changed: keep, rerun, ask or error.
        on_drift: What to do when what it reads has drifted: keep, rerun, ask or error.
        on_change: What to do when its arguments changed: error, rerun, keep or ask.
        once: Whether its body must never be started twice unasked.
        run_continued: Whether a later step was called after its recorded failure.
        called_seq: Sequence number of the call, on the run's own counter; 0 where calls have no order.
    """

    step_id: str
    kind: StepKind = StepKind.TASK
    code: str | None = None
    arguments: str | None = None
    edit: str = ""
    drift: str = ""
    renamed: str = ""
    on_edit: str = "keep"
    on_drift: str = "keep"
    on_change: str = "error"
    once: bool = False
    run_continued: bool = False
    called_seq: int = 0


class Decision(NamedTuple):
    """What becomes of a call, and why.

    Attributes:
        action: Replay, run, ask or refuse.
        reason: Why, for people.
        notice: Whether a person must be told although nothing is refused.
        error: What to raise where the action is to refuse, or nobody can be asked.
    """

    action: Action
    reason: str = ""
    notice: bool = False
    error: type[DurableError] | None = None
