"""Running a task's body elsewhere: on any ``concurrent.futures.Executor``, in other processes and machines.

What a notebook defined goes along, and the result or the body's own exception comes back. **Dask is the
engine that we document**: through ``DaskExecutor``, which has no body begun twice. Dask's own executor begins
a body again by itself when a worker dies, unless its scheduler has
``distributed.scheduler.allowed-failures: 0``. Retries belong to the run.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import inspect
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeAlias

from durable_nb import settings
from durable_nb.engine import scopes
from durable_nb.errors import DurableError, DurableNotice, ExecutorLost, InvalidOption
from durable_nb.records import StepStatus
from durable_nb.tasks import name_of
from durable_nb.travelling import Call, outcome, sent, travels

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskExecutor", "Place", "elsewhere"]

Place: TypeAlias = Executor | Callable[[], Executor]
"""Where bodies run: an executor, or a function that makes one, again when it broke."""

# A cell that is run again brings a function of its own: what the former one made goes with it.
_made = weakref.WeakKeyDictionary[Callable[[], Executor], Executor]()
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
    if not (_is_executor(place) or callable(place)):
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
        call = sent(function, args, kwargs)
        if len(call.blob) > settings.LARGE_CALL:
            told = (
                f"{name_of(function)} takes {len(call.blob) / 2**20:.0f} MiB along to its executor, with each"
                " call: its arguments, and the globals that it names. Have it load what is large by itself"
            )
            warnings.warn(told, DurableNotice, stacklevel=5)
        self._call = call

    def __enter__(self) -> Any:
        self._executor = _executor(self._place)
        try:
            # The last argument is none of the body's: equal calls would share one result on Dask.
            self._future = self._executor.submit(self._call, uuid.uuid4().hex)
        except DurableError:  # the attempt's time is up
            raise
        except Exception as error:  # whatever it is, the body has not begun
            _discard(self._place, self._executor)
            raise _lost(error) from error
        return self._future

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExecutorLost):
            _discard(self._place, self._executor)
        if kind is not None and not self._future.done():
            self._future.cancel()


def _outcome(future: Any) -> Any:
    """What a body gave, or its own exception."""
    try:
        blob = future.result()
    except DurableError:  # the attempt's time is up
        raise
    except (Exception, asyncio.CancelledError) as error:
        # The body's own exceptions are in the blob, and nobody here cancelled it: whoever does waits no more.
        raise _lost(error) from error
    return outcome(blob)


def _lost(error: BaseException) -> ExecutorLost:
    said = " ".join(str(error).split()) or type(error).__name__
    return ExecutorLost(
        f"the executor was lost while it ran the body ({said})",
        remedy="Give a function that makes one, so that a broken one is made again: "
        "executor=lambda: ProcessPoolExecutor(4).",
    )


def _is_executor(place: object) -> bool:
    return hasattr(place, "submit") and not isinstance(place, type)  # a class is a function that makes one


def _executor(place: Any) -> Any:
    if _is_executor(place):
        return place
    with _making:
        if place not in _made:
            _made[place] = place()
        return _made[place]


def _discard(place: Any, broken: Any) -> None:
    """Have another one made next time, unless that was done already."""
    with _making:
        known = not _is_executor(place) and _made.get(place) is broken
        if known:
            del _made[place]
    if known:
        broken.shutdown(wait=False)


@travels
def _once_published(call: Callable[[], bytes], gate: str, limit: float) -> bytes:
    from distributed import Event

    if not Event(gate).wait(timeout=limit):  # type: ignore[no-untyped-call]
        raise TimeoutError("the kernel died before anybody could have found this body again")
    begun = Event(_begun(gate))  # type: ignore[no-untyped-call]
    if begun.is_set():  # type: ignore[no-untyped-call]
        raise RuntimeError("the worker that ran it is gone, and Dask began it again by itself")
    begun.set()  # type: ignore[no-untyped-call]
    return call()


@travels
def _begun(gate: str) -> str:
    return f"{gate}/begun"


class DaskExecutor(Executor):
    """Runs bodies on a Dask cluster, and finds those again that went on while the kernel was dead.

    A body is published there under the name of its run and step: the kernel that takes the run up again waits
    for that one instead of starting it anew. Once its result is on record, the next call, or the end of the
    process, has the cluster forget it. A body that was begun is never begun again by Dask itself.

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
        atexit.register(_leave, weakref.ref(self))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function on the cluster; in a durable call, find the one that was begun before."""
        self.forget_recorded()
        scope = scopes.current()
        if scope is None or not isinstance(function, Call):
            return self.client.submit(functools.partial(function, *args, **kwargs), pure=False)
        name = _name(scope)
        former = self._published.get(name)
        again = former is not None and former[0].run is scope.run  # another attempt of the same pass
        future = None if again else self._begun_before(name)
        future = future or self._published_as(name, function, args[0])
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

    def forget_recorded(self) -> None:
        """Have it forget all whose results are on record by now."""
        for name, (scope, step_id, key) in list(self._published.items()):
            record = scope.run.history.get(step_id)
            if record is not None and record.status is not StepStatus.STARTED:
                self._published.pop(name, None)
                self.forget(name)
                for gate in key, _begun(key):
                    self._gate(gate).clear()


def _leave(executor: weakref.ref[DaskExecutor]) -> None:
    with contextlib.suppress(Exception):  # the cluster may have ended first
        if (present := executor()) is not None:
            present.forget_recorded()


def _name(scope: scopes.Scope) -> str:
    """Run, step and how often it is on record: also what is told apart by when the run was begun."""
    run, step_id = scope.run.run, scope.path[:-1]
    record = scope.run.history.get(step_id)
    return f"durable_nb/{run.run_id}/{run.created_at}/{step_id}/{record.attempt if record else 0}"
