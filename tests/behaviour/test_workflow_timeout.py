"""``@wf.workflow(timeout=)``: the time that a run may take, in all its passes together."""

import asyncio
import pickle
from datetime import timedelta

import cloudpickle
import pytest

from durable_nb.errors import InvalidOption, StepTimeout
from durable_nb.records import RunStatus


def sleeping(wf, timeout):
    @wf.workflow(timeout=timeout)
    async def main():
        await asyncio.sleep(600)

    return main


@pytest.mark.parametrize("timeout", [0.2, timedelta(seconds=0.2)])
async def test_a_run_that_takes_too_long_fails(again, timeout):
    wf = again()
    with pytest.raises(
        StepTimeout, match=r"run 'r': the run took longer than its timeout of 0.2 s.*timeout=…"
    ):
        await sleeping(wf, timeout).run("r")
    assert (await wf.status("r")).run.status is RunStatus.FAILED


async def test_a_restart_gives_it_no_more_time_and_a_longer_timeout_does(again):
    ran = []

    def make(wf, timeout, *, fails=False):
        @wf.task
        async def first():
            ran.append(1)

        @wf.workflow(timeout=timeout)
        async def main():
            await first()
            if fails:
                raise ZeroDivisionError
            await asyncio.sleep(0.01)
            return "done"

        return main

    with pytest.raises(ZeroDivisionError):
        await make(again(), 600, fails=True).run("r")
    with pytest.raises(StepTimeout):  # the first pass took longer
        await make(again(), 1e-6).run("r")
    assert await make(again(), 600).run("r") == "done"
    assert ran == [1]


async def test_a_run_that_calls_it_may_go_on_and_does_so_again(again):
    wf, fails = again(), [True]
    child = sleeping(wf, 0.2)

    @wf.workflow
    async def parent():
        try:
            await child.run("child")
        except TimeoutError:
            found = "late"
        await wf.now()
        if fails:
            raise ZeroDivisionError
        return found

    with pytest.raises(ZeroDivisionError):
        await parent.run("r")
    fails.clear()
    assert await parent.run("r") == "late"


async def test_timeouts_of_its_own_are_its_own(again):
    wf = again()

    @wf.workflow(timeout=600)
    async def main():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"^mine$"):
        await main.run("r")


def test_a_synchronous_workflow_has_none(again):
    with pytest.raises(InvalidOption, match="expected an async workflow"):
        again().workflow(timeout=1)(lambda: 1)
    with pytest.raises(InvalidOption, match="length of time"):
        again().workflow(timeout="1")(lambda: 1)


def test_it_is_saved_with_the_function(again):
    assert pickle.loads(cloudpickle.dumps(sleeping(again(), 600))).timeout == 600
