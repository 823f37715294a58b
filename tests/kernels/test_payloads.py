"""What durable cells keep in parts: restored after a kill, damaged one at a time, trusted or not."""

import sqlite3
from contextlib import closing

ARRAYS = """%%durable_step load
import numpy as np, pandas as pd
big = np.arange(200_000.0)
other = np.arange(300_000)
view = big[10:20]
frame = pd.DataFrame({"a": np.arange(90_000.0), "b": np.ones(90_000)})
small = [1]
"""
LOOK = """
import mmap
def mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, memoryview) and isinstance(array.obj, mmap.mmap)
view[0] = -1
frame.loc[0, "a"] = 7
print(mapped(big), mapped(other), mapped(frame["b"].values), big[10], other.sum(), frame["a"].sum(), small)
"""
SEEN = "True True True -1.0 44999850000 4049955007.0 [1]\n"


def blobs(kernel):
    return {path for path in (kernel.cwd / "durable.db.blobs").rglob("*") if path.is_file()}


def killed(kernel):
    kernel.sigkill()
    kernel.restart()
    assert kernel.run("%load_ext durable_nb\n%durable_workflow r").error is None


def test_parts_come_back_mapped_and_are_lost_one_by_one(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow r")
    assert kernel.run(ARRAYS).error is None
    assert sorted(path.stat().st_size for path in blobs(kernel)) == [720_000, 720_000, 1_600_000, 2_400_000]
    before = blobs(kernel)
    assert kernel.run("%%durable_step change\nframe['b'] = frame['b'] * 3").error is None
    (column,) = blobs(kernel) - before
    assert column.stat().st_size == 720_000

    killed(kernel)
    assert kernel.run(ARRAYS).error is None
    assert kernel.run(LOOK).text == SEEN
    assert blobs(kernel) == before | {column}

    (path,) = [path for path in before if path.stat().st_size == 2_400_000]
    path.write_bytes(path.read_bytes()[:-8])
    killed(kernel)
    assert "other" in kernel.run(ARRAYS).text + kernel.run("print(repr(other))").text
    assert "step 'load': `other` could not be restored" in kernel.run("other + 1").error
    assert kernel.run("print(big.sum(), small, frame.shape)").text == "19999900000.0 [1] (90000, 2)\n"


def test_a_cell_somebody_else_has_made_is_refused_and_its_neighbours_are_not(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow r")
    cells = [f"%%durable_step s{n}\nx{n} = [{n}]\nprint('ran')" for n in range(3)]
    assert [kernel.run(cell).text.count("ran") for cell in cells] == [1, 1, 1]
    kernel.sigkill()
    with closing(sqlite3.connect(kernel.cwd / "durable.db")) as connection, connection:
        other = "payload_data = CAST(payload_data || 'x' AS BLOB), checksum = NULL"
        evil = f"UPDATE steps SET {other} WHERE step_id = 's1'"
        assert connection.execute(evil).rowcount == 1
    kernel.restart()
    kernel.run("%load_ext durable_nb\n%durable_workflow r")
    first, second, third = (kernel.run(cell) for cell in cells)
    assert first.error is None
    assert third.error is None
    assert "UntrustedCheckpoint" in second.stderr
    assert "durable-nb trust" in second.stderr
    assert "step 's1'" in second.stderr
    assert kernel.run("print(x0, x2, 'x1' in globals())").text == "[0] [2] False\n"
