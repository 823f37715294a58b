"""A checkpoint that a development version wrote, from before the stored format: refused, and clearly so."""

import contextlib
import json
import sqlite3

import pytest

from durable_nb import Workflow, errors, records
from durable_nb.codec import bundle, signing
from golden.write import SECRET
from helpers import ROOT, pythonpath
from helpers.kernel import Kernel

OLD = "durable_nb.notebook.pickling._globals"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("DURABLE_NB_SECRET", SECRET)


def stream(rest=b"}."):
    """What such a version wrote of a cell: a call of a function that stands elsewhere now, then the names."""
    module, _, name = OLD.rpartition(".")
    return b"\x80\x05c" + f"{module}\n{name}\n".encode() + b")R." + b"\x80\x05" + rest


def put(db, run_id, step, format, data):
    """Write a payload in place of a step's own, with a signature."""
    payload = signing.sign(records.Payload(format, data), run_id, step)
    with contextlib.closing(sqlite3.connect(db)) as connection, connection:
        changed = connection.execute(
            "UPDATE steps SET payload_format = ?, payload_data = ?, payload_blob = NULL, "
            "payload_signature = ?, checksum = NULL WHERE run_id = ? AND step_id = ?",
            (format, data, payload.signature, run_id, step),
        )
        assert changed.rowcount == 1


def cell_payload(data, *, groups=(["x", "y"],), kinds=()):
    """The bytes of a cell's checkpoint."""
    header = {
        "namespace": {
            "groups": [{"names": names, "buffers": 0} for names in groups],
            "deleted": ["kept"],
            "unsaved": {},
        },
        "ambient": {"kinds": list(kinds), "unsaved": {}},
        "outputs": [],
    }
    parts = [data] * (len(groups) + len(kinds))
    return b"".join(map(bytes, bundle.pack(json.dumps(header).encode(), parts)))


def load(wf, ran, *, ends=True):
    @wf.task
    def load():
        ran.append(1)
        return {1, (2,)}, range

    @wf.workflow(id="r")
    def main():
        found = load()
        if not ends:
            raise OSError("down")
        return found

    return main


@pytest.mark.parametrize("format", ["pickle", "objects"])
def test_a_task_says_where_it_comes_from_and_what_to_do(db, format):
    ran = []
    with Workflow("old", db=db) as wf, pytest.raises(OSError, match="down"):
        load(wf, ran, ends=False)()
    module, _, name = OLD.rpartition(".")
    data = stream() if format == "pickle" else json.dumps({"$object": [f"{module}:{name}", {}]}).encode()
    put(db, "r", "load", format, data)
    with Workflow("old", db=db) as wf:
        main = load(wf, ran)
        with pytest.raises(errors.StepNotRestored) as caught:
            main()
        assert str(caught.value) == (
            f"run 'r', step 'load': the checkpoint names {OLD}, which is not part of the stored format: it "
            "was written by a development version of durable_nb from before 0.1.0, whose checkpoints are not "
            "readable. Run the step again: wf.sync.resolve('r', 'load', 'rerun'), or start a new database."
        )
        wf.sync.resolve("r", "load", "rerun")
        assert main() == ({1, (2,)}, range)
    assert ran == [1, 1]


@pytest.fixture
def kernel(tmp_path):
    kernel = Kernel(tmp_path, tmp_path / "home", **pythonpath(ROOT), DURABLE_NB_SECRET=SECRET)
    yield kernel
    kernel.shutdown()


CELL = "%%durable_step load\nx = [1]; y = {2}"
OPEN = "%durable_workflow r --db runs.db"


@pytest.mark.parametrize(
    "saved",
    [cell_payload(stream()), cell_payload(stream(), groups=(), kinds=["random's generator"])],
    ids=["names", "ambient state"],
)
def test_a_durable_cell_is_refused_whole_and_binds_nothing(kernel, db, saved):
    for line in ("%load_ext durable_nb", "kept = 1", OPEN, CELL, "%durable_workflow --done", "del x, y"):
        assert kernel.run(line).error is None
    put(db, "r", "load", "cell", saved)
    assert kernel.run(OPEN).error is None
    told = kernel.run(CELL).stderr
    assert f"StepNotRestored: run 'r', step 'load': the checkpoint names {OLD}, which is not part" in told
    assert "a development version of durable_nb from before 0.1.0, whose checkpoints are not readable" in told
    assert "Run the step again: %durable_reset load, or start a new database." in told
    assert "Traceback" not in told
    assert kernel.run("print(kept, 'x' in globals(), 'y' in globals())").text == "1 False False\n"
    assert (
        f"step load: run 'r', step 'load': the checkpoint names {OLD}" in kernel.run("%durable_restore").text
    )
    assert "will run again" in kernel.run("%durable_reset load").text
    assert kernel.run(CELL).error is None
    assert kernel.run("print(x, y)").text == "[1] {2}\n"


def test_a_stream_that_is_only_damaged_costs_its_names_alone(kernel, db):
    for line in ("%load_ext durable_nb", OPEN, CELL, "%durable_workflow --done"):
        assert kernel.run(line).error is None
    put(db, "r", "load", "cell", cell_payload(b"\x80\x05nonsense"))
    assert kernel.run(OPEN).error is None
    assert "x is not restored: UnpicklingError" in kernel.run(CELL).told
    assert "StepNotRestored: step 'load': `x` could not be restored" in kernel.run("x.used").error
