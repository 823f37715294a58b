"""Conformance tests of signals and blobs."""

from __future__ import annotations

import asyncio

import pytest

from durable_nb.errors import RunHeld, StepNotRestored
from durable_nb.records import Payload, Signal, SignalRequest, StepKind, StepStatus
from durable_nb.stores.base import Journal
from durable_nb.stores.testing.samples import BLOB, JSON, PICKLE, opened, sample_step

__all__ = ["SignalContract"]


class SignalContract:
    """Tests of signals, of requests for them, and of blobs."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [JSON, PICKLE, BLOB, Payload("raw", b"")])
    async def test_the_first_delivery_wins(self, journal: Journal, payload: Payload) -> None:
        """The run need not exist; later deliveries change nothing."""
        first = Signal("r/1", "go", payload, "ann", 1.5)
        assert await journal.put_signal(first) is True
        assert await journal.put_signal(Signal("r/1", "go", JSON, "bob", 2.5)) is False
        assert await journal.get_signal("r/1", "go") == first

    async def test_signals_have_a_run_and_a_name(self, journal: Journal) -> None:
        """A signal of another run is another signal, even with an equal name."""
        signals = [
            Signal(run, name, Payload("raw", f"{run}{name}".encode())) for run in "ab" for name in "xy"
        ]
        assert [await journal.put_signal(signal) for signal in signals] == [True] * 4
        for signal in signals:
            assert await journal.get_signal(signal.run_id, signal.name) == signal

    async def test_of_many_deliveries_at_once_one_wins(self, journal: Journal) -> None:
        """Exactly one call returns True, and its value is kept."""
        signals = [Signal("r/1", "go", Payload("raw", str(number).encode())) for number in range(50)]
        won = await asyncio.gather(*map(journal.put_signal, signals))
        assert won.count(True) == 1
        assert await journal.get_signal("r/1", "go") == signals[won.index(True)]

    async def test_a_signal_survives_the_opening_of_its_run(self, journal: Journal) -> None:
        """A run receives a value that was delivered before it was opened."""
        signal = Signal("r/1", "go", JSON)
        await journal.put_signal(signal)
        await opened(journal)
        await opened(journal)
        assert await journal.get_signal("r/1", "go") == signal

    async def test_blobs_come_back(self, journal: Journal) -> None:
        """Bytes are found by their digest, whether written in one buffer or several; others are missing."""
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

    async def test_a_request_is_open_until_something_is_delivered(self, journal: Journal) -> None:
        """The oldest comes first; any delivery closes a request."""
        later, first = SignalRequest("r/1", "b", asked_at=2.0), SignalRequest("r/2", "a", asked_at=1.0)
        for request in later, first:
            assert await journal.request_signal(request) == request
        assert await self._open(journal) == [first, later]
        await journal.put_signal(Signal("r/2", "a", JSON))
        assert await self._open(journal) == [later]
        assert await journal.get_request("r/2", "a") == first
        assert await journal.get_request("r/2", "b") is None

    async def test_asking_again_is_no_later_question(self, journal: Journal) -> None:
        """The request is replaced, except for its ``asked_at``."""
        await journal.request_signal(SignalRequest("r/1", "go", prompt="now?", asked_by="ann", asked_at=1.0))
        again = SignalRequest("r/1", "go", "then?", '{"type": "boolean"}', "[true]", "no", "bob", 2.0)
        assert await journal.request_signal(again) == again._replace(asked_at=1.0)
        assert await journal.get_request("r/1", "go") == again._replace(asked_at=1.0)

    async def test_a_request_is_recorded_with_the_step_that_waits(self, journal: Journal) -> None:
        """Both are recorded; under the epoch of another opening, neither is."""
        run = await opened(journal)
        step = sample_step(run, "signal:go", status=StepStatus.STARTED, kind=StepKind.SIGNAL, payload=None)
        first = SignalRequest("r/1", "go", "Ship?", asked_at=1.0)
        for asked_at in (1.0, 2.0):
            assert await journal.request_signal(first._replace(asked_at=asked_at), step) == first
        old = step._replace(epoch=run.epoch - 1, attempt=2)
        with pytest.raises(RunHeld):
            await journal.request_signal(first._replace(prompt="Too late?"), old)
        assert await journal.get_request("r/1", "go") == first
        assert await journal.get_step("r/1", "signal:go") == step

    async def test_a_withdrawn_request_is_gone(self, journal: Journal) -> None:
        """Withdrawing it again is harmless."""
        await journal.request_signal(SignalRequest("r/1", "go", asked_at=1.0))
        for _ in range(2):
            await journal.withdraw_signal("r/1", "go")
            assert await journal.get_request("r/1", "go") is None
            assert await self._open(journal) == []

    async def test_a_signal_that_is_set_aside_leaves_its_name_free(self, journal: Journal) -> None:
        """It is kept under the other name; a later delivery is not renamed in its place."""
        bad, good = Signal("r/1", "go", JSON, "ann", 1.5), Signal("r/1", "go", JSON, "bob", 2.5)
        await journal.put_signal(bad)
        for _ in range(2):
            await journal.set_aside_signal(bad, "go~1")
        assert await journal.get_signal("r/1", "go~1") == bad._replace(name="go~1")
        assert await journal.put_signal(good) is True
        await journal.set_aside_signal(bad, "go~2")
        assert await journal.get_signal("r/1", "go") == good

    async def test_what_was_delivered_is_found(self, journal: Journal) -> None:
        """Of many wanted signals, those that were delivered are returned, even with odd names."""
        there = [Signal('r"1', "o'k", JSON, "ann", 1.5), Signal("r/2", "go", JSON, "ann", 1.5)]
        for signal in there:
            await journal.put_signal(signal)
        wanted = [('r"1', "o'k"), ("r/1", "go"), ("r/2", "go"), ("r/2", "ö")]
        assert sorted(await journal.find_signals(wanted), key=lambda found: found.run_id) == there
        assert list(await journal.find_signals([])) == []

    async def test_the_version_differs_after_a_delivery(self, journal: Journal) -> None:
        """It stays equal while nothing happens; a store that cannot tell returns None."""
        before = await journal.version()
        assert await journal.version() == before
        await journal.put_signal(Signal("r/1", "go", JSON))
        assert before is None or await journal.version() != before

    async def test_requests_go_with_their_run_when_it_is_set_aside(self, journal: Journal) -> None:
        """A renamed run keeps its requests, and its former id has none."""
        await opened(journal)
        await journal.request_signal(SignalRequest("r/1", "go", asked_at=1.0))
        await journal.rename_run("r/1", "r/1~old")
        assert await self._open(journal) == [SignalRequest("r/1~old", "go", asked_at=1.0)]

    @staticmethod
    async def _open(journal: Journal) -> list[SignalRequest]:
        return list(await journal.open_signals())
