"""The figures that pyplot holds open: they are saved with a cell, since the next cell may draw on them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

__all__ = ["CURRENT", "FIGURES", "is_figure", "open_figures", "put_figures", "reopen"]

FIGURES: Final = "pyplot's open figures"
"""The name under which earlier versions saved them all."""

CURRENT: Final = "pyplot's current figure"
"""The name of the number of the current figure; no identifier, so it clashes with no user's name."""

_FIGURE: Final = "pyplot's figure "
"""The beginning of the name of each open figure; its number follows."""


def is_figure(name: str) -> bool:
    """Return whether a name is one under which pyplot's figures are saved."""
    return name.startswith(_FIGURE) or name in (CURRENT, FIGURES)


def open_figures() -> dict[str, Any]:
    """Return each open figure by a name of its own, and a list of the current one's number; or nothing."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    managers = {} if helpers is None else helpers.Gcf.figs
    figures = {f"{_FIGURE}{number}": manager.canvas.figure for number, manager in managers.items()}
    return {**figures, CURRENT: [*managers][-1:]} if figures else {}


def put_figures(found: Mapping[str, Any], deleted: Collection[str]) -> None:
    """Open and close figures of pyplot as a cell did, without showing them; the other figures stay open.

    Args:
        found: The figures and the current one's number, by the names that `open_figures` gave them.
        deleted: The names of the figures that it closed.
    """
    held = importlib.import_module("matplotlib._pylab_helpers").Gcf
    opened = [(int(name[len(_FIGURE) :]), one) for name, one in found.items() if name.startswith(_FIGURE)]
    _put(held, opened)
    for name in deleted:
        if name.startswith(_FIGURE):
            held.destroy(int(name[len(_FIGURE) :]))
    for number in found.get(CURRENT, ()):
        if number in held.figs:
            held.figs.move_to_end(number)
    _suppress_inline_display()


def reopen(figures: list[tuple[Any, Any]]) -> None:
    """Make these figures pyplot's open figures, in place of any others, as earlier versions saved them.

    Args:
        figures: The numbers and figures.
    """
    held = importlib.import_module("matplotlib._pylab_helpers").Gcf
    for manager in list(held.figs.values()):
        if manager.canvas.figure not in [figure for _, figure in figures]:
            held.destroy(manager)
    _put(held, figures)
    _suppress_inline_display()


def _put(held: Any, figures: list[tuple[Any, Any]]) -> None:
    # Unpickling a figure that was open opened it again, under the next number.
    managers = {number: figure.canvas.manager for number, figure in figures}
    for number, manager in list(held.figs.items()):
        if manager in managers.values():
            del held.figs[number]
        elif number in managers:
            held.destroy(number)
    for number, figure in figures:
        own = vars(figure)  # setting the attribute warns in newer versions
        own["_number" if "_number" in own else "number"] = number
        managers[number].num = number
        held.figs[number] = managers[number]


def _suppress_inline_display() -> None:
    # The inline backend shows figures opened during a cell; a replay displays the recorded outputs instead.
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.show._to_draw = []  # noqa: SLF001 - there is no public way
        inline.show._draw_called = False  # noqa: SLF001
