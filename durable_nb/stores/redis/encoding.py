"""Conversion of rows to the fields of a run's hash, and back.

A value that is no value of ours becomes a row that fails its check: it is damaged, and no error here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from durable_nb.records import Message, Payload, Signal
from durable_nb.stores.rows import (
    GIVEN,
    MESSAGE_COLUMNS,
    REQUEST_COLUMNS,
    RESULT,
    RUN_COLUMNS,
    SIGNAL_COLUMNS,
    STATUS,
    STEP_COLUMNS,
    Row,
    payload_row,
    read_payload,
)
from durable_nb.stores.valid import CHUNKS

__all__ = [
    "CONTROL",
    "decode_id",
    "delivery_columns",
    "encode_id",
    "message_field",
    "message_row",
    "packed",
    "packed_message",
    "packed_request",
    "packed_run",
    "packed_signal",
    "packed_step",
    "payload_field",
    "payload_of",
    "payload_owner",
    "request_field",
    "request_row",
    "run_row",
    "signal_field",
    "signal_row",
    "step_field",
    "step_rows",
    "version_fields",
    "version_rows",
    "with_signature",
    "without_values",
]

CONTROL: Final = ("made", "given", "opened", "standing", "epoch", "passes", "crashes", "result", "session")
"""The fields of a run, without its steps and signals."""

_STEP: Final = b"s:"
_SIGNAL: Final = b"g:"
_REQUEST: Final = b"q:"
_VERSION: Final = b"v:"
_MESSAGE: Final = b"m:"
_OF_RUN: Final = {b"result": "runs", b"given": "given"}
_TABLES: Final = {_STEP: "steps", _VERSION: "versions", _SIGNAL: "signals", _MESSAGE: "messages"}

_STEP_LINE: Final = 17
"""The number of a step's columns in its line, without the checksum."""

_PARSED_TOGETHER: Final = 128
"""Steps parsed by one call of JSON, which takes half the time; more would trigger garbage collections."""

_DIGITS: Final = 20
"""The length to which numbers are filled up to be compared."""

_DAMAGED: Final = -1
"""A checksum, and a format, that no row has."""

_NOT_OURS: Final = (ValueError, TypeError, LookupError, RecursionError)
"""What goes wrong when a value that is not ours is taken apart."""

_MADE: Final = ("workflow", "code", "arguments", "arguments_repr", "parent", "created_at", "checksum")
_OPENED: Final = ("owner", "python")
_STANDING: Final = ("status", "updated_at", "standing")
_PARTS: Final = ("format", "data", "blob", "signature")


def encode_id(text: str) -> bytes:
    """Return an id or a name as bytes."""
    return text.encode("utf-8", "surrogatepass")


def decode_id(encoded: bytes) -> str:
    """Return the id or name in bytes; one that is no UTF-8 is shown with backslashes."""
    try:
        return encoded.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return encoded.decode("utf-8", "backslashreplace")


def step_field(step_id: str) -> bytes:
    """Return the field of a step."""
    return _STEP + encode_id(step_id)


def signal_field(signal: str) -> bytes:
    """Return the field of a signal."""
    return _SIGNAL + encode_id(signal)


def request_field(signal: str) -> bytes:
    """Return the field of a request for a signal."""
    return _REQUEST + encode_id(signal)


def message_field(message: Message) -> bytes:
    """Return the field of an unread message."""
    return b"%s%d:" % (_MESSAGE, message.number) + encode_id(message.topic)


def payload_field(table: str, name: str) -> bytes:
    """Return the field with a payload: of a step, of a signal, or the result or the arguments of a run.

    Args:
        table: ``steps``, ``versions``, ``signals``, ``messages``, ``runs`` or ``given``.
        name: The step or the signal; for ``versions``, the attempt, a colon and the step; for ``messages``,
            the number, a colon and the topic; empty for ``runs`` and ``given``.
    """
    return {table: field for field, table in (_TABLES | _OF_RUN).items()}[table] + encode_id(name)


def payload_owner(field: bytes) -> tuple[str, str] | None:
    """Return the arguments of ``payload_field`` for a field; None if it holds no payload."""
    if field in _OF_RUN:
        return _OF_RUN[field], ""
    table = _TABLES.get(field[:2])
    return (table, decode_id(field[2:])) if table else None


def packed(first: str, columns: Sequence[Any], payload: Payload | None, *checksum: int) -> bytes:
    """Return the value of a field: a line that scripts may change, columns as JSON, and a payload's bytes."""
    line: list[Any] = [*columns, None, None, None, *checksum]
    data = b""
    if payload is not None:
        signature = None if payload.signature is None else payload.signature.hex()
        line[len(columns) : len(columns) + 3] = payload.format, payload.blob, signature
        data = payload.data
    return b"\n".join((first.encode(), json.dumps(line).encode(), data))


def payload_of(value: bytes) -> Payload | None:
    """Return the payload in a value; None if there is none, or the value is damaged."""
    try:
        _, line, data = value.split(b"\n", 2)
        columns = json.loads(line)
        payload = read_payload(_payload_row(columns[_signature_at(columns) - 2 :][:3], data))
    except _NOT_OURS:
        return None
    return payload if payload is not None and isinstance(payload.format, str) else None


def _signature_at(columns: list[Any]) -> int:
    """Return the place of the signature in a line: its end, or before the checksum."""
    return len(columns) - 1 - isinstance(columns[-1], int)


def with_signature(value: bytes, signature: bytes) -> bytes:
    """Return a value with another signature of its payload."""
    first, line, data = value.split(b"\n", 2)
    columns = json.loads(line)
    columns[_signature_at(columns)] = signature.hex()
    return b"\n".join((first, json.dumps(columns).encode(), data))


def packed_step(row: Row, payload: Payload | None) -> bytes:
    """Return the value of a step, with its payload as it is to be stored."""
    return packed(row[STATUS], (row[2], *row[4:13], *row[17:21]), payload, row[-1])


def step_rows(run_id: str, fields: Mapping[bytes, bytes]) -> list[Row]:
    """Return all steps among a run's fields."""
    found: list[Row] = []
    names = [field for field in fields if field.startswith(_STEP)]
    for first in range(0, len(names), _PARSED_TOGETHER):
        group = names[first : first + _PARSED_TOGETHER]
        try:
            found += _parsed_together(run_id, group, [fields[field] for field in group])
        except _NOT_OURS:  # one of them is damaged
            found += [_parsed_step(run_id, decode_id(field[2:]), fields[field]) for field in group]
    return found


def version_fields(fields: Sequence[bytes], step_id: str) -> list[bytes]:
    """Return the fields with the earlier results of a step among those of its run, the oldest first."""
    end = b":" + encode_id(step_id)
    found = [field for field in fields if field.startswith(_VERSION) and field.endswith(end)]
    attempts = {field: field[len(_VERSION) : -len(end)] for field in found}
    ours = [field for field in found if attempts[field].isdigit()]  # not of a step whose id ends alike
    return sorted(ours, key=lambda field: attempts[field].rjust(_DIGITS, b"0"))


def version_rows(run_id: str, step_id: str, values: Sequence[bytes | None]) -> list[Row]:
    """Return the rows in the values of ``version_fields``."""
    return [_parsed_step(run_id, step_id, value) for value in values if value is not None]


def _parsed_together(run_id: str, names: Sequence[bytes], values: Sequence[bytes]) -> list[Row]:
    statuses, lines, data = zip(*[value.split(b"\n", 2) for value in values], strict=True)
    parsed = json.loads(b"[%s]" % b",".join(lines))
    if len(parsed) != len(names):
        raise ValueError
    step_ids = [decode_id(field[2:]) for field in names]
    return list(map(_step_row, itertools.repeat(run_id), step_ids, statuses, parsed, data))


def _parsed_step(run_id: str, step_id: str, value: bytes) -> Row:
    try:
        status, line, data = value.split(b"\n", 2)
        return _step_row(run_id, step_id, status, json.loads(line), data)
    except _NOT_OURS:
        first = value.partition(b"\n")[0].decode("ascii", "replace")
        return (run_id, step_id, "", first, 0, 0, 0, 0, *[None] * (len(STEP_COLUMNS) - 9), _DAMAGED)


def _step_row(run_id: str, step_id: str, status: bytes, columns: list[Any], data: bytes) -> Row:
    kind, *before = columns[:10]
    ends = columns[10:14]
    (checksum,) = columns[_STEP_LINE:] or [None]
    payload = _payload_row(columns[14:_STEP_LINE], data)
    return (run_id, step_id, kind, status.decode(), *before[:-1], int(before[-1]), *payload, *ends, checksum)


def _payload_row(columns: Sequence[Any], data: bytes) -> Row:
    """Return the values of a payload, from its columns in a line and the bytes after it."""
    form, blob, signature = columns
    if form is None:
        return None, None, None, None
    return form, data, blob, None if signature is None else bytes.fromhex(signature)


def packed_signal(row: Row, payload: Payload, delivery: str) -> bytes:
    """Return the value of a signal, with its payload as it is to be stored."""
    return packed(delivery, row[6:8], payload, row[-1])


def delivery_columns(signal: Signal) -> str:
    """Return the first columns of a signal's value: the author and the time of its delivery."""
    return json.dumps((signal.delivered_by, float(signal.delivered_at))).removesuffix("]") + ", "


def signal_row(run_id: str, signal: str, value: bytes) -> Row:
    """Return the signal in a value."""
    try:
        _, line, data = value.split(b"\n", 2)
        by, at, *payload = json.loads(line)
        checksum = payload.pop() if len(payload) > 3 else None
        return (run_id, signal, *_payload_row(payload, data), by, at, checksum)
    except _NOT_OURS:
        return (run_id, signal, *[None] * (len(SIGNAL_COLUMNS) - 2))


def packed_message(row: Row, payload: Payload) -> bytes:
    """Return the value of a message, with its payload as it is to be stored."""
    return packed(row[6], row[7:9], payload, row[-1])


def message_row(run_id: str, topic: str, number: int, value: bytes) -> Row:
    """Return the message in a value."""
    row = signal_row(run_id, topic, value)
    if len(row) < len(SIGNAL_COLUMNS):
        return (run_id, topic, *[None] * (len(MESSAGE_COLUMNS) - 2))
    delivery = value.partition(b"\n")[0].decode("ascii", "replace")
    return (*row[:6], delivery, *row[6:8], number, row[-1])


def packed_request(row: Row) -> tuple[str, str]:
    """Return the time of a request, and the rest of its value."""
    *columns, asked_at, checksum = row[2:]
    return json.dumps(asked_at), f"{json.dumps([*columns, checksum])}\n"


def request_row(run_id: str, field: bytes, value: bytes) -> Row:
    """Return the request in a field and its value."""
    name = decode_id(field[2:])
    try:
        since, line = value.split(b"\n", 1)
        *columns, checksum = [*json.loads(line), None][:6]
        prompt, schema, choices, refused, by = columns
        return (run_id, name, prompt, schema, choices, refused, by, json.loads(since), checksum)
    except _NOT_OURS:
        return (run_id, name, *[None] * (len(REQUEST_COLUMNS) - 2))


def packed_run(row: Row) -> tuple[str, str, str]:
    """Return the values of ``made``, ``opened`` and ``standing``.

    They hold what never changes in a run, what each opening sets, and what its end sets too.
    """
    run = dict(zip(RUN_COLUMNS, row, strict=True))
    made, opened, standing = ([run[name] for name in names] for names in (_MADE, _OPENED, _STANDING))
    return json.dumps(made), json.dumps(opened), json.dumps(standing)


def run_row(run_id: str, fields: Mapping[bytes, bytes | None]) -> Row | None:
    """Return the run in its fields, or None if there is none."""
    if fields.get(b"made") is None:
        return None
    run: dict[str, Any] = {
        "run_id": run_id,
        "epoch": _count(fields, b"epoch"),
        "passes": _count(fields, b"passes"),
        "crashes": _count(fields, b"crashes") if fields.get(b"crashes") else 0,
    }
    for field, names in ((b"made", _MADE), (b"opened", _OPENED), (b"standing", _STANDING)):
        run |= zip(names, _line(fields.get(field), len(names)), strict=True)
    for field in _OF_RUN:
        value, name = fields.get(field), field.decode()
        form, *rest = payload_row(payload_of(value)) if value else [None] * 4
        run |= zip(
            [f"{name}_{part}" for part in _PARTS], [form or (_DAMAGED if value else None), *rest], strict=True
        )
    return tuple(run[name] for name in RUN_COLUMNS)


def without_values(row: Row) -> Row:
    """Return a run's row as far as it can be checked without the chunks of its result and its arguments."""
    row = (*row[:RESULT], *[None] * 4, *row[RESULT + 4 : -1], None)
    if str(row[GIVEN + 2]).startswith(CHUNKS):
        return (*row[:GIVEN], *[None] * 4, row[GIVEN + 4], None, None)
    return row


def _line(value: bytes | None, length: int) -> list[Any]:
    """Return the values in a line of JSON; a checksum at the end may be missing."""
    try:
        found = json.loads(value or b"")
    except _NOT_OURS:
        found = None
    known = found if isinstance(found, list) and len(found) in (length, length - 1) else []
    return [*known, *[None] * (length - len(known))]


def _count(fields: Mapping[bytes, bytes | None], name: bytes) -> int | None:
    """Return the number in a field; None if it is not written as the server writes it."""
    value = fields.get(name) or b""
    return int(value) if value.isdigit() and len(value) < 20 and b"%d" % int(value) == value else None
