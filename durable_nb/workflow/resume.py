"""Resuming the interrupted runs of a workflow's functions, with the arguments that are kept of them."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from durable_nb import codec
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import scopes
from durable_nb.engine.given import restored
from durable_nb.engine.status import list_runs
from durable_nb.errors import (
    DurableError,
    DurableNotice,
    OpenRun,
    RunError,
    RunHeld,
    SignalPending,
    StepNested,
    StepNotRestored,
    UntrustedCheckpoint,
    error_context,
)
from durable_nb.records import Run, RunStatus, original_id
from durable_nb.stores.base import ENDED

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal
    from durable_nb.workflow.entrypoint import WorkflowFunction
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["ResumedRun", "resume_interrupted", "run_in_loop"]


class ResumedRun(NamedTuple):
    """The outcome of an interrupted run.

    Attributes:
        run_id: The run.
        workflow: The id of its workflow function.
        status: Its status now: ``done``, ``failed`` or ``cancelled``; ``interrupted`` if it was left alone;
            ``running`` if another process has resumed it.
        value: Its result, if it is done.
        error: Its failure, or why it was left alone.
    """

    run_id: str
    workflow: str
    status: RunStatus
    value: Any = None
    error: BaseException | None = None


async def resume_interrupted(workflow: WorkflowLike) -> list[ResumedRun]:
    """Enter the interrupted runs of a workflow's functions: see ``Workflow.resume_interrupted``."""
    if (scope := scopes.current_scope()) is not None:
        raise StepNested(
            "resume_interrupted() was called inside a run, whose children the runs would be",
            run_id=scope.run.run_id,
            remedy="Call it outside of workflow functions, as a server does at its start.",
        )
    journal = workflow.journal
    functions = {each.workflow_id: each for each in workflow.functions.values()}
    runs = await ASYNC.store(_interrupted(journal, f"{workflow.name}.", functions))
    return list(await asyncio.gather(*(_resumed(journal, run, functions.get(run.workflow)) for run in runs)))


async def _interrupted(journal: Journal, prefix: str, functions: Collection[str]) -> list[Run]:
    """Return the interrupted runs of a workflow, the oldest first, but for those that their parent calls."""
    await journal.setup()
    found = {
        run.run_id: run
        for run, _ in await list_runs(journal)
        if run.status is RunStatus.INTERRUPTED and original_id(run.run_id) == run.run_id
    }
    resumed = {run_id for run_id, run in found.items() if run.workflow in functions and run.given}
    ours = [run for run in found.values() if run.workflow.startswith(prefix) and run.parent not in resumed]
    return ours[::-1]


async def _resumed(journal: Journal, run: Run, function: WorkflowFunction[..., Any] | None) -> ResumedRun:
    try:
        with error_context(run_id=run.run_id):
            args, kwargs = await _arguments(journal, run, function)
    except DurableError as error:
        warnings.warn(f"not resumed: {error}", DurableNotice, stacklevel=2)
        return ResumedRun(run.run_id, run.workflow, RunStatus.INTERRUPTED, error=error)
    assert function is not None
    try:
        entered = _entered(function, run.run_id, args, kwargs)
        return ResumedRun(run.run_id, run.workflow, RunStatus.DONE, await entered)
    except (Exception, SignalPending, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return ResumedRun(run.run_id, run.workflow, await _status_after(journal, run, error), error=error)


async def _arguments(
    journal: Journal, run: Run, function: WorkflowFunction[..., Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the kept arguments of a run.

    Raises:
        RunError: Its function is not one of the workflow, or its arguments are not kept.
        UntrustedCheckpoint: They would run code when they are loaded, and no known key has signed them.
    """
    again = ("Call it again with its arguments: ", OpenRun())
    if function is None:
        raise RunError(
            f"its function {run.workflow!r} is none of this workflow object",
            remedy="Import the module that defines it before resume_interrupted(), or call it yourself.",
        )
    try:
        payload = await ASYNC.store(restored(journal, run))
        if payload is not None:
            args, kwargs = codec.decode(payload)
            return args, kwargs
    except UntrustedCheckpoint:
        raise
    except StepNotRestored as error:
        raise RunError(f"its arguments were not restored: {error.what}", remedy=again) from error
    raise RunError("its arguments are not kept", remedy=again)


async def _entered(
    function: WorkflowFunction[..., Any], run_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    def call() -> Any:
        return function.run(run_id, *args, **kwargs)

    return await (call() if function.is_async else asyncio.wrap_future(_in_thread(call)))


def _in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Call synchronous code in a thread of its own, for which the end of the process does not wait."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="durable_nb resumed", daemon=True).start()
    return future


async def _status_after(journal: Journal, run: Run, error: BaseException) -> RunStatus:
    if isinstance(error, RunHeld):
        return RunStatus.RUNNING
    recorded = await ASYNC.store(journal.get_run(run.run_id))
    return recorded.status if recorded is not None and recorded.status in ENDED else RunStatus.INTERRUPTED


def run_in_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end in an event loop of its own; in a thread if this one has a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    return _in_thread(lambda: asyncio.run(work())).result()
