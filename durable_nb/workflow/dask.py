"""Executing bodies on a Dask cluster, each at most once.

Dask's own executor starts a body again when a worker dies, unless its scheduler is configured with
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
from durable_nb.workflow.remote_call import RemoteCall, runs_in_worker

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskExecutor"]


@runs_in_worker
def _once_published(call: Callable[[], bytes], gate: str, limit: float) -> bytes:
    from distributed import Event

    if not Event(gate).wait(timeout=limit):  # type: ignore[no-untyped-call]
        raise TimeoutError("the submitting process died before it had published this body")
    begun = Event(_begun_name(gate))  # type: ignore[no-untyped-call]
    if begun.is_set():  # type: ignore[no-untyped-call]
        raise RuntimeError("the worker that ran the body is gone, and Dask started it again")
    begun.set()  # type: ignore[no-untyped-call]
    return call()


@runs_in_worker
def _begun_name(gate: str) -> str:
    return f"{gate}/begun"


class DaskExecutor(Executor):
    """Executes bodies on a Dask cluster, where they continue if this process dies.

    A body is published there under the name of its run and step. The process that resumes the run waits for
    that body instead of starting another. Once the result is recorded, the next call, or the exit of the
    process, removes the body from the cluster. Dask never starts a body again that has started.

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
        atexit.register(_forget_at_exit, weakref.ref(self))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Execute a function on the cluster; in a durable call, find the body that was submitted before."""
        self.forget_recorded()
        scope = scopes.current_scope()
        if scope is None or not isinstance(function, RemoteCall):
            return self.client.submit(functools.partial(function, *args, **kwargs), pure=False)
        name = _dataset_name(scope)
        former = self._published.get(name)
        again = former is not None and former[0].run is scope.run  # another attempt of this pass
        future = None if again else self._find_published(name)
        future = future or self._publish(name, function, args[0])
        self._published[name] = scope, scope.path[:-1], future.key
        self._start_event(future.key).set()
        return future

    def _find_published(self, name: str) -> Any:
        if name not in self.client.list_datasets():  # type: ignore[no-untyped-call]
            return None
        future = self.client.get_dataset(name)
        return future if not future.done() or future.status == "finished" else None

    def _publish(self, name: str, function: RemoteCall, nonce: str) -> Any:
        key, limit = f"{name}/{nonce}", settings.DASK_GATE
        future = self.client.submit(_once_published, function, key, limit, key=key, retries=0)
        self.client.publish_dataset(future, name=name, override=True)
        return future

    def _start_event(self, key: str) -> Any:
        """Return the event that a body waits for: it must not start before it is published."""
        from distributed import Event

        return Event(key, client=self.client)  # type: ignore[no-untyped-call]

    def forget(self, name: str) -> None:
        """Remove a published body from the cluster."""
        with contextlib.suppress(KeyError):
            self.client.unpublish_dataset(name)

    def forget_recorded(self) -> None:
        """Remove all published bodies whose results are recorded."""
        for name, (scope, step_id, key) in list(self._published.items()):
            record = scope.run.history.get(step_id)
            if record is not None and record.status is not StepStatus.STARTED:
                self._published.pop(name, None)
                self.forget(name)
                for gate in key, _begun_name(key):
                    self._start_event(gate).clear()


def _forget_at_exit(executor: weakref.ref[DaskExecutor]) -> None:
    with contextlib.suppress(Exception):  # the cluster may have ended first
        if (present := executor()) is not None:
            present.forget_recorded()


def _dataset_name(scope: scopes.Scope) -> str:
    """Return the name under which a body is published: unique for run, start of the run, step and attempt."""
    run, step_id = scope.run.run, scope.path[:-1]
    record = scope.run.history.get(step_id)
    return f"durable_nb/{run.run_id}/{run.created_at}/{step_id}/{record.attempt if record else 0}"
