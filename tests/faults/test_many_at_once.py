"""A thousand tasks at once: exactly a thousand bodies, in one process and in four on one file."""

import subprocess
import sys
from collections import Counter

PROGRAM = """
import asyncio, os, sys
from durable_nb import Workflow

wf = Workflow("many", db="runs.db")
log = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@wf.task
async def work(n):
    os.write(log, f"{sys.argv[1]}-{n}\\n".encode())
    return n

@wf.workflow
async def main():
    return await asyncio.gather(*(work(n) for n in range(int(sys.argv[2]))))

for _ in range(2):
    assert asyncio.run(main.run(f"run-{sys.argv[1]}")) == list(range(int(sys.argv[2])))
"""


def start(cwd, process, count):
    command = [sys.executable, "-c", PROGRAM, str(process), str(count)]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)


def check(cwd, processes, count):
    started = [start(cwd, process, count) for process in range(processes)]
    for process in started:
        _, errors = process.communicate(timeout=100)
        assert (process.returncode, errors) == (0, "")
    bodies = Counter((cwd / "bodies.log").read_text().split())
    assert bodies == {f"{process}-{n}": 1 for process in range(processes) for n in range(count)}


def test_a_gather_of_1000(tmp_path):
    check(tmp_path, 1, 1000)


def test_4_processes_on_one_file_gather_250_each(tmp_path):
    check(tmp_path, 4, 250)
