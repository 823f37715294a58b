"""Durable agents: each model request and each tool call of a pydantic-ai agent is a step of a run.

``DurableAgent(agent, wf)`` wraps an agent, so that its runs are runs of the workflow ``wf``, or part of the
run that calls it. ``Agent(…, capabilities=[NotebookDurability()])`` makes an agent durable inside any run.
"""

from __future__ import annotations

try:
    import pydantic_ai.durable_exec  # noqa: F401
except ImportError as error:
    raise ImportError(
        "durable agents need pydantic-ai 2.61 or newer: pip install 'durable_nb[pydantic-ai]'"
    ) from error

from durable_nb import _stored
from durable_nb.pydantic_ai.agent import DurableAgent
from durable_nb.pydantic_ai.capability import NotebookDurability
from durable_nb.pydantic_ai.config import TaskConfig
from durable_nb.pydantic_ai.tools import durable_pipeline, durable_tool

__all__ = [
    "DurableAgent",
    "NotebookDurability",
    "TaskConfig",
    "durable_pipeline",
    "durable_tool",
]

_stored.publish(__name__, {name: globals()[name] for name in __all__})
