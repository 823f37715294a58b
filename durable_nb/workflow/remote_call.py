"""A call as bytes, and its outcome: a worker needs only cloudpickle to execute it."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from durable_nb.engine import opened
from durable_nb.errors import DurableError, StepError, StepFailed, StepNotSaved
from durable_nb.workflow.task import Task

__all__ = ["RemoteCall", "remote_call", "remote_outcome", "runs_in_worker"]

F = TypeVar("F", bound=Callable[..., Any])


def runs_in_worker(function: F) -> F:
    """Mark a function that runs in a worker: cloudpickle sends functions of ``__main__`` by value."""
    function.__module__ = "__main__"
    return function


class RemoteCall:
    """A call to be sent; its pickle names nothing of this package, so that a worker needs only cloudpickle.

    Args:
        blob: The pickled function and arguments.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self._recording = opened.current_recording()

    def __call__(self, _nonce: str = "") -> bytes:
        """Execute the call in a thread of this process, and return its outcome as bytes."""
        with opened.recording_here(self._recording):
            return _execute_blob(self.blob)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (_pickled(functools.partial(_execute_blob, self.blob)),)


@runs_in_worker
def _execute_blob(blob: bytes, _nonce: str = "") -> bytes:
    import contextvars
    import pickle

    try:
        work = pickle.loads(blob)  # noqa: S301 - made by the process that sent it
    except Exception as error:
        return _pack("unread", f"{type(error).__name__}: {error}")
    # Outside every run: a worker that was forked during one would take itself for the process of the run.
    return contextvars.Context().run(_execute_call, *work)


@runs_in_worker
def _execute_call(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    import asyncio
    import inspect
    import traceback

    try:
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        return _pack_failure(error)
    try:
        return _pack("value", value)
    except Exception as error:
        return _pack("unsent", f"{type(value).__name__}: {error}")


@runs_in_worker
def _pack_failure(error: Exception) -> bytes:
    import contextlib
    import pickle

    # The constructor of some classes does not take their args: these are rebuilt without calling it.
    for how, value in ("raised", error), ("rebuilt", (type(error), error.args, vars(error))):
        with contextlib.suppress(Exception):  # try the next way
            packed = _pack(how, value)
            pickle.loads(packed)  # noqa: S301 - the receiver will too
            return packed
    return _pack("unnamed", f"{type(error).__name__}: {error}")


@runs_in_worker
def _pack(how: str, value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps((how, value)))


def remote_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteCall:
    """Return a call to be sent to a worker.

    Args:
        function: The body, sync or async.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Raises:
        StepError: The body or an argument cannot be pickled.
    """
    try:
        return RemoteCall(_pickled((function, args, kwargs)))
    except Exception as error:
        raise StepError(
            f"cannot send the call to the executor ({error})",
            remedy="Pass plain data; create what cannot be pickled, such as files and locks, in the body.",
        ) from error


def _pickled(value: Any) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, each: Any) -> Any:
            if isinstance(each, Task):  # a task that the body names would be sent with its store
                return _identity, (each.function,)
            return super().reducer_override(each)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


@runs_in_worker
def _identity(value: Any) -> Any:
    return value


def remote_outcome(blob: bytes) -> Any:
    """Return the result of a body, or raise its own exception.

    Args:
        blob: The bytes that a ``RemoteCall`` has returned.

    Raises:
        StepNotSaved: The result cannot be pickled; the body is not executed again.
        StepError: The worker could not load the body, which was not executed.
        StepFailed: The body failed, and its exception cannot be pickled.
    """
    try:
        how, value = pickle.loads(blob)  # noqa: S301 - made by the call that was sent
    except Exception as error:
        raise _unsent(f"{type(error).__name__}: {error}") from error
    if how == "value":
        return value
    if how in _FAULTS:
        raise _FAULTS[how](value)
    raise value if how == "raised" else _rebuild_error(*value)


def _rebuild_error(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    try:
        error = kind.__new__(kind, *args)
    except Exception:
        return _unnamed(f"{kind.__name__}: {', '.join(map(str, args))}")
    error.args = args
    error.__dict__.update(state)
    return error


def _unsent(reason: str) -> DurableError:
    return StepNotSaved(
        f"cannot send the result back from the executor ({reason})",
        remedy="Return plain data, or a path or URL from which it can be loaded.",
    )


def _unread(reason: str) -> DurableError:
    return StepError(
        f"the executor's worker cannot load the body ({reason})",
        remedy="Install the packages that the body and its arguments need in the worker, in equal versions.",
    )


def _unnamed(reason: str) -> DurableError:
    return StepFailed(
        f"the body failed on the executor, and its exception cannot be sent back ({reason})",
        remedy="Raise an exception whose arguments are plain data.",
    )


_FAULTS = {"unsent": _unsent, "unread": _unread, "unnamed": _unnamed}
