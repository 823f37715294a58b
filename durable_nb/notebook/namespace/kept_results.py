"""Results that functions of the notebook keep: no checkpoint holds what ``functools.lru_cache`` has stored.

``functools`` offers no way to read these results, or to put one back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from durable_nb.lookup import LRU_CACHE, importable

__all__ = ["kept_results"]


def kept_results(values: Mapping[str, Any]) -> dict[str, int]:
    """Return how many results ``functools.lru_cache`` keeps for functions and methods of the notebook.

    Args:
        values: The names of the notebook and the objects they are bound to.
    """
    found = ((name, function.cache_info().currsize) for name, function in _functions(values))
    return {name: count for name, count in found if count}


def _functions(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if type(value) is LRU_CACHE and not importable(value):
            yield name, value
        elif issubclass(type(value), type) and value.__module__ == "__main__":
            methods = [(key, each) for key, each in vars(value).items() if type(each) is LRU_CACHE]
            yield from ((f"{name}.{key}", each) for key, each in methods)
