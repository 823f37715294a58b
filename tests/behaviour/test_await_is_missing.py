"""A call without ``await`` says so where it is taken for its result, and is a coroutine everywhere else."""

import asyncio
import inspect
import operator
import pickle

import anyio
import pytest

from durable_nb import InMemoryStore, Workflow

wf = Workflow("shop", db=InMemoryStore())


@wf.task
async def double(n):
    return 2 * n


@wf.workflow(id="sum-{n}")
async def total(n):
    return await double(n) + await double(n + 1)


def calls():
    """One call of each kind, in a run."""
    return {
        "double(…)": double(1),
        "wf.signal('approval')": wf.signal("approval"),
        "wf.sleep(0)": wf.sleep(0),
        "wf.complete('run')": wf.complete("run", "approval", True),
        "total(…)": total(1),
    }


@pytest.fixture
def made():
    """The calls of `calls`, each made in a run and never awaited there."""

    @wf.workflow(id="made")
    async def make():
        return calls()

    @wf.workflow(id="made-again")
    def unfinished():
        kept.update(calls())

    kept = {}
    unfinished()
    yield kept
    for each in kept.values():
        each.close()


def test_its_truth_its_repr_and_its_pickle_say_so(made):
    for call, coroutine in made.items():
        assert repr(coroutine) == f"<{call}: await is missing>"
        with pytest.raises(TypeError, match=r"await is missing: to get the result, write: await "):
            bool(coroutine)
        with pytest.raises(TypeError, match="await is missing"):
            pickle.dumps(coroutine)


USES = {
    "an attribute": lambda call: call.upper(),
    "a sum": lambda call: call + 1,
    "a sum of something else": lambda call: "got " + call,
    "a sum in place": lambda call: operator.iadd([1], call),
    "a product": lambda call: 2 * call,
    "a power": lambda call: call**2,
    "a comparison": lambda call: call == 2,
    "a difference": lambda call: call != "yes",
    "an order": lambda call: call < 3,
    "a list that may hold it": lambda call: call in [1, 2],
    "what may be in it": lambda call: 1 in call,
    "an item": lambda call: call["key"],
    "a loop": lambda call: [each for each in call],  # noqa: C416 - it is the loop that fails
    "its length": lambda call: len(call),
    "a number": lambda call: int(call),
    "a fraction": lambda call: float(call),
    "a place in a list": lambda call: [1, 2][call],
    "rounding": lambda call: round(call),
    "a sign": lambda call: -call,
    "unpacking": lambda call: {**dict(call)},
}


@pytest.mark.parametrize("use", USES)
def test_every_use_of_it_as_its_result_says_so(made, use):
    for call, coroutine in made.items():
        with pytest.raises((TypeError, AttributeError), match="await is missing") as caught:
            USES[use](coroutine)
        assert str(caught.value) == f"await is missing: to get the result, write: await {call}"


def test_it_is_printed_as_what_it_is(made):
    for call, coroutine in made.items():
        assert f"{coroutine}" == str(coroutine) == f"{coroutine!r}" == f"<{call}: await is missing>"


def test_what_everyone_asks_of_any_object_is_answered(made):
    for coroutine in made.values():
        assert coroutine == coroutine
        assert coroutine in {coroutine, 1}
        assert {coroutine: 1}[coroutine] == 1
        assert coroutine not in [each for each in made.values() if each is not coroutine]
        assert not hasattr(coroutine, "result")
        assert not hasattr(coroutine, "_repr_html_")
        assert coroutine.cr_frame is not None


def test_it_is_a_coroutine_to_whoever_asks(made):
    for coroutine in made.values():
        assert inspect.iscoroutine(coroutine)
        assert inspect.isawaitable(coroutine)
        assert asyncio.iscoroutine(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


WAYS = {
    "await": lambda: _await(),
    "create_task": lambda: asyncio.create_task(double(3)),
    "ensure_future": lambda: asyncio.ensure_future(double(3)),
    "wait_for": lambda: asyncio.wait_for(double(3), 5),
    "shield": lambda: asyncio.shield(double(3)),
    "gather": lambda: _first(asyncio.gather(double(3))),
    "as_completed": lambda: next(iter(asyncio.as_completed([double(3)]))),
    "TaskGroup": lambda: _in_group(),
    "anyio": lambda: _in_anyio(),
    "timeout": lambda: _in_time(),
}


async def _await():
    return await double(3)


async def _first(them):
    return (await them)[0]


async def _in_group():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(double(3))
    return task.result()


async def _in_anyio():
    found = []

    async def work():
        found.append(await double(3))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(double, 4)
    return found[0]


async def _in_time():
    async with asyncio.timeout(5):
        return await double(3)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_awaited_in_any_way(way):
    @wf.workflow(id=f"way-{way}")
    async def run():
        return await WAYS[way]()

    assert asyncio.run(run()) == 6


def test_a_workflow_is_run_by_whatever_runs_coroutines():
    assert asyncio.run(total(5)) == 22
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(total(6)) == 26
    assert asyncio.run_coroutine_threadsafe
    loop.close()


def test_an_exception_goes_through_it():
    @wf.task
    async def fails():
        raise ValueError("no")

    @wf.workflow(id="fails")
    async def run():
        with pytest.raises(ValueError, match="no"):
            await asyncio.create_task(fails())
        task = asyncio.create_task(wf.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "done"

    assert asyncio.run(run()) == "done"


async def test_a_task_of_it_can_be_shown():
    task = asyncio.create_task(double(1))
    assert "Task pending" in repr(task)
    assert await task == 2
