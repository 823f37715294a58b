"""An interrupt ends whatever durable code waits for, at once; finished steps stay, and the kernel lives."""

import sqlite3
import time

import pytest

SETUP = """
%load_ext durable_nb
%durable_workflow book --db runs.db --badge plain
import asyncio, os, time
from durable_nb import constant
log = []

@wf.task
def first(tag):
    log.append(tag)
    return tag

@wf.task
async def slow(seconds=60):
    print("begun", flush=True)
    await asyncio.sleep(seconds)

@wf.task
def busy():
    print("begun", flush=True)
    while True:
        pass

@wf.task
def asleep(seconds=60):
    print("begun", flush=True)
    time.sleep(seconds)

@wf.task
def nested():
    asleep()

@wf.task(retries=3, backoff=constant(60))
async def flaky():
    print("begun", flush=True)
    raise OSError("down")

@wf.task(retries=3, backoff=constant(60))
def sync_flaky():
    print("begun", flush=True)
    raise OSError("down")

async def asking():
    print("begun", flush=True)
    await wf.signal("approval")

def sync_asking():
    print("begun", flush=True)
    wf.sync.signal("approval")

async def gathered():
    await asyncio.gather(slow(), slow())

async def child():
    await asyncio.create_task(slow())

async def plain():
    print("begun", flush=True)
    await asyncio.sleep(60)

@wf.workflow(id="inner")
async def inner():
    await slow()

@wf.workflow(id="sync inner")
def sync_inner():
    asleep()

async def busy_child():
    async def spin():
        asleep()
    await asyncio.gather(slow(), spin())

calm = False

def workflow(body, run_id):
    @wf.workflow(id=run_id)
    def sync_main():
        first(run_id)
        return "calm" if calm else body()
    @wf.workflow(id=run_id)
    async def main():
        first(run_id)
        return "calm" if calm else await body()
    return main if asyncio.iscoroutinefunction(getattr(body, "function", body)) else sync_main
"""

ASYNC = {
    "await": "slow",
    "asyncio.sleep": "plain",
    "nested workflow": "inner",
    "gather": "gathered",
    "retry wait": "flaky",
    "signal wait": "asking",
    "child task": "child",
    "busy child task": "busy_child",
}
SYNC = {
    "sync loop": "busy",
    "time.sleep": "asleep",
    "sync retry wait": "sync_flaky",
    "sync signal wait": "sync_asking",
    "nested task body": "nested",
    "sync nested workflow": "sync_inner",
}


def runs(kernel):
    kernel.run("__import__('durable_nb.concurrency.pending').concurrency.pending.drain_pending()")
    with sqlite3.connect(kernel.cwd / "runs.db") as connection:
        return dict(connection.execute("SELECT run_id, status FROM runs"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    from helpers.kernel import Kernel

    home = tmp_path_factory.mktemp("interrupted")
    kernel = Kernel(home, home / "home")
    assert kernel.run(SETUP).error is None
    yield kernel
    kernel.shutdown()


WITHIN = 1.5
COMMIT = 6


def stopped(kernel, code):
    """Run a cell, interrupt it once it has begun; gives it, and when it was interrupted."""
    request = kernel.start(code)
    assert kernel.wait(request, until="begun") is None
    time.sleep(0.2)
    at = time.monotonic()
    kernel.interrupt()
    cell = kernel.wait(request, timeout=20)
    assert cell.status == "error"
    assert kernel.alive
    return cell, at


def interrupted(kernel, call, magic=""):
    """Interrupt a call, and see it return in time to its caller; IPython's traceback comes after that."""
    caller = f"try:\n    {call}\nexcept BaseException:\n    print('free', time.monotonic())\n    raise"
    cell, at = stopped(kernel, magic + caller)
    assert float(cell.text.split()[-1]) - at < WITHIN
    return cell


def goes_on(kernel, run_id, call):
    """The run is resumed: what was finished is not executed again."""
    assert kernel.run(f"calm = True\nprint({call})\ncalm = False").text.endswith("calm\n")
    assert kernel.run(f"print(log.count({run_id!r}))").text == "1\n"
    assert runs(kernel)[run_id] == "done"


@pytest.mark.parametrize("place", [*ASYNC, *SYNC])
@pytest.mark.parametrize("where", ["ordinary", "durable"])
def test_an_interrupt_ends_a_workflow_wherever_it_waits(opened, place, where):
    body = {**ASYNC, **SYNC}[place]
    run_id = f"{where}-{place}"
    call = f"workflow({body}, {run_id!r})()"
    call = f"await {call}" if place in ASYNC else call
    magic = f"%%durable_step {run_id.replace(' ', '-')}\n" if where == "durable" else ""
    cell = interrupted(opened, call, magic)
    if where == "durable" or place in SYNC:
        assert cell.error.startswith("KeyboardInterrupt")
    assert runs(opened)[run_id] == "interrupted"
    goes_on(opened, run_id, call)


@pytest.mark.parametrize("task", ["busy", "asleep", "sync_flaky", "nested", "await slow", "await flaky"])
def test_an_interrupt_ends_a_task_called_in_an_ordinary_cell(opened, task):
    interrupted(opened, f"{task}()")
    assert opened.run("first('after'); print('alive')").text == "alive\n"


CELL = "%%durable_step cell\nlog.append(3)\nprint('begun')"


@pytest.mark.long
def test_an_interrupt_while_a_step_commits(kernel_factory):
    kernel = kernel_factory(DURABLE_NB_FAILPOINTS=f"commit.before=delay:{COMMIT}")
    assert kernel.run(SETUP).error is None
    kernel.run(
        "@wf.task\ndef say(n):\n    log.append(n)\n    print('begun', flush=True)\n    return n\n"
        "@wf.workflow(id='sync')\ndef sync_main():\n    return say(1)\n"
        "@wf.task\nasync def tell(n):\n    return say.function(n)\n"
        "@wf.workflow(id='async')\nasync def main():\n    return await tell(2)\n"
    )
    for call in "sync_main()", "await main()":
        interrupted(kernel, call)
    cell, at = stopped(kernel, CELL)
    assert time.monotonic() - at < COMMIT - 1
    assert cell.error.split(":")[0] in ("KeyboardInterrupt", "CancelledError")
    left = {"book": "running", "sync": "interrupted", "async": "interrupted"}
    deadline = time.monotonic() + 20
    while runs(kernel) != left and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs(kernel) == left
    assert kernel.run("print(sync_main(), await main())").text == "1 2\n"
    assert kernel.run(CELL).text == "begun\n"
    assert kernel.run("print(log)").text == "[1, 2, 3]\n"
