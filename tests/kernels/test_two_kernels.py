"""Two kernels on one run: the second is told, a dead one is replaced, a stopped one wakes up fenced off."""

import os
import signal
import time

import pytest

from helpers import AT_ONCE

OPEN = "%load_ext durable_nb\n%durable_workflow shared --db runs.db"
TAKE = "%load_ext durable_nb\n%durable_workflow shared --db runs.db --take-over"
STEP = "%%durable_step {0}\nprint('body of {0}')\n{0} = 1"


@pytest.fixture
def kernels(kernel_factory):
    """Two kernels in one directory, the first with the run open and one step finished."""
    first, second = kernel_factory(), kernel_factory()
    assert first.run(OPEN).status == "ok"
    assert first.run(STEP.format("load")).status == "ok"
    return first, second


def pid(kernel):
    return kernel.process.pid


def timed(kernel, code):
    began = time.monotonic()
    cell = kernel.run(code)
    return cell, time.monotonic() - began


def test_the_second_kernel_is_told_who_has_it(kernels):
    first, second = kernels
    second.run("%load_ext durable_nb")
    cell, seconds = timed(second, OPEN)
    assert seconds < AT_ONCE
    assert "RunHeld" in cell.stderr + (cell.error or "")
    assert f"process {pid(first)} on " in cell.stderr + (cell.error or "")
    assert "%durable_workflow shared --take-over --db runs.db" in cell.stderr + (cell.error or "")
    named = second.run(f"{OPEN.splitlines()[1]} --name 'my book' --fresh").reply["evalue"]
    assert "%durable_workflow shared --take-over --fresh --name 'my book' --db runs.db" in named
    assert first.run(STEP.format("clean")).text == "body of clean\n"


def test_a_killed_kernel_is_replaced_at_once(kernels):
    first, second = kernels
    second.run("%load_ext durable_nb")
    first.sigkill()
    cell, seconds = timed(second, OPEN)
    assert (cell.status, cell.error) == ("ok", None)
    assert seconds < AT_ONCE
    assert second.run(STEP.format("load") + "\nload").status == "ok"


def test_a_stopped_kernel_wakes_up_fenced_off(kernels):
    first, second = kernels
    second.run("%load_ext durable_nb")
    os.kill(pid(first), signal.SIGSTOP)
    try:
        assert "RunHeld" in (lambda cell: cell.stderr + (cell.error or ""))(second.run(OPEN))
        cell, seconds = timed(second, TAKE)
        assert cell.status == "ok"
        assert seconds < AT_ONCE
    finally:
        os.kill(pid(first), signal.SIGCONT)
    refused = first.run(STEP.format("late"))
    said = refused.stderr + (refused.error or "")
    assert "no longer owns the run" in said
    assert f"process {pid(second)} on " in said
    assert second.run(STEP.format("late")).text == "body of late\n"
    assert first.run("%durable_workflow another").error is None
    assert first.run(STEP.format("late")).text == "body of late\n"


def test_a_kernel_hears_that_its_run_was_taken_over(kernel_factory):
    """Within a heartbeat, without a durable call; the next one is refused before it has run anything."""
    first, second = kernel_factory(), kernel_factory()
    opening = first.start(f"from durable_nb import settings; settings.HEARTBEAT = 0.2\n{OPEN}")
    assert first.wait(opening).status == "ok"
    request = first.start("print('begun', flush=True)\nawait wf.signal('approval')")
    assert first.wait(request, until="begun") is None
    second.run("%load_ext durable_nb")
    assert second.run(TAKE).status == "ok"
    cell = first.wait(request)
    assert "RunHeld: run 'shared'" in cell.error
    assert f"it was opened again by process {pid(second)} on " in cell.error
    first.run("import time; time.sleep(0.3)")
    said = first.wait(opening).stderr  # below the cell that opened the run, where its thread began
    assert said.count("DurableNotice: run 'shared': this process no longer owns the run") == 1
    refused = first.run(STEP.format("late"))
    assert "no longer owns the run" in refused.stderr + (refused.error or "")
    assert "body of late" not in refused.text
    assert second.run("await wf.cancel('shared')").status == "ok"
