"""What reaches a terminal controls no terminal, whatever another user wrote to a database."""

import ast
import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import traceback
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

import durable_nb
from durable_nb import Workflow, errors
from durable_nb.cli import UNREAD, main
from durable_nb.cli.board import Board
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.status import one_line
from durable_nb.errors import DurableError, DurableNotice, printable
from durable_nb.notebook.headless.runner import CellReport, CellState
from durable_nb.notebook.prompts.shell_prompter import _prompt
from durable_nb.records import Payload, Run, SignalRequest, StepKind, StepStatus
from durable_nb.signals.delivery import deliver, make_signal
from durable_nb.stores.testing import sample_step

PACKAGE = Path(durable_nb.__file__).parent
HOSTILE = [
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x9b31m",
        "\x9d0;t\x9c",
        "\x85",
        "\r",
        "\b",
        "\x7f",
    ),
    *("\u202e", "\u2066", "\u200f", "\u061c", "\u2028", "\ufeff", "\U000e0041", "\0", "\x0e", "\v", "\f"),
]
texts = st.lists(
    st.sampled_from([*HOSTILE, "a", "\n", "'", '"', "{}", "é", "漢", " "]), min_size=1, max_size=8
).map("".join)
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def controls(text):
    """The characters in a text that control a terminal, or hide."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    joiners = "\u200c\u200d\u00ad"  # of Persian and emoji; a hyphen
    return [char for char in text if unicodedata.category(char) in kinds and char not in f"\n\t{joiners}"]


@given(st.text(st.characters(exclude_categories=[])))
def test_no_character_passes_that_controls_a_terminal(text):
    assert controls(printable(text)) == []
    assert printable(printable(text)) == printable(text)
    assert "\n" not in one_line(text)


@pytest.mark.parametrize(
    "text",
    ["", "a b\tc\nd", "é漢 naïve «x» — …", "👩\u200d💻", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
)
def test_what_people_write_passes(text):
    assert printable(text) == text


def classes(kind):
    return [kind, *(each for child in kind.__subclasses__() for each in classes(child))]


PUBLIC = [kind for kind in classes(DurableError) if kind.__module__ == errors.__name__]


@given(st.sampled_from([*PUBLIC, errors.SignalPending]), texts, texts, texts, texts)
def test_every_error_is_printable(kind, what, run, step, remedy):
    error = kind(what, run_id=run, step=step, remedy=(remedy, errors.ResetStep()))
    assert controls("".join(traceback.format_exception_only(error))) == []


@given(texts)
def test_every_notice_is_printable(text):
    shown = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(shown):
        warnings.simplefilter("always")
        warnings.showwarning = plain  # pytest has replaced it
        warnings.warn(text, DurableNotice, stacklevel=1)
    assert "DurableNotice: " in shown.getvalue()
    assert controls(shown.getvalue()) == []


def plain(message, category, filename, lineno, file=None, line=None):
    """Show a warning as Python does."""
    print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr)


def calls(name):
    """The calls of a function in the package, each with its module."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                yield path.relative_to(PACKAGE).as_posix(), node


def test_there_are_no_other_ways_to_the_terminal():
    printed = [(module, ast.unparse(call.args[0])) for module, call in calls("print")]
    assert {module for module, _ in printed} == {"cli/terminal.py", "notebook/magics.py"}
    assert [text for _, text in printed if not text.startswith("printable(")] == []
    assert [module for name in ("sys.stdout.write", "sys.stderr.write") for module, _ in calls(name)] == []
    assert {ast.unparse(call.args[1]) for _, call in calls("warnings.warn")} == {"DurableNotice"}


def store(work):
    return run_blocking(SYNC.store(work))


def fill(db, run_id, step_id, text):
    """Fill a database with a run, steps, requests and signals whose every text is hostile."""
    wf = Workflow("shop", db=str(db))
    journal = wf.journal
    store(journal.setup())
    shown = json.dumps({text: text})
    opening = Run(run_id, text, code=text, arguments=text, arguments_repr=shown, python="3.9", owner=text)
    run = store(journal.open_run(opening)).run
    failed = Payload("failure", b"{}", signature=b"x")
    for number, payload in enumerate(
        (None, failed, Payload("json", b"5"), Payload("pickle", b"x"), Payload(text, b"x"))
    ):
        status = StepStatus.FAILED if payload is failed else StepStatus.DONE
        step = sample_step(run, f"{step_id}{number}", status=status, kind=StepKind.CELL, payload=payload)
        store(journal.put_step(step._replace(delivered_by=text, arguments_repr=shown)))
    choices = json.dumps([text])
    store(
        journal.request_signal(
            SignalRequest(run_id, step_id, text, '{"format": "approval"}', None, text, text, 1.0)
        )
    )
    store(journal.request_signal(SignalRequest(run_id, f"{step_id}!", text, None, choices, text, text, 1.0)))
    store(deliver(journal, make_signal(run_id, "answered", 5, text), 5))
    wf.close()


def run(*words):
    """Run a command; gives all that it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main(list(words))
    return out.getvalue() + err.getvalue()


@settings(
    max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate]
)  # an example takes a second
@given(run_id=texts, step_id=texts, text=texts)
def test_no_command_prints_what_controls_a_terminal(tmp_path_factory, run_id, step_id, text):
    folder = tmp_path_factory.mktemp("runs")
    db, notebook = folder / "runs.db", folder / "n.ipynb"
    notebook.write_text(json.dumps(NOTEBOOK))
    fill(db, run_id, step_id, text)
    on = ("--db", str(db))
    commands = [
        *(("runs", *on), ("status", run_id, *on), ("status", "r\x1b[1m", *on), ("signals", *on)),
        *(("show", run_id, step_id, *on), ("reset", run_id, step_id, *on), ("fork", run_id, "copy", *on)),
        *(("signal", run_id, "answered", text, *on), ("signal", run_id, f"{step_id}!", text + "x", *on)),
        *(("plan", str(notebook), "--run-id", run_id, *on), ("trust", "--yes", str(db)), ("check", str(db))),
        *(
            ("check", "--fix", str(db)),
            ("check", "--accept", str(db)),
            ("backup", str(db), str(folder / "copy.db")),
        ),
        *(("runs", "--db", f"{folder}/{text}"), ("check", f"{folder}/{text}".replace("\0", ""))),
    ]
    shown = "".join(run(*words) for words in commands)
    assert one_line(text) in shown
    assert controls(shown) == []


def test_a_flipped_column_is_named_without_its_escapes(tmp_path):
    fill(tmp_path / "runs.db", "r", "s", "x")
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
        connection.execute("UPDATE steps SET kind = ?, checksum = NULL", ("\x1b[31m",))
        connection.execute("UPDATE runs SET owner = ?, status = ?", ("\x1b[31m", "\x1b[32m"))
    for words in (["status", "r"], ["runs"]):
        shown = run(*words, "--db", str(tmp_path / "runs.db"))
        assert "damaged" in shown
        assert controls(shown) == []


@given(texts)
def test_prompts_of_a_terminal_are_printable(text):
    request = SignalRequest("r", text, text, None, json.dumps([text]), text)
    assert controls(_prompt(request)) == []
    assert controls(_prompt(request._replace(choices=None, schema=json.dumps({"type": text})))) == []


@given(texts)
def test_the_board_of_a_notebook_is_printable(text):
    shown = io.StringIO()
    report = CellReport(0, text, CellState.FAILED, error=text)
    with Board(Console(file=shown), "run", [report]) as board:
        board.show(replace(report, state=CellState.RUNNING))
        board.show(report)
    assert controls(shown.getvalue()) == []


def test_a_command_whose_reader_has_ended_ends_without_a_traceback(tmp_path):
    with Workflow("w", db=tmp_path / "a.db") as wf:
        wf.workflow(id="r")(lambda: 1)()
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "durable_nb.cli", "status", "r", "--db", str(tmp_path / "a.db")]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (UNREAD, "")
