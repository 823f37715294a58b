"""Every cell a step, without a magic: which cells are steps, and which step is whose.

A cell is known by its id where it stands in the notebook's file; ids that front ends make up are not in it.
Other cells are known by their code and order: the first execution of a code in a pass is its first step.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from durable_nb import settings
from durable_nb.errors import InvalidOption
from durable_nb.errors.redaction import redacted_source
from durable_nb.notebook.lineage.compare import lineage_of
from durable_nb.notebook.lineage.names import parse
from durable_nb.notebook.shell.frontend import CodeCell
from durable_nb.records import Step, StepKind, scope_of

__all__ = ["CELLS", "UnmarkedSteps", "default_cells", "is_ordinary", "name_of"]

CELLS: Final = ("marked", "all")
"""Which cells are durable: those with ``%%durable_step``, or all."""

_SKIP_TAGS: Final = frozenset({"durable-skip", "skip"})
"""Tags of cells that are no steps."""

_SETUP: Final = frozenset(
    {
        *("autoreload", "aimport", "cd", "conda", "config", "env", "load_ext", "mamba", "matplotlib", "pip"),
        *("pinfo", "pinfo2", "pylab", "reload_ext", "set_env", "unload_ext", "uv"),
    }
)
"""Line magics that set up a process, or only look: a replay would not do what they are for."""

_OURS: Final = "durable_"
_INSTALLER: Final = re.compile(r"\s*(\S*python\S*\s+-m\s+)?(pip3?|conda|mamba|uv)\s")
_SKIP: Final = re.compile(r"\s*#\s*durable:\s*skip\b", re.IGNORECASE)
_LONGEST: Final = 40
_UNNAMED: Final = "cell"


def default_cells(configured: str = settings.CELLS) -> str:
    """Return which cells are durable if a run is opened without ``--cells``.

    Args:
        configured: What the configuration of IPython says.

    Raises:
        InvalidOption: ``DURABLE_NB_CELLS`` is not one of ``CELLS``.
    """
    cells = os.environ.get("DURABLE_NB_CELLS", configured)
    if cells not in CELLS:
        raise InvalidOption(f"invalid DURABLE_NB_CELLS={cells!r}: expected 'marked' or 'all'")
    return cells


def is_ordinary(cell: CodeCell, python: str) -> bool:
    """Return whether a cell is executed in every pass: it imports, sets up the kernel, or says so.

    Args:
        cell: The cell.
        python: Its Python, as IPython makes it.

    Example:
        >>> [is_ordinary(CodeCell(text), text) for text in ("import os", "x = 1")]
        [True, False]
    """
    if _SKIP.match(cell.source) or not _SKIP_TAGS.isdisjoint(cell.tags):
        return True
    body = parse(python)
    calls = [_magic(node) for node in body]
    if any(name.startswith(_OURS) for name, _ in filter(None, calls)):
        return True
    return all(_sets_up(node, call) for node, call in zip(body, calls, strict=True))


def _sets_up(node: ast.stmt, call: tuple[str, str] | None) -> bool:
    if call is not None:
        name, line = call
        return name in _SETUP or (name == "!" and _INSTALLER.match(line) is not None)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _magic(node: ast.stmt) -> tuple[str, str] | None:
    """Return the name and the line of the magic that a statement calls; ``!`` for a shell command."""
    match node:
        case ast.Expr(
            ast.Call(
                ast.Attribute(ast.Call(ast.Name("get_ipython")), method), [ast.Constant(str(first)), *rest]
            )
        ):
            line = rest[0].value if rest and isinstance(rest[0], ast.Constant) else ""
            return ("!", first) if method == "system" else (first, str(line))
    return None


def name_of(cell: CodeCell) -> str:
    r"""Return the name of a cell's step: of its heading, its first comment or its first line.

    Example:
        >>> name_of(CodeCell("# Load the data\\nrows = load()"))
        'load-the-data'
    """
    lines = [line for line in redacted_source(cell.source).splitlines() if line.strip(" \t#%")]
    first = lines[0] if lines else ""
    if first.startswith("%%"):
        first = " ".join(lines[:2])
    is_text = cell.heading or first.lstrip().startswith("#")
    text = redacted_source(cell.heading) or first
    return _joined(re.findall(r"\w+", text.lower() if is_text else text)) or _UNNAMED


def _joined(words: list[str]) -> str:
    """Return as many words as a name may have, joined by hyphens."""
    name = words[0][:_LONGEST] if words else ""
    for word in words[1:]:
        if len(name) + 1 + len(word) > _LONGEST:
            break
        name += f"-{word}"
    return name


class _Recorded(NamedTuple):
    code: str | None
    cell: str | None


class UnmarkedSteps:
    """The steps of unmarked cells, in one pass.

    Args:
        recorded: The steps of the run as the pass begins.
    """

    def __init__(self, recorded: Iterable[Step] = ()) -> None:
        self._ids = set[str]()
        self._free: dict[str, _Recorded] = {}
        self._executed: dict[str, str] = {}
        for step in recorded:
            self._ids.add(step.step_id)
            if step.kind is StepKind.CELL and step.lineage and not scope_of(step.step_id):
                lineage = lineage_of(step)
                if lineage.unmarked:
                    self._free[step.step_id] = _Recorded(step.code, lineage.cell)

    @property
    def recorded(self) -> int:
        """The number of recorded steps whose cells this pass has not executed."""
        return len(self._free)

    def claim(self, cell: CodeCell, code: str, placed: Collection[str]) -> tuple[str, bool]:
        """Return the id of a cell's step, and whether this pass has executed the cell before.

        Args:
            cell: The cell.
            code: The fingerprint of its Python.
            placed: The ids of the cells that stand in the notebook's file.
        """
        if cell.id is not None and cell.id in self._executed:
            return self._executed[cell.id], True
        step_id = self._of_cell(cell, placed) or self._of_code(cell, code, placed) or self._new(cell)
        self._ids.add(step_id)
        self._free.pop(step_id, None)
        if cell.id is not None:
            self._executed[cell.id] = step_id
        return step_id, False

    def _of_cell(self, cell: CodeCell, placed: Collection[str]) -> str | None:
        if cell.id is None or cell.id not in placed:
            return None
        return next((step_id for step_id, one in self._free.items() if one.cell == cell.id), None)

    def _of_code(self, cell: CodeCell, code: str, placed: Collection[str]) -> str | None:
        """Return the first step of a code; for a cell in the file, one that is not another such cell's."""
        others = placed if cell.id in placed else ()
        same = [step_id for step_id, one in self._free.items() if one.code == code and one.cell not in others]
        return min(same, key=lambda step_id: (len(step_id), step_id), default=None)

    def _new(self, cell: CodeCell) -> str:
        name = name_of(cell)
        found, number = name, 1
        while found in self._ids:
            number += 1
            found = f"{name}-{number}"
        return found
