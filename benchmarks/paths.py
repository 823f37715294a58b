"""Calls, functions, files and threads of the package on each path: ``python benchmarks/paths.py``.

Each path is taken once to warm it up, and counted the second time by a profile function in every thread. A
file change is a call in another file than the call before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1] / "durable_nb")
COLUMNS = ("calls", "functions", "files", "file changes", "threads")


class Profile:
    """Counts the calls of the package's code, in every thread that starts after it was installed."""

    def __init__(self):
        self.on = False
        self.clear()

    def clear(self):
        self.calls, self.threads, self.changes, self.last = Counter(), set(), 0, None

    def __call__(self, frame, event, _argument):
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith(PACKAGE):
            self.calls[code] += 1
            self.threads.add(threading.get_ident())
            self.changes += self.last not in (None, code.co_filename)
            self.last = code.co_filename

    @contextlib.contextmanager
    def counting(self, path):
        self.clear()
        self.on = True
        yield
        self.on = False
        files = {code.co_filename for code in self.calls}
        counts = sum(self.calls.values()), len(self.calls), len(files), self.changes, len(self.threads)
        print(f"{path:30}" + "".join(f"{count:>14,}" for count in counts), file=sys.__stdout__)


PROFILE = Profile()
threading.setprofile(PROFILE)  # before the package starts its loop thread

from durable_nb import DurableAgent, Workflow  # noqa: E402


def tasks(folder):
    for path in ("task, first run", "task, replay"):
        with Workflow("paths", db=folder / "tasks.db") as wf:
            double = wf.task(doubled)

            @wf.workflow(id="r")
            def main():
                double(1)  # noqa: B023 - called in this round of the loop
                with PROFILE.counting(path):  # noqa: B023
                    double(2)  # noqa: B023
                raise InterruptedError  # a run that is over has nothing to replay

            with contextlib.suppress(InterruptedError):
                main.run("r")


def doubled(number):
    return number * 2


async def signals(folder):
    with Workflow("paths", db=folder / "signals.db") as wf:

        @wf.workflow
        async def main():
            return await wf.signal("approval")

        first = asyncio.create_task(main.run("warm"))
        await wf.complete("warm", "approval", True)
        await first
        with PROFILE.counting("signal, until it waits"):
            waiting = asyncio.create_task(main.run("counted"))
            await asyncio.sleep(0.05)
        with PROFILE.counting("signal, delivery to end"):
            await wf.complete("counted", "approval", True)
            await waiting


def cells(folder):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    for path in ("cell, first run", "cell, replay"):
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_line_magic("load_ext", "durable_nb")
            shell.run_line_magic("durable_workflow", f"cells --db {folder / 'cells.db'} --badge off")
            shell.run_cell("%%durable_step warm\nz = 0")
            with PROFILE.counting(path):
                shell.run_cell("%%durable_step counted\nx = [1]\ny = {'a': x}")


def agents(folder):
    from pydantic_ai import Agent

    with Workflow("paths", db=folder / "agents.db") as wf:
        agent = DurableAgent(Agent("test", name="clerk"), wf)
        asyncio.run(agent.run("hello", run_id="warm"))
        with PROFILE.counting("agent, one request, own run"):
            asyncio.run(agent.run("hello", run_id="counted"))


if __name__ == "__main__":
    sys.setprofile(PROFILE)
    print(f"{'path':30}" + "".join(f"{column:>14}" for column in COLUMNS))
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        tasks(Path(name))
        asyncio.run(signals(Path(name)))
        cells(Path(name))
        agents(Path(name))
        os.chdir(home)
