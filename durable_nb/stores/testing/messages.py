"""Conformance tests of messages, and of what is sent to runs that never begin."""

from __future__ import annotations

import asyncio
import time

import pytest

from durable_nb.errors import RunHeld, StoreError
from durable_nb.records import Message, Payload, Run, Signal, Step, StepKind, StepStatus
from durable_nb.stores.base import Journal
from durable_nb.stores.testing.samples import BLOB, JSON, PICKLE, opened, sample_step

__all__ = ["MessageContract"]

PATIENCE = 30.0


def sent(number: int = 1, payload: Payload = JSON, **changes: object) -> Message:
    """Return a message as the store returns the one of that number."""
    message = Message("r/1", "to~do: 1", payload, f"{number:x}", "ann", 1.5, number)
    return message._replace(**changes)  # type: ignore[arg-type]


class MessageContract:
    """Tests of messages and of lifetimes."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [JSON, PICKLE, BLOB, Payload("raw", b"")])
    async def test_messages_are_read_in_order(self, journal: Journal, payload: Payload) -> None:
        """The run need not exist; the store numbers the messages of a topic from 1."""
        messages = [sent(number, payload) for number in (1, 2, 3)]
        for message in messages:
            await journal.put_message(message._replace(number=0))
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == messages
        assert list(await journal.unread("r/1", "to~do: 1", 2)) == messages[:2]
        assert list(await journal.unread("r/1", "other", 9)) == []
        assert list(await journal.unread("r/2", "to~do: 1", 9)) == []

    async def test_a_delivery_is_made_once(self, journal: Journal) -> None:
        """Repeating it changes nothing, also after the message was received."""
        run = await opened(journal)
        for _ in range(2):
            await journal.put_message(sent())
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == [sent()]
        await journal.receive(sent(), self._receipt(run))
        await journal.put_message(sent())
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == []

    async def test_of_many_senders_none_is_lost(self, journal: Journal) -> None:
        """Concurrent messages get numbers of their own."""
        messages = [sent(number) for number in range(1, 51)]
        await asyncio.gather(*map(journal.put_message, messages))
        found = await journal.unread("r/1", "to~do: 1", 99)
        assert [message.number for message in found] == list(range(1, 51))
        assert {message.delivery for message in found} == {message.delivery for message in messages}

    async def test_a_receipt_is_recorded_with_its_step(self, journal: Journal) -> None:
        """The message is unread until then; under the epoch of another opening nothing changes."""
        run = await opened(journal)
        for number in (1, 2):
            await journal.put_message(sent(number))
        old = self._receipt(run)._replace(epoch=run.epoch - 1)
        with pytest.raises(RunHeld):
            await journal.receive(sent(), old)
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == [sent(1), sent(2)]
        for _ in range(2):
            await journal.receive(sent(2), self._receipt(run))
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == [sent(1)]
        assert await journal.get_step("r/1", "receive:to~do: 1") == self._receipt(run)

    async def test_messages_go_with_their_run(self, journal: Journal) -> None:
        """A renamed run keeps its messages, and its former id has none."""
        run = await opened(journal)
        for number in (1, 2):
            await journal.put_message(sent(number))
        await journal.receive(sent(1), self._receipt(run))
        await journal.rename_run("r/1", "r/1~old")
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == []
        found = await journal.unread("r/1~old", "to~do: 1", 9)
        assert list(found) == [sent(2, run_id="r/1~old")]
        await journal.put_message(sent(1))
        assert list(await journal.unread("r/1", "to~do: 1", 9)) == [sent(1)]

    async def test_messages_are_not_mixed_by_a_renaming(self, journal: Journal) -> None:
        """A run is not renamed to an id for which messages of the same topic wait; nothing is changed."""
        await opened(journal)
        for run_id in ("r/1", "r/1~old"):
            await journal.put_message(sent(run_id=run_id))
        with pytest.raises(StoreError):
            await journal.rename_run("r/1", "r/1~old")
        for run_id in ("r/1", "r/1~old"):
            assert list(await journal.unread(run_id, "to~do: 1", 9)) == [sent(run_id=run_id)]

    async def test_the_version_differs_after_a_message(self, journal: Journal) -> None:
        """It stays equal while nothing happens; a store that cannot tell returns None."""
        before = await journal.version()
        await journal.put_message(sent())
        assert before is None or await journal.version() != before

    async def test_a_run_that_waits_for_a_message_says_so(self, journal: Journal) -> None:
        """Its step is among those that the run waits for, until it has received one."""
        run = await opened(journal)
        step = self._receipt(run)
        await journal.put_step(step._replace(status=StepStatus.STARTED, payload=None))
        assert (await journal.progress())["r/1"].waits_for == (step.step_id,)
        await journal.put_message(sent())
        await journal.receive(sent(), step)
        assert (await journal.progress())["r/1"].waits_for == ()

    async def test_what_was_sent_to_a_run_that_never_begins_expires(self, journal: Journal) -> None:
        """The name of the signal is free then, and the message is gone."""
        await journal.put_message(sent(1), ttl=0.01)
        await journal.put_signal(Signal("r/1", "go", JSON, "ann", 1.5), ttl=0.01)
        second, end = Signal("r/1", "go", JSON, "bob", 2.5), time.monotonic() + PATIENCE
        while not await journal.put_signal(second):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        await journal.put_message(sent(2))
        assert [message.delivery for message in await journal.unread("r/1", "to~do: 1", 9)] == ["2"]
        assert await journal.get_signal("r/1", "go") == second

    async def test_a_run_does_not_begin_with_what_has_expired(self, journal: Journal) -> None:
        """A signal with a longer lifetime is there."""
        await journal.put_signal(Signal("r/1", "late", JSON), ttl=0.01)
        await journal.put_message(sent(1, run_id="r/2"), ttl=0.01)
        await asyncio.sleep(0.05)
        await journal.put_signal(Signal("r/3", "go", JSON), ttl=600)
        await opened(journal)
        assert await journal.get_signal("r/1", "late") is None
        await opened(journal, "r/2")
        assert list(await journal.unread("r/2", "to~do: 1", 9)) == []
        await opened(journal, "r/3")
        assert await journal.get_signal("r/3", "go") is not None

    async def test_nothing_that_a_run_has_begun_with_expires(self, journal: Journal) -> None:
        """A lifetime ends with the beginning of the run."""
        await opened(journal)
        await journal.put_signal(Signal("r/1", "go", JSON), ttl=0.01)
        await journal.put_message(sent(), ttl=0.01)
        await asyncio.sleep(0.05)
        await journal.put_message(sent(2))
        await opened(journal)
        assert await journal.get_signal("r/1", "go") is not None
        assert len(await journal.unread("r/1", "to~do: 1", 9)) == 2

    @staticmethod
    def _receipt(run: Run) -> Step:
        return sample_step(run, "receive:to~do: 1", kind=StepKind.MESSAGE)
