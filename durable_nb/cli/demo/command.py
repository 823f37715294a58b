"""``durable-nb demo``: a notebook's kernel dies in the middle, and nothing that had finished runs again."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import nbformat
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from durable_nb.cli.board import Board
from durable_nb.errors import InvalidOption
from durable_nb.notebook.headless.runner import CellState, Report, pending_cells, run_notebook

__all__ = ["Evidence", "add_arguments", "run"]

NOTEBOOK = "demo.ipynb"
LOG = "executions.log"
VICTIM = "compare/last week"
"""The line in the log, written by a task inside the fourth durable cell, after which the kernel is killed."""

MERCY = 0.3
"""Seconds from that line to the kill: the task sleeps for 0.6 s, so that it dies half-way."""

GLANCE = 0.02
CELL_TIMEOUT = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``durable-nb demo``."""
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="do it in this new directory and leave the files there"
    )


def run(options: argparse.Namespace) -> int:
    """Show it; 0 only if all of it held.

    Raises:
        InvalidOption: The directory to keep is not empty, or cannot be made.
    """
    console = _console()
    started = time.monotonic()
    with _workplace(options.keep) as place:
        evidence = asyncio.run(_Demo(Path(place), console).play())
    _conclude(console, evidence, time.monotonic() - started)
    _say_what_next(console, options.keep)
    return 1 if evidence.objections() else 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the two runs reported, and what the bodies themselves wrote down when they were entered.

    Attributes:
        first: The run whose kernel was killed.
        second: The run after it.
        before: Lines of the log from the first run.
        after: Lines of the log from the second.
    """

    first: Report
    second: Report
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def finished(self) -> tuple[str, ...]:
        """The cells and tasks that had finished when the kernel was killed."""
        killed = [cell.title for cell in self.first.in_state(CellState.KILLED)]
        return tuple(line for line in self.before[:-1] if line not in killed)

    @property
    def spared_tasks(self) -> tuple[str, ...]:
        """The tasks inside the killed cell that had finished, and did not run again."""
        return tuple(line for line in self.finished if "/" in line and line not in self.after)

    def objections(self) -> list[str]:
        """What does not hold of: it died, it went on, and nothing that had finished ran again."""
        executed, replayed = CellState.EXECUTED, CellState.REPLAYED
        again = [line for line in self.finished if line in self.after]
        expected = {
            "the kernel did not die in the middle": self.first.died and self.before[-1:] == (VICTIM,),
            "the second run did not reach the end": self.second.finished,
            f"these had finished and ran again: {', '.join(again)}": not again,
            "not everything that had finished was replayed": (
                _titles(self.first, executed) == _titles(self.second, replayed)
            ),
            "what was reported is not what was executed": (
                _titles(self.first, executed, CellState.KILLED) == _cells(self.before)
                and _titles(self.second, executed) == _cells(self.after)
            ),
        }
        return [objection for objection, holds in expected.items() if not holds]


class _Demo:
    """The two runs, in one directory."""

    def __init__(self, place: Path, console: Console) -> None:
        self.place = place
        self.console = console
        self.notebook = place / NOTEBOOK
        self.log = place / LOG

    async def play(self) -> Evidence:
        source = files("durable_nb.cli.demo") / NOTEBOOK
        self.notebook.write_bytes(source.read_bytes())
        first = await self._run_and_kill()
        before = self._lines()
        second = await self._run("Second run, in a new kernel")
        nbformat.write(second.notebook, self.notebook)  # type: ignore[no-untyped-call]
        return Evidence(first, second, before, self._lines()[len(before) :])

    async def _run_and_kill(self) -> Report:
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        killer = asyncio.create_task(self._kill_in_the_middle(pid))
        try:
            report = await self._run("First run", pid)
        finally:
            killer.cancel()
        if report.died:
            (killed,) = report.in_state(CellState.KILLED)
            command = (f"\n  $ kill -9 {report.pid}", "bold red")
            self.console.print(Text.assemble(command, f"   in the middle of {killed.title}"))
        return report

    async def _run(self, heading: str, pid: asyncio.Future[int] | None = None) -> Report:
        self.console.print()

        def on_kernel(number: int | None) -> None:
            board.kernel = number
            if pid is not None and number is not None:
                pid.set_result(number)

        with Board(self.console, heading, pending_cells(self.notebook)) as board:
            return await run_notebook(
                self.notebook,
                cwd=self.place,
                on_cell=board.show,
                on_kernel=on_kernel,
                timeout=CELL_TIMEOUT,
                env={**os.environ, "IPYTHONDIR": str(self.place / ".ipython")},
            )

    async def _kill_in_the_middle(self, pid: asyncio.Future[int]) -> None:
        kernel = await pid
        while VICTIM not in self._lines():  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(GLANCE)
        await asyncio.sleep(MERCY)
        os.kill(kernel, signal.SIGKILL)

    def _lines(self) -> tuple[str, ...]:
        return tuple(self.log.read_text().splitlines()) if self.log.exists() else ()


def _console() -> Console:
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def _titles(report: Report, *states: CellState) -> set[str]:
    return {cell.title for state in states for cell in report.in_state(state)}


def _cells(lines: Sequence[str]) -> set[str]:
    return {line for line in lines if "/" not in line}


def _workplace(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory(prefix="durable-nb-demo-", ignore_cleanup_errors=True)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = any(keep.iterdir())
    except OSError as error:
        raise InvalidOption(f"--keep {keep}: {error.strerror}") from None
    if used:
        raise InvalidOption(f"--keep {keep}: it is not empty", remedy="Name a new directory.")
    return nullcontext(str(keep))


def _conclude(console: Console, evidence: Evidence, took: float) -> None:
    console.print()
    _print_log(console, evidence)
    objections = evidence.objections()
    lines = [f"✗ {objection}" for objection in objections] or _findings(evidence)
    text = Text("\n".join(lines))
    title = "it did not hold" if objections else f"in {took:.0f} s"
    mode = "red" if objections else "green"
    console.print()
    if console.is_terminal:
        console.print(Panel.fit(text, title=title, border_style=mode, padding=(0, 2)))
    else:
        console.print(text)


def _print_log(console: Console, evidence: Evidence) -> None:
    console.print(Text(f"{LOG}, to which each body writes when it is entered", "bold"))
    for number, lines in enumerate((evidence.before, evidence.after)):
        text = Text(" → ".join(lines), "green")
        if number == 0 and evidence.first.died:
            text.append(" ✗", "bold red")
        console.print(text)


def _findings(evidence: Evidence) -> list[str]:
    replayed = evidence.second.in_state(CellState.REPLAYED)
    executed = evidence.second.in_state(CellState.EXECUTED)
    tasks = len(evidence.spared_tasks)
    return [
        f"{len(replayed)} cells replayed, {len(executed)} executed; {evidence.second.saved:.1f} s saved.",
        f"The killed cell went on inside: {tasks} of its tasks had finished and were replayed too.",
        "The kernel died, and nothing that had finished ran again.",
    ]


def _say_what_next(console: Console, keep: Path | None) -> None:
    kept = (keep or Path("DIR")) / NOTEBOOK
    console.print()
    if keep is None:
        console.print("Keep the files:  durable-nb demo --keep DIR", soft_wrap=True)
    console.print(f"Look at them:    jupyter lab {kept}, restart its kernel, Run All", soft_wrap=True)
    console.print("Make your own:   %load_ext durable_nb, and see README.md")
