"""Stores of runs: the ``Journal`` contract, and opening a journal.

To write a store, subclass ``Journal``; ``durable_nb.stores.testing`` is the conformance suite for it.
"""

from durable_nb import _stored
from durable_nb.records import (
    Payload,
    Progress,
    Run,
    RunSnapshot,
    RunStatus,
    Signal,
    SignalRequest,
    Step,
    StepKind,
    StepStatus,
)
from durable_nb.stores.base import Journal
from durable_nb.stores.registry import StoreLike, hold, let_go, open_journal
from durable_nb.stores.values.base import Store

__all__ = [
    "Journal",
    "Payload",
    "Progress",
    "Run",
    "RunSnapshot",
    "RunStatus",
    "Signal",
    "SignalRequest",
    "Step",
    "StepKind",
    "StepStatus",
    "Store",
    "StoreLike",
    "hold",
    "let_go",
    "open_journal",
]

_stored.publish(__name__, {name: globals()[name] for name in __all__})
