"""What cells change in place and no name is bound to: pyplot's open figures, and results that functions keep.

Each has a name of its own, which is no identifier; it is compared, saved and restored like the user's names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from durable_nb.errors.redaction import redacted
from durable_nb.notebook.namespace.figures import FIGURES, is_figure, open_figures, put_figures, reopen
from durable_nb.notebook.namespace.kept_results import is_kept, kept_results, put_results

__all__ = ["is_unnamed", "put_unnamed", "unnamed"]


def unnamed(user_ns: Mapping[str, Any]) -> dict[str, Any]:
    """Return these objects by their names.

    Args:
        user_ns: The namespace.
    """
    return {**open_figures(), **kept_results(user_ns)}


def is_unnamed(name: str) -> bool:
    """Return whether a name is one of theirs."""
    return is_figure(name) or is_kept(name)


def put_unnamed(
    user_ns: Mapping[str, Any], values: Mapping[str, Any], deleted: Collection[str]
) -> dict[str, str]:
    """Change these objects as a cell did, after its names were restored.

    Args:
        user_ns: The namespace.
        values: The saved values by name; those of the user's names are left out.
        deleted: The names that the cell deleted.

    Returns:
        Why some could not be restored.
    """
    failed = dict[str, str]()
    figures = {name: value for name, value in values.items() if is_figure(name)}
    try:
        if FIGURES in figures or FIGURES in deleted:
            reopen(figures.get(FIGURES, []))
        elif figures or any(map(is_figure, deleted)):
            put_figures(figures, deleted)
    except Exception as error:
        failed[FIGURES] = redacted(f"{type(error).__name__}: {error}")
    for name, value in {**values, **dict.fromkeys(deleted)}.items():
        try:
            put_results(user_ns, {name: value} if is_kept(name) else {})
        except Exception as error:
            failed[name] = redacted(f"{type(error).__name__}: {error}")
    return failed
