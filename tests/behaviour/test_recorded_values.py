"""``wf.now``, ``wf.random`` and ``wf.uuid4``: a replay gets the values of the first pass."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from durable_nb import Workflow
from durable_nb.errors import NoOpenRun, StepError


def values(wf, ended):
    """A workflow that takes values, and fails unless it has ended."""

    @wf.workflow
    async def main():
        found = await wf.now(), await wf.random(), await wf.uuid4(), await wf.uuid4()
        seen.append(found)
        if not ended:
            raise KeyboardInterrupt
        return found

    seen = []
    return main, seen


async def test_a_resumed_run_gets_the_same_values(again):
    before = datetime.now(UTC)
    first, seen = values(again(), ended=False)
    with pytest.raises(KeyboardInterrupt):
        await first.run("r")
    last, _ = values(again(), ended=True)
    moment, number, one, other = await last.run("r")
    assert [(moment, number, one, other)] == seen
    assert before <= moment <= datetime.now(UTC)
    assert 0 <= number < 1
    assert (type(one), one.version, one != other) == (uuid.UUID, 4, True)


def test_synchronous_code_and_the_names_in_the_status(again):
    wf = again()

    @wf.task
    def now(n):
        return n

    @wf.workflow
    def main():
        return wf.sync.now(), now(1), wf.sync.now(), wf.sync.random(), wf.sync.uuid4(step_id="key")

    main.run("r")
    status = wf.sync.status("r")
    assert [(step.step_id, step.kind.value) for step in status.steps] == [
        ("wf.now", "value"),
        ("now", "task"),
        ("wf.now#1", "value"),
        ("wf.random", "value"),
        ("key", "value"),
    ]
    assert "wf.random  value  done" in str(status)


async def test_each_branch_has_its_own(again):
    wf = again()

    @wf.workflow
    async def main():
        return await asyncio.gather(*(branch() for _ in range(5)))

    async def branch():
        await asyncio.sleep(0)
        return await wf.random()

    assert len(set(await main.run("r"))) == 5
    assert {step.step_id for step in (await wf.status("r")).steps} == {f"~{n}/wf.random" for n in range(5)}


def test_a_call_without_an_order_needs_a_name(again):
    wf = again()
    caught = []

    def in_thread():
        try:
            wf.sync.uuid4()
        except StepError as error:
            caught.append(str(error))
        caught.append(wf.sync.uuid4(step_id="key"))

    @wf.workflow
    async def main():
        await asyncio.to_thread(in_thread)
        return caught[-1], caught[-1] == await asyncio.to_thread(lambda: wf.sync.uuid4(step_id="key"))

    found, is_same = asyncio.run(main.run("r"))
    assert is_same
    assert found.version == 4
    assert caught[0] == (
        "run 'r', step 'wf.uuid4': calls in ordinary cells and from other threads have no order that "
        "identifies them. Name the call: wf.uuid4(step_id='…'). In a durable cell calls are named by order."
    )


def test_outside_a_run_it_is_an_error():
    wf = Workflow("shop", db="none.db")
    for call in (wf.sync.now, wf.sync.random, wf.sync.uuid4):
        with pytest.raises(NoOpenRun, match=rf"wf\.{call.__name__}\(\) was called outside a run"):
            call()
