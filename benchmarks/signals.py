"""Latency of signals delivered by another process, and the CPU time that waiting takes."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from durable_nb import Workflow

TIMES = 50
MEDIAN_MS = 20.0
IDLE_SECONDS = 5.0
UNTIL_IDLE = 12.0
IDLE_PERCENT = 1.0

DELIVER = """
import sys, time
from durable_nb import Workflow
wf = Workflow("other", db=sys.argv[1])
wf.sync.complete("warm", "up")
print("ready", flush=True)
for line in sys.stdin:
    wf.sync.complete(line.strip(), "approval", time.time())
"""


async def latencies(wf: Workflow, other: subprocess.Popen[str]) -> list[float]:
    """Return the milliseconds from each delivery in another process to the commit of its value."""

    @wf.workflow
    async def main() -> float:
        return await wf.signal("approval")

    found = []
    for number in range(TIMES):
        waiting = asyncio.create_task(main.run(f"r{number}"))
        await asyncio.sleep(0.1)
        print(f"r{number}", file=other.stdin, flush=True)
        delivered_at = await waiting
        found.append((time.time() - delivered_at) * 1000)
    return found


async def idle(wf: Workflow, waiters: int) -> float:
    """Return the percentage of a core used by a number of calls that have waited for a while."""

    @wf.workflow
    async def main() -> None:
        await asyncio.gather(*(wf.signal(f"s{number}") for number in range(waiters)))

    waiting = asyncio.create_task(main.run(f"idle-{waiters}"))
    await asyncio.sleep(UNTIL_IDLE)
    spent, began = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    share = 100 * (time.process_time() - spent) / (time.monotonic() - began)
    waiting.cancel()
    await asyncio.wait([waiting])
    return share


def report(db: Path | str, limit: float) -> bool:
    """Measure on a store, print the results, and return whether they are within the limits."""
    command = [sys.executable, "-c", DELIVER, str(db)]
    pipe = subprocess.PIPE
    with (
        Workflow("bench", db=db) as wf,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        found = asyncio.run(latencies(wf, other))
        assert other.stdin is not None
        other.stdin.close()
        shares = {waiters: asyncio.run(idle(wf, waiters)) for waiters in (1, 100)}
    median = statistics.median(found)
    print(f"signal from another process: median {median:.1f} ms of {TIMES}, slowest {max(found):.1f} ms")
    for waiters, share in shares.items():
        print(f"{waiters} waiting for long: {share:.2f} % of a core")
    return median <= limit and max(shares.values()) <= IDLE_PERCENT


def main() -> int:
    """Return exit code 0 if the results are within the limits."""
    with tempfile.TemporaryDirectory() as folder:
        return int(not report(Path(folder) / "runs.db", MEDIAN_MS))


if __name__ == "__main__":
    sys.exit(main())
