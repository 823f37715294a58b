"""``durable-nb run``: execute a notebook headless, and go on where it stopped."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import shlex
import signal
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from durable_nb.cli.board import Board
from durable_nb.cli.commands import located
from durable_nb.cli.terminal import show, show_error
from durable_nb.errors import InvalidOption
from durable_nb.notebook.headless.job import End, Job, Outcome, parameter_value, run_job, verdict
from durable_nb.notebook.headless.runner import CellReport, CellState, pending_cells

__all__ = ["EXIT_CODES", "run_arguments", "run_run"]

EXIT_CODES: Final = {End.DONE: 0, End.FAILED: 3, End.DIED: 4, End.WAITING: 5}
"""The exit code for each way in which a notebook ends; 1 and 2 are those of all commands."""

TERMINATED: Final = 143
"""The exit code after a SIGTERM."""


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb run``."""
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="the notebook's file")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter, put below the cell that is tagged `parameters`",
    )
    parser.add_argument("--run-id", metavar="ID", help="default: that of the notebook and its parameters")
    parser.add_argument(
        "--db", type=located, metavar="URL", help="a path or redis://…; default: durable.db beside it"
    )
    parser.add_argument("--cells", choices=("all", "marked"), default="all", help="which cells are durable")
    parser.add_argument("--reuse", action="store_true", help="replay a finished run, instead of a new one")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE", help="write the notebook with outputs there")
    where.add_argument("--inplace", action="store_true", help="write the outputs into the notebook itself")
    parser.add_argument(
        "--max-restarts", type=int, default=3, metavar="N", help="how many kernels may die; default: 3"
    )
    parser.add_argument("--wait", action="store_true", help="wait for signals, instead of ending")
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")


def run_run(options: argparse.Namespace) -> int:
    """Execute a notebook; return its exit code.

    Raises:
        InvalidOption: The file is not a notebook, or options exclude each other.
        RunChanged: The run was begun with other parameters.
        RunHeld: Another process has the run.
    """
    if options.inplace and options.parameter:
        raise InvalidOption(
            "--inplace excludes parameters: a notebook does not keep those of one run",
            remedy="Use --output FILE.",
        )
    job = Job(
        options.notebook,
        run_id=options.run_id,
        db=options.db,
        cells=options.cells,
        parameters={name: parameter_value(text.lstrip("\0")) for name, text in options.parameter},
        output=options.output,
        inplace=options.inplace,
        reuse=options.reuse,
        max_restarts=options.max_restarts,
        wait=options.wait,
    )
    return asyncio.run(_run(job, _Json() if options.json else _Progress(job)))


async def _run(job: Job, progress: _Progress | _Json) -> int:
    task = asyncio.ensure_future(
        run_job(job, on_start=progress.start, on_cell=progress.show, on_kernel=progress.kernel)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        outcome = await task
    except asyncio.CancelledError:
        if not task.cancelled() or _is_cancelled():  # by Ctrl-C
            raise
        return TERMINATED
    finally:
        progress.stop()
    progress.end(outcome)
    return EXIT_CODES[outcome.end]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Progress:
    """Shows the progress as a table, one for each kernel."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._console = Console(highlight=False)
        self._console.soft_wrap = not self._console.is_terminal
        self._board: Board | None = None

    def start(self, run_id: str, notebook: Any) -> None:
        self.stop()
        heading = f"{self._job.path.name} · run {run_id}"
        self._board = Board(self._console, heading, pending_cells(notebook)).__enter__()

    def show(self, cell: CellReport) -> None:
        if self._board is not None:
            self._board.show(cell)

    def kernel(self, pid: int | None) -> None:
        if self._board is not None:
            self._board.kernel = pid

    def stop(self) -> None:
        if self._board is not None:
            self._board.__exit__(None, None, None)
            self._board = None

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, and what to type."""
        if outcome.end is End.FAILED:
            for text in _failure(outcome):
                show_error(text)
            show_error("Mend the cell, and type the same command: what is before it replays.")
        if outcome.end is End.DIED:
            show_error(f"{verdict(outcome)}. Mend the cell, and type the same command.")
        for request in outcome.signals:
            words = ("durable-nb", "signal", outcome.run_id, request.name, "VALUE", "--db", outcome.db)
            asked = f"waiting for signal {request.name!r}" + (f": {request.prompt}" if request.prompt else "")
            show_error(f"{asked}. To answer: {shlex.join(words)}; then type the same command.")


class _Json:
    """Prints events as lines of JSON."""

    def start(self, run_id: str, notebook: Any) -> None:
        _show_event("start", run_id=run_id, cells=len(pending_cells(notebook)))

    def show(self, cell: CellReport) -> None:
        _show_event("cell", **dataclasses.asdict(cell))

    def kernel(self, pid: int | None) -> None:
        _show_event("kernel", pid=pid)

    def stop(self) -> None:
        """Do nothing: every event is a line."""

    def end(self, outcome: Outcome) -> None:
        facts: dict[str, Any] = {"run_id": outcome.run_id, "db": outcome.db}
        if outcome.end is End.DIED:
            facts["verdict"] = verdict(outcome)
        if outcome.signals:
            facts["signals"] = [request.name for request in outcome.signals]
        _show_event(outcome.end.value, exit_code=EXIT_CODES[outcome.end], **facts)


def _show_event(event: str, **facts: Any) -> None:
    show(json.dumps({"event": event, **facts}, default=str))


def _failure(outcome: Outcome) -> list[str]:
    """Return the traceback of the cell that failed."""
    (failed,) = outcome.report.in_state(CellState.FAILED)
    outputs = outcome.report.notebook.cells[failed.index].outputs
    traces = ["\n".join(one.traceback) for one in outputs if one.output_type == "error"]
    return [trace for trace in traces if trace] or [failed.error or "the cell failed"]
