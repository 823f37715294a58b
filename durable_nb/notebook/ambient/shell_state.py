"""State of the IPython shell that cells set: what figures, numbers and errors are shown as, and aliases."""

from __future__ import annotations
import __future__

import copy
import functools
import importlib
import operator
import sys
from typing import Any, Final

from IPython.core.getipython import get_ipython

__all__ = [
    "aliases",
    "compiler_flags",
    "configuration",
    "error_mode",
    "extensions",
    "figure_formats",
    "formatters",
    "magics",
    "precision",
    "put_aliases",
    "put_compiler_flags",
    "put_configuration",
    "put_error_mode",
    "put_extensions",
    "put_figure_formats",
    "put_formatters",
    "put_magics",
    "put_precision",
]

_FEATURES: Final = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
_RETINA: Final = "retina"
_OWN_OPTIONS: Final = ("fmt", "base64")
"""Options of a figure's printer that follow from its format."""


def compiler_flags(_module: object) -> int:
    """Return the flags that ``from __future__ import …`` has set for all later cells."""
    shell: Any = get_ipython()
    return 0 if shell is None else shell.compile.flags & _FEATURES


def put_compiler_flags(_module: object, flags: int) -> None:
    """Set the flags that `compiler_flags` returned."""
    shell: Any = get_ipython()
    shell.compile.flags |= flags


def configuration(_module: object) -> dict[tuple[str, str], Any]:
    """Return what ``%config`` has set, by class and trait; a class may be loaded later."""
    sections = getattr(get_ipython(), "config", {})
    return {
        (name, trait): copy.copy(value)
        for name, traits in sections.items()
        if isinstance(traits, dict)
        for trait, value in traits.items()
    }


def put_configuration(
    _module: object, change: tuple[dict[tuple[str, str], Any], list[tuple[str, str]]]
) -> None:
    """Set what a cell has set with ``%config``."""
    shell: Any = get_ipython()
    for (name, trait), value in change[0].items():
        for each in shell.configurables:
            each.update_config(type(shell.config)({name: {trait: value}}))


def precision(_module: object) -> tuple[str, str] | None:
    """Return how ``%precision`` has set that floats are shown; None if that was not set."""
    shell: Any = get_ipython()
    plain = shell.display_formatter.formatters["text/plain"] if shell is not None else None
    return plain and (plain.float_format, str(plain.float_precision))


def put_precision(_module: object, found: tuple[str, str] | None) -> None:
    """Set what `precision` returned."""
    shell: Any = get_ipython()
    if found is not None:
        plain = shell.display_formatter.formatters["text/plain"]
        plain.float_precision = found[1]
        plain.float_format = found[0]


def error_mode(_module: object) -> str | None:
    """Return the mode of tracebacks, as ``%xmode`` sets it."""
    return getattr(getattr(get_ipython(), "InteractiveTB", None), "mode", None)


def put_error_mode(_module: object, mode: str) -> None:
    """Set the mode of tracebacks."""
    shell: Any = get_ipython()
    shell.InteractiveTB.set_mode(mode=mode)


def aliases(_module: object) -> dict[str, str]:
    """Return the aliases of ``%alias``, by name."""
    manager = getattr(get_ipython(), "alias_manager", None)
    return {} if manager is None else dict(manager.aliases)


def put_aliases(_module: object, change: tuple[dict[str, str], list[str]]) -> None:
    """Define and remove aliases."""
    shell: Any = get_ipython()
    for name, command in change[0].items():
        shell.alias_manager.define_alias(name, command)
    for name in change[1]:
        shell.alias_manager.undefine_alias(name)


def extensions(_module: object) -> list[str]:
    """Return the extensions of IPython that are loaded."""
    manager = getattr(get_ipython(), "extension_manager", None)
    return [] if manager is None else sorted(manager.loaded)


def put_extensions(_module: object, names: list[str]) -> None:
    """Load extensions of IPython that are not loaded yet."""
    shell: Any = get_ipython()
    for name in names:
        shell.extension_manager.load_extension(name)


def magics(_module: object) -> dict[tuple[str, str], Any]:
    """Return the magics that the notebook itself defines, by kind (``line``, ``cell``) and name."""
    manager = getattr(get_ipython(), "magics_manager", None)
    return {
        (kind, name): magic
        for kind, found in (manager.magics if manager is not None else {}).items()
        for name, magic in found.items()
        if _defined_in(magic) == "__main__"
    }


def _defined_in(magic: Any) -> str:
    owner = getattr(magic, "__self__", None)
    return str((magic if owner is None else type(owner)).__module__)


def put_magics(_module: object, change: tuple[dict[tuple[str, str], Any], list[tuple[str, str]]]) -> None:
    """Define and remove magics."""
    shell: Any = get_ipython()
    for (kind, name), magic in change[0].items():
        shell.magics_manager.magics[kind][name] = magic
    for kind, name in change[1]:
        shell.magics_manager.magics[kind].pop(name, None)


def formatters(_module: object) -> dict[tuple[str, type], Any]:
    """Return the functions that ``for_type`` registered to display objects, by format and type."""
    shell: Any = get_ipython()
    found = {} if shell is None else shell.display_formatter.formatters
    return {
        (mime, kind): printer
        for mime, formatter in found.items()
        for kind, printer in formatter.type_printers.items()
        if kind.__module__ != "matplotlib.figure"  # its formats are a kind of their own
    }


def put_formatters(
    _module: object, change: tuple[dict[tuple[str, type], Any], list[tuple[str, type]]]
) -> None:
    """Register and remove functions that display objects of a type."""
    shell: Any = get_ipython()
    for (mime, kind), printer in change[0].items():
        shell.display_formatter.formatters[mime].for_type(kind, printer)
    for mime, kind in change[1]:
        shell.display_formatter.formatters[mime].pop(kind, None)


def figure_formats(module: Any) -> dict[str, dict[str, Any]]:
    """Return in which formats figures are displayed, with the options of each."""
    shell: Any = get_ipython()
    found: dict[str, dict[str, Any]] = {}
    for formatter in shell.display_formatter.formatters.values() if shell is not None else ():
        printer = formatter.type_printers.get(module.Figure)
        if isinstance(printer, functools.partial):
            options = {
                name: value for name, value in printer.keywords.items() if name not in ("fmt", "base64")
            }
            found[printer.keywords.get("fmt", _RETINA)] = options
    return found


def put_figure_formats(_module: object, found: dict[str, dict[str, Any]]) -> None:
    """Display figures in these formats."""
    shell: Any = get_ipython()
    if "inline" in str(sys.modules["matplotlib"].get_backend(auto_select=False)):
        importlib.import_module(
            "matplotlib_inline.backend_inline"
        )  # it selects its own formats when it is loaded
    tools = importlib.import_module("IPython.core.pylabtools")
    options = next(iter(found.values()), {})
    tools.select_figure_formats(shell, set(found), **options)
