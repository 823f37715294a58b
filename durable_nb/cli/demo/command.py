"""``durable-nb demo``: kill a notebook's kernel, and show that no finished cell is executed again."""

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

__all__ = ["Evidence", "demo_arguments", "run_demo"]

FILE_NAME = "demo.ipynb"
LOG = "executions.log"
KILLED_TASK = "compare/last week"
"""The line in the log, written by a task of the fourth durable cell, after which the kernel is killed."""

KILL_DELAY = 0.3
"""Seconds from that line to the kill: the task sleeps for 0.6 s, so that it is killed half-way."""

POLL_INTERVAL = 0.02
CELL_TIMEOUT = 60.0


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb demo``."""
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="run it in this new directory, and keep the files"
    )


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo; return 0 if all of its checks passed, otherwise 1.

    Raises:
        InvalidOption: The directory to keep is not empty, or cannot be created.
    """
    console = _console()
    started = time.monotonic()
    with _directory(options.keep) as directory:
        evidence = asyncio.run(_Demo(Path(directory), console).run())
    _print_conclusion(console, evidence, time.monotonic() - started)
    _print_next_steps(console, options.keep)
    return 1 if evidence.failed_checks() else 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """The reports of the two runs, and the log to which each cell and task writes when its body starts.

    Attributes:
        first: The report of the run whose kernel was killed.
        second: The report of the run after it.
        before: The lines of the log from the first run.
        after: The lines of the log from the second run.
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
    def replayed_tasks(self) -> tuple[str, ...]:
        """The tasks of the killed cell that had finished and were not executed again."""
        return tuple(line for line in self.finished if "/" in line and line not in self.after)

    def failed_checks(self) -> list[str]:
        """Return the failed checks: the kernel died, the second run finished, no finished body ran again."""
        executed, replayed = CellState.EXECUTED, CellState.REPLAYED
        again = [line for line in self.finished if line in self.after]
        checks = {
            "the kernel was not killed in the middle of a cell": (
                self.first.died and self.before[-1:] == (KILLED_TASK,)
            ),
            "the second run did not finish": self.second.finished,
            f"executed again although finished: {', '.join(again)}": not again,
            "not every finished cell was replayed": (
                _titles(self.first, executed) == _titles(self.second, replayed)
            ),
            "the reports do not match the log": (
                _titles(self.first, executed, CellState.KILLED) == _cells(self.before)
                and _titles(self.second, executed) == _cells(self.after)
            ),
        }
        return [message for message, passed in checks.items() if not passed]


class _Demo:
    """The two runs, in one directory."""

    def __init__(self, directory: Path, console: Console) -> None:
        self.directory = directory
        self.console = console
        self.notebook = directory / FILE_NAME
        self.log = directory / LOG

    async def run(self) -> Evidence:
        source = files("durable_nb.cli.demo") / FILE_NAME
        self.notebook.write_bytes(source.read_bytes())
        first = await self._run_and_kill()
        before = self._lines()
        second = await self._run_notebook("Second run, in a new kernel")
        nbformat.write(second.notebook, self.notebook)  # type: ignore[no-untyped-call]
        return Evidence(first, second, before, self._lines()[len(before) :])

    async def _run_and_kill(self) -> Report:
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        killer = asyncio.create_task(self._kill_kernel(pid))
        try:
            report = await self._run_notebook("First run", pid)
        finally:
            killer.cancel()
        if report.died:
            (killed,) = report.in_state(CellState.KILLED)
            command = (f"\n  $ kill -9 {report.pid}", "bold red")
            self.console.print(Text.assemble(command, f"   in the middle of {killed.title}"))
        return report

    async def _run_notebook(self, heading: str, pid: asyncio.Future[int] | None = None) -> Report:
        self.console.print()

        def on_kernel(number: int | None) -> None:
            board.kernel = number
            if pid is not None and number is not None:
                pid.set_result(number)

        with Board(self.console, heading, pending_cells(self.notebook)) as board:
            return await run_notebook(
                self.notebook,
                cwd=self.directory,
                on_cell=board.show,
                on_kernel=on_kernel,
                timeout=CELL_TIMEOUT,
                env={**os.environ, "IPYTHONDIR": str(self.directory / ".ipython")},
            )

    async def _kill_kernel(self, pid: asyncio.Future[int]) -> None:
        kernel = await pid
        while KILLED_TASK not in self._lines():  # noqa: ASYNC110 - written by another process
            await asyncio.sleep(POLL_INTERVAL)
        await asyncio.sleep(KILL_DELAY)
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


def _directory(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory(prefix="durable-nb-demo-", ignore_cleanup_errors=True)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = any(keep.iterdir())
    except OSError as error:
        raise InvalidOption(f"cannot create the directory {str(keep)!r}: {error.strerror}") from None
    if used:
        raise InvalidOption(f"invalid --keep {keep}: the directory is not empty", remedy="Name a new one.")
    return nullcontext(str(keep))


def _print_conclusion(console: Console, evidence: Evidence, took: float) -> None:
    console.print()
    _print_log(console, evidence)
    failed = evidence.failed_checks()
    lines = [f"✗ {message}" for message in failed] or _findings(evidence)
    text = Text("\n".join(lines))
    title = "failed" if failed else f"in {took:.0f} s"
    style = "red" if failed else "green"
    console.print()
    if console.is_terminal:
        console.print(Panel.fit(text, title=title, border_style=style, padding=(0, 2)))
    else:
        console.print(text)


def _print_log(console: Console, evidence: Evidence) -> None:
    console.print(Text(f"{LOG}, to which each cell and task writes when its body starts", "bold"))
    for number, lines in enumerate((evidence.before, evidence.after)):
        text = Text(" → ".join(lines), "green")
        if number == 0 and evidence.first.died:
            text.append(" ✗", "bold red")
        console.print(text)


def _findings(evidence: Evidence) -> list[str]:
    replayed = evidence.second.in_state(CellState.REPLAYED)
    executed = evidence.second.in_state(CellState.EXECUTED)
    tasks = len(evidence.replayed_tasks)
    return [
        f"{len(replayed)} cells replayed, {len(executed)} executed; {evidence.second.saved:.1f} s saved.",
        f"In the killed cell, {tasks} tasks had finished: they were replayed too.",
        "The kernel was killed, and no finished cell or task was executed again.",
    ]


def _print_next_steps(console: Console, keep: Path | None) -> None:
    kept = (keep or Path("DIR")) / FILE_NAME
    console.print()
    if keep is None:
        console.print("Keep the files:  durable-nb demo --keep DIR", soft_wrap=True)
    console.print(
        f"Open them:       jupyter lab {kept}, then restart the kernel and run all cells", soft_wrap=True
    )
    console.print("Your notebook:   %load_ext durable_nb, see README.md")
