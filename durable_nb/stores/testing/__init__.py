"""The conformance suite for subclasses of ``Journal``, which the journals of this package pass too.

Requires pytest and pytest-asyncio.

Example:
    >>> class TestMyJournal(JournalContract):
    ...     @pytest_asyncio.fixture
    ...     async def journal(self):
    ...         journal = MyJournal()
    ...         await journal.setup()
    ...         yield journal
    ...         await journal.close()
"""

from __future__ import annotations

from durable_nb.stores.testing.leases import LeaseContract
from durable_nb.stores.testing.messages import MessageContract
from durable_nb.stores.testing.runs import RunContract
from durable_nb.stores.testing.samples import sample_step
from durable_nb.stores.testing.signals import SignalContract
from durable_nb.stores.testing.steps import StepContract

__all__ = [
    "JournalContract",
    "LeaseContract",
    "MessageContract",
    "RunContract",
    "SignalContract",
    "StepContract",
    "sample_step",
]


class JournalContract(RunContract, StepContract, SignalContract, MessageContract):
    """The whole suite. Subclass it, and define the fixture ``journal``: an empty journal after ``setup``.

    If the data outlives the object, define the fixture ``reopen`` too: a coroutine function without arguments
    that opens the same database again. If ``has_leases``, add ``LeaseContract`` as a base, and define the
    fixture ``rival``: a coroutine function that takes a run id and opens that run in another process, which
    lives until the end of the test.

    Example:
        >>> class TestMyJournal(JournalContract):
        ...     @pytest_asyncio.fixture
        ...     async def journal(self): ...
    """
