"""The records that engine and stores exchange: runs, steps, signals, calls and decisions.

They are named tuples, since a replay creates tens of thousands: a frozen dataclass takes ten times as long.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum
from typing import NamedTuple

from durable_nb.errors import DurableError

__all__ = [
    "BRANCH",
    "GIVEN",
    "KEY",
    "Action",
    "Call",
    "Decision",
    "Message",
    "Payload",
    "Run",
    "RunSnapshot",
    "RunStatus",
    "Signal",
    "SignalRequest",
    "Step",
    "StepKind",
    "StepStatus",
    "called_name",
    "child_step",
    "is_keyed",
    "joining_scopes",
    "message_step",
    "original_id",
    "scope_of",
    "set_aside_id",
    "signal_step",
]

KEY = "["
"""The character before the arguments in a step id that contains them: ``fetch[9f1c…]``."""

BRANCH = "~"
"""The first character of the name of a concurrent branch in a step id: ``load/~0/fetch``."""

GIVEN = "arguments:"
"""The name under which the kept arguments of a run are signed; no step has it."""

_SET_ASIDE = re.compile(r"(~\d+)+$")


def scope_of(step_id: str) -> str:
    """Return the path of the scope that a step was called in: empty, or ending in a slash.

    Example:
        >>> scope_of("load/fetch#1")
        'load/'
    """
    return step_id[: step_id.rfind("/") + 1]


def is_keyed(step_id: str) -> bool:
    """Return whether a step is named by its arguments: its call has no place in the order of its scope.

    Example:
        >>> is_keyed("load/fetch[9f1c]"), is_keyed("load[9f1c]/fetch")
        (True, False)
    """
    return KEY in step_id.rpartition("/")[2]


def called_name(step_id: str) -> str:
    """Return the name of the task that a step called, as in its id, unless the user has named the call.

    Example:
        >>> called_name("load/~0/fetch#1")
        'fetch'
    """
    return step_id.rpartition("/")[2].partition("#")[0].partition(KEY)[0]


def original_id(run_id: str) -> str:
    """Return the id under which a run was executed, without the suffix that ``fresh=True`` adds to rename it.

    Example:
        >>> original_id("etl~3")
        'etl'
    """
    return _SET_ASIDE.sub("", run_id) or run_id


def signal_step(name: str) -> str:
    """Return the id of the step that records a signal.

    Example:
        >>> signal_step("approval")
        'signal:approval'
    """
    return f"signal:{name}"


def message_step(topic: str) -> str:
    """Return the name of the step that receives a message, under which the payloads of a topic are signed.

    Example:
        >>> message_step("orders")
        'receive:orders'
    """
    return f"receive:{topic}"


def child_step(run_id: str) -> str:
    """Return the name of the step that records how a run ended that another run called.

    Example:
        >>> child_step("order-a17")
        'run:order-a17'
    """
    return f"run:{run_id}"


def set_aside_id(run_id: str, epoch: int) -> str:
    """Return the id to which a run is renamed when a new one starts over.

    Example:
        >>> set_aside_id("etl", 3)
        'etl~3'
    """
    return f"{run_id}~{epoch}"


def joining_scopes(step_id: str) -> Iterator[str]:
    """Yield the path of a step's scope, then those of the scopes that its branch joins, innermost first.

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
    """The status of a run. ``interrupted`` means that its owner is dead.

    Stores keep ``running`` for a run that waits: ``waiting`` is derived from what it waits for. ``damaged``,
    which is never stored, means that the record cannot be read.
    """

    RUNNING = "running"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DAMAGED = "damaged"


class StepStatus(StrEnum):
    """The status of a step.

    ``caught`` means that it failed and the run continued, ``cancelled`` that its caller cancelled it and the
    run continued. ``reset`` means that its next call executes it again. ``damaged``, which is never stored,
    means that the record cannot be read.
    """

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    CAUGHT = "caught"
    CANCELLED = "cancelled"
    RESET = "reset"
    DAMAGED = "damaged"


class StepKind(StrEnum):
    """The kind of call that a step records."""

    TASK = "task"
    CELL = "cell"
    SIGNAL = "signal"
    SLEEP = "sleep"
    RUN = "run"
    VALUE = "value"
    MESSAGE = "message"


class Payload(NamedTuple):
    """A value as bytes.

    Attributes:
        format: The codec that wrote it, such as ``json`` or ``pickle``.
        data: The bytes; empty if ``blob`` is set.
        blob: The content address of the bytes, if they are too large for a row.
        signature: An HMAC over run, step, format and bytes, for formats that execute code when loaded.
        parts: Buffers that belong to ``data`` and are passed beside it to and from a store: ``bytes``, which
            are restored as such; views of memory, which are restored as writable memory; or an error in place
            of a part that could not be read. Empty in a stored payload, whose ``data`` refers to them.
    """

    format: str
    data: bytes
    blob: str | None = None
    signature: bytes | None = None
    parts: tuple[bytes | memoryview | DurableError, ...] = ()


class Run(NamedTuple):
    """One execution of a workflow or a notebook.

    Attributes:
        run_id: Its id, unique in a database.
        workflow: The workflow it executes: its name, or ``workflow.function`` for a workflow function.
        status: Its status.
        epoch: The fencing token, which increases with each opening of the run.
        passes: Number of times its code was entered.
        code: Fingerprint of the workflow function, if it has one.
        arguments: Fingerprint of the workflow's arguments, if it has any.
        arguments_repr: Bounded reprs of those arguments, by name, as JSON.
        python: The Python version of the last pass, such as ``3.11``.
        parent: The run that started this one, if any.
        owner: The process that opened it last, for people.
        result: Its return value, or its failure.
        created_at: Seconds since the epoch, UTC.
        updated_at: Seconds since the epoch, UTC.
        given: The arguments that its caller gave, to resume it without the caller; None if they are not kept.
        crashes: Number of passes in a row that died while a body ran, as far as it was recorded.
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
    given: Payload | None = None
    crashes: int = 0


class Step(NamedTuple):
    """One step of a run, as it was last recorded.

    Attributes:
        run_id: The run it belongs to.
        step_id: Its id in the run, such as ``load/fetch#1``.
        kind: The kind of call it records.
        status: Its status.
        attempt: Number of the execution of its body, from 1.
        epoch: The run's epoch when it was written.
        called_seq: Sequence number of the call, from the run's counter; 0 if its calls have no order.
        recorded_seq: Sequence number of the record, from the same counter.
        code: Fingerprint of the function or cell.
        arguments: Fingerprint of the arguments; None if they have none.
        arguments_repr: Bounded reprs of the arguments, by name, as JSON.
        lineage: The names that a cell read, and their origins, and the files that a step used, as JSON.
        once: True if the body must not be started twice without confirmation.
        payload: The result of a step that is done, or the failure of one that failed.
        started_at: Seconds since the epoch, UTC.
        finished_at: Seconds since the epoch, UTC; None while it is open. For a sleep, when it ends.
        delivered_by: The person or process that delivered the signal, or resolved the step by hand.
        usage: Resources that its body used besides time, such as tokens, as JSON; None if none were counted.
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
        """Duration of the recorded execution, in seconds."""
        return max(0.0, self.finished_at - self.started_at) if self.finished_at else 0.0

    @property
    def is_awaited(self) -> bool:
        """True if it records a signal, or a message, that was requested and not delivered yet."""
        awaited = self.kind in (StepKind.SIGNAL, StepKind.MESSAGE)
        return awaited and self.status is StepStatus.STARTED

    @property
    def waits(self) -> bool:
        """True if its run waits for it: a signal or message that is awaited, a sleep that has not ended."""
        asleep = self.kind is StepKind.SLEEP and (self.finished_at or 0.0) > time.time()
        return asleep or self.is_awaited


class Progress(NamedTuple):
    """The progress of a run.

    Attributes:
        done: Number of its finished steps.
        waits_for: The steps it waits for: signals and messages that have not come, sleeps that have not
            ended.
    """

    done: int = 0
    waits_for: tuple[str, ...] = ()


class RunSnapshot(NamedTuple):
    """A run and its steps, read at one moment.

    Attributes:
        run: The run.
        steps: All its steps, in the order in which they were recorded.
    """

    run: Run
    steps: Sequence[Step] = ()


class Signal(NamedTuple):
    """A value delivered from outside; the first valid delivery of a name wins.

    Attributes:
        run_id: The run it is for, which need not exist yet.
        name: The signal's name.
        payload: The value.
        delivered_by: The person or process that delivered it.
        delivered_at: Seconds since the epoch, UTC.
    """

    run_id: str
    name: str
    payload: Payload
    delivered_by: str = ""
    delivered_at: float = 0.0


class Message(NamedTuple):
    """A value sent to a run under a topic; a run receives those of a topic once each, in their order.

    Attributes:
        run_id: The run it is for, which need not exist yet.
        topic: The topic.
        payload: The value.
        delivery: The id of the delivery: a message of an id that was sent before is not sent again.
        sent_by: The person, process or step that sent it.
        sent_at: Seconds since the epoch, UTC.
        number: Its place in the topic, from 1, which the store gives it.
    """

    run_id: str
    topic: str
    payload: Payload
    delivery: str
    sent_by: str = ""
    sent_at: float = 0.0
    number: int = 0


class SignalRequest(NamedTuple):
    """A request for a signal: a run waits for it, and describes the values that it accepts.

    Attributes:
        run_id: The run that waits.
        name: The signal's name.
        prompt: The question to show.
        schema: The JSON schema of the values that are accepted, as JSON.
        choices: The list of the values that are accepted, as JSON.
        refused: The reason that the last delivered value was not accepted.
        asked_by: The process that waits, for people.
        asked_at: Time of the request, in seconds since the epoch, UTC.
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
    """The possible outcomes of a ``Decision``."""

    REPLAY = "replay"
    RUN = "run"
    ASK = "ask"
    REFUSE = "refuse"


class Call(NamedTuple):
    """A call of a step, as the decision table sees it.

    Attributes:
        step_id: Its id in the run.
        kind: The kind of call.
        code: Fingerprint of its function or cell; None if it has no source.
        edit: A description of inputs whose origin was edited, for people; empty if there are none.
        drift: A description of inputs whose values differ although their code does not, for people.
        renamed: The id of a former step with equal code and lineage; empty if there is none.
        arguments: Fingerprints of its arguments, ``name=fingerprint``, ``name=?`` for one that has none.
        on_edit: The policy if its own code changed: keep, rerun, ask or error.
        on_drift: The policy if its inputs or files have drifted: keep, rerun, ask or error.
        on_change: The policy if its arguments changed: error, rerun, keep or ask.
        once: True if its body must not be started twice without confirmation.
        failure: The policy for a recorded failure: ``final``, ``retry``, or ``caught``, which replays it if
            the run continued after it.
        called_seq: Sequence number of the call, from the run's counter; 0 if its calls have no order.
        branched: The scopes from which its branch was created, each with the sequence number of that moment.
        files: Descriptions of the files that it read and that have changed, or wrote and that are gone.
        again: True if the user executes a cell a further time in one pass.
        lineage: What is recorded with its first attempt before that ends, as JSON; None if nothing is.
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
    failure: str = "caught"
    called_seq: int = 0
    branched: tuple[tuple[str, int], ...] = ()
    files: tuple[str, ...] = ()
    again: bool = False
    lineage: str | None = None


class Decision(NamedTuple):
    """The decision about a call, and its reason.

    Attributes:
        action: Replay, run, ask or refuse.
        reason: The reason, for people.
        notice: True if the user is to be notified although the call is not refused.
        error: The error to raise if the action is to refuse, or to ask in a session that cannot prompt.
        kept: The attempt whose result is kept while the step has none that is newer; 0 if there is none.
        more: Descriptions of changed files that the reason counts and does not name.
    """

    action: Action
    reason: str = ""
    notice: bool = False
    error: type[DurableError] | None = None
    kept: int = 0
    more: tuple[str, ...] = ()
