"""Workflow functions, which are the entry points of runs, and one pass through their code."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import types
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from durable_nb import codec, fingerprint
from durable_nb.concurrency import interrupts
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine import branches, scopes
from durable_nb.engine.finished import recorded_result
from durable_nb.engine.given import Given
from durable_nb.engine.naming import check_run_id, check_same_everywhere
from durable_nb.engine.opening import open_run, status_after
from durable_nb.engine.passes import NOTHING
from durable_nb.errors import (
    DurableError,
    DurableNotice,
    InvalidOption,
    InvalidRunId,
    StartOver,
    StepNotRestored,
    StepTimeout,
    UntrustedCheckpoint,
)
from durable_nb.records import Call, Run, RunStatus
from durable_nb.workflow import active_runs, child
from durable_nb.workflow.async_functions import async_if_owner_is, mark_async
from durable_nb.workflow.awaitables import AwaitedCall
from durable_nb.workflow.task import Arguments, WorkflowLike, check_function, name_of
from durable_nb.workflow.waits import as_seconds

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.caller import Caller
    from durable_nb.engine.passes import Pass
    from durable_nb.records import Payload

__all__ = ["WorkflowFunction", "finish", "one_pass"]

P = ParamSpec("P")
R = TypeVar("R")


class WorkflowFunction(Generic[P, R]):
    """A function that is the entry point of runs: call it, or choose the run's id with ``.run(id, …)``.

    Args:
        workflow: The workflow it belongs to.
        function: The function.
        template: A template for run ids, or None.
        timeout: The time that a run may take, from its beginning, in all passes together.

    Raises:
        InvalidOption: The function is synchronous, and has a timeout.
    """

    def __init__(
        self,
        workflow: WorkflowLike,
        function: Callable[P, R],
        template: str | None,
        timeout: float | timedelta | None = None,
    ) -> None:
        check_function(function, "workflow")
        functools.update_wrapper(self, function)
        self.workflow = workflow
        self.function = function
        self.template = template
        self.timeout = timeout
        self.is_async = inspect.iscoroutinefunction(function)
        self._seconds = as_seconds(timeout)
        if timeout is not None and not self.is_async:
            raise InvalidOption(
                f"invalid timeout={timeout!r}: expected an async workflow, as nothing ends synchronous code",
                remedy="Make it async def, or give its tasks a timeout.",
            )
        if self.is_async:
            mark_async(self)
        self._arguments = Arguments(function)
        self._code = fingerprint.function(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start or resume the run whose id the arguments give: see ``run_id``."""
        return self.run(self.run_id(*args, **kwargs), *args, **kwargs)

    @async_if_owner_is
    def run(self, run_id: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start or resume the run of that id: finished steps replay, the others run.

        While the run is under way in this process, another call joins it, and gets its result or exception.
        Cancelling that call leaves the run alone; cancelling the first call ends it for all.

        A run that is started in another run has its own history: the other run is its ``parent``, and has no
        step for its result. If the run failed, and the parent caught that and continued, the failure is a
        step of the parent.

        A run that is done returns its recorded result, and its function is not entered. It is entered again,
        and its finished steps replay, if it or one of its tasks was edited, if a file that a step used has
        changed, if one of its steps was reset, or if its result could not be saved.

        Args:
            run_id: The id of the run in its database.
            args: The function's arguments.
            kwargs: The function's keyword arguments, and two options: ``fresh=True`` sets the recorded run,
                and those that it called, aside under other ids and starts over; ``take_over=True`` takes the
                run from the process that owns it.

        Raises:
            RunChanged: The id is recorded with other arguments, or for another workflow.
            RunHeld: Another living process owns the run; or the call is part of that run itself, or asks to
                start it over while it is under way.
            InvalidRunId: The id is not valid.

        Example:
            >>> def resume(process: WorkflowFunction[[str], str]) -> str:
            ...     return process.run("order-a17", "a17")
        """
        fresh = "fresh" not in self._arguments.signature.parameters and bool(kwargs.pop("fresh", False))
        take_over = "take_over" not in self._arguments.signature.parameters and bool(
            kwargs.pop("take_over", False)
        )
        opening = self._opening(run_id, self._arguments.bound(args, kwargs))
        mode = ASYNC if self.is_async else SYNC
        body = functools.partial(self.function, *args, **kwargs)
        given = self._given(run_id, args, kwargs)
        enter = functools.partial(self._pass, opening, given, body, mode, fresh=fresh, take_over=take_over)
        scope = scopes.current_scope()
        work = enter() if scope is None else child.perform_child(scope, opening, enter, mode)
        result: Any = (
            AwaitedCall(work, f"{name_of(self.function)}(…)") if self.is_async else run_blocking(work)
        )
        return result  # type: ignore[no-any-return]

    @property
    def workflow_id(self) -> str:
        """The id of the workflow in the records of its runs, such as ``orders.process``."""
        return f"{self.workflow.name}.{name_of(self.function)}"

    def run_id(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the run id for these arguments: the filled template, or name and values joined by ``-``.

        Raises:
            InvalidRunId: The id is not valid, or the template cannot be filled.
        """
        bound = self._arguments.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            flattened = self._arguments.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            values.update(value if flattened else {name: value})
        run_id = self._filled(values)
        try:
            return check_same_everywhere(check_run_id(run_id))
        except InvalidRunId as error:
            function = name_of(self.function)
            error.remedy = f"Choose an id: {function}.run('…', …), or a template: @wf.workflow(id='…')."
            raise

    def _filled(self, values: Mapping[str, Any]) -> str:
        if self.template is None:
            return "-".join([self.workflow.name, name_of(self.function), *map(str, values.values())])
        try:
            return self.template.format(**values)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise InvalidRunId(
                f"cannot fill the template {self.template!r} of {self.workflow_id}: {error!r}",
                remedy=f"Use the arguments of the function: {', '.join(values) or 'none'}.",
            ) from None

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        method = types.MethodType(self.function, instance)
        return WorkflowFunction(self.workflow, method, self.template, self.timeout)

    def __repr__(self) -> str:
        return f"<workflow {self.workflow_id}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of a workflow function that a cell defined."""
        names = ("workflow", "function", "template", "timeout")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        WorkflowFunction.__init__(self, **state)

    def _opening(self, run_id: str, arguments: Mapping[str, Any]) -> Run:
        return Run(
            check_run_id(run_id),
            self.workflow_id,
            code=self._code,
            arguments=fingerprint.arguments(arguments),
            arguments_repr=fingerprint.show(arguments),
            parent=None if (scope := scopes.current_scope()) is None else scope.run.run_id,
        )

    def _given(self, run_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
        resume = f"{name_of(self.function)}.run({run_id!r}, …)"
        unbound = not isinstance(self.function, types.MethodType)
        return Given(args, kwargs, self._arguments.signature, resume, unbound)

    async def _pass(
        self, opening: Run, given: Given, body: Callable[[], Any], mode: CallMode, **options: bool
    ) -> Any:
        """Run one pass through the code, or join the pass that is under way in this process."""
        journal, fresh = self.workflow.journal, options.get("fresh", False)
        with active_runs.begin_or_find(journal, opening, mode, fresh=fresh) as (current, is_new):
            if not is_new:
                return await active_runs.join(current, mode)
            current.given = given
            with interrupts.guarded_pass():
                take_over = options.get("take_over", False)
                if fresh or not await self._is_done(current, mode, take_over=take_over):
                    current.value = await self._once_through(current, body, mode, **options)
            return current.value

    async def _is_done(self, current: Pass, mode: CallMode, *, take_over: bool) -> bool:
        """Return whether the run has ended before; its recorded result is the value of the pass then."""
        codes = {scopes.escaped(name): task.code for name, task in self.workflow.tasks.items()}
        try:
            payload = await recorded_result(current, mode, codes, take_over=take_over)
            if payload is None:
                return False
            current.value = _restored(current.opening.run_id, payload)
        except BaseException:
            current.end()
            raise
        if current.value is NOTHING:
            return False
        current.end()
        return True

    async def _once_through(
        self, current: Pass, body: Callable[[], Any], mode: CallMode, **options: bool
    ) -> Any:
        async with one_pass(self.workflow, current, mode, **options) as caller:
            if self.is_async:
                branches.install_task_factory(asyncio.get_running_loop())
            with scopes.enter_scope(scopes.Scope(current)):
                value = await self._in_time(caller, mode.body(body))
        await finish(caller, value)
        return value

    async def _in_time(self, caller: Caller, work: Awaitable[Any]) -> Any:
        if self._seconds is None:
            return await work
        run = caller.run.run
        limit = asyncio.timeout(max(0.0, min(self._seconds, self._seconds - (time.time() - run.created_at))))
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():  # the body's own
                raise
        raise StepTimeout(
            f"the run took longer than its timeout of {self._seconds:g} s",
            run_id=run.run_id,
            remedy=("Set a longer timeout=…, or start it over: ", StartOver()),
        )


@asynccontextmanager
async def one_pass(
    workflow: WorkflowLike, current: Pass, mode: CallMode, *, fresh: bool = False, take_over: bool = False
) -> AsyncIterator[Caller]:
    """Open a run for one pass through its code, the block; record how the block ends unless it returns.

    Args:
        workflow: The workflow of the run.
        current: The pass.
        mode: How the caller waits.
        fresh: Set an old history aside, and start over.
        take_over: Open the run even if another living process owns it.

    Raises:
        RunHeld: Another living process owns the run, or has taken it over in the middle.
    """
    try:
        caller = await open_run(current, mode, fresh=fresh, take_over=take_over)
    except BaseException:
        current.end()
        raise
    workflow.active_run_ids.append(caller.run.run_id)
    try:
        yield caller
    except GeneratorExit:  # closed with its event loop: nothing can be awaited any more
        raise
    except BaseException as error:
        # First: while its end is recorded, the pass can no longer be cancelled.
        current.end()
        if current.lost_error is None:
            await _mark_ended(caller, error)
        elif isinstance(error, asyncio.CancelledError):
            raise current.lost_error from None
        raise
    finally:
        workflow.active_run_ids.remove(caller.run.run_id)
    current.end()


async def finish(caller: Caller, value: Any) -> None:
    """Record that a run is done, and its result."""
    await caller.settle(Call("", called_seq=caller.run.tick()))
    await caller.mark(RunStatus.DONE, _result(caller.run.run_id, value))


def _result(run_id: str, value: Any) -> Payload | None:
    """Return the encoded result of a run; a run without one is entered again, so that failing is a notice."""
    try:
        return codec.encode(value)
    except DurableError as error:
        message = f"run {run_id!r} is done, but its result was not saved: {error}"
        warnings.warn(message, DurableNotice, stacklevel=2)
        return None


def _restored(run_id: str, payload: Payload) -> Any:
    """Return the recorded result of a run; ``NOTHING``, with a notice, if it cannot be restored."""
    try:
        return codec.decode(payload)
    except UntrustedCheckpoint:
        raise
    except StepNotRestored as error:
        message = (
            f"run {run_id!r} is done, but its result was not restored: {error.what}; it is entered again"
        )
        warnings.warn(message, DurableNotice, stacklevel=2)
        return NOTHING


async def _mark_ended(caller: Caller, error: BaseException) -> None:
    """Record how a run ended; if that fails too, the error that ended the run is still the one raised."""
    try:
        with suppress(asyncio.CancelledError):  # a second cancellation: the run is ending already
            status, failure = status_after(error), codec.encode_failure(error)
            if status is RunStatus.FAILED:
                await caller.mark(status, failure)
            else:
                await caller.mode.submit_and_leave(caller.run.write_status(status, failure))
    except DurableError as second:
        error.add_note(f"durable_nb: how the run ended could not be recorded: {second}")
