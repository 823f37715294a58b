"""Databases whose files were torn apart: copied at different moments, truncated, zeroed, flipped, swapped.

``python -m helpers.torn SEED TRIALS [SECONDS]`` prints a line for each trial that fails, and a summary. In a
trial a run is killed, and its files are damaged; or they are copied one by one, in any order, while the run
goes on. Then it is resumed. The processes are forked from this one, which has imported everything and has no
thread.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

from durable_nb import Workflow, codec
from durable_nb.errors import DurableError

STEPS = 24
PATIENCE = 60
"""Seconds after which a resumed run counts as hanging."""

codec.preload()


def value(number, salt):
    """The value of a step: small, a blob, or an array."""
    if number % 5 == 3:
        return bytes([number, salt]) * 150_000
    if number % 7 == 4:
        return np.arange(40_000.0) + number + salt
    return {"number": number, "salt": salt, "text": "x" * (number * 37 % 900)}


class Log:
    """Lines of one process, each on its own in the file."""

    def __init__(self, path):
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def __call__(self, *words):
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())


def execute(folder, log, salt, copies=(), pause=0.0):
    """Execute the run; copy the files after the steps in ``copies``, and be killed after the last of them."""
    wf = Workflow("torn", db=folder / "x.db")

    @wf.task(retries=0)
    def work(number):
        log("ran", number)
        time.sleep(pause)
        if pause and number % 5 == 2:  # makes the file whole, as a pause does
            with closing(sqlite3.connect(folder / "x.db")) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return value(number, salt)

    @wf.workflow(id="r")
    def flow():
        for number in range(STEPS):
            found = work(number)
            if not np.array_equal(found, value(number, salt)):
                log("wrong", number)
            log("acknowledged", number)
            if number in copies:
                shutil.copytree(folder, folder.with_name(f"{folder.name}-{number}"))
            if copies and number == max(copies):
                os.kill(os.getpid(), signal.SIGKILL)

    flow()
    log("finished")


def forked(work, log_path):
    """Run a function in a forked child, and return the lines that it logged."""
    child = os.fork()
    if child == 0:
        log = Log(log_path)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(PATIENCE)
        try:
            work(log)
        except DurableError as error:
            log("error", type(error).__name__, " ".join(str(error).split()))
        except BaseException as error:
            log("crash", type(error).__name__, " ".join(str(error).split()))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    lines = log_path.read_text().splitlines() if log_path.exists() else []
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        lines.append(f"crash signal {os.WTERMSIG(status)}")
    return lines


def copied_alive(folder, chance, salt, place):
    """Copy the files of a run one by one while it goes on; return what was acknowledged before."""
    live, log = folder / f"alive{place.name}", folder / f"alive-log{place.name}"
    live.mkdir()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            execute(live, Log(log), salt, pause=0.002)
        finally:
            os._exit(0)
    begin = chance.randrange(1, STEPS)
    while not log.exists() or log.read_text().count("acknowledged") < begin:
        time.sleep(0.001)
    acknowledged = acknowledged_in(log.read_text().splitlines())
    place.mkdir()
    names = [each.name for each in live.iterdir() if each.suffix != ".lock" or chance.random() < 0.5]
    for name in chance.sample(names, len(names)):
        subprocess.run(["cp", "-r", live / name, place / name], stderr=subprocess.DEVNULL)  # files may vanish
        time.sleep(chance.choice([0, 0.003, 0.01]))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shutil.rmtree(live)
    return acknowledged


def acknowledged_in(lines):
    """The steps that a log calls acknowledged."""
    return {int(line.split()[1]) for line in lines if line.startswith("acknowledged")}


class Scenario:
    """A killed run, and copies of its files from two moments: ``old`` and ``new``, its last."""

    def __init__(self, folder, chance, salt):
        self.salt, live = salt, folder / f"live{salt}"
        live.mkdir()
        old, new = sorted(chance.sample(range(1, STEPS - 2), 2))
        lines = forked(lambda log: execute(live, log, salt, (old, new)), folder / f"log{salt}")
        self.acknowledged = acknowledged_in(lines)
        self.old, self.new = (live.with_name(f"{live.name}-{number}") for number in (old, new))
        assert self.acknowledged == set(range(new + 1))


def truncated(chance, data):
    return data[: chance.randrange(len(data))] if data else data


def zeroed(chance, data):
    begin = chance.choice([0, chance.randrange(len(data) + 1)])
    length = chance.choice([len(data), 4096, 512])
    return data[:begin] + bytes(min(length, len(data) - begin)) + data[begin + length :]


def flipped(chance, data):
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 20])):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


DAMAGES = {"truncated": truncated, "zeroed": zeroed, "flipped": flipped}


def damage(chance, folder, scenario, other):
    """Damage one or two files of a copy; return what was done."""
    done = []
    for name in chance.sample(["x.db", "x.db-wal", "x.db.blobs"], chance.choice([1, 1, 2])):
        path = folder / name
        if not path.exists():
            continue
        kind = chance.choice(["missing", "old", "swapped", *DAMAGES, *DAMAGES])
        if kind in ("missing", "old", "swapped"):
            replace(path, {"missing": None, "old": scenario.old / name, "swapped": other.new / name}[kind])
        else:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            for file in files and [chance.choice(files)]:
                file.chmod(0o600)
                file.write_bytes(DAMAGES[kind](chance, file.read_bytes()))
        done.append(f"{name} {kind}")
    return done


def replace(path, other):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if other is not None and other.exists():
        (shutil.copytree if other.is_dir() else shutil.copy)(other, path)


def trials(folder, seed, count):
    """Carry out trials, and yield what happened in each."""
    chance, scenarios = random.Random(seed), []
    for number in range(count):
        place = folder / f"trial{number}"
        if number % 20 == 0:
            scenarios = [Scenario(folder, chance, (number + salt) % 250) for salt in (1, 2)]
        if number % 4 == 3:
            salt, done = number % 250, ["copied while in use"]
            acknowledged = copied_alive(folder, chance, salt, place)
        else:
            scenario, other = scenarios if number % 2 else scenarios[::-1]
            salt, acknowledged = scenario.salt, scenario.acknowledged
            shutil.copytree(scenario.new, place)
            done = damage(chance, place, scenario, other)
        if chance.random() < 0.5:
            (place / "x.db-shm").unlink(missing_ok=True)
        lines = forked(lambda log: execute(place, log, salt), folder / f"log-{number}")  # noqa: B023
        yield {"trial": number, "damage": done, **judged(lines, acknowledged)}
        shutil.rmtree(place)


def judged(lines, acknowledged):
    """What is to be said of a resumed run."""
    words = [line.split(" ", 1) for line in lines]
    ran = {int(rest) for word, rest in (each for each in words if len(each) == 2) if word == "ran"}
    said = [line for line in lines if line.startswith("error")]
    return {
        "repeated": sorted(ran & acknowledged),
        "wrong": [line for line in lines if line.startswith("wrong")],
        "crashed": [line for line in lines if line.startswith("crash")],
        "said": said,
        "ended": "error" if said else "finished" if "finished" in lines else "nothing",
    }


FAULTS = {"repeated": "silent re-runs", "wrong": "wrong values", "crashed": "tracebacks of internals"}


def campaign(seed, count, seconds=float("inf")):
    """Carry out trials until the time is over; print those that failed and a summary; return the failures."""
    found, failed, deadline = Counter(), [], time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        os.environ["JUPYTER_DATA_DIR"] = place
        for outcome in trials(Path(place), seed, count):
            found[outcome["ended"]] += 1
            faults = [fault for fault in FAULTS if outcome[fault]]
            found.update(faults)
            if faults or outcome["ended"] == "nothing":
                failed.append(outcome)
                print(json.dumps(outcome), flush=True)
            if time.monotonic() > deadline:
                break
    total = sum(found[end] for end in ("error", "finished", "nothing"))
    counts = ", ".join(f"{found[fault]} {name}" for fault, name in FAULTS.items())
    print(
        f"torn databases, seed {seed}: {total} trials, {found['error']} named errors, "
        f"{found['finished']} resumed, {found['nothing']} ended otherwise; {counts}"
    )
    return failed


if __name__ == "__main__":
    seed, count, *seconds = sys.argv[1:]
    sys.exit(bool(campaign(seed, int(count), *map(float, seconds))))
