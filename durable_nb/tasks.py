"""A durable task: the life of a call, from its arguments to its checkpoint."""

from __future__ import annotations

import functools
import inspect
import itertools
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from durable_nb import codec, fingerprint, scopes
from durable_nb.errors import DurableError, DurableNotice, StepFailed, located
from durable_nb.loop import AWAITING, BLOCKING, drive
from durable_nb.records import Call, StepStatus

if TYPE_CHECKING:
    from durable_nb.backoff import BackoffStrategy
    from durable_nb.engine import Begun, OpenRun
    from durable_nb.loop import Colour
    from durable_nb.scopes import Scope

__all__ = ["Arguments", "Policy", "Task", "attempts", "check_function", "name_of", "perform"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a body is executed.

    Attributes:
        retries: Further attempts after the first.
        backoff: Seconds to wait before each, by the 0-based number of the attempt that failed.
    """

    retries: int
    backoff: BackoffStrategy


class Arguments:
    """Names a call's arguments by the function's own parameters, fast.

    Args:
        function: The function whose calls are named.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters.values()
        self._plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        self._names = tuple(self.signature.parameters)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """The arguments by name, defaults included.

        Raises:
            TypeError: The function cannot be called like this.
        """
        if self._plain and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    @staticmethod
    def fingerprint(arguments: Mapping[str, Any]) -> str:
        """One ``name=fingerprint`` for each argument, ``name=?`` for one that has none."""
        return " ".join(f"{name}={fingerprint.value(value) or '?'}" for name, value in arguments.items())


class Host(Protocol):
    """What a task needs of its workflow."""

    attached: Scope | None


class Task(Generic[P, R]):
    """A function whose result is checkpointed when it is called in a run; elsewhere the plain function.

    Args:
        function: The function, sync or async; the task has its colour.
        name: What its steps are called.
        policy: How its body is executed.
        workflow: Whose open run a call outside every scope belongs to.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        policy: Policy,
        workflow: Host,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.policy = policy
        self.workflow = workflow
        self._arguments = Arguments(function)
        self._code = fingerprint.function(function)
        self.is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task; ``step_id=`` names the checkpoint."""
        named: Any = kwargs.pop("step_id", None)
        scope = scopes.current() or self.workflow.attached
        if scope is None:
            return self.function(*args, **kwargs)
        arguments = self._arguments.bound(args, kwargs)
        call = self._call(scope, arguments, named)
        body = functools.partial(self.function, *args, **kwargs)
        work = perform(scope.run, call, body, arguments, self.policy, AWAITING if self.is_async else BLOCKING)
        result: Any = work if self.is_async else drive(work)
        return result  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def _call(self, scope: Scope, arguments: Mapping[str, Any], named: str | None) -> Call:
        fingerprints = Arguments.fingerprint(arguments)
        step_id = scope.named_id(named) if named else scope.step_id(self.name, fingerprints)
        return Call(step_id, code=self._code, arguments=fingerprints)


async def perform(
    run: OpenRun,
    call: Call,
    body: Callable[[], Any],
    arguments: Mapping[str, Any],
    policy: Policy,
    colour: Colour,
) -> Any:
    """Give back a call's checkpoint, or execute its body and commit one.

    Only the body is retried: encoding and storing stand outside the loop, so that a value that cannot be
    saved or a store that fails never executes user code again.
    """
    begun = await run.begin_step(call, colour, arguments)
    if begun.replayed:
        return await replay(run, begun, colour)
    try:
        value = await attempts(run, begun, body, policy, colour)
    except Exception as failure:
        if not _is_ours(failure):
            await run.fail_step(begun, failure, colour)
        raise
    with located(run_id=run.run_id, step=call.step_id):
        payload = codec.encode(value)
    await run.complete_step(begun, payload, colour)
    return value


async def replay(run: OpenRun, begun: Begun, colour: Colour) -> Any:
    """Give back what is on record: the value, or the failure."""
    if begun.decision.notice:
        warnings.warn(_notice(run, begun), DurableNotice, stacklevel=2)
    with located(run_id=run.run_id, step=begun.step.step_id):
        payload = await run.load(begun.step, colour)
        if begun.step.status is StepStatus.FAILED:
            raise codec.decode_failure(payload)
        return codec.decode(payload)


async def attempts(
    run: OpenRun, begun: Begun, body: Callable[[], Any], policy: Policy, colour: Colour
) -> Any:
    """Execute a body, and again after a failure of its own, as its policy says."""
    for attempt in itertools.count():
        try:
            # A scope for each attempt: the counts of nested steps begin anew, so that finished ones replay.
            with scopes.entered(scopes.Scope(run, f"{begun.call.step_id}/")):
                return await colour.body(body)
        except Exception as failure:
            if _is_ours(failure) or attempt >= policy.retries:
                if policy.retries and not _is_ours(failure):
                    failure.add_note(_told(run, begun, attempt + 1))
                raise
        await colour.sleep(policy.backoff(attempt))
    raise AssertionError("unreachable")


def _is_ours(failure: Exception) -> bool:
    """Whether a failure is about durability, not the body's own: neither retried nor recorded."""
    return isinstance(failure, DurableError) and not isinstance(failure, StepFailed)


def _told(run: OpenRun, begun: Begun, count: int) -> str:
    times = "1 attempt" if count == 1 else f"{count} attempts"
    return f"durable_nb: run {run.run_id!r}, step {begun.call.step_id!r} failed after {times}"


def _notice(run: OpenRun, begun: Begun) -> str:
    step = begun.call.step_id
    return (
        f"run {run.run_id!r}, step {step!r}: replayed although {begun.decision.reason}. "
        f"To run it again: %durable_reset {step}"
    )


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def check_function(function: Callable[..., Any], role: str) -> None:
    """Refuse what cannot be made durable.

    Raises:
        TypeError: It is no function, or a generator.
    """
    if not callable(function):
        raise TypeError(f"a durable {role} is made of a function, not of {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name_of(function)} is a generator, which cannot be checkpointed as a {role}: "
            "return a list, or make each item a task of its own"
        )
