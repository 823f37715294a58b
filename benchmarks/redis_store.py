"""Redis: microseconds per step in sequence, in a gather and replayed; latency of signals.

    python benchmarks/redis_store.py [PYTHON]

PYTHON is an interpreter with python-durable, which needs Python 3.12. The same workflow is then measured on
its RedisStore as well, in its own process and on the same server, three times alternating with durable_nb;
the ratios are those of the medians::

    python3.12 -m venv /tmp/theirs && /tmp/theirs/bin/pip install python-durable==0.2.0 redis hiredis
    python benchmarks/redis_store.py /tmp/theirs/bin/python

The benchmark starts the server, with its append-only file synced every second.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import signals

from helpers.redis_servers import Server

STEPS, TIMES = 10_000, 3
SIGNAL_MS = 5.0
LIMITS = {"sequence": 2.0, "replay": 30.0}

PROGRAM = """
import asyncio, contextlib, json, sys, time
from {package} import RedisStore, Workflow

steps = {steps}
wf = Workflow("bench", db=RedisStore(sys.argv[1], prefix="{package}"))

@wf.task
async def work(n):
    return n

@wf.workflow(id="{{run}}")
async def sequence(run):
    for n in range(steps):
        await work(n)
    raise InterruptedError  # a run that is done has nothing to replay

@wf.workflow(id="gather-{{run}}")
async def gather(run):
    await asyncio.gather(*map(work, range(1000)))

async def measured(function, count):
    began = time.perf_counter()
    with contextlib.suppress(InterruptedError):
        await function(sys.argv[2])
    return (time.perf_counter() - began) / count * 1e6

async def main():
    found = {{"sequence": await measured(sequence, steps), "replay": await measured(sequence, steps)}}
    try:
        found["gather of 1,000"] = await measured(gather, 1000)
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
    print(json.dumps(found))

asyncio.run(main())
"""


def measured(python, package, url, run):
    program = PROGRAM.format(package=package, steps=STEPS)
    command = [python, "-c", program, url, f"run-{run}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def medians(rounds):
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main():
    """Measure, print the results, and return exit code 0 if they are within the limits."""
    folder = tempfile.TemporaryDirectory()
    server = Server(Path(folder.name))
    ours, theirs = [], []
    try:
        for run in range(TIMES):
            ours.append(measured(sys.executable, "durable_nb", server.url, run))
            if len(sys.argv) > 1:
                theirs.append(measured(sys.argv[1], "durable", server.url, run))
        met = signals.report(server.url, SIGNAL_MS)
    finally:
        server.kill()
        folder.cleanup()
    ours, theirs = medians(ours), medians(theirs) if theirs else {}
    for name, value in ours.items():
        other = theirs.get(name)
        ratio = f"  python-durable {other:8.1f}, {other / value:5.1f} times as long" if other else ""
        if other and name in LIMITS:
            ratio += f" (limit {LIMITS[name]:g})"
            met = met and other / value >= LIMITS[name]
        print(f"{name:16} {value:8.1f} µs a step{ratio}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
