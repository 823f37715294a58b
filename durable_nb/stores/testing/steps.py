"""Conformance tests of steps."""

from __future__ import annotations

import asyncio

import pytest

from durable_nb.errors import RunHeld
from durable_nb.records import Payload, Run, Signal, Step, StepKind, StepStatus
from durable_nb.stores.base import Journal
from durable_nb.stores.rows import STATUSES
from durable_nb.stores.testing.samples import BLOB, JSON, ODD, PICKLE, opened, read_steps, sample_step

__all__ = ["StepContract"]


class StepContract:
    """Tests of recording, reading and resetting steps."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [None, JSON, PICKLE, BLOB, Payload("raw", b"")])
    async def test_every_field_comes_back(self, journal: Journal, payload: Payload | None) -> None:
        """A step is read as it was written."""
        run = await opened(journal)
        step = Step(
            "r/1",
            "load/fetch#1",
            StepKind.SIGNAL,
            StepStatus.FAILED,
            attempt=4,
            epoch=run.epoch,
            called_seq=11,
            recorded_seq=12,
            code="c2",
            arguments="a=1",
            arguments_repr="{}",
            lineage="[]",
            once=True,
            payload=payload,
            started_at=1.5,
            finished_at=2.75,
            delivered_by="ann",
            usage='{"requests": 1}',
        )
        await journal.put_step(step)
        assert await journal.get_step("r/1", "load/fetch#1") == step
        assert await read_steps(journal) == {"load/fetch#1": step}

    async def test_a_step_of_nothing_but_its_names(self, journal: Journal) -> None:
        """Fields that were never set come back as None; every kind and status comes back unchanged."""
        run = await opened(journal)
        wanted = {}
        for kind in StepKind:
            for status in STATUSES.values():
                step = Step("r/1", f"{kind}-{status}", kind, status, epoch=run.epoch)
                wanted[step.step_id] = step
                await journal.put_step(step)
        assert await read_steps(journal) == wanted

    async def test_the_last_record_of_a_step_stands(self, journal: Journal) -> None:
        """A step is replaced as a whole; repeating a write changes nothing."""
        run = await opened(journal)
        await journal.put_step(
            sample_step(run, code="x", lineage="y", delivered_by="z", once=True, finished_at=1.0)
        )
        last = sample_step(run, status=StepStatus.STARTED, payload=None, attempt=2)
        await journal.put_step(last)
        await journal.put_step(last)
        assert await read_steps(journal) == {"load": last}

    async def test_an_earlier_result_stays_while_the_step_runs_again(self, journal: Journal) -> None:
        """It is among the ``versions``, also when the new attempt has ended, until these are dropped."""
        run = await opened(journal)
        first = sample_step(run, code="before", finished_at=1.0)
        started = sample_step(run, code="after", status=StepStatus.STARTED, payload=None, attempt=2)
        for step in (first, started, started):
            await journal.put_step(step)
        if not await journal.versions("r/1", "load"):
            pytest.skip("this store keeps no earlier results")
        assert await read_steps(journal) == {"load": started}
        assert [*await journal.versions("r/1", "load")] == [first]
        await journal.put_step(started._replace(status=StepStatus.DONE, payload=PICKLE))
        assert [*await journal.versions("r/1", "load")] == [first]
        await journal.rename_run("r/1", "r/1~old")
        assert [*await journal.versions("r/1~old", "load")] == [first._replace(run_id="r/1~old")]
        assert await journal.drop_versions("r/1~old") == 1
        assert [*await journal.versions("r/1~old", "load")] == []

    async def test_the_results_of_several_attempts_are_kept(self, journal: Journal) -> None:
        """A later attempt that is recorded at once keeps the result before it too; a reset one is kept."""
        run = await opened(journal)
        attempts = [sample_step(run, attempt=attempt, finished_at=1.0) for attempt in (1, 2, 3)]
        for step in attempts:
            await journal.put_step(step)
            await journal.reset_steps(run, ["load"])
        if not await journal.versions("r/1", "load"):
            pytest.skip("this store keeps no earlier results")
        reset = [step._replace(status=StepStatus.RESET) for step in attempts]
        assert [*await journal.versions("r/1", "load")] == reset[:2]
        assert await read_steps(journal) == {"load": reset[2]}

    async def test_an_old_owner_cannot_write(self, journal: Journal) -> None:
        """``RunHeld`` names the new owner; neither a new step nor an old one is changed."""
        old = await opened(journal)
        kept = sample_step(old, "kept")
        await journal.put_step(kept)
        new = await opened(journal, owner="the other kernel")
        for step_id in ("kept", "fresh"):
            with pytest.raises(RunHeld, match="the other kernel") as caught:
                await journal.put_step(sample_step(old, step_id, payload=None))
            assert (caught.value.run_id, caught.value.step) == ("r/1", step_id)
        assert await read_steps(journal) == {"kept": kept}
        await journal.put_step(sample_step(new, "fresh"))
        assert set(await read_steps(journal)) == {"kept", "fresh"}

    async def test_an_epoch_from_the_future_is_no_better(self, journal: Journal) -> None:
        """Only the run's own epoch may write."""
        run = await opened(journal)
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(run, epoch=run.epoch + 1))
        assert await read_steps(journal) == {}

    async def test_a_run_that_was_never_opened(self, journal: Journal) -> None:
        """It has no owner, so that all writes are refused."""
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(Run("none", "w", epoch=1)))
        assert await journal.read_run("none") is None

    async def test_resetting_steps(self, journal: Journal) -> None:
        """Existing steps are marked and counted; their other fields, and other steps, are unchanged."""
        run = await opened(journal)
        steps = {name: sample_step(run, name) for name in ("a", "b", "c")}
        for step in steps.values():
            await journal.put_step(step)
        assert await journal.reset_steps(run, ["a", "c", "a", "none"]) == 2
        assert await journal.reset_steps(run, ["a"]) == 1
        assert await journal.reset_steps(run, []) == 0
        with pytest.raises(RunHeld):
            await journal.reset_steps(run._replace(epoch=run.epoch + 1), ["a"])
        with pytest.raises(RunHeld):
            await journal.reset_steps(run._replace(run_id="none"), ["a"])
        reset = {name: steps[name]._replace(status=StepStatus.RESET) for name in ("a", "c")}
        assert await read_steps(journal) == steps | reset

    async def test_many_steps_at_once(self, journal: Journal) -> None:
        """A gather of 1,500 writes loses none; all can be reset together."""
        run = await opened(journal)
        steps = [sample_step(run, f"s#{number}", recorded_seq=number) for number in range(1500)]
        await asyncio.gather(*map(journal.put_step, steps))
        snapshot = await journal.read_run("r/1")
        assert snapshot is not None
        assert list(snapshot.steps) == steps
        assert await journal.reset_steps(run, [step.step_id for step in steps]) == 1500

    async def test_one_refused_write_leaves_its_neighbours_alone(self, journal: Journal) -> None:
        """Of writes that are committed together only the fenced one fails."""
        old = await opened(journal)
        run = await opened(journal)
        writes = [sample_step(old if number == 5 else run, f"s#{number}") for number in range(10)]
        outcomes = await asyncio.gather(*map(journal.put_step, writes), return_exceptions=True)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [5]
        assert isinstance(outcomes[5], RunHeld)
        assert set(await read_steps(journal)) == {f"s#{number}" for number in range(10) if number != 5}

    async def test_a_cancelled_caller_cancels_no_other(self, journal: Journal) -> None:
        """Other callers that wait for the commit are not cancelled."""
        run = await opened(journal)
        names = [f"s#{number}" for number in range(20)]
        tasks = [asyncio.ensure_future(journal.put_step(sample_step(run, name))) for name in names]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.done() and not task.cancelled() for task in tasks[1::2])
        assert set(await read_steps(journal)) >= set(names[1::2])

    @pytest.mark.parametrize("name", ODD)
    async def test_any_text_is_an_id(self, journal: Journal, name: str) -> None:
        """Ids with quotes, control characters and other scripts stay distinct and come back unchanged."""
        run = await opened(journal, f"r{name}")
        await opened(journal, f"r{name}x")
        await journal.put_step(sample_step(run, name, arguments_repr=name))
        signal = Signal(run.run_id, name, JSON)
        assert await journal.put_signal(signal)
        assert await read_steps(journal, run.run_id) == {name: sample_step(run, name, arguments_repr=name)}
        assert await read_steps(journal, f"r{name}x") == {}
        assert await journal.get_signal(run.run_id, name) == signal
        assert await journal.reset_steps(run, [name]) == 1
