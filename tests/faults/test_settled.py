"""What a workflow caught stays so: killed at every commit, no resume takes the other branch.

In the first process `pay` goes wrong, in the later ones not: once `undo` has begun, it never runs again.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from durable_nb import Workflow
from durable_nb.engine import failpoints, run
from durable_nb.workflow import retry
from helpers import pythonpath

LATE = 0.2
POINTS = ("commit.before", "commit.after")


def note(what):
    log = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(log, f"{what}\n".encode())
    os.close(log)


class Programs:
    """Programs in which `pay` fails, or is late, and something else is done about it."""

    def __init__(self, db, first):
        self.first = first
        self.wf = wf = Workflow("settled", db=db, default_retries=0)
        self.pay, self.undo, self.end, self.slow = map(
            wf.task, (self._pay, self._undo, self._end, self._slow)
        )
        self.order = wf.task(name="order")(self._order)
        self.part = wf.workflow(id="part")(self._part)

    async def _pay(self):
        note("pay")
        if self.first:
            raise ValueError("no money")
        return "paid"

    async def _slow(self):
        note("pay")
        if self.first:
            await asyncio.Event().wait()
        return "paid"

    async def _undo(self, n=0):
        note("undo")
        return "undone"

    async def _end(self):
        return "end"

    async def _part(self):
        return await self.pay()

    async def _order(self):
        try:
            return await self.pay()
        except ValueError:
            return await self.undo()

    async def task(self):
        return await self._order(), await self.end()

    async def inner(self):
        return await self.order(), await self.end()

    async def child(self):
        try:
            found = await self.part()
        except ValueError:
            found = await self.undo()
        return found, await self.end()

    async def child_undoes(self):
        """What is done about it is a run too."""
        undo = self.wf.workflow(id="undo")(self._undo)
        try:
            found = await self.part()
        except ValueError:
            found = await undo()
        return found, await self.end()

    async def branches(self):
        """It fails in a branch, and branches that begin after that undo it."""
        first, _ = await asyncio.gather(self._part(), self.end(), return_exceptions=True)
        if isinstance(first, str):
            return first, "end"
        done = await asyncio.gather(self._undone(0), self._undone(1))
        return done[1], await self.end()

    async def _undone(self, n):
        return await self.undo(n)

    async def timeout(self):
        try:
            async with asyncio.timeout(LATE):
                found = await self.slow()
        except TimeoutError:
            found = await self.undo()
        return found, await self.end()

    async def wait_for(self):
        try:
            found = await asyncio.wait_for(self.slow(), LATE)
        except TimeoutError:
            found = await self.undo()
        return found, await self.end()

    async def child_late(self):
        late = self.wf.workflow(id="late")(self._late)
        try:
            found = await asyncio.wait_for(late(), LATE)
        except TimeoutError:
            found = await self.undo()
        return found, await self.end()

    async def _late(self):
        return await self.slow()

    async def cancelled(self):
        """A branch that is no longer wanted is cancelled."""
        task = asyncio.create_task(self._late())
        done, _ = await asyncio.wait([task], timeout=LATE)
        if done:
            return task.result(), await self.end()
        task.cancel()
        await asyncio.wait([task])
        return await self.undo(), await self.end()


SHAPES = (
    *("task", "inner", "child", "child_undoes", "branches"),
    *("timeout", "wait_for", "child_late", "cancelled"),
)


def in_child(db, shape, first, kill=None):
    """Run a program in a forked process, which a kill may end; gives its exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if kill is not None:
            failpoints._plan = {kill[0]: (failpoints._kill, "", kill[1])}
            run.hit = retry.hit = failpoints._hit
        programs = Programs(db, first)
        main = programs.wf.workflow(id="main")(getattr(programs, shape))
        Path("result.json").write_text(json.dumps(asyncio.run(main())))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def bodies():
    return Path("bodies.log").read_text().split() if Path("bodies.log").exists() else []


def killed_and_resumed(db, shape, kill):
    """Whether the point was reached; what must hold is asserted."""
    status = in_child(db, shape, True, kill)
    assert status in (0, -signal.SIGKILL)
    before = bodies()
    assert in_child(db, shape, False) == 0
    found, after = json.loads(Path("result.json").read_text()), bodies()[len(before) :]
    if "undo" in before:
        assert found == ["undone", "end"], (kill, before, after)
        assert "pay" not in after, (kill, before, after)
    else:  # that it went wrong had no consequence yet: it may be tried again
        assert (found, "undo" in after) in ((["paid", "end"], False), (["undone", "end"], True))
        assert ("pay" in after) == (found[0] == "paid") or "pay" not in before, (kill, before, after)
    assert in_child(db, shape, False) == 0
    assert json.loads(Path("result.json").read_text()) == found
    return status != 0


def check(db, shape):
    """Kill the program each time that a point is reached, in a folder or under a prefix of its own."""
    count = 0
    for point in POINTS:
        reached = 1
        while True:
            count += 1
            place = tempfile.mkdtemp()
            os.chdir(place)
            url = "runs.db" if db == "runs.db" else f"{db}?prefix=p{count}"
            again = killed_and_resumed(url, shape, (point, reached))
            shutil.rmtree(place)
            if not again:
                break
            reached += 1
        assert reached > 1, point
    print(count)


def run_check(db, shape):
    command = [sys.executable, __file__, str(db), shape]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **pythonpath()})
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_caught_is_not_taken_back_after_a_kill(shape):
    run_check("runs.db", shape)


@pytest.mark.parametrize("shape", ["task", "child", "branches", "timeout"])
def test_nor_on_redis(redis_server, shape):
    run_check(redis_server.url, shape)


if __name__ == "__main__":
    check(*sys.argv[1:])
