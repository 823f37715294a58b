"""Running a task's body elsewhere: on any ``concurrent.futures.Executor``, in other processes and machines.

A body travels as bytes, in a small callable that needs cloudpickle alone where it arrives: what a notebook
defined goes along. Its result or its own exception comes back the same way. **Dask is the engine that we
document**; start its scheduler with ``distributed.scheduler.allowed-failures: 0``, since it otherwise runs a
body again by itself when a worker dies. Retries belong to the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import io
import pickle
import threading
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from typing import TYPE_CHECKING, Any, TypeAlias

from durable_nb import scopes, settings
from durable_nb.errors import DurableNotice, ExecutorLost, InvalidOption
from durable_nb.records import StepStatus
from durable_nb.tasks import Task, name_of

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskExecutor", "Place", "elsewhere"]

Place: TypeAlias = Executor | Callable[[], Executor]
"""Where bodies run: an executor, or a function that makes one, again when it broke."""

_made: dict[Callable[[], Executor], Executor] = {}
_making = threading.Lock()


def elsewhere(function: Callable[..., Any], place: Place) -> Callable[..., Any]:
    """A function of the same colour that has an executor run ``function``.

    Args:
        function: The body, sync or async.
        place: Where it runs.

    Raises:
        InvalidOption: ``place`` is neither an executor nor a function.

    Example:
        >>> @Workflow("fits").task(executor=lambda: ProcessPoolExecutor(4))
        ... def fit(seed: int) -> float: ...
    """
    if not (hasattr(place, "submit") or callable(place)):
        raise InvalidOption(
            f"executor={place!r} makes no sense",
            remedy="Give an executor, or a function that makes one: executor=lambda: ProcessPoolExecutor(4).",
        )

    async def awaiting(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with _submitted(place, function, args, kwargs) as future:
            future.add_done_callback(lambda _: _tell(loop, done))
            await done
            return _outcome(future)

    def blocking(*args: Any, **kwargs: Any) -> Any:
        done = threading.Event()
        with _submitted(place, function, args, kwargs) as future:
            future.add_done_callback(lambda _: done.set())
            while not done.wait(settings.EXECUTOR_LOOK):  # a timeout of another thread ends no longer wait
                pass
            return _outcome(future)

    wanted = awaiting if inspect.iscoroutinefunction(function) else blocking
    return functools.wraps(function)(wanted)


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    def settle() -> None:
        if not done.done():
            done.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)


class _submitted:  # noqa: N801 - used as a function
    """One submitted body. Whoever leaves before it is done has it cancelled if it has not begun."""

    def __init__(self, place: Place, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._place = place
        call = Call(_pickled((function, args, kwargs)))
        if len(call.blob) > settings.LARGE_CALL:
            told = (
                f"{name_of(function)} takes {len(call.blob) / 2**20:.0f} MiB along to its executor, with each"
                " call: its arguments, and the globals that it names. Have it load what is large by itself"
            )
            warnings.warn(told, DurableNotice, stacklevel=5)
        self._call = call

    def __enter__(self) -> Any:
        executor = _executor(self._place)
        try:
            # The last argument is none of the body's: equal calls would share one result on Dask.
            self._future = executor.submit(self._call, uuid.uuid4().hex)
        except BrokenExecutor as error:
            _discard(self._place)
            raise _lost(error) from error
        return self._future

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExecutorLost):
            _discard(self._place)
        if kind is not None and not self._future.done():
            self._future.cancel()


def _outcome(future: Any) -> Any:
    """What a body gave, or its own exception."""
    try:
        returned, value = pickle.loads(future.result())  # noqa: S301 - made by the body that we sent
    except (BrokenExecutor, CancelledError, asyncio.CancelledError) as error:
        # Nobody here cancelled it: whoever does is not waiting any more.
        raise _lost(error) from error
    if returned:
        return value
    raise value


def _lost(error: BaseException) -> ExecutorLost:
    said = " ".join(str(error).split()) or type(error).__name__
    return ExecutorLost(
        f"the executor was lost while it ran the body ({said})",
        remedy="Give a function that makes one, so that a broken one is made again: "
        "executor=lambda: ProcessPoolExecutor(4).",
    )


def _executor(place: Place) -> Any:
    if hasattr(place, "submit"):
        return place
    with _making:
        if place not in _made:
            _made[place] = place()
        return _made[place]


def _discard(place: Place) -> None:
    with _making:
        broken = _made.pop(place, None) if callable(place) else None
    if broken is not None:
        broken.shutdown(wait=False)


class Call:
    """A body on its way: pickled, it names nothing of ours, so that a worker needs cloudpickle alone.

    Args:
        blob: The function and its arguments.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __call__(self, _nonce: str = "") -> bytes:
        """Run it; gives the outcome as bytes."""
        return _run(self.blob)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (_pickled(functools.partial(_run, self.blob)),)


def _run(blob: bytes, _nonce: str = "") -> bytes:
    import asyncio
    import inspect
    import pickle
    import traceback

    import cloudpickle

    try:
        function, args, kwargs = pickle.loads(blob)  # noqa: S301 - made by the process that sent it
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        outcome = True, value
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        outcome = False, error
    return bytes(cloudpickle.dumps(outcome))


_run.__module__ = "__main__"  # cloudpickle sends what is in no module by value


def _pickled(value: Any) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, each: Any) -> Any:
            if isinstance(each, Task):  # a task named in a body would take its store along
                return _same, (each.function,)
            return super().reducer_override(each)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def _same(value: Any) -> Any:
    return value


_same.__module__ = "__main__"


def _once_published(call: Callable[[], bytes], gate: str, limit: float) -> bytes:
    from distributed import Event

    if not Event(gate).wait(timeout=limit):  # type: ignore[no-untyped-call]
        raise TimeoutError("the kernel died before anybody could have found this body again")
    return call()


_once_published.__module__ = "__main__"


class DaskExecutor(Executor):
    """Runs bodies on a Dask cluster, and finds those again that went on while the kernel was dead.

    A body is published there under the name of its run, step and attempt, until its result is on record: the
    kernel that takes the run up again waits for that one instead of starting it anew.

    Args:
        client: A ``distributed.Client``.

    Example:
        >>> cluster = DaskExecutor(Client("tcp://scheduler:8786"))
        >>> @Workflow("fits").task(executor=cluster)
        ... def fit(seed: int) -> float: ...
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._published: dict[str, tuple[scopes.Scope, str, str]] = {}

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function on the cluster; in a durable call, find the one that was begun before."""
        self._unpublish()
        scope = scopes.current()
        if scope is None or not isinstance(function, Call):
            return self.client.submit(functools.partial(function, *args, **kwargs), pure=False)
        name = _name(scope)
        future = self._begun_before(name) or self._published_as(name, function, args[0])
        self._published[name] = scope, scope.path[:-1], future.key
        self._gate(future.key).set()
        return future

    def _begun_before(self, name: str) -> Any:
        if name not in self.client.list_datasets():  # type: ignore[no-untyped-call]
            return None
        future = self.client.get_dataset(name)
        return future if not future.done() or future.status == "finished" else None

    def _published_as(self, name: str, function: Call, nonce: str) -> Any:
        key, limit = f"{name}/{nonce}", settings.DASK_GATE
        future = self.client.submit(_once_published, function, key, limit, key=key, retries=0)
        self.client.publish_dataset(future, name=name, override=True)
        return future

    def _gate(self, key: str) -> Any:
        """What a body waits for before it begins: one that begins unpublished could not be found again."""
        from distributed import Event

        return Event(key, client=self.client)  # type: ignore[no-untyped-call]

    def forget(self, name: str) -> None:
        """Have the cluster forget a published body."""
        with contextlib.suppress(KeyError):
            self.client.unpublish_dataset(name)

    def _unpublish(self) -> None:
        for name, (scope, step_id, key) in list(self._published.items()):
            record = scope.run.history.get(step_id)
            if record is not None and record.status is not StepStatus.STARTED:
                self._published.pop(name, None)
                self.forget(name)
                self._gate(key).clear()


def _name(scope: scopes.Scope) -> str:
    """Run, step and attempt: also what is told apart by when the run was begun."""
    run, step_id = scope.run.run, scope.path[:-1]
    record = scope.run.history.get(step_id)
    return f"durable_nb/{run.run_id}/{run.created_at}/{step_id}/{record.attempt if record else 0}"
