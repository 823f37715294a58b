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

from typing import TYPE_CHECKING, Any

from durable_nb import _stored
from durable_nb.engine.status import Status, Used
from durable_nb.errors import DurableError
from durable_nb.stores import RunStatus, Store
from durable_nb.workflow.backoff import BackoffStrategy, constant, exponential, linear
from durable_nb.workflow.context import CurrentRun
from durable_nb.workflow.entrypoint import WorkflowFunction
from durable_nb.workflow.task import Task
from durable_nb.workflow.workflow import NOTEBOOK, Workflow

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from durable_nb.pydantic_ai import DurableAgent, TaskConfig, durable_pipeline, durable_tool
    from durable_nb.stores.values.stores import InMemoryStore, RedisStore, SQLiteStore
    from durable_nb.workflow.dask import DaskExecutor

__all__ = [
    "BackoffStrategy",
    "CurrentRun",
    "DaskExecutor",
    "DurableAgent",
    "DurableError",
    "InMemoryStore",
    "RedisStore",
    "RunContext",
    "RunStatus",
    "SQLiteStore",
    "Status",
    "Store",
    "Task",
    "TaskConfig",
    "Used",
    "Workflow",
    "WorkflowFunction",
    "__version__",
    "constant",
    "durable_pipeline",
    "durable_step",
    "durable_tool",
    "durable_workflow",
    "exponential",
    "linear",
    "load_ipython_extension",
]

__version__ = "0.1.0"

_stored.publish(__name__, {name: globals()[name] for name in __all__ if name in globals()})

RunContext = CurrentRun  # its name in python-durable

durable_step = NOTEBOOK.task
durable_workflow = NOTEBOOK.workflow


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the magics; ``%load_ext durable_nb`` calls this.

    Args:
        ipython: The shell.
    """
    from durable_nb.notebook import magics

    magics.load(ipython)


def __getattr__(name: str) -> Any:
    """Import names with heavy or optional dependencies on first access."""
    if name in ("InMemoryStore", "RedisStore", "SQLiteStore"):
        from durable_nb.stores.values import stores

        _stored.publish(__name__, {name: getattr(stores, name)})
        return getattr(stores, name)
    if name == "DaskExecutor":
        from durable_nb.workflow import dask

        _stored.publish(__name__, {name: dask.DaskExecutor})
        return dask.DaskExecutor
    if name in ("DurableAgent", "TaskConfig", "durable_pipeline", "durable_tool"):
        from durable_nb import pydantic_ai

        return getattr(pydantic_ai, name)
    raise AttributeError(f"module 'durable_nb' has no attribute {name!r}")
