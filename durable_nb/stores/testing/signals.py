"""The part of the conformance suite about signals and blobs."""

from __future__ import annotations

import asyncio

import pytest

from durable_nb.errors import StepNotRestored
from durable_nb.records import Payload, Signal
from durable_nb.stores.base import Journal
from durable_nb.stores.testing.samples import BLOB, JSON, PICKLE, opened

__all__ = ["SignalContract"]


class SignalContract:
    """What a journal does with signals and blobs."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [JSON, PICKLE, BLOB, Payload("raw", b"")])
    async def test_the_first_delivery_wins(self, journal: Journal, payload: Payload) -> None:
        """The run need not be there; later deliveries change nothing."""
        first = Signal("r/1", "go", payload, "ann", 1.5)
        assert await journal.put_signal(first) is True
        assert await journal.put_signal(Signal("r/1", "go", JSON, "bob", 2.5)) is False
        assert await journal.get_signal("r/1", "go") == first

    async def test_signals_have_a_run_and_a_name(self, journal: Journal) -> None:
        """The same name in another run is another signal."""
        signals = [
            Signal(run, name, Payload("raw", f"{run}{name}".encode())) for run in "ab" for name in "xy"
        ]
        assert [await journal.put_signal(signal) for signal in signals] == [True] * 4
        for signal in signals:
            assert await journal.get_signal(signal.run_id, signal.name) == signal

    async def test_of_many_deliveries_at_once_one_wins(self, journal: Journal) -> None:
        """Exactly one is told so, and its value is the one that is kept."""
        signals = [Signal("r/1", "go", Payload("raw", str(number).encode())) for number in range(50)]
        won = await asyncio.gather(*map(journal.put_signal, signals))
        assert won.count(True) == 1
        assert await journal.get_signal("r/1", "go") == signals[won.index(True)]

    async def test_a_signal_survives_the_opening_of_its_run(self, journal: Journal) -> None:
        """A value that was delivered early is there for the run."""
        signal = Signal("r/1", "go", JSON)
        await journal.put_signal(signal)
        await opened(journal)
        await opened(journal)
        assert await journal.get_signal("r/1", "go") == signal

    async def test_blobs_come_back(self, journal: Journal) -> None:
        """Bytes are found under their digest, however handed over; others are said to be missing."""
        blobs = journal.blobs
        if blobs is None:  # any size fits a row there
            return
        digest = blobs.put(b"large" * 1000)
        assert blobs.put([b"large", memoryview(b"large" * 999)]) == digest
        assert blobs.get(digest) == b"large" * 1000
        assert blobs.exists(digest)
        assert not blobs.exists("0" * 64)
        with pytest.raises(StepNotRestored):
            blobs.get("0" * 64)
