"""Executing a task's body on a ``concurrent.futures.Executor``, in other processes or on other machines.

What a notebook has defined is sent along; the result or the body's own exception comes back. Retries are made
by the process of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
import time
import uuid
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeAlias

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.concurrency.timeouts import timed_out
from durable_nb.errors import DurableError, DurableNotice, ExecutorLost, InvalidOption
from durable_nb.workflow.remote_call import remote_call, remote_outcome
from durable_nb.workflow.task import name_of

__all__ = ["ExecutorLike", "on_executor"]

ExecutorLike: TypeAlias = Executor | Callable[[], Executor]
"""An executor, or a function that returns one: it is called again if the executor breaks."""

# Weak: when a cell is run again its new function replaces the old one, whose executor is then dropped.
_executors = weakref.WeakKeyDictionary[Callable[[], Executor], Executor]()
_executors_lock = threading.Lock()
_inherited: list[object] = []


def _forget() -> None:
    global _executors, _executors_lock
    _inherited.append(_executors)  # kept: one that is dropped would signal threads of the parent
    _executors, _executors_lock = weakref.WeakKeyDictionary(), threading.Lock()


in_forked_child(_forget)


def on_executor(
    function: Callable[..., Any], place: ExecutorLike, *, timeout: float | None = None
) -> Callable[..., Any]:
    """Return a function that executes ``function`` on an executor; it is async if ``function`` is.

    Args:
        function: The body, sync or async.
        place: The executor, or a function that returns one.
        timeout: Seconds after which a synchronous wait ends, in any thread, with a ``StepTimeout``. An async
            one is ended by the event loop.

    Raises:
        InvalidOption: ``place`` is neither an executor nor a function.

    Example:
        >>> @Workflow("fits").task(executor=lambda: ProcessPoolExecutor(4))
        ... def fit(seed: int) -> float: ...
    """
    if not (_is_executor(place) or callable(place)):
        raise InvalidOption(
            f"invalid executor={place!r}: expected an executor, or a function that returns one",
            remedy="Use: executor=lambda: ProcessPoolExecutor(4).",
        )

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with _Submission(place, function, args, kwargs) as future:
            future.add_done_callback(lambda _: _wake(loop, done))
            await done
            return _result_of(future)

    def call_sync(*args: Any, **kwargs: Any) -> Any:
        began, done = time.monotonic(), threading.Event()
        with _Submission(place, function, args, kwargs) as future:
            future.add_done_callback(lambda _: done.set())
            left = None if timeout is None else max(0.0, float(timeout) - (time.monotonic() - began))
            if not done.wait(left) and timeout is not None:
                raise timed_out(timeout)
            return _result_of(future)

    wanted = call_async if inspect.iscoroutinefunction(function) else call_sync
    return functools.wraps(function)(wanted)


def _wake(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    def settle() -> None:
        if not done.done():
            done.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed, and its waiter gone
        loop.call_soon_threadsafe(settle)


class _Submission:
    """A submitted body; a caller that leaves before it is done cancels it, if it has not started."""

    def __init__(self, place: ExecutorLike, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._place = place
        call = remote_call(function, args, kwargs)
        if len(call.blob) > settings.LARGE_CALL:
            message = (
                f"{name_of(function)} sends {len(call.blob) / 2**20:.0f} MiB to its executor with each call:"
                " its arguments, and the globals that it names. Load large data in the body instead"
            )
            warnings.warn(message, DurableNotice, stacklevel=5)
        self._call = call

    def __enter__(self) -> Any:
        self._executor = _executor(self._place)
        try:
            # The last argument is not the body's: it makes equal calls differ, whose result Dask would share.
            self._future = self._executor.submit(self._call, uuid.uuid4().hex)
        except DurableError:  # the attempt has timed out
            raise
        except Exception as error:  # of any kind: the body has not started
            _discard(self._place, self._executor)
            raise _lost(error) from error
        return self._future

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExecutorLost):
            _discard(self._place, self._executor)
        if kind is not None and not self._future.done():
            self._future.cancel()


def _result_of(future: Any) -> Any:
    """Return the result of a body, or raise its own exception."""
    try:
        blob = future.result()
    except DurableError:  # the attempt has timed out
        raise
    except (Exception, asyncio.CancelledError) as error:
        # The body's own exceptions are in the blob, and a caller that cancels it does not get here.
        raise _lost(error) from error
    return remote_outcome(blob)


def _lost(error: BaseException) -> ExecutorLost:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ExecutorLost(
        f"the executor was lost while it ran the body ({reason})",
        remedy="Pass a function, which is called again if an executor breaks: "
        "executor=lambda: ProcessPoolExecutor(4).",
    )


def _is_executor(place: object) -> bool:
    return hasattr(place, "submit") and not isinstance(place, type)  # a class is a function that returns one


def _executor(place: Any) -> Any:
    if _is_executor(place):
        return place
    with _executors_lock:
        if place not in _executors:
            _executors[place] = place()
        return _executors[place]


def _discard(place: Any, broken: Any) -> None:
    """Shut a broken executor down, so that the next call makes another one; only the first caller does."""
    with _executors_lock:
        known = not _is_executor(place) and _executors.get(place) is broken
        if known:
            del _executors[place]
    if known:
        broken.shutdown(wait=False)
