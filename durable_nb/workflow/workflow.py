"""``Workflow``: its decorators, and the methods to wait, deliver, look up, resolve and cancel."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from weakref import WeakValueDictionary

from durable_nb import settings
from durable_nb._stored import process_object
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.concurrency.pending import drain_pending
from durable_nb.engine import resolve, scopes
from durable_nb.engine.caller import Caller
from durable_nb.engine.decision import check_failure, check_policy
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.status import Status, one_run
from durable_nb.stores import StoreLike, hold, let_go
from durable_nb.stores.registry import anchored
from durable_nb.workflow import active_runs, executors
from durable_nb.workflow.awaitables import awaited
from durable_nb.workflow.backoff import BackoffStrategy, exponential
from durable_nb.workflow.entrypoint import WorkflowFunction
from durable_nb.workflow.map import map_concurrently
from durable_nb.workflow.messages import Messages
from durable_nb.workflow.recorded_values import RecordedValues
from durable_nb.workflow.retry import Failures, Policy
from durable_nb.workflow.run_methods import RunMethods
from durable_nb.workflow.sync import SyncWorkflow
from durable_nb.workflow.task import Task, check_function, name_of
from durable_nb.workflow.waits import Waits

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.passes import Pass
    from durable_nb.stores.base import Journal

__all__ = ["NOTEBOOK", "Workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Waits, Messages, RecordedValues, RunMethods):
    """Tasks and workflow functions whose results are kept in one store.

    Args:
        name: The name of the workflow, the first part of its functions' ids.
        db: A path, which is resolved now; a URL such as ``sqlite:///runs.db``; or a store.
        default_retries: Attempts of a task after its first one.
        default_backoff: Seconds to wait before each of them; see ``durable_nb.backoff``.

    Raises:
        InvalidOption: An argument is invalid (also a ValueError).

    Example:
        >>> Workflow("orders", db="orders.db")
        <Workflow 'orders' on 'orders.db'>
    """

    def __init__(
        self,
        name: str,
        db: StoreLike = settings.DB,
        default_retries: int = settings.RETRIES,
        default_backoff: BackoffStrategy | None = None,
    ) -> None:
        self.name = name
        self.db = db
        self.policy = Policy(default_retries, default_backoff or exponential())
        self.attached: scopes.Scope | None = None
        self.active_run_ids: list[str] = []
        self.tasks: WeakValueDictionary[str, Task[..., Any]] = WeakValueDictionary()
        self.functions: WeakValueDictionary[str, WorkflowFunction[..., Any]] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} on {str(self.db)!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        if self is NOTEBOOK:
            return process_object, ("durable_nb", "durable_step.__self__")
        return Workflow, (self.name, self.db, self.policy.retries, self.policy.backoff)

    @property
    def db(self) -> StoreLike:
        """The database, as it was given."""
        return self._db

    @db.setter
    def db(self, db: StoreLike) -> None:
        self._db = db
        self._place: StoreLike | None = anchored(db)
        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The journal that keeps its runs; all workflows of this process share the one of a database."""
        if self._journal is None or getattr(self._journal, "closed", False):
            self._journal = hold(self.place, self)
        return self._journal

    @property
    def place(self) -> StoreLike:
        """The database, with the absolute path that a relative one had when it was given."""
        if self._place is None:
            self._place = anchored(self.db)
        return self._place

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        retries: int | None = None,
        backoff: BackoffStrategy | None = None,
        retry_on: Failures = Exception,
        give_up_on: Failures = (),
        timeout: float | None = None,
        on_edit: str = settings.TASK_ON_EDIT,
        on_change: str = settings.TASK_ON_CHANGE,
        on_drift: str = settings.TASK_ON_DRIFT,
        failure: str = settings.TASK_FAILURE,
        once: bool = False,
        executor: executors.ExecutorLike | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task: in a run, the result of a call is checkpointed, and replayed on resume.

        Args:
            function: The function, sync or async.
            **options: How it is called and executed:
                ``name``: the name of its steps; by default that of the function.
                ``retries``: attempts after the first one.
                ``backoff``: seconds to wait before each, by the 0-based number of the attempt that failed.
                ``retry_on``, ``give_up_on``: which failures are retried: a class, a tuple, or a predicate.
                ``timeout``: seconds that an attempt may take. Outside the main thread, a sync function needs
                an ``executor`` for it.
                ``on_edit``, ``on_change``, ``on_drift``: the policies for a checkpoint if the function was
                edited, the arguments changed, or files did: ``keep`` it, ``rerun``, ``ask`` or ``error``.
                ``failure``: whether a resumed run replays a recorded failure, or executes the body again:
                ``caught`` replays it if the run continued after it, ``final`` always, ``retry`` never.
                ``once``: do not start the body a second time unless told to: a step that was killed or failed
                is in doubt until ``resolve`` says how it ended. ``retries`` is 0 then unless it is given.
                ``executor``: an executor for the body, or a function that returns one, again if it breaks.

        Raises:
            TypeError: The argument is not a function, or it is a generator function.
            InvalidOption: The value of an option is not valid.

        Example:
            >>> @Workflow("orders").task(retries=5, give_up_on=PermissionError)
            ... async def charge(order: str) -> str: ...
        """
        if function is None:
            return functools.partial(self._task, **options)
        return self._task(function, **options)

    def _task(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        retries: int | None = None,
        backoff: BackoffStrategy | None = None,
        on_edit: str = settings.TASK_ON_EDIT,
        on_change: str = settings.TASK_ON_CHANGE,
        on_drift: str = settings.TASK_ON_DRIFT,
        failure: str = settings.TASK_FAILURE,
        once: bool = False,
        executor: executors.ExecutorLike | None = None,
        **limits: Any,
    ) -> Task[P, R]:
        check_function(function, "task")
        if retries is None:  # a body that failed may have had its side effects
            retries = 0 if once else self.policy.retries
        policy = Policy(retries, backoff or self.policy.backoff, **limits)
        executed = None
        if executor is not None:
            executed = executors.on_executor(function, executor, timeout=policy.timeout)
        task = Task(
            function,
            name=name or name_of(function),
            policy=policy,
            workflow=self,
            on_edit=check_policy("on_edit", on_edit),
            on_change=check_policy("on_change", on_change),
            on_drift=check_policy("on_drift", on_drift),
            failure=check_failure(failure),
            once=once,
            executed=executed,
            executor=executor,
        )
        self.tasks[task.name] = task
        return task

    @overload
    def workflow(self, function: Callable[P, R], /) -> WorkflowFunction[P, R]: ...
    @overload
    def workflow(
        self, /, *, id: str | None = None, timeout: float | timedelta | None = None
    ) -> Callable[[Callable[P, R]], WorkflowFunction[P, R]]: ...

    def workflow(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        id: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Make a function the entry point of runs.

        Args:
            function: The function.
            id: A template for run ids, filled from the arguments, such as ``order-{order_id}``. By default
                the id is workflow name, function name and argument values, joined by ``-``.
            timeout: Seconds, or a timedelta, that a run of an async function may take, from its beginning; a
                restart does not reset it. A run that takes longer fails with ``StepTimeout``.

        Raises:
            InvalidOption: The function is synchronous, and has a timeout (also a ValueError).

        Example:
            >>> @Workflow("orders").workflow(id="order-{order_id}")
            ... async def process(order_id: str) -> str: ...
        """
        if function is None:
            return lambda function: self._workflow(function, id, timeout)
        return self._workflow(function, id, timeout)

    def _workflow(
        self, function: Callable[P, R], id: str | None, timeout: float | timedelta | None
    ) -> WorkflowFunction[P, R]:
        made = WorkflowFunction(self, function, id, timeout)
        self.functions[name_of(function)] = made
        return made

    def move_to(self, *, name: str | None = None, db: StoreLike | None = None) -> None:
        """Change the name or the database for later runs; a run that is open is not moved."""
        self.name = name or self.name
        if db is not None and anchored(db) != self._place:
            self.db = db

    def attach(self, current: Pass | None) -> None:
        """Make calls outside every scope part of a pass, as in ordinary cells; None ends that."""
        if current is not None:
            hold(current.journal, self)
        self.attached = scopes.KeyedScope(current) if current else None

    @awaited
    async def map(
        self, function: Callable[..., Awaitable[R]], /, *iterables: Iterable[Any], limit: int | None = None
    ) -> list[R]:
        """Await a function for each item, several at a time; in a run each item is a branch of its own.

        After a failure no further item is started; those under way are awaited, and their results kept.

        Args:
            function: A task, or any async function, such as one that calls several tasks.
            iterables: One for each argument of the function, all of the same length.
            limit: How many items may be under way at a time; by default all of them.

        Returns:
            The results, in the order of the items.

        Raises:
            InvalidOption: The limit is below 1.
            ValueError: The iterables differ in length.
            Exception: The failure of the first item that failed.

        Example:
            >>> async def summaries(wf: Workflow, summarize: Any, texts: list[str]) -> list[str]:
            ...     return await wf.map(summarize, texts, limit=8)
        """
        return await map_concurrently(function, iterables, limit)

    async def resolve(self, run_id: str, step_id: str, answer: str, value: Any = None) -> None:
        """Resolve a step in doubt, from any process; the next pass of the run uses the answer.

        Args:
            run_id: The run.
            step_id: The step, as the error names it.
            answer: ``rerun``: execute it again, a finished step too; ``value``: it succeeded and returned
                ``value``; ``fail``: it is given up, and its call raises; ``earlier``: the last result that
                it had before it ran again is taken back.
            value: What it returned.

        Raises:
            RunNotFound: The database has no run of that id.
            StepNotFound: The run has no step of that name.
            StepError: The step is not in doubt, or no earlier result of it is kept.
            RunHeld: Another living process has the run open.

        Example:
            >>> async def paid_after_all(wf: Workflow) -> None:
            ...     await wf.resolve("order-a17", "charge", "value", "receipt 4711")
        """
        await self._resolve(run_id, step_id, answer, value, ASYNC)

    async def reset(self, run_id: str, step_id: str) -> None:
        """Have a step run again at its next call; its earlier result is kept.

        Args:
            run_id: The run.
            step_id: The step.

        Raises:
            RunNotFound: The database has no run of that id.
            StepNotFound: The run has no step of that name.
            RunHeld: Another living process has the run open.

        Example:
            >>> async def load_again(wf: Workflow) -> None:
            ...     await wf.reset("monday", "load")
        """
        await self._resolve(run_id, step_id, "rerun", None, ASYNC)

    async def status(self, run_id: str) -> Status:
        """Return the status of a run: its record, its steps, and the usage of its agents.

        Args:
            run_id: The run.

        Raises:
            RunNotFound: The database has no run of that id.
            StoreUnavailable: The database does not exist.

        Example:
            >>> async def tokens(wf: Workflow) -> int:
            ...     return (await wf.status("monday")).spent.output_tokens
        """
        return await ASYNC.store(one_run(self.journal, check_run_id(run_id)))

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run; its finished steps are kept, and it can be resumed.

        A pass in this process is asked to end: at its next await, or, if it is synchronous, at its next
        durable call. Any other run is marked as cancelled; a process that has it open can then write to it
        no more.

        Args:
            run_id: The run.

        Returns:
            True if there was something to cancel.

        Raises:
            RunNotFound: The database has no run of that id.
        """
        return await active_runs.cancel_run(self.journal, check_run_id(run_id), ASYNC)

    @property
    def sync(self) -> SyncWorkflow:
        """The methods for synchronous code: ``wf.sync.signal(…)``, ``wf.sync.complete(…)`` and so on."""
        return SyncWorkflow(self, self._resolve)

    def close(self) -> None:
        """Release the database; a later call opens it again.

        Other workflows of this process keep using it. A script that never calls this exits all the same.
        """
        journal, self._journal = self._journal, None
        if journal is not None and let_go(journal, self):
            # Before the store is closed: pending commits still write to it.
            drain_pending()
            run_blocking(SYNC.store(journal.close()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _resolve(self, run_id: str, step_id: str, answer: str, value: Any, mode: CallMode) -> None:
        here = scopes.find_pass(self.journal, check_run_id(run_id), self.attached, NOTEBOOK.attached)
        here = here or active_runs.find_active(self.journal, run_id)
        caller = Caller(here, mode) if here else await resolve.recorded_run(self.journal, run_id, mode)
        await resolve.resolve_step(caller, step_id, answer, value)


NOTEBOOK = Workflow(settings.WORKFLOW_NAME)
"""The workflow of a notebook's durable cells and agents, moved to the database of the run that is opened."""

NOTEBOOK._place = None  # noqa: SLF001 - its first use gives it a folder, not the import of this module
