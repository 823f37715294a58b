"""The main job: a notebook's kernel is killed in the middle, "Run All" goes on where it stopped."""

import time

SETUP = """
%load_ext durable_nb
%durable_workflow big-job --db runs.db
%matplotlib inline
import os
def log(line):
    with open("bodies.log", "a") as file:
        print(line, file=file, flush=True)
        os.fsync(file.fileno())
"""
LOAD = """%%durable_step load
import pandas as pd
log("load")
print("loading")
frame = pd.DataFrame({"day": ["mon", "tue"], "sold": [3, 4]})
frame
"""
CLEAN = """%%durable_step clean
log("clean")
import asyncio, sys
await asyncio.sleep(0.01)
print("warned", file=sys.stderr)
frame.loc[0, "sold"] = 30
total = int(frame["sold"].sum())
{"total": total}
"""
PLOT = """%%durable_step plot
log("plot")
import matplotlib.pyplot as plt
plt.plot(frame["sold"])
plt.title("sold")
plt.show()
print("drawn")
"""
SLOW = """%%durable_step slow
log("slow begins")
if not os.path.exists("second-time"):
    import time
    time.sleep(60)
log("slow ends")
answer = total + 8
"""
LAST = "log('last'); print(answer, len(frame)); answer"
CELLS = [SETUP, LOAD, CLEAN, PLOT, SLOW, LAST]


def shown(cell):
    """What a cell displayed, but for the durable line and the counter."""
    kept = []
    for output in cell.outputs:
        if "durable_nb" in output.get("metadata", {}):
            continue
        kept.append({key: value for key, value in output.items() if key != "execution_count"})
    return kept


def lines(kernel):
    return (kernel.cwd / "bodies.log").read_text().split("\n")[:-1]


def badge(cell):
    return next(
        output["metadata"]["durable_nb"]
        for output in cell.outputs
        if "durable_nb" in output.get("metadata", {})
    )


def test_a_killed_notebook_goes_on(kernel):
    first = [kernel.run(cell) for cell in CELLS[:4]]
    assert [cell.status for cell in first] == ["ok"] * 4
    kernel.start(SLOW)
    deadline = time.monotonic() + 30
    while "slow begins" not in lines(kernel) and time.monotonic() < deadline:
        time.sleep(0.02)
    kernel.sigkill()
    assert lines(kernel) == ["load", "clean", "plot", "slow begins"]

    kernel.restart()
    (kernel.cwd / "second-time").touch()
    second = [kernel.run(cell) for cell in CELLS]
    assert [cell.status for cell in second] == ["ok"] * 6, second[-1].error
    assert lines(kernel) == ["load", "clean", "plot", "slow begins", "slow begins", "slow ends", "last"]

    for before, after in zip(first[1:4], second[1:4], strict=True):
        assert shown(before) == shown(after)
    assert "text/html" in second[1].result
    assert second[2].result["text/plain"] == "{'total': 34}"
    assert any("image/png" in output.get("data", {}) for output in second[3].outputs)
    assert second[5].text == "42 2\n"
    assert [badge(cell)["action"] for cell in second[1:5]] == ["replayed"] * 3 + ["executed"]

    values = kernel.run("print(frame.to_dict('list'), Out[3], pd.__name__)")
    assert values.text.startswith("{'day': ['mon', 'tue'], 'sold': [30, 4]} {'total': 34}"), values


def test_cells_run_out_of_their_order_come_back_in_that_order_and_in_theirs(kernel):
    setup = "%load_ext durable_nb\n%durable_workflow orders --db runs.db"
    cells = {
        "look": "open('ran', 'a').write('l')\nseen = (len(rows), rows is both[0])",
        "grow": "open('ran', 'a').write('g')\nrows.append(2); both = [rows]",
        "make": "open('ran', 'a').write('m')\nrows = [1]",
    }
    state = "print(rows, both, seen, rows is both[0])"
    upwards = list(reversed(cells))

    def run(names):
        assert kernel.run(setup).status == "ok"
        ran = [kernel.run(f"%%durable_step {name}\n{cells[name]}") for name in names]
        assert [cell.error for cell in ran] == [None] * 3
        return [badge(cell)["action"] for cell in ran], kernel.run(state).text

    first = run(upwards)
    assert first == (["executed"] * 3, "[1, 2] [[1, 2]] (2, True) True\n")
    kernel.sigkill()
    kernel.restart()
    assert run(upwards) == (["replayed"] * 3, first[1])
    kernel.sigkill()
    kernel.restart()
    actions, _ = run(cells)  # top to bottom, where a fresh kernel would raise a NameError
    assert actions == ["replayed"] * 3
    assert (kernel.cwd / "ran").read_text() == "mgl"
