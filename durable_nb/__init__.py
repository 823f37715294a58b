"""Durable Jupyter notebooks: finished cells and tasks survive the kernel.

In a notebook::

    %load_ext durable_nb
    %durable_workflow my-run

and then ``%%durable_step NAME`` as the first line of a cell. In a script::

    from durable_nb import Workflow

    wf = Workflow("orders")

and then ``@wf.task`` and ``@wf.workflow``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_nb.backoff import BackoffStrategy, constant, exponential, linear
from durable_nb.errors import DurableError
from durable_nb.workflow import Workflow

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "BackoffStrategy",
    "DurableError",
    "Workflow",
    "__version__",
    "constant",
    "exponential",
    "linear",
    "load_ipython_extension",
]

__version__ = "0.1.0"


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the magics: what ``%load_ext durable_nb`` calls."""
    from durable_nb.notebook import magics

    magics.load(ipython)
