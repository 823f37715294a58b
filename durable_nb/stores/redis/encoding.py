"""Records as the fields of a run's hash, and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from durable_nb.records import Payload, Run, RunStatus, Signal, SignalRequest, Step, StepKind, StepStatus

__all__ = [
    "CONTROL",
    "field_of",
    "holder",
    "made",
    "name",
    "opened",
    "origin",
    "packed",
    "packed_request",
    "packed_signal",
    "packed_step",
    "read_payload",
    "read_request",
    "read_run",
    "read_signal",
    "read_steps",
    "request_field",
    "signal_field",
    "standing",
    "step_field",
    "text",
]

CONTROL: Final = ("made", "opened", "standing", "epoch", "passes", "result", "session")
"""The fields that make up a run, without its steps and signals."""

_STEP: Final = b"s:"
_SIGNAL: Final = b"g:"
_REQUEST: Final = b"q:"
_RESULT: Final = b"result"

_PAYLOAD: Final = -3
_ATTEMPT_AT: Final = Step._fields.index("attempt")
_PAYLOAD_AT: Final = Step._fields.index("payload")
_BEFORE_PAYLOAD: Final = slice(1, 1 + _PAYLOAD_AT - _ATTEMPT_AT)
_AFTER_PAYLOAD: Final = slice(_BEFORE_PAYLOAD.stop, _PAYLOAD)
_AT_ONCE: Final = 128
"""Steps to be read together: JSON takes half the time then, and so few do not wake the garbage collector."""

_STATUSES = {status.value.encode(): status for status in StepStatus}
_KINDS = {kind.value: kind for kind in StepKind}


def name(text: str) -> bytes:
    """Any id or name as bytes."""
    return text.encode("utf-8", "surrogatepass")


def text(name: bytes) -> str:
    """The id or name that was made bytes of."""
    return name.decode("utf-8", "surrogatepass")


def step_field(step_id: str) -> bytes:
    """The field of a step."""
    return _STEP + name(step_id)


def signal_field(signal: str) -> bytes:
    """The field of a signal."""
    return _SIGNAL + name(signal)


def request_field(signal: str) -> bytes:
    """The field of a request for a signal."""
    return _REQUEST + name(signal)


def field_of(table: str, name: str) -> bytes:
    """The field with a payload: a step's, a signal's, or what a run returned."""
    return {"steps": step_field, "signals": signal_field}[table](name) if table != "runs" else _RESULT


def holder(field: bytes) -> tuple[str, str] | None:
    """Whose payload is in a field, as ``field_of`` takes it; None where there is none in it."""
    tables = {_STEP: "steps", _SIGNAL: "signals"}
    if field == _RESULT:
        return "runs", ""
    table = tables.get(field[:2])
    return (table, text(field[2:])) if table else None


def packed(first: str, columns: Sequence[Any], payload: Payload | None) -> bytes:
    """A value: a line that scripts can change, the columns as JSON, and the payload's bytes."""
    if payload is None:
        line = [*columns, None, None, None]
        data = b""
    else:
        signature = None if payload.signature is None else payload.signature.hex()
        line = [*columns, payload.format, payload.blob, signature]
        data = payload.data
    return b"\n".join((first.encode(), json.dumps(line).encode(), data))


def read_payload(columns: Sequence[Any], data: bytes) -> Payload | None:
    """The payload of a value, or None."""
    kind, blob, signature = columns
    if kind is None:
        return None
    return Payload(kind, data, blob, None if signature is None else bytes.fromhex(signature))


def packed_step(step: Step, payload: Payload | None) -> bytes:
    """A step with its payload as it is to be stored."""
    columns = (step.kind.value, *step[_ATTEMPT_AT:_PAYLOAD_AT], *step[_PAYLOAD_AT + 1 :])
    return packed(step.status.value, columns, payload)


def read_steps(run_id: str, fields: Mapping[bytes, bytes]) -> list[Step]:
    """All steps among a run's fields."""
    steps: list[Step] = []
    names = [field for field in fields if field.startswith(_STEP)]
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        statuses, lines, data = zip(*[fields[field].split(b"\n", 2) for field in some], strict=True)
        parsed = json.loads(b"[%s]" % b",".join(lines))
        steps += map(_step, itertools.repeat(run_id), some, statuses, parsed, data)
    return steps


def _step(run_id: str, field: bytes, status: bytes, columns: list[Any], data: bytes) -> Step:
    kind = _KINDS[columns[0]]
    payload = read_payload(columns[_PAYLOAD:], data)
    before, after = columns[_BEFORE_PAYLOAD], columns[_AFTER_PAYLOAD]
    return Step._make((run_id, text(field[2:]), kind, _STATUSES[status], *before, payload, *after))


def packed_signal(signal: Signal, payload: Payload, delivery: str) -> bytes:
    """A signal with its payload as it is to be stored."""
    return packed(delivery, (signal.delivered_by, signal.delivered_at), payload)


def origin(signal: Signal) -> str:
    """What the columns of a signal begin with: by whom it was delivered, and when."""
    return json.dumps((signal.delivered_by, signal.delivered_at)).removesuffix("]") + ", "


def read_signal(run_id: str, signal: str, value: bytes) -> Signal:
    """The signal in a value."""
    _, line, data = value.split(b"\n", 2)
    by, at, *rest = json.loads(line)
    payload = read_payload(rest, data)
    assert payload is not None
    return Signal(run_id, signal, payload, by, at)


def packed_request(request: SignalRequest) -> tuple[str, str]:
    """Since when a request is there, and the rest of it."""
    columns = (request.prompt, request.schema, request.choices, request.refused, request.asked_by)
    return json.dumps(request.asked_at), json.dumps(columns)


def read_request(run_id: str, field: bytes, value: bytes) -> SignalRequest:
    """The request in a field and its value."""
    since, line = value.split(b"\n", 1)
    prompt, schema, choices, refused, by = json.loads(line)
    return SignalRequest(run_id, text(field[2:]), prompt, schema, choices, refused, by, json.loads(since))


def made(run: Run) -> str:
    """What of a run is recorded once."""
    return json.dumps([run.workflow, run.code, run.arguments, run.arguments_repr, run.parent, run.created_at])


def opened(run: Run) -> str:
    """What of a run each opening records."""
    return json.dumps([run.owner, run.python])


def standing(run: Run) -> str:
    """How a run stands."""
    return json.dumps([run.status.value, run.updated_at])


def read_run(run_id: str, fields: Mapping[bytes, bytes | None]) -> Run | None:
    """The run in its fields, or None where there is none."""
    once = fields.get(b"made")
    if once is None:
        return None
    workflow, code, arguments, shown, parent, created_at = json.loads(once)
    owner, python = json.loads(fields[b"opened"] or b"")
    status, updated_at = json.loads(fields[b"standing"] or b"")
    result = None
    if (value := fields.get(_RESULT)) is not None:
        _, line, data = value.split(b"\n", 2)
        result = read_payload(json.loads(line), data)
    return Run(
        run_id,
        workflow,
        RunStatus(status),
        int(fields[b"epoch"] or 0),
        int(fields[b"passes"] or 0),
        code,
        arguments,
        shown,
        python,
        parent,
        owner,
        result,
        created_at,
        updated_at,
    )
