"""What the front end says of the cell that it has executed."""

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
    """The id of the cell in its notebook, where the front end sends one (JupyterLab does)."""
    return (_request(shell).get("metadata") or {}).get("cellId")


def is_headless(shell: Any) -> bool:
    """Whether nobody can be asked: nbclient, papermill and nbval say so with each request."""
    return not (_request(shell).get("content") or {}).get("allow_stdin", True)


def notebook_file() -> Path | None:
    """The notebook that this kernel runs, where whoever started it said so (Jupyter's server does)."""
    file = Path(os.environ.get("JPY_SESSION_NAME", ""))
    return file if file.suffix == ".ipynb" and file.is_file() else None


def require_notebook() -> Path:
    """The notebook that this kernel runs.

    Raises:
        InvalidOption: Whoever started it did not say so.
    """
    file = notebook_file()
    if file is None:
        raise InvalidOption(
            "this front end does not say which notebook it shows",
            remedy="Type: %durable_plan NOTEBOOK.ipynb",
        )
    return file


def code_cells(file: Path) -> list[str]:
    """The sources of a notebook's code cells, as they were saved last.

    Raises:
        InvalidOption: The file cannot be read as a notebook.
    """
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    except OSError as error:
        message = f"{file} cannot be read ({error.strerror})"
        raise InvalidOption(message, remedy="Name a notebook's file.") from None
    except (ValueError, LookupError, TypeError):
        raise InvalidOption(f"{file} is no notebook", remedy="Name one: its file ends in .ipynb.") from None
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def durable_names(cells: Iterable[str]) -> set[str]:
    """The names of the durable cells among some sources."""
    return {named[1] for cell in cells if (named := _NAMED.match(cell))}


def is_jupyter_server() -> bool:
    """Whether a Jupyter server started the kernel, as for JupyterLab and Notebook."""
    return "JPY_SESSION_NAME" in os.environ


def stdin_route(kernel: Any) -> tuple[Any, dict[str, Any]]:
    """Where a request for input goes: the client's identity, and the request that runs the cell."""
    in_context = getattr(kernel, "_get_shell_context_var", None)  # there is no public way
    if in_context is not None:  # ipykernel 7
        return in_context(kernel._shell_parent_ident), kernel.get_parent("shell")  # noqa: SLF001
    return kernel._parent_ident["shell"], kernel.get_parent("shell")  # noqa: SLF001


def _request(shell: Any) -> dict[str, Any]:
    """The request that runs the cell; empty in a terminal."""
    kernel = getattr(shell, "kernel", None)
    request: dict[str, Any] = {} if kernel is None else kernel.get_parent("shell") or {}
    return request
