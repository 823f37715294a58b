"""What the front end says of the cell that it has executed."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["cell_id", "is_headless", "is_jupyter_server", "stdin_route"]


def cell_id(shell: Any) -> str | None:
    """The id of the cell in its notebook, where the front end sends one (JupyterLab does)."""
    return (_request(shell).get("metadata") or {}).get("cellId")


def is_headless(shell: Any) -> bool:
    """Whether nobody can be asked: nbclient, papermill and nbval say so with each request."""
    return not (_request(shell).get("content") or {}).get("allow_stdin", True)


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
