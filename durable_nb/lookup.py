"""Objects of loaded modules by their names: nothing is imported for it, except modules that NumPy names."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import sys
import types
from typing import Any, Final

__all__ = ["LRU_CACHE", "derives", "find", "importable", "in_main", "slots_of"]

LRU_CACHE: Final = type(functools.lru_cache(len))
"""The type of functions wrapped by ``functools.lru_cache``, which has no public name."""


def find(module: str, qualname: str) -> Any:
    """Return the object that a loaded module has under a dotted name; None if there is none.

    Args:
        module: The module's name; it is not imported.
        qualname: The dotted name inside the module.

    Example:
        >>> find("builtins", "dict.fromkeys")
        <built-in method fromkeys of type object at ...>
    """
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def derives(kind: type, module: str, name: str) -> bool:
    """Return whether a class is a class of a module or derives from it; False if the module is not loaded.

    Args:
        kind: Any class.
        module: The module's name; it is not imported.
        name: The name of the class in it.

    Example:
        >>> derives(bool, "builtins", "int")
        True
    """
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(kind, base)


def importable(value: Any) -> bool:
    """Return whether a class or function is found under its own name in a module other than ``__main__``.

    Args:
        value: Any object.

    Example:
        >>> importable(dict), importable(lambda: 1)
        (True, False)
    """
    name = getattr(value, "__module__", None)
    module = _module(name) if isinstance(name, str) and name != "__main__" else None
    path = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, types.ModuleType) or not isinstance(path, str):
        return False
    # A module's own __getattr__ may import things: it is not asked.
    return path.partition(".")[0] in vars(module) and find(str(name), path) is value


def _module(name: str) -> types.ModuleType | None:
    if name not in sys.modules and name.startswith("numpy."):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)  # numpy names modules that it has not imported yet
    return sys.modules.get(name)


def in_main(qualname: str, is_class: bool) -> Any:
    """Return the class or function under a dotted name in ``__main__``; None if there is none.

    Args:
        qualname: The dotted name.
        is_class: Whether to look for a class.

    Example:
        >>> in_main("Point", True)
        <class '__main__.Point'>
    """
    found = find("__main__", qualname)
    return found if isinstance(found, type if is_class else (types.FunctionType, LRU_CACHE)) else None


@functools.lru_cache(maxsize=1024)
def slots_of(kind: type) -> tuple[str, ...]:
    """Return the names of the slots of a class and of its bases."""
    try:
        return tuple(copyreg._slotnames(kind))  # type: ignore[attr-defined]  # noqa: SLF001 - as pickle finds them
    except Exception:
        return ()
