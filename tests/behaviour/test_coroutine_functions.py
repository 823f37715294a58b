"""Async tasks and workflows are coroutine functions to whoever asks: inspect, asyncio, web frameworks."""

import asyncio
import functools
import inspect
import warnings

import pytest

from durable_nb import InMemoryStore, Workflow

wf = Workflow("shop", db=InMemoryStore())


class Shop:
    @wf.task
    async def task(self, n):
        return 2 * n

    @wf.workflow(id="method-{n}")
    async def workflow(self, n):
        return await self.task(n)

    @wf.task
    def sync_task(self, n):
        return 2 * n

    @wf.workflow(id="sync-method-{n}")
    def sync_workflow(self, n):
        return self.sync_task(n)


@wf.task
async def task(n):
    return 2 * n


@wf.workflow(id="function-{n}")
async def workflow(n):
    return await task(n)


@wf.task
def sync_task(n):
    return 2 * n


@wf.workflow(id="sync-function-{n}")
def sync_workflow(n):
    return sync_task(n)


async def plain(n):
    return 2 * n


ASYNC = {
    "task": task,
    "workflow": workflow,
    "run": functools.partial(workflow.run, "a"),
    "task of a method": Shop().task,
    "workflow of a method": Shop().workflow,
    "run of a method": functools.partial(Shop().workflow.run, "b"),
    "partial task": functools.partial(task, n=3),
    "partial workflow": functools.partial(workflow, n=3),
    "task of a partial": wf.task(name="part")(functools.partial(plain, n=3)),
    "task of a task": wf.task(task),
}
SYNC = {
    "task": sync_task,
    "workflow": sync_workflow,
    "run": sync_workflow.run,
    "task of a method": Shop().sync_task,
    "workflow of a method": Shop().sync_workflow,
    "run of a method": Shop().sync_workflow.run,
}


def asyncio_says(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.14 on
        return asyncio.iscoroutinefunction(function)


def starlette_says(function):
    utils = pytest.importorskip("starlette._utils", reason="NOT TESTED: starlette is not installed")
    return utils.is_async_callable(function)


@pytest.mark.parametrize("ask", [inspect.iscoroutinefunction, asyncio_says, starlette_says])
@pytest.mark.parametrize(
    ("function", "answer"),
    [
        *(pytest.param(each, True, id=f"async {name}") for name, each in ASYNC.items()),
        *(pytest.param(each, False, id=f"sync {name}") for name, each in SYNC.items()),
    ],
)
def test_what_is_async_says_so_and_what_is_sync_does_not(ask, function, answer):
    assert ask(function) is answer


async def test_the_run_of_an_async_workflow_is_the_method_that_it_was():
    assert workflow.run.__self__ is workflow
    assert workflow.run.__name__ == "run"
    assert inspect.getdoc(workflow.run) == inspect.getdoc(type(workflow).run)
    assert str(inspect.signature(workflow.run)) == str(inspect.signature(sync_workflow.run))
    assert await workflow.run("c", 4) == 8


async def test_a_web_framework_runs_it_in_the_background():
    background = pytest.importorskip("starlette.background", reason="NOT TESTED: starlette is not installed")
    await background.BackgroundTask(workflow, 7)()
    await background.BackgroundTask(workflow.run, "own-id", 8)()
    assert [step.step_id for step in (await wf.status("function-7")).steps] == ["task"]
    assert [step.step_id for step in (await wf.status("own-id")).steps] == ["task"]


def test_the_async_methods_of_an_agent_say_so():
    models = pytest.importorskip("pydantic_ai", reason="NOT TESTED: pydantic-ai is not installed")
    from durable_nb.pydantic_ai import DurableAgent

    agent = DurableAgent(models.Agent("test", name="clerk"), wf)
    assert [inspect.iscoroutinefunction(each) for each in (agent.run, agent.signal)] == [True, True]
    assert not inspect.iscoroutinefunction(agent.run_sync)
