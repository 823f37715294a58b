"""Writes the golden checkpoints anew: ``python tests/golden/write.py``.

Under Python 3.11, with the versions of libraries that ``0.1.0.json`` is to name. The work is done in a copy
of the package, under a name that says nothing about this machine, since tracebacks hold the paths of files.
"""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
VERSION = "0.1.0"
SECRET = "golden checkpoints of durable_nb, signed with a secret that all know"
PYTHON = (3, 11)
PLACE = Path("/tmp/durable_nb-golden")
DB = PLACE / f"{VERSION}.db"
THRESHOLD = 8192
LIBRARIES = ("numpy", "pandas", "matplotlib", "pydantic", "pydantic-ai-slim", "ipython", "cloudpickle")
ENVIRONMENT = {
    "DURABLE_NB_SECRET": SECRET,
    "DURABLE_NB_HOST": "golden",  # every machine that reads it is another one
    "DURABLE_NB_BOOT_ID": "golden",
    "GOLDEN_MARKS": str(PLACE / "marks"),
}


def main():
    """Write in a copy, then take what was written."""
    if sys.version_info[:2] != PYTHON:
        raise SystemExit("bytecode is part of the checkpoints: Python 3.11 writes them")
    shutil.rmtree(PLACE, ignore_errors=True)
    for folder in ("durable_nb", "tests/golden", "tests/helpers"):
        ignored = shutil.ignore_patterns("__pycache__", "*.db*")
        shutil.copytree(HERE.parents[1] / folder, PLACE / "copy" / folder, ignore=ignored)
    paths = os.pathsep.join(str(PLACE / "copy" / folder) for folder in ("", "tests"))
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}
    command = [sys.executable, "-P", "-m", "golden.write"]
    # The last process that uses a database forgets the others of its machine that are dead: it is killed too.
    for part in ("runs", "cells", "in_doubt", "waiting", "end"):
        code = subprocess.run([*command, part], cwd=PLACE, env=environment).returncode
        if code != (9 if part in ("in_doubt", "waiting") else 0):
            raise SystemExit(f"{part} ended with {code}")
    blobs = f"{DB.name}.blobs"
    shutil.rmtree(HERE / blobs, ignore_errors=True)
    for name in (DB.name, f"{VERSION}.json"):
        shutil.copyfile(PLACE / name, HERE / name)
    shutil.copytree(PLACE / blobs, HERE / blobs)
    shutil.rmtree(PLACE)


def write_runs():
    """Write the runs that come to their end, and one that is cancelled."""
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    from golden import runs

    made = runs.Runs(DB)

    async def write():
        wf = made.wf
        await wf.complete("signals", "early", {"n": (1, 2)})
        await wf.complete("signals", "typed", {"item": "tea", "amount": 2})
        await wf.complete("signals", "chosen", "z")
        await wf.complete("agent", "approve:pay", {"approved": True})
        await made.over.run("over", 6)
        await made.over.run("over", fresh=True)
        try:
            await asyncio.to_thread(made.resolved)
        except ConnectionError:
            await wf.resolve("resolved", "charge", "value", ("by hand", {8}))
        answering = asyncio.create_task(answer(wf))
        returned = await made.finished()
        await answering
        waiting = asyncio.create_task(made.cancelled())
        await asked(wf, "cancelled")
        await wf.cancel("cancelled")
        await asyncio.wait([waiting])
        return returned

    returned = asyncio.run(write())
    output, usage, messages = returned.pop("agent")
    assert returned == runs.expected(returned), returned
    made.wf.close()
    told = {
        "python": list(PYTHON),
        "libraries": {name: version(name) for name in LIBRARIES},
        "agent": {
            "output": output.model_dump(mode="json"),
            "usage": repr(usage),
            "messages": ModelMessagesTypeAdapter.dump_python(messages, mode="json"),
        },
    }
    (PLACE / f"{VERSION}.json").write_text(json.dumps(told, indent=1) + "\n")


async def asked(wf, run_id):
    """Wait until a run asks for a signal."""
    from durable_nb.concurrency.bridge import ASYNC

    while not any(each.run_id == run_id for each in await ASYNC.store(wf.journal.open_signals())):
        await asyncio.sleep(0.01)


async def answer(wf):
    """Give the answer that is accepted, once the one that is not has been set aside."""
    await asked(wf, "signals")
    while not await wf.complete("signals", "chosen", "b"):
        await asyncio.sleep(0.01)


def write_cells():
    """Write the runs of notebooks, in a real kernel."""
    from golden.cells import FORK, NOTEBOOKS, SETUP, play
    from helpers.kernel import Kernel

    kernel = Kernel(PLACE, PLACE / "home")
    try:
        for line in (SETUP, "%load_ext durable_nb", threshold()):
            assert kernel.run(line).error is None
        for notebook in NOTEBOOKS:
            cells = play(kernel, notebook, DB)
            errors = [cell.error for cell in cells if cell.error]
            assert not errors, (notebook.run_id, errors)
            for expression, value in {**notebook.expect, **notebook.code}.items():
                found = kernel.run(f"print(repr({expression}))")
                assert found.text == f"{value!r}\n", (notebook.run_id, expression, found.text, found.error)
            told = "\n".join(cell.told for cell in cells)
            assert told.count("is not saved") == len(notebook.unsaved), (notebook.run_id, told)
            if notebook.run_id == FORK[0]:
                assert kernel.run(f"%durable_fork {FORK[1]} --from cell{FORK[2]}").error is None
        assert kernel.run("%durable_workflow --done").error is None
    finally:
        kernel.shutdown()


def threshold():
    """A line that has smaller payloads become files than users' are."""
    return f"__import__('durable_nb.settings').settings.BLOB_THRESHOLD = {THRESHOLD}"


def end():
    """Make one file of the database, and forget the processes that wrote it."""
    with sqlite3.connect(DB, isolation_level=None) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for left in ("-wal", "-shm", ".lock"):
        Path(f"{DB}{left}").unlink(missing_ok=True)


def part(name):
    """Do one part, in a process of its own."""
    if name == "end":
        return end()
    if name == "cells":
        return write_cells()
    from durable_nb import settings

    settings.BLOB_THRESHOLD = THRESHOLD
    if name == "runs":
        return write_runs()
    from golden.runs import Runs

    runs = Runs(DB, dies=True)
    return runs.in_doubt() if name == "in_doubt" else asyncio.run(runs.waiting())


if __name__ == "__main__":
    part(sys.argv[1]) if len(sys.argv) > 1 else main()
