"""Conversion of records to the fields of a run's hash, and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from durable_nb.records import Payload, Run, RunStatus, Signal, SignalRequest, Step
from durable_nb.rows import Row, payload_row

__all__ = [
    "CONTROL",
    "decode_id",
    "delivery_columns",
    "encode_id",
    "packed",
    "packed_creation",
    "packed_opening",
    "packed_request",
    "packed_signal",
    "packed_status",
    "packed_step",
    "payload_field",
    "payload_owner",
    "read_payload",
    "read_request",
    "read_run",
    "read_signal",
    "request_field",
    "signal_field",
    "step_field",
    "step_rows",
]

CONTROL: Final = ("made", "opened", "standing", "epoch", "passes", "result", "session")
"""The fields of a run, without its steps and signals."""

_STEP: Final = b"s:"
_SIGNAL: Final = b"g:"
_REQUEST: Final = b"q:"
_RESULT: Final = b"result"

_PAYLOAD: Final = -3
_ATTEMPT_AT: Final = Step._fields.index("attempt")
_PAYLOAD_AT: Final = Step._fields.index("payload")
_BEFORE_PAYLOAD: Final = slice(1, 1 + _PAYLOAD_AT - _ATTEMPT_AT)
_AFTER_PAYLOAD: Final = slice(_BEFORE_PAYLOAD.stop, _PAYLOAD)
_PARSED_TOGETHER: Final = 128
"""Steps parsed by one call of JSON, which takes half the time; more would trigger garbage collections."""


def encode_id(text: str) -> bytes:
    """Return an id or a name as bytes."""
    return text.encode("utf-8", "surrogatepass")


def decode_id(encoded: bytes) -> str:
    """Return the id or name in bytes."""
    return encoded.decode("utf-8", "surrogatepass")


def step_field(step_id: str) -> bytes:
    """Return the field of a step."""
    return _STEP + encode_id(step_id)


def signal_field(signal: str) -> bytes:
    """Return the field of a signal."""
    return _SIGNAL + encode_id(signal)


def request_field(signal: str) -> bytes:
    """Return the field of a request for a signal."""
    return _REQUEST + encode_id(signal)


def payload_field(table: str, name: str) -> bytes:
    """Return the field with a payload: of a step, of a signal, or the result of a run.

    Args:
        table: ``steps``, ``signals`` or ``runs``.
        name: The step or the signal; empty for ``runs``.
    """
    return {"steps": step_field, "signals": signal_field}[table](name) if table != "runs" else _RESULT


def payload_owner(field: bytes) -> tuple[str, str] | None:
    """Return the arguments of ``payload_field`` for a field; None if it holds no payload."""
    tables = {_STEP: "steps", _SIGNAL: "signals"}
    if field == _RESULT:
        return "runs", ""
    table = tables.get(field[:2])
    return (table, decode_id(field[2:])) if table else None


def packed(first: str, columns: Sequence[Any], payload: Payload | None) -> bytes:
    """Return the value of a field: a line that scripts may change, columns as JSON, and a payload's bytes."""
    if payload is None:
        line = [*columns, None, None, None]
        data = b""
    else:
        signature = None if payload.signature is None else payload.signature.hex()
        line = [*columns, payload.format, payload.blob, signature]
        data = payload.data
    return b"\n".join((first.encode(), json.dumps(line).encode(), data))


def read_payload(columns: Sequence[Any], data: bytes) -> Payload | None:
    """Return the payload of a value, or None."""
    kind, blob, signature = columns
    if kind is None:
        return None
    return Payload(kind, data, blob, None if signature is None else bytes.fromhex(signature))


def packed_step(step: Step, payload: Payload | None) -> bytes:
    """Return the value of a step, with its payload as it is to be stored."""
    columns = (step.kind.value, *step[_ATTEMPT_AT:_PAYLOAD_AT], *step[_PAYLOAD_AT + 1 :])
    return packed(step.status.value, columns, payload)


def step_rows(run_id: str, fields: Mapping[bytes, bytes]) -> list[Row]:
    """Return all steps among a run's fields."""
    rows: list[Row] = []
    names = [field for field in fields if field.startswith(_STEP)]
    for first in range(0, len(names), _PARSED_TOGETHER):
        group = names[first : first + _PARSED_TOGETHER]
        statuses, lines, data = zip(*[fields[field].split(b"\n", 2) for field in group], strict=True)
        parsed = json.loads(b"[%s]" % b",".join(lines))
        rows += map(_step_row, itertools.repeat(run_id), group, statuses, parsed, data)
    return rows


def _step_row(run_id: str, field: bytes, status: bytes, columns: list[Any], data: bytes) -> Row:
    payload = payload_row(read_payload(columns[_PAYLOAD:], data))
    before, after = columns[_BEFORE_PAYLOAD], columns[_AFTER_PAYLOAD]
    return (run_id, decode_id(field[2:]), columns[0], status.decode(), *before, *payload, *after)


def packed_signal(signal: Signal, payload: Payload, delivery: str) -> bytes:
    """Return the value of a signal, with its payload as it is to be stored."""
    return packed(delivery, (signal.delivered_by, signal.delivered_at), payload)


def delivery_columns(signal: Signal) -> str:
    """Return the first columns of a signal's value: the author and the time of its delivery."""
    return json.dumps((signal.delivered_by, signal.delivered_at)).removesuffix("]") + ", "


def read_signal(run_id: str, signal: str, value: bytes) -> Signal:
    """Return the signal in a value."""
    _, line, data = value.split(b"\n", 2)
    by, at, *rest = json.loads(line)
    payload = read_payload(rest, data)
    assert payload is not None
    return Signal(run_id, signal, payload, by, at)


def packed_request(request: SignalRequest) -> tuple[str, str]:
    """Return the time of a request, and the rest of its value."""
    columns = (request.prompt, request.schema, request.choices, request.refused, request.asked_by)
    return json.dumps(request.asked_at), json.dumps(columns)


def read_request(run_id: str, field: bytes, value: bytes) -> SignalRequest:
    """Return the request in a field and its value."""
    since, line = value.split(b"\n", 1)
    prompt, schema, choices, refused, by = json.loads(line)
    return SignalRequest(
        run_id, decode_id(field[2:]), prompt, schema, choices, refused, by, json.loads(since)
    )


def packed_creation(run: Run) -> str:
    """Return the value of ``made``: the columns of a run that never change."""
    return json.dumps([run.workflow, run.code, run.arguments, run.arguments_repr, run.parent, run.created_at])


def packed_opening(run: Run) -> str:
    """Return the value of ``opened``: the columns of a run that each opening sets."""
    return json.dumps([run.owner, run.python])


def packed_status(run: Run) -> str:
    """Return the value of ``standing``: the status of a run, and the time of its last change."""
    return json.dumps([run.status.value, run.updated_at])


def read_run(run_id: str, fields: Mapping[bytes, bytes | None]) -> Run | None:
    """Return the run in its fields, or None if there is none."""
    created = fields.get(b"made")
    if created is None:
        return None
    workflow, code, arguments, arguments_repr, parent, created_at = json.loads(created)
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
        arguments_repr,
        python,
        parent,
        owner,
        result,
        created_at,
        updated_at,
    )
