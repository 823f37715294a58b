"""Conformance tests of runs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from durable_nb.errors import RunHeld, RunNotFound, StoreError, StoreUnavailable
from durable_nb.records import Payload, Progress, Run, RunStatus, Signal, Step, StepKind, StepStatus
from durable_nb.stores.base import Journal
from durable_nb.stores.testing.samples import BLOB, JSON, PICKLE, RUN, Reopen, opened, read_steps, sample_step

__all__ = ["RunContract"]


class RunContract:
    """Tests of opening, reading, listing, renaming and finishing runs."""

    pytestmark = pytest.mark.asyncio

    async def test_setup_again_is_harmless(self, journal: Journal) -> None:
        """Records survive another ``setup``."""
        run = await opened(journal)
        await journal.setup()
        assert await journal.get_run("r/1") == run

    async def test_after_close_everything_is_refused(self, journal: Journal) -> None:
        """``close`` is idempotent, and every call after it raises ``StoreUnavailable``."""
        run = await opened(journal)
        await journal.close()
        await journal.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: journal.open_run(RUN),
            lambda: journal.get_run("r/1"),
            lambda: journal.read_run("r/1"),
            lambda: journal.list_runs(),
            lambda: journal.progress(),
            lambda: journal.rename_run("r/1", "r/2"),
            lambda: journal.put_step(sample_step(run)),
            lambda: journal.get_step("r/1", "load"),
            lambda: journal.finish_run(run),
            lambda: journal.reset_steps(RUN, ["load"]),
            lambda: journal.put_signal(Signal("r/1", "go", JSON)),
            lambda: journal.get_signal("r/1", "go"),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                await call()

    async def test_a_new_run_keeps_every_field(self, journal: Journal) -> None:
        """All but ``epoch``, ``passes`` and ``result`` is as in the opening."""
        snapshot = await journal.open_run(RUN._replace(result=JSON, passes=7))
        assert snapshot.run == RUN._replace(epoch=snapshot.run.epoch, passes=1)
        assert snapshot.run.epoch >= 1
        assert snapshot.steps == ()
        assert await journal.get_run("r/1") == snapshot.run
        assert await journal.read_run("r/1") == snapshot

    async def test_a_run_of_nothing_but_a_name(self, journal: Journal) -> None:
        """Fields that were never set come back as None."""
        run = (await journal.open_run(Run("bare", ""))).run
        assert run == Run("bare", "", epoch=run.epoch, passes=1)

    async def test_taking_a_run_over(self, journal: Journal) -> None:
        """Another opening takes the next epoch and pass, and changes only the fields the contract names."""
        first = await opened(journal)
        first = first._replace(crashes=2)
        await journal.finish_run(first._replace(status=RunStatus.DONE, result=PICKLE, updated_at=3.0))
        other = Run("r/1", "other", owner="b", python="3.12", code="x", created_at=9.0, updated_at=10.0)
        again = (await journal.open_run(other)).run
        assert again == first._replace(
            status=RunStatus.RUNNING,
            owner="b",
            python="3.12",
            updated_at=10.0,
            epoch=first.epoch + 1,
            passes=2,
        )
        assert await journal.get_run("r/1") == again

    async def test_arguments_are_those_of_the_first_opening(self, journal: Journal) -> None:
        """A new run keeps them, however large they are; another opening and a new id change nothing there."""
        large = Payload("raw", b"\x00\xff" * 400_000)
        first = (await journal.open_run(RUN._replace(given=large))).run
        assert first.given == large
        assert (await journal.open_run(RUN._replace(given=JSON))).run.given == large
        await journal.rename_run("r/1", "r/1~old")
        moved = await journal.get_run("r/1~old")
        assert moved is not None
        assert moved.given == large
        assert list(await journal.list_runs()) == [moved]
        assert (await journal.open_run(RUN._replace(given=None))).run.given is None

    async def test_taking_a_run_over_gives_its_steps(self, journal: Journal) -> None:
        """They come in the order in which they were recorded, without those of other runs."""
        run, other = await opened(journal), await opened(journal, "r/2")
        await journal.put_step(sample_step(other, "theirs"))
        for number, step_id in [(3, "a"), (1, "c"), (2, "b")]:
            await journal.put_step(sample_step(run, step_id, recorded_seq=number))
        again = await journal.open_run(RUN)
        assert [step.step_id for step in again.steps] == ["c", "b", "a"]
        assert await journal.read_run("r/1") == again

    async def test_what_is_not_there(self, journal: Journal) -> None:
        """Unknown ids give None."""
        assert await journal.get_run("none") is None
        assert await journal.read_run("none") is None
        assert await journal.get_step("none", "load") is None
        assert await journal.get_signal("none", "go") is None
        assert list(await journal.list_runs()) == []

    @pytest.mark.parametrize("payload", [None, JSON, PICKLE, BLOB, Payload("raw", b"")])
    async def test_finishing_a_run(self, journal: Journal, payload: Payload | None) -> None:
        """Status, result and time are recorded, and nothing else."""
        run = await opened(journal)
        end = run._replace(status=RunStatus.FAILED, result=payload, updated_at=99.5, crashes=3)
        await journal.finish_run(
            end._replace(workflow="x", owner="x", code="x", passes=50, created_at=0.0, given=None)
        )
        assert await journal.get_run("r/1") == end

    async def test_an_old_owner_cannot_finish_a_run(self, journal: Journal) -> None:
        """``RunHeld`` names the new owner, whose run is not changed."""
        old = await opened(journal)
        new = await opened(journal, owner="the other kernel")
        with pytest.raises(RunHeld, match="the other kernel"):
            await journal.finish_run(old._replace(status=RunStatus.DONE))
        assert await journal.get_run("r/1") == new

    async def test_runs_are_listed_latest_first(self, journal: Journal) -> None:
        """They are sorted by ``updated_at``."""
        runs = [
            await opened(journal, name, updated_at=at) for name, at in [("b", 2.0), ("c", 3.0), ("a", 1.0)]
        ]
        assert list(await journal.list_runs()) == [runs[1], runs[0], runs[2]]
        await journal.finish_run(runs[2]._replace(updated_at=4.0))
        assert [run.run_id for run in await journal.list_runs()] == ["a", "c", "b"]

    async def test_renaming_a_run(self, journal: Journal) -> None:
        """Run, steps and signals move; nothing is left under the old id."""
        run, step, signal = await self._written(journal)
        await journal.rename_run("r/1", "r/1~old")
        assert await journal.read_run("r/1") is None
        assert await journal.get_signal("r/1", "go") is None
        moved = await journal.read_run("r/1~old")
        assert moved is not None
        assert moved.run == run._replace(run_id="r/1~old")
        assert moved.steps == (step._replace(run_id="r/1~old"),)
        assert await journal.get_signal("r/1~old", "go") == signal._replace(run_id="r/1~old")

    async def test_a_renamed_run_stays_fenced_off_from_its_successor(self, journal: Journal) -> None:
        """The owner of the renamed run can write neither to it nor to a new run of its former id."""
        old = await opened(journal)
        await journal.rename_run("r/1", "r/1~old")
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(old))
        new = await opened(journal)
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(old))
        assert new.passes == 1
        assert await read_steps(journal) == await read_steps(journal, "r/1~old") == {}

    async def test_how_far_each_run_has_come(self, journal: Journal) -> None:
        """Finished steps are counted; awaited signals, and sleeps that have not ended, are named."""
        assert await journal.progress() == {}
        first, second = await opened(journal, "r/1"), await opened(journal, "r/2")
        await opened(journal, "r/3")
        for name, status in (("a", StepStatus.DONE), ("b", StepStatus.FAILED), ("c", StepStatus.DONE)):
            await journal.put_step(sample_step(first, name, status=status))
        for name, status in (("y", StepStatus.STARTED), ("x", StepStatus.STARTED), ("z", StepStatus.DONE)):
            await journal.put_step(sample_step(second, name, status=status, kind=StepKind.SIGNAL))
        for name, ends in (("nap", time.time() + 600), ("night", time.time() - 600)):
            await journal.put_step(sample_step(first, name, kind=StepKind.SLEEP, finished_at=ends))
        progress = await journal.progress()
        assert progress.get("r/1") == Progress(4, ("nap",))
        assert progress.get("r/2") == Progress(1, ("x", "y"))
        assert progress.get("r/3", Progress()) == Progress()

    async def test_renaming_what_is_not_there(self, journal: Journal) -> None:
        """It raises ``RunNotFound``; a signal delivered for that run is not moved."""
        await journal.put_signal(Signal("none", "go", JSON))
        with pytest.raises(RunNotFound):
            await journal.rename_run("none", "other")
        assert await journal.get_signal("none", "go") is not None
        assert await journal.get_signal("other", "go") is None

    async def test_renaming_to_an_id_that_is_taken(self, journal: Journal) -> None:
        """It raises ``StoreError``; both runs are unchanged."""
        run, step, signal = await self._written(journal)
        other = await opened(journal, "r/2")
        await journal.put_signal(Signal("r/3", "go", PICKLE))
        for taken in ("r/2", "r/3", "r/1"):
            with pytest.raises(StoreError, match=taken):
                await journal.rename_run("r/1", taken)
        assert await journal.get_run("r/1") == run
        assert await journal.get_run("r/2") == other
        assert await read_steps(journal) == {"load": step}
        assert await journal.get_signal("r/1", "go") == signal

    async def test_recorded_is_recorded(self, journal: Journal, reopen: Reopen) -> None:
        """Acknowledged writes are present after the store was opened again."""
        if reopen is None:
            pytest.skip("this journal keeps nothing beyond itself")
        run, step, signal = await self._written(journal)
        await journal.close()
        again = await reopen()
        assert await again.get_run("r/1") == run
        assert await read_steps(again) == {"load": step}
        assert await again.get_signal("r/1", "go") == signal
        await again.close()

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Return a coroutine function that opens the database again; None if no data outlives the object."""
        return None

    async def _written(self, journal: Journal) -> tuple[Run, Step, Signal]:
        run = await opened(journal)
        step, signal = sample_step(run), Signal("r/1", "go", JSON, "ann", 5.0)
        await journal.put_step(step)
        await journal.put_signal(signal)
        return run, step, signal
