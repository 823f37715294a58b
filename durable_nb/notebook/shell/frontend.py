"""Information that the front end sends about the cell that it executes, and about its notebook."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from durable_nb.errors import InvalidOption
from durable_nb.notebook.shell.durable_cells import magic_first

__all__ = [
    "CodeCell",
    "cell_id",
    "code_cells",
    "durable_names",
    "is_headless",
    "is_jupyter_server",
    "is_kept",
    "is_typed",
    "notebook_file",
    "placed_cells",
    "require_notebook",
    "stdin_route",
    "this_cell",
]

_HEADING: Final = re.compile(r"^#+\s+(.+?)[\s#]*$", re.MULTILINE)
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


class CodeCell(NamedTuple):
    """A code cell: one that is executed, or one in a notebook's file.

    Attributes:
        source: Its source.
        id: Its id; None if the front end sends none, and in files of older formats.
        tags: Its tags.
        heading: The last heading of the text directly above it; empty if there is none.
    """

    source: str
    id: str | None = None
    tags: frozenset[str] = frozenset()
    heading: str = ""


def code_cells(file: Path) -> list[CodeCell]:
    """Return a notebook's code cells, as last saved.

    Raises:
        InvalidOption: The file cannot be read as a notebook.
    """
    try:
        return list(_code_cells(json.loads(file.read_text(encoding="utf-8"))["cells"]))
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise InvalidOption(message, remedy="Give the path of a notebook file.") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        message = f"{file} is not a notebook"
        raise InvalidOption(message, remedy="Give the path of an .ipynb file.") from None


def _code_cells(cells: list[dict[str, Any]]) -> Iterator[CodeCell]:
    heading = ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            tags = frozenset(cell.get("metadata", {}).get("tags", ()))
            yield CodeCell(source, cell.get("id"), tags, heading)
        found = _HEADING.findall(source) if cell["cell_type"] == "markdown" else []
        heading = found[-1] if found else ""


def placed_cells() -> Mapping[str, CodeCell]:
    """Return the code cells in the file of the notebook that this kernel runs, by id; none if it has none."""
    file = notebook_file()
    if file is None:
        return {}
    found = file.stat()
    return _placed_cells(file, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=1)
def _placed_cells(file: Path, _mtime: int, _size: int) -> Mapping[str, CodeCell]:
    with suppress(InvalidOption):  # it is being written
        return {cell.id: cell for cell in code_cells(file) if cell.id is not None}
    return {}


def this_cell(shell: Any, source: str) -> CodeCell:
    """Return the current cell, with its tags and its heading if it stands in the notebook's file.

    Args:
        shell: The IPython shell.
        source: The cell's source.
    """
    known = cell_id(shell)
    return placed_cells().get(known or "", CodeCell(source))._replace(source=source, id=known)


def durable_names(cells: Iterable[CodeCell]) -> set[str]:
    """Return the step names of the cells that are marked as durable."""
    return {named[1] for cell in cells if (named := _NAMED.match(magic_first(cell.source)))}


def is_kept(shell: Any) -> bool:
    """Return whether the current cell goes into the history: a front end's own code does not."""
    result = shell.displayhook.exec_result
    return result is None or (result.info.store_history and not result.info.silent)


def is_typed(shell: Any) -> bool:
    """Return whether the current code is a user's cell, not a front end's own; read before it is executed."""
    content = _request(shell).get("content") or {}
    return bool(content.get("store_history", True)) and not content.get("silent", False)


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
