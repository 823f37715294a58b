"""The cost of steps on an SQLite file, each with its limit.

Run it with ``make bench``; ``--scale 0.1`` makes a tenth as many steps. Each program is measured several
times, alternating with the one that it is compared with, each time in a new process. The lowest time of each
counts, since other work of the machine can only make a program slower. The file is in memory, and times are
CPU times. In the rows marked "fsync 1 ms" a preloaded library makes each fsync take a millisecond, and times
are elapsed times; they need Linux and a C compiler, and are skipped elsewhere.
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
    raise InterruptedError  # a run that is done has nothing to replay

@wf.workflow(id="first")
async def first():
    pass

async def main():
    await first()
    begin = clock()
    try:
        await steps(sys.argv[2])
    except InterruptedError:
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
    """Runs the programs, each in a new process.

    Args:
        folder: The directory for their databases.
        scale: The factor for the numbers of steps; 1 for the limits.
    """

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.scale = folder, scale
        self.rounds = max(1, round(ROUNDS * scale))
        self.slow_fsync = compiled(folder)

    def run(self, program: str, count: int, *words: str, slow: bool = False, db: str = "") -> float:
        """Run a program, and return the seconds that it prints: CPU time, or elapsed time with slow fsyncs.

        Args:
            program: The source.
            count: The number of steps, the program's global ``count``.
            *words: Further arguments of the program.
            slow: Whether each fsync takes a millisecond.
            db: The name of the database; by default a new one.
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
        self, title: str, ours: tuple[str, str], other: str, limit: float, *, slow: bool = False
    ) -> bool:
        """Print the ratio of the times of durable_nb and another program, and the time of durable_nb."""
        program, kind = ours
        count = GATHERED if kind == "gather" else max(20, int(2000 * self.scale))
        pairs = [
            (self.run(program, count, kind, slow=slow), self.run(other, count, slow=slow))
            for _ in range(self.rounds)
        ]
        mine, theirs = map(min, zip(*pairs, strict=True))
        return line(title, mine / theirs, limit, "x", f"({mine * 1e6:.0f} µs a step)")

    def cpu_seconds(self, program: str) -> float:
        """Return the lowest CPU time, in seconds, of a process that executes a program."""
        found = []
        for _ in range(2 * self.rounds):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(sum(after[:2]) - sum(before[:2]))
        return min(found)


def compiled(folder: Path) -> Path | None:
    """Compile the library that makes an fsync take a millisecond; return None if there is no compiler."""
    compiler = shutil.which("cc") if sys.platform == "linux" else None
    if compiler is None:
        return None
    source, library = folder / "fsync.c", folder / "fsync.so"
    source.write_text(FSYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def line(title: str, measured: float, limit: float, unit: str, note: str = "") -> bool:
    """Print a measurement with its limit; return whether it is within the limit."""
    held = measured <= limit
    print(
        f"{'ok  ' if held else 'OVER'} {title:<52} {measured:8.2f} {unit:<3} limit {limit:g} {note}",
        flush=True,
    )
    return held


def measured(bench: Bench) -> list[bool]:
    """Measure and print everything; return for each measurement whether it is within its limit."""
    sequence, gather = (OURS, "sequence"), (OURS, "gather")
    held = [bench.compare("a step in sequence, CPU ÷ aiosqlite's insert", sequence, AIOSQLITE, 2.5)]
    if bench.slow_fsync is None:
        print("SKIPPED the rows with an fsync of 1 ms: they need Linux with a C compiler (cc)")
    else:
        title = "a step in sequence, fsync 1 ms ÷ raw sqlite3"
        held.append(bench.compare(title, sequence, RAW, 1.2, slow=True))
        title = "gather of 1,000, fsync 1 ms ÷ raw group commit"
        held.append(bench.compare(title, gather, GROUPED, 3, slow=True))

    count = int(10_000 * bench.scale)
    bench.run(OURS, count, "sequence", db="replay.db")
    replayed = min(bench.run(OURS, count, "sequence", db="replay.db") for _ in range(bench.rounds))
    held.append(line(f"replay of {count:,} steps, each", replayed * 1e6, 10, "µs"))
    held.append(replay_grows(bench))
    starting = []
    for number in range(bench.rounds):
        copy = f"{number}.db"
        for end in ("", "-wal"):
            shutil.copy(bench.folder / f"replay.db{end}", bench.folder / f"{copy}{end}")
        starting.append(bench.run(NEW_STEP, count, db=copy))
    held.append(line("first new step after them, from the start of Python", min(starting) * 1000, 300, "ms"))
    importing = bench.cpu_seconds(IMPORT) - bench.cpu_seconds(NOTHING)
    held.append(line("import durable_nb, minus bare Python", importing * 1000, 100, "ms"))
    return held


def replay_grows(bench: Bench) -> bool:
    """Print the ratio of what replaying a step costs in a run with 100 times as many steps."""
    few, many = (max(20, int(count * bench.scale)) for count in (1000, 100_000))
    for count in (few, many):
        bench.run(OURS, count, "sequence", db=f"replay-{count}.db")
    pairs = [
        [bench.run(OURS, count, "sequence", db=f"replay-{count}.db") for count in (few, many)]
        for _ in range(bench.rounds)
    ]
    short, long = map(min, zip(*pairs, strict=True))
    return line(f"a replay among {many:,} steps ÷ among {few:,}", long / short, 1.3, "x")


def main() -> int:
    """Measure, print the results, and return exit code 0 if they are within the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="the factor for the numbers of steps; 1 for the limits"
    )
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        held = measured(Bench(Path(folder), scale))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
