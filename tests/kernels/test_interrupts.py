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

AWAITING = {
    "await": "slow",
    "asyncio.sleep": "plain",
    "nested workflow": "inner",
    "gather": "gathered",
    "retry wait": "flaky",
    "signal wait": "asking",
    "child task": "child",
    "busy child task": "busy_child",
}
BLOCKING = {
    "sync loop": "busy",
    "time.sleep": "asleep",
    "sync retry wait": "sync_flaky",
    "sync signal wait": "sync_asking",
    "nested task body": "nested",
    "sync nested workflow": "sync_inner",
}


def runs(kernel):
    with sqlite3.connect(kernel.cwd / "runs.db") as connection:
        return dict(connection.execute("SELECT run_id, status FROM runs"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    from .kernel import Kernel

    home = tmp_path_factory.mktemp("interrupted")
    kernel = Kernel(home, home / "home")
    assert kernel.run(SETUP).error is None
    yield kernel
    kernel.shutdown()


def interrupted(kernel, code, within=1.5):
    """Run a cell, interrupt it once it has begun, and see it end."""
    request = kernel.start(code)
    assert kernel.wait(request, until="begun") is None
    time.sleep(0.2)
    at = time.monotonic()
    kernel.interrupt()
    cell = kernel.wait(request, timeout=20)
    assert time.monotonic() - at < within
    assert cell.status == "error"
    assert kernel.alive
    return cell


def goes_on(kernel, run_id, call):
    """The run is resumed: what was finished is not executed again."""
    assert kernel.run(f"calm = True\nprint({call})\ncalm = False").text.endswith("calm\n")
    assert kernel.run(f"print(log.count({run_id!r}))").text == "1\n"
    assert runs(kernel)[run_id] == "done"


@pytest.mark.parametrize("place", [*AWAITING, *BLOCKING])
@pytest.mark.parametrize("where", ["ordinary", "durable"])
def test_an_interrupt_ends_a_workflow_wherever_it_waits(opened, place, where):
    body = {**AWAITING, **BLOCKING}[place]
    run_id = f"{where}-{place}"
    call = f"workflow({body}, {run_id!r})()"
    call = f"await {call}" if place in AWAITING else call
    magic = f"%%durable_step {run_id.replace(' ', '-')}\n" if where == "durable" else ""
    cell = interrupted(opened, magic + call)
    if where == "durable" or place in BLOCKING:
        assert cell.error.startswith("KeyboardInterrupt")
    assert runs(opened)[run_id] == "interrupted"
    goes_on(opened, run_id, call)


@pytest.mark.parametrize("task", ["busy", "asleep", "sync_flaky", "nested", "await slow", "await flaky"])
def test_an_interrupt_ends_a_task_called_in_an_ordinary_cell(opened, task):
    interrupted(opened, f"{task}()")
    assert opened.run("first('after'); print('alive')").text == "alive\n"


def test_an_interrupt_while_a_step_commits(kernel_factory):
    kernel = kernel_factory(DURABLE_NB_FAILPOINTS="commit.before=delay:2")
    assert kernel.run(SETUP).error is None
    kernel.run(
        "@wf.task\ndef say(n):\n    log.append(n)\n    print('begun', flush=True)\n    return n\n"
        "@wf.workflow(id='sync')\ndef sync_main():\n    return say(1)\n"
        "@wf.task\nasync def tell(n):\n    return say.function(n)\n"
        "@wf.workflow(id='async')\nasync def main():\n    return await tell(2)\n"
    )
    for call in "sync_main()", "await main()", "%%durable_step cell\nlog.append(3)\nprint('begun')":
        cell = interrupted(kernel, call)
        assert cell.error.split(":")[0] in ("KeyboardInterrupt", "CancelledError")
    left = {"book": "running", "sync": "interrupted", "async": "interrupted"}
    deadline = time.monotonic() + 20
    while runs(kernel) != left and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs(kernel) == left
    assert kernel.run("print(sync_main(), await main())").text == "1 2\n"
    assert kernel.run("%%durable_step cell\nlog.append(3)\nprint('begun')").text == "begun\n"
    assert kernel.run("print(log)").text == "[1, 2, 3]\n"
