"""Processes that own a run, or want to: what the tests of leases have in common, whatever the store."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.opening import open_run
from durable_nb.engine.passes import Pass
from durable_nb.records import Run

PRELUDE = """
import os, signal, sys, time
from durable_nb import settings
from durable_nb.errors import RunHeld
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.opening import open_run
from durable_nb.engine.passes import Pass
from durable_nb.records import Payload, Run
from durable_nb.stores import open_journal
from durable_nb.stores.testing import sample_step

DB = os.environ["RUNS_AT"]

def say(*words):
    print(*words, flush=True)

def opened(run_id="r", **options):
    global caller
    caller = run_blocking(open_run(Pass(open_journal(DB), Run(run_id, "shop.main")), SYNC, **options))
    return caller.run

def put(run, name):
    run_blocking(SYNC.store(run.journal.put_step(sample_step(run.run, name))))
"""
FAST = "settings.HEARTBEAT = 0.2; settings.OWNER_SILENT = 4.0\n"
OWNER = """
run = opened()
say("opened")
for line in sys.stdin:
    try:
        put(run, line.strip())
        say("written")
    except RunHeld as error:
        say("refused", error)
"""
RACER = """
run_blocking(SYNC.store(open_journal(DB).setup()))
say("ready")
sys.stdin.readline()
try:
    opened()
    say("mine", os.getpid())
except RunHeld as error:
    say("held", error)
sys.stdin.readline()
"""


@contextmanager
def starting(cwd, db):
    """Starts processes of some code in a folder, for runs at a place; they are ended with the block."""
    started = []

    def start(code, *arguments, **env):
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "RUNS_AT": str(db), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def own(journal, run_id="r", workflow="shop.main", **options):
    """Open a run here; gives its caller."""
    return run_blocking(open_run(Pass(journal, Run(run_id, workflow)), SYNC, **options))


def take(journal, run_id="r", **options):
    """Open a run here; gives it and the seconds that it took."""
    began = time.perf_counter()
    run = own(journal, run_id, **options).run
    return run, time.perf_counter() - began


def ask(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def raced(racers):
    """Let them race; gives who got the run, and what the others say."""
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * len(racers)
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.stdout.readline() for racer in racers]
    (winner,) = [line.split()[1] for line in said if line.startswith("mine")]
    return winner, [line for line in said if not line.startswith("mine")]
