"""``pytest --force-replay``: each workflow is entered anew after every step it completes.

Whatever a test expects of its workflows must hold just the same, since finished steps replay.
"""

import asyncio

import pytest

from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.run import RunHandle
from durable_nb.records import StepStatus
from durable_nb.workflow.entrypoint import WorkflowFunction


class _Again(BaseException):
    """Thrown into a synchronous workflow to enter it anew."""


def pytest_addoption(parser):
    parser.addoption("--force-replay", action="store_true", help="enter workflows anew after every step")


def pytest_collection_modifyitems(config, items):
    """Leave out what looks at one pass through a body: that is what this mode changes."""
    if config.getoption("--force-replay"):
        counting = [item for item in items if item.get_closest_marker("one_pass")]
        config.hook.pytest_deselected(items=counting)
        items[:] = [item for item in items if item not in counting]


@pytest.fixture(autouse=True)
def force_replay(request, monkeypatch):
    """Patches the one place where a pass begins and the one where a step is recorded."""
    if not request.config.getoption("--force-replay"):
        return
    record, run_pass = RunHandle._record, WorkflowFunction._pass

    async def record_and_leave(run, begun, status, payload, mode):
        step = await record(run, begun, status, payload, mode)
        current = getattr(run, "current_pass", None)
        if current is not None and status is StepStatus.DONE and len(run.claims) <= 1:
            run.current_pass = None
            if current == "sync":
                raise _Again
            current.get_loop().call_soon_threadsafe(current.cancel)
            if mode is ASYNC:
                await asyncio.sleep(0)
        return step

    async def pass_again(function, opening, body, mode, **options):
        wrapped = _async_passes(body) if function.is_async else _sync_passes(body)
        return await run_pass(function, opening, wrapped, mode, **options)

    monkeypatch.setattr(RunHandle, "_record", record_and_leave)
    monkeypatch.setattr(WorkflowFunction, "_pass", pass_again)


def _async_passes(body):
    async def passes():
        run = scopes.current_scope().run
        while True:
            task = asyncio.create_task(_one_pass(run, body))
            run.current_pass = task
            try:
                return await task
            except asyncio.CancelledError:
                if run.current_pass is not None or asyncio.current_task().cancelling():
                    task.cancel()
                    raise
                while run.claims:  # gather does not wait for the siblings of the one that was cancelled first
                    await asyncio.sleep(0.001)

    return passes


async def _one_pass(run, body):
    with scopes.enter_scope(scopes.Scope(run)):
        return await body()


def _sync_passes(body):
    def passes():
        run = scopes.current_scope().run
        while True:
            run.current_pass = "sync"
            try:
                with scopes.enter_scope(scopes.Scope(run)):
                    return body()
            except _Again:
                pass

    return passes
