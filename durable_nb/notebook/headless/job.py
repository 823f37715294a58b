"""A notebook as a job: executed headless until it has finished, on new kernels where one dies."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import resource
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nbformat
from nbformat.v4 import new_code_cell

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.errors import InvalidOption, RunChanged, RunHeld
from durable_nb.notebook.headless.memory import KillsForMemory
from durable_nb.notebook.headless.runner import (
    CellReport,
    CellState,
    HeadlessFailed,
    OnKernel,
    Report,
    read_notebook,
    run_notebook,
)
from durable_nb.notebook.lineage.compare import lineage_of
from durable_nb.records import RunStatus, StepKind
from durable_nb.stores import open_journal

if TYPE_CHECKING:
    from durable_nb.records import RunSnapshot, SignalRequest, Step

__all__ = ["End", "Job", "Outcome", "opened_by", "parameter_value", "run_job", "run_of", "verdict"]

PARAMETERS: Final = "parameters"
INJECTED: Final = "injected-parameters"
"""The tags of papermill: of the cell with the defaults, and of the cell that is put below it; also its id."""

_OPENS: Final = re.compile(r"^\s*%durable_workflow\s+(?P<line>[^\n]*)", re.MULTILINE)
_HELD: Final = 10.0
"""Seconds to wait for the kernel of a command that was killed to notice that."""


@dataclass(frozen=True, slots=True)
class Job:
    """The notebook that is executed, and the options.

    Attributes:
        path: The notebook's file.
        run_id: The id of the run; None for that of the notebook and its parameters.
        db: The database, a path or URL; None for ``durable.db`` beside the notebook.
        cells: The cells that are durable: ``all`` or ``marked``.
        parameters: Values of parameters by name.
        output: The file that the notebook is written to as it goes, with its outputs; None for none.
        inplace: Whether that is the notebook's own file.
        reuse: Whether a finished run is replayed, not begun anew.
        max_restarts: The number of kernels that may die.
        wait: Whether the notebook waits for signals.
    """

    path: Path
    run_id: str | None = None
    db: str | None = None
    cells: str = "all"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output: Path | None = None
    inplace: bool = False
    reuse: bool = False
    max_restarts: int = 3
    wait: bool = False


class End(Enum):
    """The ways in which a job ends."""

    DONE = "done"
    FAILED = "failed"
    DIED = "died"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job.

    Attributes:
        end: How it ended.
        run_id: The id of the run.
        db: Its database.
        report: The report of the last kernel.
        deaths: The numbers of kernels that died, by the indices of the cells that were executed then.
        signals: The signals that the run waits for.
        out_of_memory: Whether the system killed the last kernel for its memory; None if that is unknown.
    """

    end: End
    run_id: str
    db: str
    report: Report
    deaths: Mapping[int, int] = field(default_factory=dict)
    signals: Sequence[SignalRequest] = ()
    out_of_memory: bool | None = None


def parameter_value(text: str) -> Any:
    """Return the value of a parameter as papermill takes it from a command line.

    Example:
        >>> [parameter_value(text) for text in ("3", "0.5", "True", "None", "a b")]
        [3, 0.5, True, None, 'a b']
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False, "None": None}.get(text, text)


async def run_job(
    job: Job,
    *,
    on_start: Callable[[str, Any], None],
    on_cell: Callable[[CellReport], None],
    on_kernel: OnKernel,
) -> Outcome:
    """Execute a notebook until it has finished, a cell fails, or too many kernels have died.

    Args:
        job: The job.
        on_start: Called with the run's id and the notebook before each kernel is started.
        on_cell: Called with the report of a cell when it starts and when it ends.
        on_kernel: Called with the process id of each kernel.

    Raises:
        InvalidOption: The file is no notebook, or it changed while it was executed in place.
        RunChanged: The run was begun with other parameters.
        RunHeld: Another process has the run.
        HeadlessFailed: The run could not be opened.
    """
    return await _Running(job, on_start, on_cell, on_kernel).run()


class _Running:
    def __init__(
        self,
        job: Job,
        on_start: Callable[[str, Any], None],
        on_cell: Callable[[CellReport], None],
        on_kernel: OnKernel,
    ) -> None:
        self._job, self._on_start, self._on_cell, self._on_kernel = job, on_start, on_cell, on_kernel
        self._memory = KillsForMemory(None)
        self._content = _content(job.path)
        self._notebook = _with_parameters(read_notebook(job.path), job.parameters)
        self._own = opened_by(self._notebook)
        if self._own and job.run_id is not None:
            raise InvalidOption(
                f"the notebook opens run {self._own[0]!r} itself", remedy="Leave --run-id out."
            )
        self._run_id, self._db = run_of(job, self._own)

    async def run(self) -> Outcome:
        deaths: dict[int, int] = {}
        fresh = await self._begins_anew()
        while True:
            report = await self._kernel(fresh=fresh)
            fresh = False
            if not report.died:
                return await self._ended(report, deaths)
            (killed,) = report.in_state(CellState.KILLED)
            deaths[killed.index] = deaths.get(killed.index, 0) + 1
            if sum(deaths.values()) > self._job.max_restarts:
                # Those of earlier commands too, as far as the run counts them.
                found = await ASYNC.store(_read(self._db, self._run_id))
                deaths[killed.index] = max(deaths[killed.index], found.run.crashes if found else 0)
                killed_for = self._memory.found()
                return Outcome(End.DIED, self._run_id, self._db, report, deaths, out_of_memory=killed_for)

    async def _begins_anew(self) -> bool:
        """Return whether a finished run is set aside; check that the parameters are those of the run."""
        if "://" not in self._db and not Path(self._db).exists():  # noqa: ASYNC240 - nothing else runs yet
            return False
        snapshot = await ASYNC.store(_read(self._db, self._run_id))
        if snapshot is None or self._own:
            return False
        if snapshot.run.status is RunStatus.DONE and not self._job.reuse:
            return True
        recorded = next((step for step in snapshot.steps if _is_injected(step)), None)
        code = fingerprint.source(_assignments(self._job.parameters)) if self._job.parameters else None
        if recorded is not None and recorded.code != code:
            raise RunChanged(
                "the run was begun with other parameters",
                run_id=self._run_id,
                remedy="Give those parameters, or another --run-id.",
            )
        return False

    async def _kernel(self, *, fresh: bool) -> Report:
        """Execute the notebook in a kernel; wait while the kernel of a killed command still has the run."""
        deadline = asyncio.get_running_loop().time() + _HELD
        while True:
            try:
                return await self._execute(fresh=fresh)
            except HeadlessFailed as error:
                if "RunHeld: " not in str(error):
                    raise
                if asyncio.get_running_loop().time() > deadline:
                    raise RunHeld(str(error).partition("RunHeld: ")[2]) from None
            await asyncio.sleep(settings.LOCK_POLL)

    async def _execute(self, *, fresh: bool) -> Report:
        notebook = nbformat.from_dict(self._notebook)  # type: ignore[no-untyped-call]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        self._on_start(self._run_id, notebook)

        def on_kernel(pid: int | None) -> None:
            self._memory = KillsForMemory(pid)
            self._on_kernel(pid)

        def on_cell(cell: CellReport) -> None:
            self._on_cell(cell)
            if cell.state is CellState.RUNNING:
                self._memory.note()
            else:
                self._write(notebook)

        line = f"%durable_workflow {shlex.quote(self._run_id)} --db {shlex.quote(self._db)}"
        line += f" --cells {self._job.cells}{' --fresh' if fresh else ''}"
        return await run_notebook(
            self._job.path,
            cwd=self._job.path.absolute().parent,
            notebook=notebook,
            on_cell=on_cell,
            on_kernel=on_kernel,
            env=self._environment(),
            first=() if self._own else ("%load_ext durable_nb", line),
            last=() if self._own else ("%durable_workflow --done",),
        )

    def _environment(self) -> dict[str, str]:
        waits = {"DURABLE_NB_SIGNAL_GRACE": "inf"} if self._job.wait else {}
        return {**os.environ, "DURABLE_NB_CELLS": self._job.cells, **waits}

    async def _ended(self, report: Report, deaths: Mapping[int, int]) -> Outcome:
        if report.finished:
            return Outcome(End.DONE, self._run_id, self._db, report, deaths)
        waits = await ASYNC.store(_open_signals(self._db, self._run_id))
        end = End.WAITING if waits else End.FAILED
        return Outcome(end, self._run_id, self._db, report, deaths, waits)

    def _write(self, notebook: Any) -> None:
        """Write the notebook with its outputs, whole or not at all.

        Raises:
            InvalidOption: It is executed in place, and its file was changed meanwhile.
        """
        target = self._job.path if self._job.inplace else self._job.output
        if target is None:
            return
        if self._job.inplace and _content(target) != self._content:
            raise InvalidOption(
                f"{target} was changed while it was executed", remedy="Type the command again: it goes on."
            )
        with tempfile.NamedTemporaryFile("w", dir=target.absolute().parent, delete=False) as file:
            nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
        Path(file.name).replace(target)
        self._content = _content(target)


async def _read(db: str, run_id: str) -> RunSnapshot | None:
    journal = open_journal(db)
    await journal.setup()
    return await journal.read_run(run_id)


async def _open_signals(db: str, run_id: str) -> tuple[SignalRequest, ...]:
    journal = open_journal(db)
    await journal.setup()
    return tuple(request for request in await journal.open_signals() if request.run_id == run_id)


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidOption(f"cannot read {str(path)!r}: {error.strerror}") from None


def _id_of(job: Job) -> str:
    """Return the id of the run of a notebook and its parameters."""
    if not job.parameters:
        return job.path.stem
    digest = hashlib.sha256(_assignments(job.parameters).encode()).hexdigest()
    return f"{job.path.stem}-{digest[:8]}"


def run_of(job: Job, own: tuple[str, str | None] | None) -> tuple[str, str]:
    """Return the run of a notebook, and its database.

    Args:
        job: The notebook and the options.
        own: The run that the notebook opens itself, as `opened_by` returns it.
    """
    run_id, own_db = own or (job.run_id or _id_of(job), None)
    db = job.db or own_db or settings.DB
    return run_id, db if "://" in db else str(job.path.absolute().parent / db)


def opened_by(notebook: Any) -> tuple[str, str | None] | None:
    """Return the run that a notebook opens itself, and its database; None if it opens none."""
    from durable_nb.notebook.magic_options import workflow_parser

    for cell in notebook.cells:
        for found in _OPENS.finditer(cell.source if cell.cell_type == "code" else ""):
            options = workflow_parser().parse_line(found["line"])
            if options.run_id is not None:
                return options.run_id, options.db
    return None


def _assignments(parameters: Mapping[str, Any]) -> str:
    lines = (f"{name} = {_literal(value)}" for name, value in parameters.items())
    return "\n".join(["# Parameters", *lines])


def _literal(value: Any) -> str:
    """Return an expression for a parameter; ``nan`` and ``inf`` alone would be names."""
    return f"float('{value}')" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _with_parameters(notebook: Any, parameters: Mapping[str, Any]) -> Any:
    """Put a cell with parameters below the cell with their defaults, or at the top, as papermill does."""
    cells = [cell for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", ())]
    if parameters:
        tagged = [n for n, cell in enumerate(cells) if PARAMETERS in cell.metadata.get("tags", ())]
        made = new_code_cell(_assignments(parameters), id=INJECTED, metadata={"tags": [INJECTED]})  # type: ignore[no-untyped-call]
        cells.insert(tagged[0] + 1 if tagged else 0, made)
    notebook.cells = cells
    return notebook


def _is_injected(step: Step) -> bool:
    return step.kind is StepKind.CELL and bool(step.lineage) and lineage_of(step).cell == INJECTED


def verdict(outcome: Outcome) -> str:
    """Return what is known about the deaths of kernels, in one line.

    Args:
        outcome: The end of a job whose kernels died.
    """
    (killed,) = outcome.report.in_state(CellState.KILLED)
    times = outcome.deaths[killed.index]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ended = _exit(outcome.report.ended, out_of_memory=outcome.out_of_memory)
    return (
        f"cell {killed.index + 1}, {killed.title!r}, ended {times} {'kernel' if times == 1 else 'kernels'}: "
        f"{ended}; the largest process had {peak / 1e6:,.0f} MB"
    )


def _exit(ended: int | None, *, out_of_memory: bool | None) -> str:
    if ended is None:
        return "it is not known how"
    if ended >= 0:
        return f"exit status {ended}"
    name = signal.Signals(-ended).name if -ended in {each.value for each in signal.Signals} else str(-ended)
    if -ended != signal.SIGKILL:
        return f"killed by {name}"
    if out_of_memory is None:
        return f"killed by {name}, which the system also sends when memory runs out"
    why = ": memory ran out" if out_of_memory else ", not by the system for want of memory"
    return f"killed by {name}{why}"
