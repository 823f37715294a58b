"""The figures that pyplot holds open: they are saved with a cell, since the next cell may draw on them."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

__all__ = ["FIGURES", "open_figures", "reopen"]

FIGURES: Final = "pyplot's open figures"
"""The name under which they are saved; not an identifier, so it cannot clash with a user's name."""


def open_figures() -> dict[str, Any]:
    """Return the open figures with their numbers, the current one last, under `FIGURES`; or nothing."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    managers = {} if helpers is None else helpers.Gcf.figs
    figures = [(number, manager.canvas.figure) for number, manager in managers.items()]
    return {FIGURES: figures} if figures else {}


def reopen(figures: list[tuple[Any, Any]]) -> None:
    """Make these figures pyplot's open figures, in place of any others, without showing them.

    Args:
        figures: The numbers and figures, as `open_figures` returned them.
    """
    held = importlib.import_module("matplotlib._pylab_helpers").Gcf
    # Unpickling a figure that was open opened it again, under the next number.
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
    _suppress_inline_display()


def _suppress_inline_display() -> None:
    # The inline backend shows figures opened during a cell; a replay displays the recorded outputs instead.
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.show._to_draw = []  # noqa: SLF001 - there is no public way
        inline.show._draw_called = False  # noqa: SLF001
