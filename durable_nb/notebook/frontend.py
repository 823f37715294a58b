"""What the front end says of the cell that it has executed."""

from __future__ import annotations

from typing import Any

__all__ = ["cell_id", "is_headless"]


def cell_id(shell: Any) -> str | None:
    """The id of the cell in its notebook, where the front end sends one (JupyterLab does)."""
    return (_request(shell).get("metadata") or {}).get("cellId")


def is_headless(shell: Any) -> bool:
    """Whether nobody can be asked: nbclient, papermill and nbval say so with each request."""
    return not (_request(shell).get("content") or {}).get("allow_stdin", True)


def _request(shell: Any) -> dict[str, Any]:
    """The request that runs the cell; empty in a terminal."""
    kernel = getattr(shell, "kernel", None)
    request: dict[str, Any] = {} if kernel is None else kernel.get_parent("shell") or {}
    return request
