"""Bodies on a Dask cluster, none of them begun twice.

Dask's own executor begins a body again by itself when a worker dies, unless its scheduler has
``distributed.scheduler.allowed-failures: 0``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.engine import scopes
from durable_nb.records import StepStatus
from durable_nb.workflow.remote_call import Call, travels

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskExecutor"]


@travels
def _once_published(call: Callable[[], bytes], gate: str, limit: float) -> bytes:
    from distributed import Event

    if not Event(gate).wait(timeout=limit):  # type: ignore[no-untyped-call]
        raise TimeoutError("the kernel died before anybody could have found this body again")
    handle = Event(_begun(gate))  # type: ignore[no-untyped-call]
    if handle.is_set():  # type: ignore[no-untyped-call]
        raise RuntimeError("the worker that ran it is gone, and Dask began it again by itself")
    handle.set()  # type: ignore[no-untyped-call]
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
