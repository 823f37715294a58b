"""The methods of a workflow that look at runs, and copy them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from durable_nb import codec
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine.fork import fork
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.status import current_snapshot, list_runs, set_up
from durable_nb.errors import OpenRun, RunNotDone, StartOver, error_context
from durable_nb.records import Run, RunStatus
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.payloads import fetch
from durable_nb.workflow.resume import ResumedRun, resume_interrupted, run_in_loop

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.records import Payload
    from durable_nb.stores.base import Journal
    from durable_nb.workflow.task import WorkflowLike

__all__ = ["RunMethods", "SyncRunMethods"]


class RunMethods:
    """The methods for async code."""

    async def runs(self: WorkflowLike) -> list[Run]:
        """Return all runs of the database, those of other workflows too, the latest first.

        Raises:
            StoreUnavailable: The database does not exist.

        Example:
            >>> async def unfinished(wf: Workflow) -> list[str]:
            ...     return [run.run_id for run in await wf.runs() if run.status == "interrupted"]
        """
        return await _runs(self, ASYNC)

    async def result(self: WorkflowLike, run_id: str) -> Any:
        """Return the result of a run that is done; raise the failure of one that failed.

        Args:
            run_id: The run.

        Raises:
            RunNotFound: The database has no run of that id.
            RunNotDone: The run has not ended, was cancelled, or its result could not be saved.

        Example:
            >>> async def receipt(wf: Workflow) -> str:
            ...     return await wf.result("order-a17")
        """
        return await _result(self, run_id, ASYNC)

    async def fork(self: WorkflowLike, run_id: str, new_id: str, *, before: str | None = None) -> int:
        """Copy the history of a run to a new run, which the next call of its id resumes.

        Args:
            run_id: The run, which is not changed.
            new_id: The id of the new run.
            before: The step from which the new run continues; by default all steps are copied.

        Returns:
            The number of steps copied.

        Raises:
            RunNotFound: The database has no run of that id.
            StepNotFound: The run has no step ``before``.
            StoreError: A run ``new_id`` exists, or the store cannot list the steps of a run.

        Example:
            >>> async def try_again(wf: Workflow) -> None:
            ...     await wf.fork("order-a17", "order-a17-b", before="ship")
        """
        return await _fork(self, run_id, new_id, before, ASYNC)

    async def resume_interrupted(self: WorkflowLike) -> list[ResumedRun]:
        """Resume the interrupted runs of this object's workflow functions, as a server does at its start.

        A run is interrupted if the process that owned it is dead, or was ended by Ctrl-C. Each is entered
        with the arguments that were kept when it began, all concurrently; synchronous functions in threads,
        where a task with a timeout needs an executor. A run whose arguments are not kept, or whose function
        this object has not, is named in a notice and left alone. The failure of a run does not stop the
        others. A child run whose parent is resumed is left to its parent.

        Returns:
            What became of each run, the oldest first. It returns when all have ended, also those that wait:
            a server starts it as a task.

        Raises:
            StepNested: It was called inside a run.
            StoreError: The runs cannot be listed.

        Example:
            >>> async def failures(wf: Workflow) -> list[str]:
            ...     return [each.run_id for each in await wf.resume_interrupted() if each.error]
        """
        return await resume_interrupted(self)


class SyncRunMethods:
    """These methods for synchronous code.

    Attributes:
        _workflow: The workflow.
    """

    _workflow: WorkflowLike

    def runs(self) -> list[Run]:
        """Return all runs of the database: see ``Workflow.runs``."""
        return run_blocking(_runs(self._workflow, SYNC))

    def result(self, run_id: str) -> Any:
        """Return the result of a run that is done: see ``Workflow.result``."""
        return run_blocking(_result(self._workflow, run_id, SYNC))

    def fork(self, run_id: str, new_id: str, *, before: str | None = None) -> int:
        """Copy the history of a run to a new run: see ``Workflow.fork``."""
        return run_blocking(_fork(self._workflow, run_id, new_id, before, SYNC))

    def resume_interrupted(self) -> list[ResumedRun]:
        """Resume the interrupted runs of this workflow's functions: see ``Workflow.resume_interrupted``."""
        runs: list[ResumedRun] = run_in_loop(functools.partial(resume_interrupted, self._workflow))
        return runs


async def _runs(workflow: WorkflowLike, mode: CallMode) -> list[Run]:
    return [run for run, _ in await mode.store(_listed(workflow.journal))]


async def _listed(journal: Journal) -> Any:
    await set_up(journal)
    return await list_runs(journal)


async def _fork(workflow: WorkflowLike, run_id: str, new_id: str, before: str | None, mode: CallMode) -> int:
    work = fork(workflow.journal, check_run_id(run_id), check_run_id(new_id), before)
    return await mode.store(work)


async def _result(workflow: WorkflowLike, run_id: str, mode: CallMode) -> Any:
    with error_context(run_id=check_run_id(run_id)):
        run, payload = await mode.store(_outcome(workflow.journal, run_id))
        if run.status is RunStatus.FAILED and payload is not None:
            raise codec.decode_failure(payload)
        if run.status is RunStatus.DONE and payload is not None:
            return codec.decode(payload)
        what = "its result was not saved" if run.status is RunStatus.DONE else f"it is {run.status}"
        raise RunNotDone(
            f"the run has no result: {what}",
            remedy=("Call it again to go on with it: ", OpenRun(), "; to start it over: ", StartOver(), "."),
        )


async def _outcome(journal: Journal, run_id: str) -> tuple[Run, Payload | None]:
    await set_up(journal)
    snapshot = await current_snapshot(journal, run_id)
    if snapshot is None:
        raise unknown_run(run_id, journal.address)
    run = snapshot.run
    if run.result is None or run.status not in (RunStatus.DONE, RunStatus.FAILED):
        return run, None
    return run, await fetch(journal, run.result, run_id, "")
