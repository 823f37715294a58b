"""Information that the front end sends about the cell that it executes, and about its notebook."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from durable_nb.errors import InvalidOption

__all__ = [
    "cell_id",
    "code_cells",
    "durable_names",
    "is_headless",
    "is_jupyter_server",
    "notebook_file",
    "require_notebook",
    "stdin_route",
]

_NAMED: Final = re.compile(r"\s*%%durable_step\s+(\S+)")


def cell_id(shell: Any) -> str | None:
    """Return the id of the current cell in its notebook, if the front end sends one (JupyterLab does)."""
    return (_request(shell).get("metadata") or {}).get("cellId")


def is_headless(shell: Any) -> bool:
    """Return whether no user can be prompted: nbclient, papermill and nbval set this in each request."""
    return not (_request(shell).get("content") or {}).get("allow_stdin", True)


def notebook_file() -> Path | None:
    """Return the notebook that this kernel runs, if its parent process told it (a Jupyter server does)."""
    file = Path(os.environ.get("JPY_SESSION_NAME", ""))
    return file if file.suffix == ".ipynb" and file.is_file() else None


def require_notebook() -> Path:
    """Return the notebook that this kernel runs.

    Raises:
        InvalidOption: The kernel was not told which notebook it runs.
    """
    file = notebook_file()
    if file is None:
        raise InvalidOption(
            "this front end does not tell the kernel which notebook it runs",
            remedy="Name the notebook: %durable_plan NOTEBOOK.ipynb",
        )
    return file


def code_cells(file: Path) -> list[str]:
    """Return the sources of a notebook's code cells, as last saved.

    Raises:
        InvalidOption: The file cannot be read as a notebook.
    """
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise InvalidOption(message, remedy="Give the path of a notebook file.") from None
    except (ValueError, LookupError, TypeError):
        message = f"{file} is not a notebook"
        raise InvalidOption(message, remedy="Give the path of an .ipynb file.") from None
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def durable_names(cells: Iterable[str]) -> set[str]:
    """Return the step names of the durable cells among cell sources."""
    return {named[1] for cell in cells if (named := _NAMED.match(cell))}


def is_jupyter_server() -> bool:
    """Return whether a Jupyter server started the kernel, as for JupyterLab and Notebook."""
    return "JPY_SESSION_NAME" in os.environ


def stdin_route(kernel: Any) -> tuple[Any, dict[str, Any]]:
    """Return the client's identity and the request that runs the cell, to send a request for input to."""
    in_context = getattr(kernel, "_get_shell_context_var", None)  # there is no public way
    if in_context is not None:  # ipykernel 7
        return in_context(kernel._shell_parent_ident), kernel.get_parent("shell")  # noqa: SLF001
    return kernel._parent_ident["shell"], kernel.get_parent("shell")  # noqa: SLF001


def _request(shell: Any) -> dict[str, Any]:
    """Return the request that runs the cell; empty in a terminal."""
    kernel = getattr(shell, "kernel", None)
    request: dict[str, Any] = {} if kernel is None else kernel.get_parent("shell") or {}
    return request
