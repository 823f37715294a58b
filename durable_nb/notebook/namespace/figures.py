"""The figures that pyplot holds open: they belong to a cell's result, as the next one may draw on them."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

__all__ = ["FIGURES", "open_figures", "reopen"]

FIGURES: Final = "pyplot's open figures"
"""Under what they are saved: no identifier, so no user's name."""


def open_figures() -> dict[str, Any]:
    """Their numbers and the figures, the current one last, under one name; empty if there are none."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    managers = {} if helpers is None else helpers.Gcf.figs
    figures = [(number, manager.canvas.figure) for number, manager in managers.items()]
    return {FIGURES: figures} if figures else {}


def reopen(figures: list[tuple[Any, Any]]) -> None:
    """Have pyplot hold these figures open and no others, without showing them.

    Args:
        figures: What `open_figures` gave for the name.
    """
    held = importlib.import_module("matplotlib._pylab_helpers").Gcf
    # A figure that was pickled while it was open has opened itself, under the next number.
    managers = {number: figure.canvas.manager for number, figure in figures}
    for manager in list(held.figs.values()):
        if manager not in managers.values():
            held.destroy(manager)
    held.figs.clear()
    for number, figure in figures:
        own = vars(figure)  # setting the attribute warns in newer versions
        own["_number" if "_number" in own else "number"] = number
        managers[number].num = number
        held.figs[number] = managers[number]
    _draw_none()


def _draw_none() -> None:
    # The inline backend shows after a cell what was opened in it; this cell shows what it showed.
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.show._to_draw = []  # noqa: SLF001 - it has no other way
        inline.show._draw_called = False  # noqa: SLF001
