"""Running a task's body elsewhere: on any ``concurrent.futures.Executor``, in other processes and machines.

What a notebook defined goes along, and the result or the body's own exception comes back. Retries belong to
the run.
"""

from __future__ import annotations

import asyncio
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
from durable_nb.errors import DurableError, DurableNotice, ExecutorLost, InvalidOption
from durable_nb.workflow.remote_call import outcome, sent
from durable_nb.workflow.task import name_of

if TYPE_CHECKING:
    pass

__all__ = ["ExecutorLike", "elsewhere"]

ExecutorLike: TypeAlias = Executor | Callable[[], Executor]
"""Where bodies run: an executor, or a function that makes one, again when it broke."""

# A cell that is run again brings a function of its own: what the former one made goes with it.
_made = weakref.WeakKeyDictionary[Callable[[], Executor], Executor]()
_making = threading.Lock()


def elsewhere(function: Callable[..., Any], place: ExecutorLike) -> Callable[..., Any]:
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

    def __init__(self, place: ExecutorLike, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._place = place
        call = sent(function, args, kwargs)
        if len(call.blob) > settings.LARGE_CALL:
            message = (
                f"{name_of(function)} takes {len(call.blob) / 2**20:.0f} MiB along to its executor, with each"
                " call: its arguments, and the globals that it names. Have it load what is large by itself"
            )
            warnings.warn(message, DurableNotice, stacklevel=5)
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
