"""Run a notebook headless, in a real kernel, and report cell by cell what was replayed and what executed."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from durable_nb.errors import DurableError, InvalidOption

__all__ = ["CellReport", "CellState", "Report", "plan", "run_notebook"]

STEP_MAGIC = "%%durable_step"
METADATA = "durable_nb"
STARTUP_TIMEOUT = 60
STARTS = 3
PORT_TAKEN = "Address already in use"
"""A kernel's ports are chosen before it binds them: on a busy machine somebody else can come in between."""

QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
"""The debugger, imported by every kernel, otherwise warns about frozen modules."""

NAMES_NOTEBOOK = "JPY_SESSION_NAME"
"""Where Jupyter's server tells a kernel its notebook, and so do we: a renamed step can then be known."""


class CellState(StrEnum):
    """Where a cell stands. ``ran`` is an ordinary cell, ``executed`` and ``replayed`` are durable ones."""

    WAITING = "waiting"
    RUNNING = "running"
    RAN = "ran"
    EXECUTED = "executed"
    REPLAYED = "replayed"
    FAILED = "failed"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class CellReport:
    """What became of one code cell.

    Attributes:
        index: Its place in the notebook, markdown cells counted.
        title: What to call it: the step's name, or its first line.
        state: Where it stands.
        step: The step's id, if it is a durable cell.
        took: Seconds it took this time, as seen from outside.
        seconds: Seconds of the recorded execution, for a durable cell.
        saved: Seconds that its replay saved: those of the recorded execution less those it took.
        error: How it failed, in one line.
    """

    index: int
    title: str
    state: CellState = CellState.WAITING
    step: str | None = None
    took: float = 0.0
    seconds: float = 0.0
    saved: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a notebook.

    Attributes:
        cells: Its code cells, in order.
        pid: The kernel's process id, where the kernel is a process of this machine.
        took: Seconds from before the kernel's start to after its end.
        notebook: The notebook with its outputs, as far as they came.
    """

    cells: tuple[CellReport, ...]
    pid: int | None
    took: float
    notebook: Any = field(repr=False)

    @property
    def died(self) -> bool:
        """Whether the kernel died."""
        return bool(self.in_state(CellState.KILLED))

    @property
    def finished(self) -> bool:
        """Whether every cell came to a good end."""
        unfinished = {CellState.WAITING, CellState.RUNNING, CellState.FAILED, CellState.KILLED}
        return not any(cell.state in unfinished for cell in self.cells)

    @property
    def saved(self) -> float:
        """Seconds that replays saved."""
        return sum(cell.saved for cell in self.cells)

    def in_state(self, state: CellState) -> tuple[CellReport, ...]:
        """The cells in a state, in order."""
        return tuple(cell for cell in self.cells if cell.state is state)


OnCell = Callable[[CellReport], None]
OnKernel = Callable[[int | None], None]


async def run_notebook(
    path: str | os.PathLike[str],
    *,
    cwd: str | os.PathLike[str],
    on_cell: OnCell | None = None,
    on_kernel: OnKernel | None = None,
    kernel_name: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Report:
    """Run a notebook's code cells in order, in a kernel of its own, until one fails or the kernel dies.

    A failing cell and a dead kernel are no errors here: the report tells them.

    Args:
        path: The notebook; it is read and never written.
        cwd: The directory in which the kernel works.
        on_cell: Called with a cell's report when it starts, and again when it has ended.
        on_kernel: Called with the kernel's process id when the kernel is ready.
        kernel_name: An installed kernel; by default this very Python, installed as a kernel or not.
        timeout: Seconds that one cell may take.
        env: Environment variables for the kernel, in place of those of this process.

    Returns:
        What became of each cell.

    Raises:
        InvalidOption: The file is not there, or no notebook; or no kernel has that name.
        DurableError: The kernel did not start.
    """
    notebook = _read(path)
    started = time.monotonic()
    client = _client(notebook, timeout)
    async with _kernel(client, kernel_name, cwd, _environment(path, env)):
        pid = getattr(client.km.provisioner, "pid", None)
        if on_kernel is not None:
            on_kernel(pid)
        passage = _Passage(client, list(plan(notebook)), on_cell or _unheard)
        await passage.run()
    return Report(tuple(passage.cells), pid, time.monotonic() - started, notebook)


def plan(notebook: Any) -> tuple[CellReport, ...]:
    """The code cells that a run of a notebook will execute, none of them begun.

    Args:
        notebook: The notebook as nbformat reads it, or the path of one.
    """
    if isinstance(notebook, str | os.PathLike):
        notebook = _read(notebook)
    return tuple(
        CellReport(index, _title(cell.source))
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    )


class _Passage:
    """One time through a notebook: its cells' reports, kept up to date."""

    def __init__(self, client: Any, cells: list[CellReport], on_cell: OnCell) -> None:
        self.client = client
        self.cells = cells
        self.on_cell = on_cell

    async def run(self) -> None:
        for position, cell in enumerate(self.cells):
            running = replace(cell, state=CellState.RUNNING)
            self._tell(position, running)
            started = time.monotonic()
            ended = await self._execute(running)
            took = time.monotonic() - started
            ended = replace(ended, took=took, saved=max(0.0, ended.saved - took))
            self._tell(position, ended)
            if ended.state in {CellState.FAILED, CellState.KILLED}:
                return

    async def _execute(self, cell: CellReport) -> CellReport:
        source = self.client.nb.cells[cell.index]
        try:
            await self.client.async_execute_cell(source, cell.index)
        except DeadKernelError:
            _reraise_cancellation()
            return replace(cell, state=CellState.KILLED, error="the kernel died")
        except CellExecutionError as error:
            return replace(cell, state=CellState.FAILED, error=f"{error.ename}: {error.evalue}")
        except CellTimeoutError:
            late = f"it took longer than {self.client.timeout_func(source):g} s"
            return replace(cell, state=CellState.FAILED, error=late)
        return _with_facts(cell, source.outputs)

    def _tell(self, position: int, cell: CellReport) -> None:
        self.cells[position] = cell
        self.on_cell(cell)


def _reraise_cancellation() -> None:
    # nbclient takes every cancellation for a dead kernel, also that of our own task by Ctrl-C.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _with_facts(cell: CellReport, outputs: list[Any]) -> CellReport:
    """The report of a cell that ended well, from what its badge says."""
    for output in outputs:
        facts = output.get("metadata", {}).get(METADATA, {})
        if "step" in facts:
            return replace(
                cell,
                title=facts["step"],
                step=facts["step"],
                state=CellState(facts["action"]),
                seconds=facts["seconds"],
                saved=facts["saved"],
            )
    return replace(cell, state=CellState.RAN)


def _title(source: str) -> str:
    first = source.strip().splitlines()[0]
    if first.startswith(STEP_MAGIC):
        words = first.removeprefix(STEP_MAGIC).split()
        return words[0] if words else STEP_MAGIC
    return first.lstrip("# ") or first


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        return nbformat.read(Path(path), as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise InvalidOption(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, nbformat.ValidationError, AttributeError):
        raise InvalidOption(f"{os.fspath(path)!r} is no notebook") from None


class _ThisPython(KernelSpecManager):
    """Knows one kernel, the Python that asks, whatever is installed or shadowed on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def _client(notebook: Any, timeout: float | None) -> Any:
    # Its own `timeout` takes whole seconds alone.
    return NotebookClient(notebook, timeout_func=lambda _cell: timeout, startup_timeout=STARTUP_TIMEOUT)


def _manager(kernel_name: str | None) -> AsyncKernelManager:
    if kernel_name is None:
        return AsyncKernelManager(kernel_spec_manager=_ThisPython())
    _check_kernel(kernel_name)
    return AsyncKernelManager(kernel_name=kernel_name)


def _check_kernel(name: str) -> None:
    installed = KernelSpecManager().find_kernel_specs()
    if name not in installed:
        there = ", ".join(sorted(installed))
        raise InvalidOption(f"no kernel is called {name!r}", remedy=f"There are: {there}.")


def _environment(path: str | os.PathLike[str], env: Mapping[str, str] | None) -> dict[str, str]:
    return {**QUIET, **(os.environ if env is None else env), NAMES_NOTEBOOK: str(Path(path).absolute())}


@asynccontextmanager
async def _kernel(
    client: Any, kernel_name: str | None, cwd: str | os.PathLike[str], env: dict[str, str]
) -> AsyncIterator[None]:
    """A kernel that is ready inside, and gone afterwards."""
    try:
        for start in range(1, STARTS + 1):
            client.km = _manager(kernel_name)
            if await _started(client, cwd=os.fspath(cwd), env=env, last=start == STARTS):
                break
        yield
    finally:
        await _end(client)


async def _started(client: Any, *, last: bool, **where: Any) -> bool:
    """Start the kernel; False if another process took one of its ports meanwhile, and it may try again."""
    with tempfile.TemporaryFile() as output:
        try:
            await client.async_start_new_kernel(stdout=output, stderr=output, **where)
            await client.async_start_new_kernel_client()
        except (RuntimeError, OSError) as error:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            if PORT_TAKEN in said and not last:
                return False
            reason = said.splitlines()[-1] if said else error
            raise DurableError(f"the kernel did not start: {reason}") from error
    return True


async def _end(client: Any) -> None:
    if client.kc is not None:
        client.kc.stop_channels()
    if client.km is not None and client.km.has_kernel:
        await client.km.shutdown_kernel(now=True)


def _unheard(cell: CellReport) -> None:
    """What hears of cells when nobody wants to."""
