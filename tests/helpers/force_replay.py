"""``pytest --force-replay``: each workflow is entered anew after every step it completes.

Whatever a test expects of its workflows must hold just the same, since finished steps replay.
"""

import asyncio

import pytest

from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.unsettled import Unsettled
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
    complete, run_pass = Caller.complete, WorkflowFunction._pass

    async def complete_and_leave(caller, handle, payload, *, status=StepStatus.DONE, **options):
        await complete(caller, handle, payload, status=status, **options)
        entered = getattr(caller.run, "entered", None)
        if entered is not None and status is StepStatus.DONE and len(caller.current.claims) <= 1:
            caller.run.entered = None
            if entered == "sync":
                raise _Again
            entered.get_loop().call_soon_threadsafe(entered.cancel)
            if caller.mode is ASYNC:
                await asyncio.sleep(0)

    async def pass_again(function, opening, given, body, mode, **options):
        wrapped = _async_passes(body) if function.is_async else _sync_passes(body)
        return await run_pass(function, opening, given, wrapped, mode, **options)

    monkeypatch.setattr(Caller, "complete", complete_and_leave)
    monkeypatch.setattr(WorkflowFunction, "_pass", pass_again)


def _async_passes(body):
    async def passes():
        current = scopes.current_scope().current
        run = current.run
        while True:
            current.unsettled = Unsettled()  # as in a new process
            task = asyncio.create_task(_one_pass(current, body))
            run.entered = task
            try:
                return await task
            except asyncio.CancelledError:
                if run.entered is not None or asyncio.current_task().cancelling():
                    task.cancel()
                    raise
                while current.claims:  # gather leaves the siblings of the one that is cancelled first
                    await asyncio.sleep(0.001)

    return passes


async def _one_pass(current, body):
    with scopes.enter_scope(scopes.Scope(current)):
        return await body()


def _sync_passes(body):
    def passes():
        current = scopes.current_scope().current
        while True:
            current.unsettled = Unsettled()
            current.run.entered = "sync"
            try:
                with scopes.enter_scope(scopes.Scope(current)):
                    return body()
            except _Again:
                pass

    return passes
