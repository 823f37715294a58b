"""The progress of a notebook in a terminal, as a table with a row for each cell, or as plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from durable_nb.errors import printable
from durable_nb.notebook.headless.runner import CellReport, CellState

__all__ = ["Board"]

MARKS = {
    CellState.WAITING: "○",
    CellState.RUNNING: "▶",
    CellState.RAN: "✓",
    CellState.EXECUTED: "✓",
    CellState.REPLAYED: "↺",
    CellState.FAILED: "✗",
    CellState.KILLED: "✗",
}
STYLES = {
    CellState.WAITING: "dim",
    CellState.RUNNING: "yellow",
    CellState.RAN: "dim",
    CellState.EXECUTED: "green",
    CellState.REPLAYED: "cyan",
    CellState.FAILED: "bold red",
    CellState.KILLED: "bold red",
}
FRAMES_PER_SECOND = 12
TITLE_WIDTH = 28


class Board:
    """The progress of a notebook: a context manager, to whose ``show`` the reports of cells are passed.

    Args:
        console: The console to print to. If it is not a terminal, each finished cell is printed as a line.
        heading: The title of the table.
        cells: The cells, as ``runner.plan`` returns them.

    Attributes:
        kernel: The kernel's process id; None until it is known.

    Example:
        >>> with Board(console, "First run", plan(path)) as board:  # doctest: +SKIP
        ...     asyncio.run(run_notebook(path, cwd=".", on_cell=board.show))
    """

    def __init__(self, console: Console, heading: str, cells: Iterable[CellReport]) -> None:
        self.kernel: int | None = None
        self._console = console
        self._heading = printable(heading)
        self._cells = {cell.index: cell for cell in cells}
        self._started: dict[int, float] = {}
        self._spinner = Spinner("dots", style=STYLES[CellState.RUNNING])
        self._live = Live(
            console=console, get_renderable=self._table, refresh_per_second=FRAMES_PER_SECOND, transient=False
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        else:
            self._console.print(self._heading)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, cell: CellReport) -> None:
        """Update the report of one cell."""
        self._cells[cell.index] = cell
        if cell.state is CellState.RUNNING:
            self._started[cell.index] = time.monotonic()
        elif not self._console.is_terminal:
            self._console.print(self._line(cell))

    def _line(self, cell: CellReport) -> Text:
        facts = f"{printable(cell.title):<{TITLE_WIDTH}}{_state(cell):<10}{self._duration(cell):>7}"
        return Text(f"  {MARKS[cell.state]} {facts}  {_remark(cell)}".rstrip(), STYLES[cell.state])

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=3, justify="right")
        table.add_column(min_width=TITLE_WIDTH, max_width=TITLE_WIDTH, no_wrap=True, overflow="ellipsis")
        table.add_column(min_width=8)
        table.add_column(min_width=6, justify="right")
        table.add_column()
        for cell in self._cells.values():
            style = STYLES[cell.state]
            mark = self._spinner if cell.state is CellState.RUNNING else MARKS[cell.state]
            table.add_row(
                mark, printable(cell.title), _state(cell), self._duration(cell), _remark(cell), style=style
            )
        kernel = "starting a kernel" if self.kernel is None else f"kernel {self.kernel}"
        return Group(Text.assemble((self._heading, "bold"), (f" · {kernel}", "dim")), table)

    def _duration(self, cell: CellReport) -> str:
        if cell.state is CellState.WAITING:
            return ""
        running = cell.state is CellState.RUNNING
        return f"{time.monotonic() - self._started[cell.index] if running else cell.took:.1f} s"


def _state(cell: CellReport) -> str:
    return "" if cell.state is CellState.WAITING else str(cell.state)


def _remark(cell: CellReport) -> str:
    if cell.state is CellState.REPLAYED:
        return f"{cell.saved:.1f} s saved"
    return printable(cell.error or "")
