"""A function's call as bytes, and its outcome: a worker elsewhere needs cloudpickle alone to run it."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from durable_nb.errors import DurableError, StepError, StepFailed, StepNotSaved
from durable_nb.workflow.task import Task

__all__ = ["Call", "outcome", "sent", "travels"]

F = TypeVar("F", bound=Callable[..., Any])


def travels(function: F) -> F:
    """Mark what runs in the worker: cloudpickle sends what is in no module by value."""
    function.__module__ = "__main__"
    return function


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


@travels
def _run(blob: bytes, _nonce: str = "") -> bytes:
    import contextvars
    import pickle

    try:
        work = pickle.loads(blob)  # noqa: S301 - made by the process that sent it
    except Exception as error:
        return _packed("unread", f"{type(error).__name__}: {error}")
    # In no run: a worker that was forked in the middle of one would take itself for its kernel.
    return contextvars.Context().run(_called, *work)


@travels
def _called(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    import asyncio
    import inspect
    import traceback

    try:
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        return _failed(error)
    try:
        return _packed("value", value)
    except Exception as error:
        return _packed("unsent", f"{type(value).__name__}: {error}")


@travels
def _failed(error: Exception) -> bytes:
    import contextlib
    import pickle

    # Some classes do not take the arguments that they show: those are made again without being called.
    for how, value in ("raised", error), ("rebuilt", (type(error), error.args, vars(error))):
        with contextlib.suppress(Exception):  # the next way, then
            packed = _packed(how, value)
            pickle.loads(packed)  # noqa: S301 - as whoever gets it will
            return packed
    return _packed("unnamed", f"{type(error).__name__}: {error}")


@travels
def _packed(how: str, value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps((how, value)))


def sent(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A call on its way.

    Args:
        function: The body, sync or async.
        args: Its arguments.
        kwargs: Those that are named.

    Raises:
        StepError: Something of it cannot travel.
    """
    try:
        return Call(_pickled((function, args, kwargs)))
    except Exception as error:
        raise StepError(
            f"the call cannot be sent to the executor ({error})",
            remedy="Pass plain data, and open in the body what cannot be pickled: files, connections, locks.",
        ) from error


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


@travels
def _same(value: Any) -> Any:
    return value


def outcome(blob: bytes) -> Any:
    """What a body gave, or its own exception.

    Args:
        blob: What a ``Call`` has returned.

    Raises:
        StepNotSaved: It gave something that cannot travel; it is not to be executed again for that.
        StepError: It never began, since the worker could not load it.
        StepFailed: It failed, and its exception cannot travel.
    """
    try:
        how, value = pickle.loads(blob)  # noqa: S301 - made by the body that we sent
    except Exception as error:
        raise _unsent(f"{type(error).__name__}: {error}") from error
    if how == "value":
        return value
    if how in _FAULTS:
        raise _FAULTS[how](value)
    raise value if how == "raised" else _rebuilt(*value)


def _rebuilt(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    try:
        error = kind.__new__(kind, *args)
    except Exception:
        return _unnamed(f"{kind.__name__}: {', '.join(map(str, args))}")
    error.args = args
    error.__dict__.update(state)
    return error


def _unsent(said: str) -> DurableError:
    return StepNotSaved(
        f"the result cannot be sent back by the executor ({said})",
        remedy="Return plain data, or what it can be made from again (a path, a URL).",
    )


def _unread(said: str) -> DurableError:
    return StepError(
        f"the executor's worker cannot load the body ({said})",
        remedy="Install there what the body and its arguments need, in the same versions as here.",
    )


def _unnamed(said: str) -> DurableError:
    return StepFailed(
        f"it failed on the executor, and its exception cannot be sent back ({said})",
        remedy="Raise an exception whose arguments are plain data.",
    )


_FAULTS = {"unsent": _unsent, "unread": _unread, "unnamed": _unnamed}
