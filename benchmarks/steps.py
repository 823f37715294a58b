"""What steps on a SQLite file cost, each beside the bar it is held to.

Run it with ``make bench``; ``--scale 0.1`` makes a tenth as many steps. Everything is measured several times
in turn with what it is compared with, each time in a process of its own, and the lowest of each is taken:
a machine that does something else as well makes nothing faster. The file is in memory, and times are those
of the processor; for the rows marked so a small library makes every fsync take a millisecond (on Linux
with a C compiler; elsewhere they are left out, and it is said).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
GATHERED = 1000
MEMORY = Path("/dev/shm")

FSYNC = """
#include <time.h>
static int wait_a_millisecond(void) { struct timespec t = {0, 1000000}; return nanosleep(&t, 0); }
int fsync(int file) { return wait_a_millisecond(); }
int fdatasync(int file) { return wait_a_millisecond(); }
"""

RAW = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = wal")
connection.execute("PRAGMA synchronous = full")
connection.execute("CREATE TABLE t (name TEXT PRIMARY KEY, value BLOB)")
begin = clock()
for n in range(count):
    connection.execute("INSERT INTO t VALUES (?, ?)", (f"work#{n}", b"x" * 200))
print((clock() - begin) / count)
"""

AIOSQLITE = """
import aiosqlite, asyncio, sys, time

async def main():
    async with aiosqlite.connect(sys.argv[1], isolation_level=None) as connection:
        await connection.execute("PRAGMA journal_mode = wal")
        await connection.execute("PRAGMA synchronous = full")
        await connection.execute("CREATE TABLE t (name TEXT PRIMARY KEY, value BLOB)")
        begin = clock()
        for n in range(count):
            await connection.execute("INSERT INTO t VALUES (?, ?)", (f"work#{n}", b"x" * 200))
        print((clock() - begin) / count)

asyncio.run(main())
"""

GROUPED = """
import asyncio, queue, sqlite3, sys, threading, time

def write(loop, waiting):
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.execute("CREATE TABLE t (name TEXT PRIMARY KEY, value BLOB)")
    while True:
        batch = [waiting.get()]
        while not waiting.empty():
            batch.append(waiting.get())
        connection.execute("BEGIN IMMEDIATE")
        for future, *row in batch:
            connection.execute("INSERT INTO t VALUES (?, ?)", row)
        connection.execute("COMMIT")
        for future, *_ in batch:
            loop.call_soon_threadsafe(future.set_result, None)

async def main():
    loop, waiting = asyncio.get_running_loop(), queue.SimpleQueue()
    threading.Thread(target=write, args=(loop, waiting), daemon=True).start()

    async def put(n):
        future = loop.create_future()
        waiting.put((future, f"work#{n}", b"x" * 200))
        await future

    await put(count)
    begin = clock()
    await asyncio.gather(*map(put, range(count)))
    print((clock() - begin) / count)

asyncio.run(main())
"""

OURS = """
import asyncio, sys, time
from durable_nb import Workflow

wf = Workflow("bench", db=sys.argv[1])

@wf.task
async def work(n):
    return n

@wf.workflow(id="{kind}")
async def steps(kind):
    if kind == "sequence":
        for n in range(count):
            await work(n)
    else:
        await asyncio.gather(*map(work, range(count)))

@wf.workflow(id="first")
async def first():
    pass

async def main():
    await first()
    begin = clock()
    await steps(sys.argv[2])
    print((clock() - begin) / count)

asyncio.run(main())
"""

NEW_STEP = """
import asyncio, sys, time
from durable_nb import Workflow

wf = Workflow("bench", db=sys.argv[1])

@wf.task
async def work(n):
    return n

@wf.task
async def new():
    return clock()

@wf.workflow(id="sequence")
async def steps(kind):
    for n in range(count):
        await work(n)
    return await new()

print(asyncio.run(steps("sequence")))
"""

NOTHING, IMPORT = "pass", "import durable_nb"


class Bench:
    """Runs the programs, each in a process of its own.

    Args:
        folder: Where their databases are.
        scale: How many steps, 1 being the numbers of the bars.
    """

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.scale = folder, scale
        self.rounds = max(1, round(ROUNDS * scale))
        self.slow_fsync = compiled(folder)

    def run(self, program: str, count: int, *words: str, slow: bool = False, db: str = "") -> float:
        """The seconds that a program prints: the processor's, or with slow fsyncs those that passed.

        It has a database of its own, if none is named.
        """
        path = self.folder / (db or f"{time.monotonic_ns()}.db")
        environment = dict(os.environ)
        if slow and self.slow_fsync is not None:
            environment["LD_PRELOAD"] = str(self.slow_fsync)
        clock = "perf_counter" if slow else "process_time"
        program = f"from time import {clock} as clock\ncount = {count}\n{program}"
        command = [sys.executable, "-c", program, str(path), *words]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return float(done.stdout or "nan")

    def compare(
        self, what: str, ours: tuple[str, str], other: str, bar: float, *, slow: bool = False
    ) -> bool:
        """Show how many times as long ours takes as the other, and what ours takes."""
        program, kind = ours
        count = GATHERED if kind == "gather" else max(20, int(2000 * self.scale))
        pairs = [
            (self.run(program, count, kind, slow=slow), self.run(other, count, slow=slow))
            for _ in range(self.rounds)
        ]
        mine, theirs = map(min, zip(*pairs, strict=True))
        return line(what, mine / theirs, bar, "x", f"({mine * 1e6:.0f} µs a step)")

    def took(self, program: str) -> float:
        """The least seconds of the processor that a process takes from its start to its end."""
        found = []
        for _ in range(2 * self.rounds):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(sum(after[:2]) - sum(before[:2]))
        return min(found)


def compiled(folder: Path) -> Path | None:
    """The library that makes an fsync take a millisecond; None where nothing can compile or load it."""
    compiler = shutil.which("cc") if sys.platform == "linux" else None
    if compiler is None:
        return None
    source, library = folder / "fsync.c", folder / "fsync.so"
    source.write_text(FSYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def line(what: str, measured: float, bar: float, unit: str, note: str = "") -> bool:
    """Print a measure beside its bar; gives whether it holds."""
    held = measured <= bar
    print(f"{'ok  ' if held else 'OVER'} {what:<52} {measured:8.2f} {unit:<3} bar {bar:g} {note}", flush=True)
    return held


def measured(bench: Bench) -> list[bool]:
    """Measure and print everything; gives which bars hold."""
    sequence, gather = (OURS, "sequence"), (OURS, "gather")
    held = [bench.compare("a step in sequence, CPU ÷ aiosqlite's insert", sequence, AIOSQLITE, 2.5)]
    if bench.slow_fsync is None:
        print("LEFT OUT  what needs an fsync of 1 ms: no Linux with a C compiler (cc) here")
    else:
        what = "a step in sequence, fsync 1 ms ÷ raw sqlite3"
        held.append(bench.compare(what, sequence, RAW, 1.2, slow=True))
        what = "gather of 1,000, fsync 1 ms ÷ raw group commit"
        held.append(bench.compare(what, gather, GROUPED, 3, slow=True))

    count = int(10_000 * bench.scale)
    bench.run(OURS, count, "sequence", db="replay.db")
    replayed = min(bench.run(OURS, count, "sequence", db="replay.db") for _ in range(bench.rounds))
    held.append(line(f"replay of {count:,} steps, each", replayed * 1e6, 10, "µs"))
    starting = []
    for number in range(bench.rounds):
        copy = f"{number}.db"
        for end in ("", "-wal"):
            shutil.copy(bench.folder / f"replay.db{end}", bench.folder / f"{copy}{end}")
        starting.append(bench.run(NEW_STEP, count, db=copy))
    held.append(line("first new step after them, from the start of Python", min(starting) * 1000, 300, "ms"))
    importing = bench.took(IMPORT) - bench.took(NOTHING)
    held.append(line("import durable_nb, over bare Python", importing * 1000, 100, "ms"))
    return held


def main() -> int:
    """Measure, print, and say by the exit code whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how many steps, 1 being those of the bars")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        held = measured(Bench(Path(folder), scale))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
