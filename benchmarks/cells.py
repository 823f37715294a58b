"""The cost of durable cells and of large values, each with its limit.

Run it with ``make bench``; ``--scale 0.01`` makes everything a hundredth as large, to check that it works.
Each line is a time, or a ratio to the speed of the disk, which is measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell

from durable_nb.codec import decode, encode
from durable_nb.notebook.namespace.save import save_names
from durable_nb.notebook.namespace.snapshot import snapshot_names
from durable_nb.stores.payloads import fetch, keep
from durable_nb.stores.sqlite.journal import SqliteJournal

MB = 1_000_000
REPEATS = 3


def seconds_of(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def line(title: str, measured: float, limit: float, unit: str, note: str = "") -> bool:
    """Print a measurement with its limit; return whether it is within the limit."""
    held = measured <= limit
    print(f"{'ok  ' if held else 'OVER'} {title:<46} {measured:9.2f} {unit:<3} limit {limit:g} {note}")
    return held


def raw_write(folder: Path, data: memoryview) -> float:
    def write() -> None:
        with (folder / "raw").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    seconds = seconds_of(write)
    (folder / "raw").unlink()
    return seconds


def values(size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    random = np.random.default_rng()
    yield "bytes", lambda: random.bytes(size)
    yield "array", lambda: random.random(size // 8)
    yield "frame", lambda: pd.DataFrame({f"c{n}": random.random(size // 80) for n in range(10)})


def saving(folder: Path, scale: float) -> Iterator[bool]:
    size = int(100 * MB * scale)
    asyncio.run(keep(SqliteJournal(folder / "first.db"), encode(np.ones(MB)), "r", "s"))  # imports, folders
    for name, make in values(size):
        ratios = []
        for n in range(REPEATS):
            home, value = SqliteJournal(folder / f"{name}{n}.db"), make()
            raw = raw_write(folder, memoryview(np.random.default_rng().bytes(size)))
            ours = seconds_of(lambda: asyncio.run(keep(home, encode(value), "r", "s")))  # noqa: B023 - called at once
            ratios.append(ours / raw)
        yield line(f"{name} of {size // MB} MB ÷ file write + fsync", statistics.median(ratios), 2.0, "x")


def restoring(folder: Path, scale: float) -> Iterator[bool]:
    home, size = SqliteJournal(folder / "array.db"), int(500 * MB * scale)
    payload = asyncio.run(keep(home, encode(np.random.default_rng().random(size // 8)), "r", "s"))
    home = SqliteJournal(folder / "array.db")  # as in another process: its blobs are not verified yet
    seconds = seconds_of(lambda: decode(asyncio.run(fetch(home, payload, "r", "s"))))
    yield line(f"array of {size // MB} MB restored", seconds * 1000, 10, "ms")


class Notebook:
    """An IPython shell with an open run, in which cells are timed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shell = InteractiveShell.instance()
        self.count = 0
        self.run(f"%load_ext durable_nb\n%durable_workflow bench --db {folder}/cells.db --badge off")

    def run(self, source: str) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            begin = time.perf_counter()
            result = self.shell.run_cell(source)
            seconds = time.perf_counter() - begin
        result.raise_error()
        return seconds

    def step(self, source: str) -> float:
        self.count += 1
        return self.run(f"%%durable_step s{self.count}\n{source}")

    def written(self) -> int:
        blobs = self.folder / "cells.db.blobs"
        return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())


def commits(_folder: Path, scale: float) -> Iterator[bool]:
    """Saving many names, and many objects, beside pickling the same values."""
    count = max(int(1000 * scale), 10)
    names = {f"n{n}": [n, f"name {n}"] for n in range(count)}
    yield line("1,000 names saved ÷ each pickled by itself", _ratio(names), 15, "x")
    count = max(int(20_000 * scale), 10)
    objects = {"objects": [_Plain(n) for n in range(count)]}
    yield line("20,000 objects of a class saved ÷ pickled", _ratio(objects), 6, "x")


class _Plain:
    def __init__(self, number: int) -> None:
        self.number, self.text = number, f"text {number}"


def _each_pickled(values: dict[str, object]) -> None:
    for value in values.values():
        io.BytesIO(cloudpickle.dumps(value))


def _ratio(values: dict[str, object]) -> float:
    ratios = []
    for _ in range(REPEATS):
        namespace: dict[str, object] = {"__name__": "__main__"}
        before = snapshot_names(namespace, ())
        namespace |= values
        changes = before.changes(namespace)
        ours = seconds_of(lambda: save_names(namespace, changes))  # noqa: B023 - called at once
        ratios.append(ours / seconds_of(lambda: _each_pickled(values)))
    return min(ratios)


def cells(folder: Path, scale: float) -> Iterator[bool]:
    notebook = Notebook(folder)
    notebook.step("x = [1]")
    plain = statistics.median(notebook.step(f"x = [{n}]") for n in range(20))
    ordinary = statistics.median(notebook.run(f"x = [{n}]") for n in range(20))
    yield line("small cell, extra time of a durable one", (plain - ordinary) * 1000, 10, "ms")
    notebook.run("\n".join(f"n{n} = [{n}, 'name {n}']" for n in range(1000)))
    many = statistics.median(notebook.step(f"x = [{n}]") for n in range(20))
    yield line("1,000 small variables, extra time of a cell", (many - plain) * 1000, 10, "ms")
    notebook.run("for _n in range(1000): del globals()[f'n{_n}']")

    size = int(500 * MB * scale)
    notebook.step(f"import numpy as np, pandas as pd\nbig = np.random.default_rng().random({size // 8})")
    before = notebook.written()
    beside = statistics.median(notebook.step(f"x = [{n}]") for n in range(5))
    yield line(f"cell with an unchanged array of {size // MB} MB", beside, 0.1, "s")
    yield line("bytes that it wrote to blobs", notebook.written() - before, 0, "B")
    notebook.run("del big")

    rows = int(490 * MB * scale) // 8 // 13
    notebook.step(f"frame = pd.DataFrame(dict((f'c{{n}}', np.random.random({rows})) for n in range(13)))")
    before = notebook.written()
    notebook.step("frame['c7'] = frame['c7'] + 1")
    ratio = (notebook.written() - before) / (8 * rows)
    yield line("one changed column of a frame ÷ the column, bytes", ratio, 1.2, "x")
    notebook.run("del frame")
    yield from beside_many_objects(notebook, scale)


def beside_many_objects(notebook: Notebook, scale: float) -> Iterator[bool]:
    """Cells that read, or change, one of many objects."""
    notebook.step(f"many = [dict(a=n, b=str(n)) for n in range({int(300_000 * scale)})]")
    reading = statistics.median(notebook.step(f"x = many[{n}]['a']") for n in range(5))
    yield line("cell that reads one of 300,000 dicts", reading * 1000, 30, "ms")
    changing = statistics.median(notebook.step(f"many[{n}]['a'] = -1") for n in range(5))
    yield line("cell that changes one of 300,000 dicts", changing, 0.3, "s")
    notebook.run("del many")
    notebook.step(
        "import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt\n"
        f"figure, axes = plt.subplots(); axes.plot(np.zeros((50, {int(400 * scale)})))"
    )
    titled = statistics.median(notebook.step(f"_ = axes.set_title('{n}')") for n in range(3))
    yield line("title set on a figure of 400 lines", titled, 0.1, "s")
    notebook.run("%durable_workflow --done\nwf.close()")  # before the folder is removed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the size of the values; 1 for the limits")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        directory = Path(folder)
        parts = (saving, restoring, cells, commits)
        held = [ok for part in parts for ok in part(directory, scale)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
