"""Durable agents: every model request and every tool call of a pydantic-ai agent is a step of a run.

``DurableAgent(agent, wf)`` is the short way; ``Agent(…, capabilities=[NotebookDurability()])`` makes an agent
durable wherever it is used inside a run.
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
