"""The conformance suite of journals, for people who write their own: it is what our own have to pass.

Needs pytest and pytest-asyncio.

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
from durable_nb.stores.testing.runs import RunContract
from durable_nb.stores.testing.samples import sample_step
from durable_nb.stores.testing.signals import SignalContract
from durable_nb.stores.testing.steps import StepContract

__all__ = ["JournalContract", "LeaseContract", "RunContract", "SignalContract", "StepContract", "sample_step"]


class JournalContract(RunContract, StepContract, SignalContract):
    """All of it. Subclass it, and define the fixture ``journal``: one that is set up, and empty.

    Where the data outlives the object, define ``reopen`` too: it gives a coroutine function without arguments
    that opens the same place anew. Where ``has_leases``, take ``LeaseContract`` as a base too, and define
    ``rival``: it gives a coroutine function that opens a run of that id in another process, which lives until
    the end of the test.

    Example:
        >>> class TestMyJournal(JournalContract):
        ...     @pytest_asyncio.fixture
        ...     async def journal(self): ...
    """
