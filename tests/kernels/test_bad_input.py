"""Bad input in magics: one plain line that says what to do, no traceback of internals, nothing lost."""

import sqlite3

import pytest

from durable_nb import Workflow


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A kernel with a run open and a finished step, one for all tests of this module."""
    from helpers.kernel import Kernel

    folder = tmp_path_factory.mktemp("bad-input")
    kernel = Kernel(folder, folder / "home", DURABLE_NB_BADGE="plain")
    assert kernel.run("%load_ext durable_nb\n%durable_workflow r").status == "ok"
    assert kernel.run("%%durable_step load\nkept = 'precious'").status == "ok"
    yield kernel
    kernel.shutdown()


def refusal(kernel, code):
    """The one line with which a cell was refused."""
    cell = kernel.run(code)
    assert cell.status == "error"
    shown = (cell.error or cell.stderr).strip().splitlines()
    assert "Traceback" not in (cell.error or "") + cell.stderr
    assert "durable_nb/" not in (cell.error or "") + cell.stderr
    assert cell.reply["ename"] == "UsageError"
    message = cell.reply["evalue"]
    assert "\n" not in message
    assert len(set(shown)) == 1, shown
    assert message in shown[0]
    return message


def still_works(kernel):
    """Nothing was lost: the run is open, and what was finished replays."""
    kernel.run("kept = 'spoilt'")
    replay = kernel.run("%%durable_step load\nkept = 'precious'")
    assert replay.status == "ok"
    assert kernel.run("print(kept)").text == "precious\n"
    with sqlite3.connect(kernel.cwd / "durable.db") as connection:
        steps = connection.execute(
            "SELECT attempt FROM steps WHERE run_id = 'r' AND step_id = 'load'"
        ).fetchall()
    assert steps == [(1,)]


BODY = "\nraise AssertionError('not to be run')"
LINES = {
    "an unknown option": (
        "%%durable_step a --retry 3" + BODY,
        "%%durable_step: unrecognized arguments: --retry 3.",
    ),
    "a repeated option": (
        "%%durable_step a --retries 1 --retries 2" + BODY,
        "--retries is given more than once",
    ),
    "repeated with =": (
        "%%durable_step a --retries=1 --retries 2" + BODY,
        "--retries is given more than once",
    ),
    "an abbreviated option": ("%%durable_step a --retr 3" + BODY, "unrecognized arguments: --retr 3"),
    "no name": ("%%durable_step" + BODY, "the following arguments are required: NAME"),
    "two names": ("%%durable_step a b" + BODY, "unrecognized arguments: b"),
    "an open quote": ("%%durable_step 'a" + BODY, "No closing quotation"),
    "no number": ("%%durable_step a --retries x" + BODY, "argument --retries: "),
    "below zero": ("%%durable_step a --retries -1" + BODY, "--retries"),
    "no backoff": (
        "%%durable_step a --backoff fast" + BODY,
        "expected e.g. exponential:2:60, linear:2:3 or constant:5",
    ),
    "no choice": ("%%durable_step a --on-edit maybe" + BODY, "invalid choice: 'maybe'"),
    "an empty name": ("%%durable_step ''" + BODY, "cannot name a step"),
    "unknown, workflow": ("%durable_workflow r --database x", "unrecognized arguments: --database x"),
    "repeated, workflow": ("%durable_workflow r --fresh --fresh", "--fresh is given more than once"),
    "two runs": ("%durable_workflow r s", "unrecognized arguments: s"),
    "an empty id": ("%durable_workflow ''", "cannot name a run"),
    "a long id": ("%durable_workflow " + "x" * 10_000, "it has 10000 characters"),
    "a NUL": ("get_ipython().run_line_magic('durable_workflow', '\"a\\x00b\"')", "cannot name a run"),
    "a surrogate": ("get_ipython().run_line_magic('durable_workflow', 'a\\udc80b')", "cannot name a run"),
    "no badge": ("%durable_workflow r --badge loud", "invalid choice: 'loud'"),
    "a step that is not there": (
        "%durable_reset lod",
        "step 'lod': no step of that name. Steps: load",
    ),
    "no step": ("%durable_reset", "the following arguments are required: STEP"),
    "a timer above": (
        "%%time\n%%durable_step a" + BODY,
        "%%durable_step must be the first line of its cell: move it above %%time.",
    ),
    "a shell above": ("%%bash\n%%durable_step a\nexit 3", "move it above %%bash"),
    "no database": ("%durable_workflow s --db notes.txt", "is not an SQLite database"),
    "a folder": ("%durable_workflow s --db .", "is a folder, not a database"),
    "a missing folder": ("%durable_workflow s --db missing/runs.db", "does not exist"),
    "an unknown store": ("%durable_workflow s --db mysql://host/db", "there is no store for mysql:// URLs"),
}


@pytest.mark.parametrize(("code", "told"), LINES.values(), ids=LINES.keys())
def test_a_line_that_makes_no_sense(opened, code, told):
    (opened.cwd / "notes.txt").write_text("remember the milk\n" * 100)
    assert told in refusal(opened, code)
    still_works(opened)
    assert not (opened.cwd / "missing").exists()


def test_a_durable_cell_inside_another(opened):
    cell = opened.run(
        "%%durable_step outer\nawait get_ipython().run_cell_magic('durable_step', 'inner', 'x = 1')"
    )
    assert cell.status == "error"
    assert (
        "StepNested: run 'r', step 'inner': a durable cell cannot be nested in another durable cell."
        in cell.reply["evalue"]
    )
    assert "inside a durable cell, use @wf.task" in cell.reply["evalue"]
    still_works(opened)


@pytest.mark.parametrize("named", ["", ", step_id='named'"])
def test_a_call_that_failed_in_an_ordinary_cell_is_tried_again_when_its_cell_is(opened, named):
    """Whatever was run in between: in a notebook, a person goes on and comes back."""
    define = "@wf.task(retries=0)\ndef fetch(n):\n    if not up:\n        raise OSError('down')\n    return n"
    opened.run(f"up = False\n{define}")
    call = f"print(fetch(5{named}))"
    assert opened.run(call).reply["ename"] == "OSError"
    still_works(opened)
    opened.run("%%durable_step later\nx = 1")
    opened.run("wf.task(lambda n: n)(3, step_id='later still')")
    opened.run("up = True")
    assert opened.run(call).text == "5\n"
    opened.run("up = False")
    assert opened.run(call).text == "5\n"


@pytest.mark.parametrize("run_id", ["order/17", "'two words'", "👩‍💻", "50%", "a#1", "'~0'"])
def test_ids_that_work(opened, run_id):
    assert opened.run(f"%durable_workflow {run_id} --db ids.db").status == "ok"
    assert opened.run("%%durable_step load\nkept = 1").status == "ok"
    plain = run_id.strip("'")
    with sqlite3.connect(opened.cwd / "ids.db") as connection:
        assert connection.execute("SELECT count(*) FROM steps WHERE run_id = ?", [plain]).fetchone() == (1,)
    assert opened.run("%durable_workflow r --db durable.db").status == "ok"
    still_works(opened)


def test_a_newer_database(opened):
    wf = Workflow("notebook", db=opened.cwd / "newer.db")
    wf.sync.complete("s", "approval")
    wf.close()
    with sqlite3.connect(opened.cwd / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "StoreTooNew" in refusal(opened, "%durable_workflow s --db newer.db")
    still_works(opened)


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A kernel where no run is open."""
    from helpers.kernel import Kernel

    folder = tmp_path_factory.mktemp("no-run")
    kernel = Kernel(folder, folder / "home")
    kernel.run("%load_ext durable_nb")
    yield kernel
    kernel.shutdown()


@pytest.mark.parametrize(
    "code",
    ["%%durable_step load" + BODY, "%durable_workflow", "%durable_workflow --done", "%durable_reset load"],
)
def test_no_run_is_open(closed, code):
    told = refusal(closed, code)
    assert told == "NoOpenRun: no run is open. To open one: %durable_workflow RUN_ID"
    assert not (closed.cwd / "durable.db").exists()


def test_done_with_another_id_ends_nothing(opened):
    message = refusal(opened, "%durable_workflow --done other")
    assert "--done ends the open run 'r', not 'other'" in message
    assert "Type: %durable_workflow --done" in message
    still_works(opened)
