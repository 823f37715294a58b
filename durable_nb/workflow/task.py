"""A durable task: a function whose calls are steps."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.concurrency.timeouts import can_interrupt
from durable_nb.engine import scopes
from durable_nb.engine.caller import Caller
from durable_nb.errors import DurableNotice
from durable_nb.fingerprint.mentions import mentioned_files, mentions_anything, module_of
from durable_nb.records import Call, StepStatus
from durable_nb.workflow import changes
from durable_nb.workflow.async_functions import mark_async
from durable_nb.workflow.awaitables import AwaitedCall
from durable_nb.workflow.perform import StepCodec, perform
from durable_nb.workflow.retry import Policy

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from durable_nb.engine.caller import StepHandle
    from durable_nb.engine.scopes import Scope
    from durable_nb.records import Payload
    from durable_nb.stores.base import Journal

__all__ = ["Arguments", "Task", "WorkflowLike", "check_function", "name_of"]

P = ParamSpec("P")
R = TypeVar("R")


class Arguments:
    """Binds the arguments of calls to the parameters of a function, with a fast path for plain calls.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters.values()
        self._plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        self._names = tuple(self.signature.parameters)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """Return the arguments by name, defaults included.

        Raises:
            TypeError: The arguments do not fit the parameters.
        """
        if self._plain and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


class WorkflowLike(Protocol):
    """The attributes of a workflow that its tasks and workflow functions use."""

    name: str
    attached: Scope | None
    active_run_ids: list[str]
    tasks: WeakValueDictionary[str, Task[..., Any]]
    functions: WeakValueDictionary[str, Any]

    @property
    def journal(self) -> Journal:
        """The journal that keeps its runs."""


class _TaskCodec(StepCodec):
    """Keeps the value that a task returns and its changes of arguments, and finds the files that it mentions.

    Args:
        function: The function.
        is_local: Whether its body is executed here, not on an executor.
    """

    def __init__(self, function: Callable[..., Any], *, is_local: bool) -> None:
        self._is_local = is_local
        plain = fingerprint.plain_function(function)
        self._function = plain if plain is not None and mentions_anything(plain) else None
        # Its own module is left out: it often defines other tasks, and each edit of one would concern all.
        self._module = module_of(plain)

    def mentioned(self, arguments: Mapping[str, Any] | None) -> Iterable[str]:
        """Return the paths among the arguments and in the function, and the files of modules that it uses."""
        return mentioned_files([*(arguments or {}).values(), self._function], [self._module])

    def executing(self, caller: Caller, handle: StepHandle) -> AbstractContextManager[object]:
        """Watch the arguments while the body is executed."""
        return changes.watching(caller, handle)

    def pack(self, handle: StepHandle, value: Any) -> Payload:
        """Return the encoded result, with what the body changed in the arguments."""
        return changes.pack(handle, value, is_local=self._is_local)

    def pack_failure(self, handle: StepHandle, failure: Exception) -> Payload:
        """Return the encoded failure, with what the body changed in the arguments."""
        return changes.pack_failure(handle, failure, is_local=self._is_local)

    def completed(self, handle: StepHandle) -> None:
        """Tell the user what a step that is committed does not have on record."""
        super().completed(handle)
        changes.say_what_is_lost(handle)

    def unpack(self, caller: Caller, handle: StepHandle, payload: Payload) -> Any:
        """Return the result or raise the failure, with the changes of the arguments made again."""
        if handle.step.status in (StepStatus.FAILED, StepStatus.CAUGHT):
            raise changes.unpack_failure(caller.current, handle, payload)
        return changes.unpack(caller.current, handle, payload)


class Task(Generic[P, R]):
    """A function whose result is checkpointed when it is called in a run; elsewhere the plain function.

    Args:
        function: The function, sync or async; the task is of the same kind.
        name: The name of its steps.
        policy: The retries and the timeout of its body.
        workflow: The workflow; calls outside every scope belong to the run that is attached to it.
        on_edit: The policy for a checkpoint if the function was edited.
        on_change: The policy for a checkpoint if the arguments changed.
        on_drift: The policy for a checkpoint if files that it used have changed since.
        failure: The policy for a recorded failure: ``caught``, ``final`` or ``retry``.
        once: Whether its body is never started twice unless the user says so.
        executed: The function to execute in a run, if it is another one.
        executor: The executor that ``executed`` hands the body to, if there is one.

    Attributes:
        arguments: Binds the arguments of a call, for its fingerprint.
        code: The fingerprint of the function; None if it has no source.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        policy: Policy,
        workflow: WorkflowLike,
        on_edit: str,
        on_change: str,
        on_drift: str = settings.TASK_ON_DRIFT,
        failure: str = settings.TASK_FAILURE,
        once: bool = False,
        executed: Callable[P, R] | None = None,
        executor: Any = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._executed = executed or function
        self._executor = executor
        self.name = name
        self.policy = policy
        self.workflow = workflow
        self.on_edit, self.on_change, self.on_drift = on_edit, on_change, on_drift
        self.failure, self.once = failure, once
        self.arguments = Arguments(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self.code = fingerprint.function(function)
        self._codec = _TaskCodec(function, is_local=executor is None)
        if self.is_async:
            mark_async(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task: in a run, return the checkpoint of the call, or execute the body and commit one.

        Args:
            args: The function's arguments.
            kwargs: The function's keyword arguments, and ``step_id=``, the name of the step.

        Raises:
            StepChanged: The arguments or the code changed, and the policy is to refuse.
            StepInDoubt: A step marked ``once`` was started but never finished.
            InvalidOption: A sync task has a ``timeout`` and no ``executor``, and this is not the main thread.
        """
        named: Any = kwargs.pop("step_id", None)
        scope = scopes.current_scope() or self.workflow.attached
        if scope is None:
            self._warn_if_outside()
            return self.function(*args, **kwargs)
        arguments = self.arguments.bound(args, kwargs)
        call = self._call(scope, arguments, named)
        body = functools.partial(self._executed, *args, **kwargs)
        caller = Caller(scope.current, ASYNC if self.is_async else SYNC)
        work = perform(caller, call, body, self._policy_here(), arguments, self._codec)
        result: Any = AwaitedCall(work, f"{self.name}(…)") if self.is_async else run_blocking(work)
        return result  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of a task: its function and options, never a class of ours."""
        kept = ("name", "on_edit", "on_change", "on_drift", "failure", "once")
        options = {name: getattr(self, name) for name in kept}
        limits = {name: getattr(self.policy, name) for name in Policy.__slots__}
        made_of = {"workflow": self.workflow, "function": self.function}
        return {**made_of, "options": {**options, **limits, "executor": self._executor}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = state["workflow"].task(**state["options"])(state["function"])
        vars(self).update(vars(made))

    def _policy_here(self) -> Policy:
        """Return the policy of a call in this thread: the wait for an executor ends by itself."""
        if self._executor is None or self.is_async or can_interrupt():
            return self.policy
        return replace(self.policy, timeout=None)

    def _warn_if_outside(self) -> None:
        """Warn if the call gets no checkpoint because its thread belongs to no run, while a run is open."""
        run = next(iter(self.workflow.active_run_ids), None)
        if run is None or _has_loop():
            return
        message = (
            f"task {self.name!r} was called in a thread that is not part of run {run!r}: executed, but not "
            "checkpointed. Start the thread with asyncio.to_thread, or with copy_context().run"
        )
        warnings.warn(message, DurableNotice, stacklevel=3)

    def _call(self, scope: Scope, arguments: Mapping[str, Any], named: str | None) -> Call:
        fingerprints = fingerprint.arguments(arguments)
        if named is None:
            step_id = scope.step_id(self.name, fingerprints)
        else:
            step_id = scope.named_id(named, self.name)
        return Call(
            step_id,
            code=self.code,
            arguments=fingerprints,
            on_edit=self.on_edit,
            on_change=self.on_change,
            on_drift=self.on_drift,
            once=self.once,
            failure=self.failure,
            called_seq=scope.tick(),
            branched=scope.branched,
        )


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def check_function(function: Callable[..., Any], role: str) -> None:
    """Raise if a function cannot be made durable.

    Args:
        function: The function.
        role: What it is made, for the message: ``task`` or ``workflow``.

    Raises:
        TypeError: It is not callable, or a generator function.
    """
    if not callable(function):
        raise TypeError(f"a {role} must be a function, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name_of(function)} is a generator function, which cannot be a {role}: "
            "return a list, or make each item a task of its own"
        )
