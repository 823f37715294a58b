"""What a call without ``await`` returns: a coroutine that says so where it is taken for the result."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, MethodType
from typing import Any, Final, NoReturn, TypeVar, cast

from durable_nb.workflow.async_functions import mark_async

__all__ = ["MISSING", "AwaitedCall", "awaited"]

MISSING: Final = "await is missing"
"""Words that are in every message about a call without ``await``."""

_BINARY: Final = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
_OPERATORS: Final = (
    *("int", "float", "complex", "index", "round", "abs", "neg", "pos", "invert", "lt", "le", "gt"),
    *("ge", "len", "iter", "contains", "getitem", "setitem", "delitem"),
)

F = TypeVar("F", bound=Callable[..., Any])


class AwaitedCall(Coroutine[Any, Any, Any]):
    """A coroutine of this package, to be awaited like any other one.

    Args:
        work: The coroutine that does the work.
        call: The call, as the user would write it.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], call: str) -> None:
        self._work, self._call = work, call

    # inspect.iscoroutine, which anyio asks, knows no other coroutines than those of Python's own class.
    __class__ = property(lambda _: CoroutineType)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        """Continue the coroutine with a value."""
        return self._work.send(value)

    def throw(self, *exception: Any) -> Any:
        """Continue the coroutine with an exception."""
        return self._work.throw(*exception)

    def close(self) -> None:
        """End the coroutine."""
        self._work.close()

    def __getattr__(self, name: str) -> Any:
        work = object.__getattribute__(self, "_work")
        if name.startswith("_") or hasattr(work, name):  # libraries look for names with an underscore
            return getattr(work, name)
        raise AttributeError(self._message())

    def __repr__(self) -> str:
        return f"<{self._call}: {MISSING}>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other or (self._refuse() if type(other) is not AwaitedCall else NotImplemented)

    def __bool__(self) -> bool:
        # From Python 3.12 on, asyncio asks it of the coroutine of a task that it shows.
        asked_by = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001
        return asked_by == "asyncio.base_tasks" or self._refuse()

    def _message(self) -> str:
        return f"{MISSING}: to get the result, write: await {self._call}"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._message())

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"{MISSING}: {self._call} has not been awaited, and has no result to save")


def _refuse_operators() -> None:
    for name in (*_OPERATORS, *_BINARY, *(f"r{each}" for each in _BINARY)):
        setattr(AwaitedCall, f"__{name}__", AwaitedCall._refuse)  # noqa: SLF001 - its own operators


_refuse_operators()


def awaited(method: F) -> F:
    """Make an async method return an `AwaitedCall`.

    Args:
        method: The method.
    """
    return cast("F", _Method(method))


class _Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        mark_async(self)

    def __call__(self, owner: Any, *args: Any, **kwargs: Any) -> Any:
        shown = f"wf.{self._function.__name__}({repr(args[0]) if args else '…'})"
        return AwaitedCall(self._function(owner, *args, **kwargs), shown)

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else MethodType(self, owner)
