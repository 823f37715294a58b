"""Callable objects that are coroutine functions to ``inspect`` and asyncio, and so to web frameworks."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar, cast

__all__ = ["async_if_owner_is", "mark_async"]

F = TypeVar("F", bound=Callable[..., Any])


def mark_async(function: Any) -> None:
    """Mark a callable object as a coroutine function; partials and bound methods of it are then, too.

    Args:
        function: The object, which returns a coroutine when it is called.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
        return
    # Python 3.11 looks at the code of what has the attributes of a function.
    vars(function).setdefault("__name__", type(function).__name__)
    for name in ("__code__", "__defaults__", "__kwdefaults__"):
        setattr(function, name, getattr(_coroutine_function, name))


async def _coroutine_function() -> None: ...


def async_if_owner_is(method: F) -> F:
    """Make a method a coroutine function where its object ``is_async``: it returns a coroutine there.

    Args:
        method: The method, a plain function.
    """
    return cast("F", _Method(method))


class _Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        mark_async(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self._function
        return MethodType(self if owner.is_async else self._function, owner)
