"""The public face for functions: ``Workflow`` and its decorators."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from durable_nb import settings
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.concurrency.pending import drain_pending
from durable_nb.engine import resolve, scopes
from durable_nb.engine.decision import check_policy
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.status import Status, one_run
from durable_nb.stores import StoreLike, hold, let_go
from durable_nb.workflow import active_runs, executors
from durable_nb.workflow.backoff import BackoffStrategy, exponential
from durable_nb.workflow.entrypoint import WorkflowFunction
from durable_nb.workflow.map import concurrently, in_threads
from durable_nb.workflow.retry import Failures, Policy
from durable_nb.workflow.task import Task, check_function, name_of
from durable_nb.workflow.waits import SyncWaits, Waits

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle
    from durable_nb.stores.base import Journal

__all__ = ["NOTEBOOK", "SyncFace", "Workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Waits):
    """Tasks and workflows whose results are kept in one store.

    Args:
        name: What its runs are filed under.
        db: A path, a ``sqlite:///`` URL, or a store of your own.
        default_retries: Further attempts of a task after its first.
        default_backoff: How long to wait before each, in seconds.

    Example:
        >>> wf = Workflow("orders", db="orders.db")
        >>> wf
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
        self.passes: list[str] = []
        self._journal: Journal | None = None

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} on {str(self.db)!r}>"

    @property
    def journal(self) -> Journal:
        """Where its runs are kept; shared by all users of one database in this process."""
        if self._journal is None or getattr(self._journal, "closed", False):
            self._journal = hold(self.db, self)
        return self._journal

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
        once: bool = False,
        executor: executors.ExecutorLike | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task: called in a run, its result is checkpointed and a re-run gets it back.

        Args:
            function: The function, sync or async.
            **options: How it is called and executed:
                ``name``: what its steps are called; its own name if not given.
                ``retries``: further attempts after the first.
                ``backoff``: seconds to wait before each, by the 0-based number of the attempt that failed.
                ``retry_on``, ``give_up_on``: after which failures another attempt is made, or none: a class,
                a tuple of classes, or a predicate.
                ``timeout``: seconds an attempt may take.
                ``on_edit``: what becomes of a checkpoint when the function was edited: keep, rerun, ask or
                error.
                ``on_change``: the same when the arguments changed: error, rerun, keep or ask.
                ``once``: never start the body twice unasked: one that was killed or failed is in doubt until
                somebody answers (see ``resolve``). There are no retries then, unless ``retries`` is given.
                ``executor``: where the body runs: a ``concurrent.futures.Executor``, or a function that makes
                one, so that it is made again when it broke.

        Raises:
            TypeError: It is no function, or a generator.
            InvalidOption: An option makes no sense.

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
        once: bool = False,
        executor: executors.ExecutorLike | None = None,
        **limits: Any,
    ) -> Task[P, R]:
        check_function(function, "task")
        if retries is None:  # a body that failed may have had its effect all the same
            retries = 0 if once else self.policy.retries
        return Task(
            function,
            name=name or name_of(function),
            policy=Policy(retries, backoff or self.policy.backoff, **limits),
            workflow=self,
            on_edit=check_policy("on_edit", on_edit),
            on_change=check_policy("on_change", on_change),
            once=once,
            executed=executors.elsewhere(function, executor) if executor is not None else None,
        )

    @overload
    def workflow(self, function: Callable[P, R], /) -> WorkflowFunction[P, R]: ...
    @overload
    def workflow(self, /, *, id: str | None = None) -> Callable[[Callable[P, R]], WorkflowFunction[P, R]]: ...

    def workflow(self, function: Callable[..., Any] | None = None, /, *, id: str | None = None) -> Any:
        """Make a function the entry point of runs.

        Args:
            function: The function.
            id: A template for run ids, filled from the arguments, such as ``order-{order_id}``; without one
                the id is workflow name, function name and argument values, joined by ``-``.

        Example:
            >>> @Workflow("orders").workflow(id="order-{order_id}")
            ... async def process(order_id: str) -> str: ...
        """
        if function is None:
            return lambda function: WorkflowFunction(self, function, id)
        return WorkflowFunction(self, function, id)

    def move_to(self, *, name: str | None = None, db: StoreLike | None = None) -> None:
        """File later runs under another name, or keep them in another place; what is open stays open."""
        self.name = name or self.name
        if db is not None and db != self.db:
            self.db = db
            self._journal = None

    def attach(self, run: RunHandle | None) -> None:
        """Have calls outside every scope belong to ``run``, as in a notebook's ordinary cells."""
        if run is not None:
            hold(run.journal, self)
        self.attached = scopes.KeyedScope(run) if run else None

    async def map(
        self, function: Callable[..., Awaitable[R]], /, *iterables: Iterable[Any], limit: int | None = None
    ) -> list[R]:
        """Await a function for each item, several at a time; in a run each is a branch of its own.

        After a failure no further item is begun; those under way are waited for, and their results kept.

        Args:
            function: A task, or any async function, such as one that calls several tasks.
            iterables: One for each argument of the function, all of the same length.
            limit: How many items may be under way at a time; all of them by default.

        Returns:
            What it gave, in the order of the items.

        Raises:
            InvalidOption: The limit is below 1.
            ValueError: The iterables are not of one length.
            Exception: What the first item that failed has raised.

        Example:
            >>> async def summaries(wf: Workflow, summarize: Any, texts: list[str]) -> list[str]:
            ...     return await wf.map(summarize, texts, limit=8)
        """
        return await concurrently(function, iterables, limit)

    async def resolve(self, run_id: str, step_id: str, answer: str, value: Any = None) -> None:
        """Say what became of a step in doubt, from anywhere; the run's next pass goes by it.

        Args:
            run_id: The run.
            step_id: The step, as the error names it.
            answer: ``rerun`` (a finished step too); ``value``: it succeeded and gave ``value``; ``fail``: it
                is given up, and its call raises.
            value: What it gave.

        Raises:
            StepNotFound: The run has no such step.
            StepError: The step is not in doubt.
            RunHeld: Another living process has the run open.

        Example:
            >>> async def paid_after_all(wf: Workflow) -> None:
            ...     await wf.resolve("order-a17", "charge", "value", "receipt 4711")
        """
        await self._resolve(run_id, step_id, answer, value, ASYNC)

    async def status(self, run_id: str) -> Status:
        """Where a run stands: its record and its steps, what its agents have spent, and what replay saved.

        Args:
            run_id: The run.

        Raises:
            RunNotFound: There is no such run.
            StoreUnavailable: There is no such database.

        Example:
            >>> async def tokens(wf: Workflow) -> int:
            ...     return (await wf.status("monday")).spent.output_tokens
        """
        return await ASYNC.store(one_run(self.journal, check_run_id(run_id)))

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run; its finished steps stay, and it can be resumed.

        A pass of this process is asked to end, at its next await or, a synchronous one, at its next durable
        call. Any other run is marked cancelled; a process that has it open can write to it no more.

        Returns:
            True if there was something to cancel.

        Raises:
            RunNotFound: There is no such run.
        """
        return await active_runs.cancel(self.journal, check_run_id(run_id), ASYNC)

    @property
    def sync(self) -> SyncFace:
        """The same for synchronous code: ``wf.sync.signal(…)``, ``.complete(…)``, ``.sleep(…)`` and so on."""
        return SyncFace(self)

    def close(self) -> None:
        """Release the database; a later call opens it again, and a script that never closes still exits.

        Another workflow of this process that uses the same database goes on using it.
        """
        journal, self._journal = self._journal, None
        if journal is not None and let_go(journal, self):
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
        here = scopes.open_here(self.journal, check_run_id(run_id), self.attached, NOTEBOOK.attached)
        here = here or active_runs.open_here(self.journal, run_id)
        run = here or await resolve.recorded_run(self.journal, run_id, mode)
        await resolve.resolve(run, step_id, answer, value, mode)


class SyncFace(SyncWaits):
    """What only async code could await, for synchronous code.

    Args:
        workflow: The workflow.
    """

    def __init__(self, workflow: Workflow) -> None:
        super().__init__(workflow)
        self._workflow = workflow

    def map(
        self, function: Callable[..., R], /, *iterables: Iterable[Any], limit: int | None = None
    ) -> list[R]:
        """Call a function for each item, several at a time in threads: see ``Workflow.map``."""
        return in_threads(function, iterables, limit)

    def resolve(self, run_id: str, step_id: str, answer: str, value: Any = None) -> None:
        """Say what became of a step in doubt: see ``Workflow.resolve``."""
        run_blocking(self._workflow._resolve(run_id, step_id, answer, value, SYNC))  # noqa: SLF001 - its other face

    def status(self, run_id: str) -> Status:
        """Where a run stands: see ``Workflow.status``."""
        return run_blocking(SYNC.store(one_run(self._workflow.journal, check_run_id(run_id))))

    def cancel(self, run_id: str) -> bool:
        """Cancel a run: see ``Workflow.cancel``."""
        return run_blocking(active_runs.cancel(self._workflow.journal, check_run_id(run_id), SYNC))


NOTEBOOK = Workflow(settings.WORKFLOW_NAME)
"""The workflow of the notebook: ``%durable_workflow`` moves it to its database and opens a run of it."""
