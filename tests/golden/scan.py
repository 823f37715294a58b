"""What the checkpoints in a database name, found without loading any of them."""

import base64
import json
import sqlite3
from pathlib import Path

from durable_nb.codec import PARTED, bundle
from helpers.named import everything_named

TABLES = {
    "runs": ("result", "run_id"),
    "steps": ("payload", "run_id || '/' || step_id"),
    "signals": ("payload", "run_id || '!' || name"),
}


def names_in(db):
    """For each payload in a database: where it is, its format, and every (module, name) that it names."""
    blobs = {path.name: path for path in Path(f"{db}.blobs").rglob("*") if path.is_file()}
    read = {name: path.read_bytes() for name, path in blobs.items()}
    with sqlite3.connect(f"file:{db}?immutable=1", uri=True) as connection:
        for table, (column, where) in TABLES.items():
            fields = f"{column}_format, {column}_data, {column}_blob"
            for place, kind, data, blob in connection.execute(
                f"SELECT {where}, {fields} FROM {table} WHERE {column}_format IS NOT NULL"
            ):
                yield f"{table} {place}", kind, _named(kind, read[blob] if blob else data, read)
    connection.close()


def _named(kind, data, blobs):
    if kind in PARTED:
        head, stored = bundle.unpack(data)
        parts = [blobs[p.digest] if isinstance(p, bundle.Reference) else bytes(p) for p in stored]
        return _cell(json.loads(bytes(head)), parts) if kind == "cell" else everything_named(bytes(head))
    if kind == "pickle":
        return everything_named(data)
    if kind == "failure":
        return _failure(json.loads(data))
    return _classes(json.loads(data)) if kind == "objects" else set()


def _cell(header, parts):
    streams, place = [], 0
    for group in header["namespace"]["groups"]:
        streams.append(parts[place])
        place += 1 + group["buffers"]
    return set().union(*map(everything_named, [*streams, *parts[place:]]))


def _failure(record):
    cause = record["cause"]
    below = _failure(cause) if cause else set()
    pickled = record["pickle"]
    return below | (everything_named(base64.b64decode(pickled)) if pickled else set())


def _classes(value):
    if isinstance(value, dict):
        tagged = value.keys() & {"$enum", "$flag", "$namedtuple", "$model", "$object"}
        named = {tuple(value[tag][0].split(":", 1)) for tag in tagged}
        return named.union(*map(_classes, value.values()))
    return set().union(*map(_classes, value)) if isinstance(value, list) else set()
