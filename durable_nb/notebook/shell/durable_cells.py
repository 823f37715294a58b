"""What makes a cell a durable one: a cell that begins with ``%%durable_step`` is a step, or an error."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from IPython.core.error import UsageError

from durable_nb.notebook.shell.execute import awaited_magic, is_marked_now

__all__ = ["STEP_MAGIC", "DurableCells", "magic_first"]

STEP_MAGIC: Final = "%%durable_step"

_ABOVE: Final = re.compile(
    r"(?P<above>(?:[\ufeff\s]*#[^\n]*\n)*)[\ufeff\s]*(?P<magic>%%durable_step\b[^\n]*)(?P<body>\n.*)?",
    re.DOTALL,
)
"""A durable cell: comments and blank lines, the magic's line, and the body."""

_CELL_MAGIC: Final = re.compile(r"get_ipython\(\)\.run_cell_magic\('(?P<name>\w+)', (?P<rest>.*)\)$")


def magic_first(cell: str) -> str:
    r"""Return a durable cell with the comments above its magic below it; any other cell unchanged.

    Args:
        cell: The source of a cell.

    Example:
        >>> magic_first("# Slow!\n%%durable_step load\nx = 1")
        '%%durable_step load\n# Slow!\nx = 1'
    """
    found = _ABOVE.fullmatch(cell)
    if found is None:
        return cell
    body = found["body"] or ""
    return found["magic"] + (f"\n{found['above']}{body[1:]}" if body.strip() else body)


class DurableCells:
    """Sees to it that the durable cells of a shell are steps, whatever else transforms cells.

    Args:
        shell: The IPython shell.
        is_step: Returns whether a cell without the magic is a step now.
    """

    def __init__(self, shell: Any, is_step: Callable[[str], bool]) -> None:
        self._shell = shell
        self._is_step = is_step
        self._awaited = awaited_magic(STEP_MAGIC.lstrip("%"))
        self._mark = _not_while_typing(self._add_magic)
        self._ran = True

    def install(self) -> None:
        """Install the input transformers that are not installed."""
        first, last = self._shell.input_transformers_cleanup, self._shell.input_transformers_post
        if _move_comments not in first:
            first.insert(0, _move_comments)
        first += [each for each in (self._mark,) if each not in first]
        last += [each for each in (self._awaited, _must_come_first) if each not in last]

    def _add_magic(self, lines: list[str]) -> list[str]:
        """Put the magic above a cell that is a step without it: an input transformer."""
        cell = "".join(lines)
        if not cell.strip() or _ABOVE.fullmatch(cell) or not is_marked_now():
            return lines
        return [f"{STEP_MAGIC}\n", *lines] if self._is_step(cell) else lines

    def begin(self) -> None:
        """Note that the magic is called.

        Raises:
            UsageError: The cell does not await it.
        """
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - how the cell was compiled
        while frame is not None and frame.f_globals is not self._shell.user_ns:
            frame = frame.f_back
        if frame is None or not frame.f_code.co_flags & inspect.CO_COROUTINE:
            raise UsageError(f"{_NOT_A_STEP} {_REMEDY}")
        self._ran = True

    def end(self) -> None:
        """Note that the magic has returned; it may have executed other cells meanwhile."""
        self._ran = True

    def before_cell(self, _info: object) -> None:
        """Forget the cell before: a ``pre_run_cell`` callback."""
        self._ran = False

    def after_cell(self, result: Any) -> None:
        """Turn a durable cell that ran as an ordinary one into an error: a ``post_run_cell`` callback."""
        raw = result.info.raw_cell if result.info is not None else None
        if self._ran or not result.success or not isinstance(raw, str) or not _is_durable(raw):
            return
        result.error_in_exec = UsageError(
            f"{_NOT_A_STEP} Its body was executed as an ordinary cell. {_REMEDY}"
        )
        self._shell.show_usage_error(result.error_in_exec)


_NOT_A_STEP: Final = f"{STEP_MAGIC} is not a step here: another input transformer has changed its cell."
_REMEDY: Final = "To install the magic again: %reload_ext durable_nb"


def _is_durable(raw: str) -> bool:
    found = _ABOVE.fullmatch(raw)
    return found is not None and not found["magic"].startswith(f"{STEP_MAGIC}?")


def _not_while_typing(transform: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    """Return an input transformer that IPython leaves out when it asks whether a cell is complete."""

    def transform_executed(lines: list[str]) -> list[str]:
        return transform(lines)

    transform_executed.has_side_effects = True  # type: ignore[attr-defined]
    return transform_executed


def _move_comments(lines: list[str]) -> list[str]:
    """Move comments above ``%%durable_step`` below it: an input transformer."""
    cell = "".join(lines)
    return magic_first(cell).splitlines(keepends=True) if STEP_MAGIC in cell else lines


def _must_come_first(lines: list[str]) -> list[str]:
    """Reject a cell with other code above ``%%durable_step``: a post input transformer."""
    cell = "".join(lines)
    if f"run_line_magic('{STEP_MAGIC[1:]}'" in cell:
        return _refusal("move it above the other code, or into a cell of its own")
    call = _CELL_MAGIC.match(cell.strip())
    if call is None or call["name"] == STEP_MAGIC.lstrip("%"):
        return lines
    _, body = ast.literal_eval(f"({call['rest']})")
    return _refusal(f"move it above %%{call['name']}") if body.lstrip().startswith(STEP_MAGIC) else lines


def _refusal(remedy: str) -> list[str]:
    message = f"{STEP_MAGIC} must be the first line of its cell: {remedy}."
    return ["from IPython.core.error import UsageError\n", f"raise UsageError({message!r})\n"]
