"""Results that functions of the notebook keep in ``functools.lru_cache``: saved with the cell that adds them.

``functools`` has no way to list these results, or to put one back. They are listed as the garbage collector
sees them, and put back by calls of the function while its code returns the recorded results.
"""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FunctionType
from typing import Any, Final, NamedTuple, NoReturn

from durable_nb import fingerprint
from durable_nb.lookup import LRU_CACHE, importable

__all__ = ["holder_of", "is_kept", "kept_results", "put_results"]

_BEFORE: Final = "what "
_AFTER: Final = "() keeps"
"""What is before and after a function in the name of its results, which is no identifier."""

_MOST: Final = 10_000
"""Results of one function that are saved; where there are more, each is likely to be cheap."""

_MOST_COUNTED: Final = 100_000
"""Calls that are counted again for ``cache_info()``."""

_STUB: Final = (lambda *args, **kwargs: "answer".__call__(args, kwargs)).__code__  # type: ignore[operator]
"""Code that passes its arguments to what takes the place of the text; it uses no global name."""


class _Call(NamedTuple):
    """A call whose result a function keeps: positional arguments, arguments by name, the result."""

    positional: tuple[Any, ...]
    named: dict[str, Any]
    result: Any


def is_kept(name: str) -> bool:
    """Return whether a name is one under which the results of a function are saved."""
    return name.startswith(_BEFORE) and name.endswith(_AFTER)


def holder_of(name: str) -> str:
    """Return the name that is bound to the function, or to its class, for results; other names themselves."""
    return _function_of(name).partition(".")[0] if is_kept(name) else name


def kept_results(user_ns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the functions and methods of a notebook keep, by a name of its own.

    Args:
        user_ns: The namespace.

    Returns:
        The fingerprint of the function's code, the calls that were counted, and the results with their
        arguments, as tuples, the last used one last.
    """
    functions = [(name, cached) for name, cached in _functions(user_ns) if cached.cache_info().misses]
    return {f"{_BEFORE}{name}{_AFTER}": _state(cached) for name, cached in functions}


def put_results(user_ns: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Have functions keep what they kept when it was recorded; one that was edited since is left as it is.

    Args:
        user_ns: The namespace.
        found: The recorded values, by the names that `kept_results` gave them; None if there were none.
    """
    for name, state in found.items():
        cached = _find(user_ns, _function_of(name))
        if cached is not None and state is None:
            cached.cache_clear()
        elif cached is not None and fingerprint.function(cached) == state[0]:
            _, hits, misses, calls = state
            _put(cached, hits, misses, [_Call(*call) for call in calls])


def _functions(user_ns: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in user_ns.items():
        if type(value) is LRU_CACHE and not importable(value):
            yield name, value
        elif issubclass(type(value), type) and value.__module__ == "__main__":
            methods = [(key, each) for key, each in vars(value).items() if type(each) is LRU_CACHE]
            yield from ((f"{name}.{key}", each) for key, each in methods)


def _function_of(name: str) -> str:
    return name[len(_BEFORE) : -len(_AFTER)]


def _find(user_ns: Mapping[str, Any], path: str) -> Any:
    name, _, method = path.partition(".")
    value = user_ns.get(name)
    value = vars(value).get(method) if method and issubclass(type(value), type) else value
    return value if type(value) is LRU_CACHE else None


class _NotKept:
    """Stands for results that are not saved, and says why when it is pickled."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError(self._why)


def _state(cached: Any) -> Any:
    info = cached.cache_info()
    if type(cached.__wrapped__) is not FunctionType:
        return _NotKept("functools.lru_cache is around a callable that is no Python function")
    if info.currsize > _MOST:
        return _NotKept(f"they are more than {_MOST:,}")
    return [fingerprint.function(cached), info.hits, info.misses, [tuple(call) for call in _calls(cached)]]


def _calls(cached: Any) -> list[_Call]:
    # A key, a result and a type for each, if there is a limit; then a dict, of the results if there is none.
    _, *found = gc.get_referents(cached)
    place = next(place for place in range(0, len(found), 3) if type(found[place]) is dict)
    results = zip(found[:place:3], found[1:place:3], strict=True) if place else found[0].items()
    mark = found[place + 2]  # after the function
    return [_Call(*_arguments(cached, key, mark), result) for key, result in results]


def _arguments(cached: Any, key: Any, mark: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the call with this key; the mark separates those by name from the others."""
    if type(key) is not tuple:
        return (key,), {}
    typed = cached.cache_parameters()["typed"]
    place = next((place for place, each in enumerate(key) if each is mark), None)
    if place is None:
        return key[: len(key) // 2] if typed else key, {}
    rest = key[place + 1 :]
    named = rest[: (len(rest) - place) // 3 * 2] if typed else rest  # the types come after
    return key[:place], dict(zip(named[::2], named[1::2], strict=True))


def _put(cached: Any, hits: int, misses: int, calls: list[_Call]) -> None:
    recorded = list[_Call]()
    cached.cache_clear()
    with _answering(cached.__wrapped__, lambda: _result(recorded)):
        for call in calls:
            recorded[:] = [call]
            cached(*call.positional, **call.named)
        recorded.clear()
        for _ in range(min(misses - cached.cache_info().misses, _MOST_COUNTED)):
            with suppress(_NoResultError):
                cached(object())
    for _ in range(min(hits - cached.cache_info().hits, _MOST_COUNTED) if calls else 0):
        cached(*call.positional, **call.named)


class _NoResultError(Exception):
    """Raised by a call that is counted and keeps no result."""


def _result(recorded: list[_Call]) -> Any:
    if not recorded:
        raise _NoResultError
    return recorded[0].result


@contextmanager
def _answering(function: FunctionType, answer: Callable[[], Any]) -> Iterator[None]:
    """Have calls of a function from this thread return what `answer` returns; others execute it as ever."""
    own, thread = function.__code__, threading.get_ident()
    original = FunctionType(own, function.__globals__, None, function.__defaults__, function.__closure__)
    original.__kwdefaults__ = function.__kwdefaults__

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return answer() if threading.get_ident() == thread else original(*args, **kwargs)

    constants = tuple(call if each == "answer" else each for each in _STUB.co_consts)
    function.__code__ = _STUB.replace(co_consts=constants, co_freevars=own.co_freevars)
    try:
        yield
    finally:
        function.__code__ = own
