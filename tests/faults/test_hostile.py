"""Databases that another user has written to do harm, against every command, an answer, and a resume.

No code of theirs runs, no address is asked, nothing hangs, no escape is printed, and every error is ours.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import socket
import sqlite3
import sys
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from durable_nb import codec
from durable_nb.cli import main
from durable_nb.codec import bundle
from durable_nb.errors import DurableError, StepError, StoreError
from durable_nb.records import SignalRequest
from durable_nb.signals import accepted
from faults.test_damaged_rows import NOTEBOOK, Shop, filled, in_time

TRAP = "/tmp/durable_nb-hostile-trap"
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"
HTML = "<img src=x onerror=alert(1)><script>alert(1)</script>"
ENDLESS = "^(a+)+$"


class Evil:
    """Makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (TRAP,)


class EvilError(Exception):
    def __reduce__(self):
        return os.mkdir, (TRAP,)


EVIL = pickle.dumps(Evil())
MKDIR = {"$object": ["os:mkdir", {"path": TRAP}]}
HEADER = {"namespace": {"groups": [["x"]], "names": {"x": 0}}, "state": {}, "outputs": [], "version": 1}


def packed(head, *parts):
    return b"".join(map(bytes, bundle.pack(head, parts)))


def as_json(value):
    return json.dumps(value).encode()


# Payloads of the step `load`, of its earlier result, of the run and of a signal: format, bytes, blob.
PAYLOADS = {
    "a pickle that runs code": ("pickle", EVIL, None),
    "a pickle that runs code, as buffers": ("buffers", packed(EVIL), None),
    "a pickle that runs code, as changed arguments": ("changed", packed(EVIL), None),
    "a bundle with a part of code": ("buffers", packed(EVIL, EVIL), None),
    "a cell that runs code": ("cell", packed(as_json(HEADER), EVIL), None),
    "a cell without a bundle": ("cell", EVIL, None),
    "a failure that runs code": ("failure", codec.encode_failure(EvilError("x")).data, None),
    "a failure that is no JSON": ("failure", EVIL, None),
    "an object of any class": ("objects", as_json(MKDIR), None),
    "an enum of any class": ("objects", as_json({"$enum": ["os:mkdir", TRAP]}), None),
    "a named tuple of any class": ("objects", as_json({"$namedtuple": ["os:mkdir", [TRAP]]}), None),
    "a module that is not loaded": ("objects", as_json({"$object": ["antigravity:x", {}]}), None),
    "an object under the format json": ("json", as_json(MKDIR), None),
    "a pickle under the format json": ("json", EVIL, None),
    "a pickle under the format bytes": ("bytes", EVIL, None),
    "JSON that is nested too deeply": ("json", b"[" * 100_000, None),
    "JSON that is nested and closed": ("json", b"[" * 50_000 + b"]" * 50_000, None),
    "JSON that is cut": ("json", b'{"a": [1, 2', None),
    "JSON of 20 MB": ("json", b"[" + b"1234567," * 2_500_000 + b"1]", None),
    "a number of a million digits": ("json", b"1" * 1_000_000, None),
    "tags of the wrong shape": ("json", as_json({"$tuple": 5}), None),
    "an unknown tag": ("json", as_json({"$evil": [TRAP]}), None),
    "a set that cannot be hashed": ("json", as_json({"$set": [[1], {"a": 1}]}), None),
    "a decimal without an end": ("json", as_json({"$decimal": "1e999999999999999999"}), None),
    "a range without an end": ("json", as_json({"$range": [0, 10**30, 1]}), None),
    "bytes that are no base64": ("json", as_json({"$bytes": "\x1b[2J"}), None),
    "a text that is no UTF-8": ("json", b'"\xff\xfe"', None),
    "an unknown format": ("evil", EVIL, None),
    "a format with escapes": (ESCAPE, EVIL, None),
    "no format": ("", EVIL, None),
    "a value that was forgotten": ("forgotten", EVIL, None),
    "a bundle whose table lies": ("buffers", b"\x93dnb\x02" + b"\xff" * 16 + EVIL, None),
    "a bundle of another version": ("buffers", b"\x93dnb\xff" + b"\0" * 16, None),
    "a part that is another file": (
        "buffers",
        packed(b"x", bundle.Reference("../../../etc/passwd", 5, "1")),
        None,
    ),
    "a blob of another folder": ("json", b"", "../../../../etc/passwd"),
    "a blob that is an absolute path": ("json", b"", "/etc/passwd"),
    "a blob that is missing": ("pickle", b"", "ab" * 32),
    "a blob with a null": ("json", b"", "ab\0cd"),
    "a blob with escapes": ("json", b"", ESCAPE),
}

# Requests of the run `w`: the schema, the choices, the prompt.
REQUESTS = {
    "a schema at an address": ({"$ref": "http://127.0.0.1:PORT/x"}, None, "x"),
    "a schema in a file": ({"$ref": "file:///etc/passwd"}, None, "x"),
    "a schema with an address for an id": ({"$id": "http://127.0.0.1:PORT/x", "$ref": "y"}, None, "x"),
    "a schema of a language at an address": (
        {"$schema": "http://127.0.0.1:PORT/x", "type": "string"},
        None,
        "x",
    ),
    "a pattern without an end": ({"pattern": ENDLESS}, None, "x"),
    "names by a pattern without an end": (
        {"patternProperties": {ENDLESS: {}}, "additionalProperties": False},
        None,
        "x",
    ),
    "a schema that contains itself": ({"$ref": "#"}, None, "x"),
    "a schema of a wrong shape": ({"properties": 3, "type": [[]], "format": "approval"}, None, "x"),
    "a prompt with escapes": ({"type": "string", "title": ESCAPE}, None, ESCAPE),
    "a prompt of HTML": ({"type": "string", "title": HTML}, None, HTML),
    "choices with escapes": (None, [ESCAPE, HTML, {"a": ESCAPE}], ESCAPE),
    "a prompt of a megabyte": (None, ["x" * 1_000_000], "x" * 1_000_000),
}

# Statements on the whole database; those of the schema make it one that is refused.
STATEMENTS = {
    "a trigger": "CREATE TRIGGER t AFTER UPDATE ON steps BEGIN DELETE FROM steps; END",
    "a trigger that calls": (
        "CREATE TRIGGER t AFTER INSERT ON sessions BEGIN SELECT load_extension('/tmp/x'); END"
    ),
    "a view": "CREATE VIEW v AS SELECT load_extension('/tmp/x')",
    "a view in place of a table": (
        "DROP TABLE signals; CREATE VIEW signals AS SELECT load_extension('/tmp/x') AS run_id"
    ),
    "a view without an end": (
        "ALTER TABLE runs RENAME TO real; CREATE VIEW runs AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL "
        "SELECT n + 1 FROM r) SELECT real.* FROM real, r"
    ),
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "a virtual table in place of one": (
        "DROP TABLE requests; CREATE VIRTUAL TABLE requests USING fts5(run_id, name)"
    ),
    "an index on an expression": "CREATE INDEX i ON steps (lower(step_id))",
    "a generated column": "ALTER TABLE steps ADD COLUMN evil BLOB AS (hex(zeroblob(1000000)))",
    "a table with an escape": f'CREATE TABLE "{ESCAPE}" (x)',
    "a trigger with an escape": f'CREATE TRIGGER "{ESCAPE}" AFTER UPDATE ON steps BEGIN SELECT 1; END',
    "an identity with escapes": f"UPDATE meta SET value = '{ESCAPE}' WHERE key = 'id'",
    "more commits than there are": "UPDATE meta SET value = 9007199254740991 WHERE key = 'commits'",
    "a newer version with a view": "CREATE VIEW v AS SELECT 1; PRAGMA user_version = 999",
    "escapes in every text of the runs": (
        f"UPDATE runs SET workflow = '{ESCAPE}', owner = '{ESCAPE}', python = '3.9', parent = '{ESCAPE}'"
    ),
    "escapes in a step's id": f"UPDATE steps SET step_id = step_id || '{ESCAPE}'",
    "escapes in a run's id": "".join(
        f"UPDATE {table} SET run_id = run_id || '{ESCAPE}';"
        for table in ("runs", "steps", "versions", "requests")
    ),
    "escapes in who answered": f"UPDATE signals SET delivered_by = '{ESCAPE}'",
    "a step for everything": "UPDATE steps SET kind = 'signal', once = 1, status = 'started'",
    "a sleep that never ends": "UPDATE steps SET kind = 'sleep', finished_at = 253402300799.0",
    "an owner that never was": "UPDATE runs SET sid = 999999, status = 'running'",
    "a session of process 1": "UPDATE sessions SET pid = 1; UPDATE runs SET status = 'running'",
    "an identity without an end": (
        "DROP TABLE meta; CREATE VIEW meta AS WITH RECURSIVE r(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT 'id' AS key, max(n) AS value FROM r"
    ),
    "five thousand requests": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO requests (run_id, name, asked_by, asked_at) SELECT 'w', i, '', 1 FROM n"
    ),
}
LINEAGES = {
    "a lineage without its parts": {"nodes": []},
    "a lineage of wrong types": {
        "as": 1,
        "names": [],
        "own": 5,
        "values": 1,
        "gave": 2,
        "deleted": 3,
        "cell": [],
        "nodes": 7,
    },
    "a lineage that names no node": {
        "as": "x",
        "names": {"a": [99]},
        "own": [],
        "values": {},
        "gave": {},
        "deleted": [],
        "cell": None,
        "nodes": [["c", "t", "s", {}]],
    },
    "files of a wrong shape": {"files": {"cwd": 5, "read": {"/etc/passwd": [1]}, "wrote": 7, "more": "x"}},
    "files that are pipes": {
        "files": {"cwd": "/", "read": {"PIPE": [1, 1, None], "/dev/zero": [1, 1, "x"]}, "more": 10**30}
    },
}
CASES = {
    **{
        f"{name} in {table}": ("payload", (table, payload))
        for name, payload in PAYLOADS.items()
        for table in ("steps",)
    },
    **{
        f"{name} in {table}": ("payload", (table, PAYLOADS[name]))
        for name in ("a pickle that runs code", "a failure that runs code", "an object of any class")
        for table in ("versions", "runs", "signals")
    },
    **{name: ("request", request) for name, request in REQUESTS.items()},
    **{name: ("statement", statement) for name, statement in STATEMENTS.items()},
    **{name: ("lineage", lineage) for name, lineage in LINEAGES.items()},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A database with something in every table."""
    path = tmp_path_factory.mktemp("base") / "runs.db"
    filled(str(path))
    return path


@pytest.fixture
def db(base, tmp_path):
    for path in base.parent.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
        else:
            shutil.copy(path, tmp_path)
    return tmp_path / base.name


@pytest.fixture
def address():
    """A port that counts who connects to it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        yield listening.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listening.accept()


WATCHED = {
    "os.mkdir",
    "os.system",
    "os.exec",
    "socket.connect",
    "sqlite3.enable_load_extension",
    "urllib.Request",
}
_seen: list[tuple] = []


def _audit(event, arguments):
    if event in WATCHED or (event == "open" and arguments[0] in ("/etc/passwd", TRAP)):
        _seen.append((event, arguments))


@pytest.fixture
def watched():
    """What was done that code of the database could have asked for."""
    if not getattr(sys, "_watches_hostile", False):
        sys.addaudithook(_audit)
        sys._watches_hostile = True
    _seen.clear()
    return _seen


def change(db, kind, case, port):
    """Put a case into a database, with checksums that fit."""
    with closing(sqlite3.connect(db)) as connection, connection:
        if kind == "payload":
            _put_payload(connection, *case)
        elif kind == "request":
            schema, choices, prompt = case
            text = schema and json.dumps(schema).replace("PORT", str(port))
            values = (text, choices and json.dumps(choices), prompt)
            connection.execute("UPDATE requests SET schema = ?, choices = ?, prompt = ?", values)
        elif kind == "lineage":
            pipe = db.with_name("pipe")
            os.mkfifo(pipe)
            text = json.dumps(case).replace("PIPE", str(pipe))
            connection.execute("UPDATE steps SET reads = ?", (text,))
        else:
            connection.executescript(case)
        for table in ("runs", "steps", "versions", "signals", "requests"):
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"UPDATE {table} SET checksum = NULL")
        with contextlib.suppress(sqlite3.Error):
            connection.execute("UPDATE runs SET standing = NULL")


def _put_payload(connection, table, payload):
    column = "result" if table == "runs" else "payload"
    names = ", ".join(f"{column}_{part}" for part in ("format", "data", "blob"))
    where = {"steps": "step_id = 'load'"}.get(table, "1")
    changed = connection.execute(f"UPDATE {table} SET ({names}) = (?, ?, ?) WHERE {where}", payload)
    assert changed.rowcount


def commands(db, notebook, words):
    """Every command, none of which trusts the database: gives what they print."""
    on = ["--db", str(db)]
    copy = str(db.with_name("copy.db"))
    lines = [
        *(["runs", *on], ["status", "r", *on], ["status", "w", *on], ["signals", *on], ["trust", str(db)]),
        *(["signal", "w", "ask", word, *on] for word in words),
        *(["plan", str(notebook), "--run-id", run, *on] for run in ("r", "w")),
        *(["show", run, step, *on] for run in ("r", "w") for step in ("one", "ask", "cell", "nope")),
        *(["check", str(db)], ["check", str(db), "--fix"], ["backup", str(db), copy]),
        *(["check", str(db), "--accept"], ["forget", str(db), "--run", "r", "--value", "--yes"]),
    ]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for line in lines:
            assert main(line) in (0, 1, 2, 3), line
    return out.getvalue()


def controls(text):
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {
        "\n",
        "\t",
    }


def resumed(db):
    """Resume the run; any error that is not ours comes out."""
    with Shop(str(db)) as shop:
        try:
            shop.main()
        except DurableError as error:
            return str(error)
    return ""


FEW = (
    "pickle",
    "cell",
    "failure",
    "schema at",
    "pattern",
    "trigger",
    "view in",
    "identity",
    "lineage of",
    "digits",
    "pipes",
)
MARKED = [
    name if any(word in name for word in FEW) else pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
]


@pytest.mark.parametrize("name", MARKED)
def test_a_hostile_database_does_nothing(name, db, tmp_path, address, watched, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "")
    notebook = tmp_path / "n.ipynb"
    notebook.write_text(json.dumps(NOTEBOOK))
    shutil.rmtree(TRAP, ignore_errors=True)
    kind, case = CASES[name]
    change(db, kind, case, address)
    words = ["a" * 40 + "!", '{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!": 1}'] if kind == "request" else ["5"]
    with in_time(name):
        shown = resumed(db)
        shown += commands(db, notebook, words)
    assert controls(shown) == set()
    assert not Path(TRAP).exists()
    assert [event for event in watched if not _is_own(event)] == []


def _is_own(event):
    """Whether durable_nb makes a folder of its own: that of its blobs, of a copy, of its key."""
    return event[0] == "os.mkdir" and str(event[1][0]) != TRAP


def test_there_are_enough_of_them():
    assert len(CASES) >= 60
    assert {payload[0] for payload in PAYLOADS.values()} >= codec.RUNS_CODE | {"json", "bytes"}


def test_the_trap_works(tmp_path):
    shutil.rmtree(TRAP, ignore_errors=True)
    with contextlib.suppress(TypeError, DurableError):
        pickle.loads(EVIL)
    assert Path(TRAP).exists()
    shutil.rmtree(TRAP)


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_whoever_answers_in_another_way_is_as_safe(name, address, watched):
    schema, choices, prompt = REQUESTS[name]
    text = schema and json.dumps(schema).replace("PORT", str(address))
    request = SignalRequest("w", "ask", prompt, text, choices and json.dumps(choices))
    with in_time(name), contextlib.suppress(StepError, StoreError):
        accepted.check_value(request, "a" * 40 + "!")
    assert [event for event in watched if not _is_own(event)] == []
