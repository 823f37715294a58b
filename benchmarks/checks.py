"""The price of the checks of a step in sequence: of its files, its count of commits, and its checksum.

The same program is measured with them, and with functions in their place that do nothing, in turns and each
time in a new process. The lowest time of each counts. Run it with ``make bench``; ``--scale 0.1`` makes a
tenth as many steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from steps import MEMORY, OURS, Bench, line

LIMIT = 5.0
"""Percent of a step with an fsync of 1 ms."""

COUNT = 1000
TURNS = 2

WITHOUT = """
from durable_nb.stores import checked
from durable_nb.stores.sqlite import connection, database, files, lockfile

files.Files.problem = lambda self, thorough=False: None
files.Files.is_log_changed = lambda self: False
lockfile.LockFile.write_mark = lambda self, mark: None
database.Mark.encode = lambda self: b""
connection.COUNT_COMMIT = "SELECT 1, 1"
checked._step_sum = lambda row, status: 0
"""


def compared(bench: Bench, title: str, *, slow: bool) -> float:
    """Print the time of a step with the checks and without; return the difference in percent."""
    count = max(20, int(COUNT * bench.scale))
    programs = OURS, WITHOUT + OURS
    turns = [
        [bench.run(program, count, "sequence", slow=slow) for program in programs]
        for _ in range(TURNS * bench.rounds)
    ]
    checked, unchecked = map(min, zip(*turns, strict=True))
    print(f"{title}: {checked * 1e6:.0f} µs with the checks, {unchecked * 1e6:.0f} µs without", flush=True)
    return (checked / unchecked - 1) * 100


def main() -> int:
    """Measure, print the results, and return exit code 0 if they are within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the factor for the numbers of steps")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        bench = Bench(Path(folder), scale)
        compared(bench, "a step in sequence, CPU", slow=False)
        if bench.slow_fsync is None:
            print("SKIPPED the row with an fsync of 1 ms: it needs Linux with a C compiler (cc)")
            return 0
        price = compared(bench, "a step in sequence, fsync 1 ms", slow=True)
    return 0 if line("the checks of a step, fsync 1 ms", price, LIMIT, "%") else 1


if __name__ == "__main__":
    sys.exit(main())
