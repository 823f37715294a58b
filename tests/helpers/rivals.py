"""A second process that opens a run, for the contract of leases on every store."""

import subprocess
import sys
from contextlib import contextmanager

RIVAL = """
import asyncio, sys
from durable_nb.records import Run
from durable_nb.stores import open_journal

async def main():
    journal = open_journal(sys.argv[1])
    await journal.setup()
    await journal.open_run(Run(sys.argv[2], "etl.main", owner="the rival"))
    print("opened", flush=True)
    sys.stdin.read()
    await journal.close()

asyncio.run(main())
"""


@contextmanager
def rivals(place):
    """Gives what has another process open a run at a place; it ends with the block."""
    started = []

    async def open_elsewhere(run_id):
        command = [sys.executable, "-c", RIVAL, place, run_id]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "opened\n"

    yield open_elsewhere
    for process in started:
        process.communicate("")
