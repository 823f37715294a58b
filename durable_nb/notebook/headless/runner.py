"""Run a notebook headless, in a kernel of its own, and report which cells were replayed or executed."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
from nbformat.warnings import MissingIDFieldWarning

from durable_nb.errors import DurableError, InvalidOption
from durable_nb.notebook.shell.durable_cells import STEP_MAGIC, magic_first

__all__ = [
    "CellReport",
    "CellState",
    "HeadlessFailed",
    "OnCell",
    "OnKernel",
    "Report",
    "pending_cells",
    "read_notebook",
    "run_notebook",
]

METADATA = "durable_nb"
STARTUP_TIMEOUT = 60
STARTS = 3
PORT_TAKEN = "Address already in use"
"""Ports are chosen before the kernel binds them: on a busy machine another process may bind one first."""

QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
"""Silences a warning about frozen modules by the debugger, which every kernel imports."""

NOTEBOOK_VARIABLE = "JPY_SESSION_NAME"
"""The environment variable in which a kernel finds its notebook's path, to recognize renamed steps."""


class HeadlessFailed(DurableError):
    """Code that is executed before or after the cells of a notebook failed."""


class CellState(StrEnum):
    """The state of a cell; ``ran`` is for ordinary cells, ``executed`` and ``replayed`` for durable ones."""

    WAITING = "waiting"
    RUNNING = "running"
    RAN = "ran"
    EXECUTED = "executed"
    REPLAYED = "replayed"
    FAILED = "failed"
    KILLED = "killed"


_UNFINISHED = {CellState.WAITING, CellState.RUNNING, CellState.FAILED, CellState.KILLED}


@dataclass(frozen=True, slots=True)
class CellReport:
    """The result of one code cell.

    Attributes:
        index: Its index in the notebook, counting markdown cells.
        title: The step's name, or the first line of an ordinary cell.
        state: Its state.
        step: The step's id, if it is a durable cell.
        took: Seconds that it took in this run, measured outside the kernel.
        seconds: Seconds of the recorded execution, for a durable cell.
        saved: Seconds that its replay saved: ``seconds`` minus ``took``.
        error: The error, in one line.
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
    """The result of a notebook run.

    Attributes:
        cells: Its code cells, in order.
        pid: The kernel's process id, if the kernel is a process of this machine.
        took: Seconds from before the kernel's start to after its end.
        notebook: The notebook with the outputs received so far.
        ended: The exit status of a kernel that died, as ``subprocess`` has it; None if it is unknown.
    """

    cells: tuple[CellReport, ...]
    pid: int | None
    took: float
    notebook: Any = field(repr=False)
    ended: int | None = None

    @property
    def died(self) -> bool:
        """True if the kernel died."""
        return bool(self.in_state(CellState.KILLED))

    @property
    def finished(self) -> bool:
        """True if every cell succeeded."""
        return not any(cell.state in _UNFINISHED for cell in self.cells)

    @property
    def saved(self) -> float:
        """Total seconds that replays saved."""
        return sum(cell.saved for cell in self.cells)

    def in_state(self, state: CellState) -> tuple[CellReport, ...]:
        """Return the cells in a state, in order."""
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
    notebook: Any = None,
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Report:
    """Run a notebook's code cells in order, in a kernel of its own, until one fails or the kernel dies.

    A failing cell or a dead kernel does not raise; both are reported.

    Args:
        path: The notebook's file, which is not modified.
        cwd: The kernel's working directory.
        on_cell: Called with a cell's report when the cell starts and when it ends.
        on_kernel: Called with the kernel's process id when the kernel is ready.
        kernel_name: The name of an installed kernel; by default a kernel of the current Python interpreter.
        timeout: Seconds that each cell may take; unlimited by default.
        env: Environment variables for the kernel, in place of those of this process.
        notebook: The notebook as it is to be executed, if that is not as it is in the file.
        first: Code that is executed before the cells, and is none of them.
        last: Code that is executed after them, if all succeeded.

    Returns:
        The report of the run.

    Raises:
        InvalidOption: The file does not exist or is not a notebook, or no kernel has that name.
        DurableError: The kernel did not start, or code of ``first`` or ``last`` failed.
    """
    notebook = read_notebook(path) if notebook is None else notebook
    started = time.monotonic()
    client = _client(notebook, timeout)
    async with _kernel(client, kernel_name, cwd, _environment(path, env)):
        pid = getattr(client.km.provisioner, "pid", None)
        if on_kernel is not None:
            on_kernel(pid)
        execution = _Execution(client, list(pending_cells(notebook)), on_cell or _ignore)
        await execution.run(first, last)
        ended = await client.km.provisioner.poll() if execution.died else None
        if last and execution.finished:  # it closes what is open
            await client.km.shutdown_kernel()
    return Report(tuple(execution.cells), pid, time.monotonic() - started, notebook, ended)


def pending_cells(notebook: Any) -> tuple[CellReport, ...]:
    """Return the code cells that a run of a notebook will execute, all in the state ``waiting``.

    Args:
        notebook: The notebook as read by nbformat, or its path.

    Raises:
        InvalidOption: The file does not exist or is not a notebook.
    """
    if isinstance(notebook, str | os.PathLike):
        notebook = read_notebook(notebook)
    return tuple(
        CellReport(index, _title(cell.source))
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    )


class _Execution:
    """One execution of a notebook, with up-to-date reports of its cells."""

    def __init__(self, client: Any, cells: list[CellReport], on_cell: OnCell) -> None:
        self.client = client
        self.cells = cells
        self.on_cell = on_cell

    @property
    def died(self) -> bool:
        return any(cell.state is CellState.KILLED for cell in self.cells)

    @property
    def finished(self) -> bool:
        return all(cell.state not in _UNFINISHED for cell in self.cells)

    async def run(self, first: Sequence[str], last: Sequence[str]) -> None:
        for code in first:
            await self._execute_code(code)
        if await self._execute_cells():
            for code in last:
                await self._execute_code(code)

    async def _execute_code(self, code: str) -> None:
        """Execute code that is no cell.

        Raises:
            DurableError: It failed.
        """
        self.client.kc.session.metadata = {}
        reply = await self.client.kc.execute_interactive(
            code, store_history=False, allow_stdin=False, output_hook=_ignore, timeout=STARTUP_TIMEOUT
        )
        content = reply["content"]
        if content["status"] != "ok":
            raise HeadlessFailed(content.get("evalue") or content.get("ename") or "the kernel did not answer")

    async def _execute_cells(self) -> bool:
        """Execute the cells; return whether all succeeded."""
        for position, cell in enumerate(self.cells):
            running = replace(cell, state=CellState.RUNNING)
            self._report(position, running)
            started = time.monotonic()
            ended = await self._execute(running)
            took = time.monotonic() - started
            ended = replace(ended, took=took, saved=max(0.0, ended.saved - took))
            self._report(position, ended)
            if ended.state in {CellState.FAILED, CellState.KILLED}:
                return False
        return True

    async def _execute(self, cell: CellReport) -> CellReport:
        source = self.client.nb.cells[cell.index]
        # As JupyterLab does: by its id a cell is known after the notebook was changed.
        self.client.kc.session.metadata = {"cellId": source.id} if "id" in source else {}
        try:
            await self.client.async_execute_cell(source, cell.index)
        except DeadKernelError:
            _reraise_cancellation()
            return replace(cell, state=CellState.KILLED, error="the kernel died")
        except CellExecutionError as error:
            return replace(cell, state=CellState.FAILED, error=f"{error.ename}: {error.evalue}")
        except CellTimeoutError:
            late = f"the cell took longer than its timeout of {self.client.timeout_func(source):g} s"
            return replace(cell, state=CellState.FAILED, error=late)
        return _with_facts(cell, source.outputs)

    def _report(self, position: int, cell: CellReport) -> None:
        self.cells[position] = cell
        self.on_cell(cell)


def _reraise_cancellation() -> None:
    # nbclient reports every cancellation as a dead kernel, also that of the current task by Ctrl-C.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _with_facts(cell: CellReport, outputs: list[Any]) -> CellReport:
    """Return the report of a cell that succeeded, from the metadata of its status line."""
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
    first = magic_first(source).strip().splitlines()[0]
    if first.startswith(STEP_MAGIC):
        words = first.removeprefix(STEP_MAGIC).split()
        return words[0] if words else STEP_MAGIC
    return first.lstrip("# ") or first


def read_notebook(path: str | os.PathLike[str]) -> Any:
    """Return a notebook as nbformat reads it.

    Raises:
        InvalidOption: The file does not exist or is not a notebook.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MissingIDFieldWarning)  # about what wrote the file
            return nbformat.read(Path(path), as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise InvalidOption(f"cannot read {os.fspath(path)!r}: {error.strerror}") from None
    except (ValueError, nbformat.ValidationError, AttributeError):
        raise InvalidOption(f"{os.fspath(path)!r} is not a notebook") from None


class _ThisPython(KernelSpecManager):
    """Provides a kernel of the current Python interpreter, whether or not one is installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def _client(notebook: Any, timeout: float | None) -> Any:
    # NotebookClient's own `timeout` accepts only whole seconds.
    return NotebookClient(notebook, timeout_func=lambda _cell: timeout, startup_timeout=STARTUP_TIMEOUT)


def _manager(kernel_name: str | None) -> AsyncKernelManager:
    if kernel_name is None:
        return AsyncKernelManager(kernel_spec_manager=_ThisPython())
    _check_kernel(kernel_name)
    return AsyncKernelManager(kernel_name=kernel_name)


def _check_kernel(name: str) -> None:
    installed = KernelSpecManager().find_kernel_specs()
    if name not in installed:
        names = ", ".join(sorted(installed))
        raise InvalidOption(f"no kernel named {name!r} is installed", remedy=f"Installed kernels: {names}.")


def _environment(path: str | os.PathLike[str], env: Mapping[str, str] | None) -> dict[str, str]:
    return {**QUIET, **(os.environ if env is None else env), NOTEBOOK_VARIABLE: str(Path(path).absolute())}


@asynccontextmanager
async def _kernel(
    client: Any, kernel_name: str | None, cwd: str | os.PathLike[str], env: dict[str, str]
) -> AsyncIterator[None]:
    """Start a kernel, and shut it down at the end of the block."""
    try:
        for start in range(1, STARTS + 1):
            client.km = _manager(kernel_name)
            if await _started(client, cwd=os.fspath(cwd), env=env, last=start == STARTS):
                break
        yield
    finally:
        await _end(client)


async def _started(client: Any, *, last: bool, **where: Any) -> bool:
    """Start the kernel; return False if a port was taken meanwhile and another attempt is left."""
    with tempfile.TemporaryFile() as output:
        try:
            await client.async_start_new_kernel(stdout=output, stderr=output, **where)
            await client.async_start_new_kernel_client()
        except (RuntimeError, OSError) as error:
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
            if PORT_TAKEN in text and not last:
                return False
            reason = text.splitlines()[-1] if text else error
            raise DurableError(f"the kernel did not start: {reason}") from error
    return True


async def _end(client: Any) -> None:
    if client.kc is not None:
        client.kc.stop_channels()
    if client.km is not None and client.km.has_kernel:
        await client.km.shutdown_kernel(now=True)


def _ignore(_: object) -> None:
    """The default for `on_cell`."""
