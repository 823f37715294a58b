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

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from durable_nb.errors import RunHeld, RunNotFound, StepNotRestored, StoreError, StoreUnavailable
from durable_nb.records import Payload, Run, RunStatus, Signal, Step, StepKind, StepStatus
from durable_nb.stores.base import Journal

__all__ = ["JournalContract", "RunContract", "SignalContract", "StepContract", "sample_step"]

_JSON = Payload("json", b'{"a": 1}')
_PICKLE = Payload("pickle", b"\x00\xff\n'\"\\", signature=b"\x00\x01")
_BLOB = Payload("npy", b"", blob="ab" * 32)

_RUN = Run(
    "r/1",
    "etl.main",
    RunStatus.WAITING,
    code="c1",
    arguments="n=1",
    shown='{"n": "1"}',
    python="3.11",
    parent="r/0",
    owner="process 1 on a",
    created_at=1.25,
    updated_at=2.5,
)

_ODD = ["", " ", "é☃😀", "a'b\"c", "50%_", "{x}}", "a\nb", "a\x00b", "a:b/c#1~0", "NULL", "x" * 2000]


def sample_step(run: Run, step_id: str = "load", **changes: object) -> Step:
    """A finished step of a run, under the run's epoch.

    Args:
        run: The run, as ``open_run`` gave it.
        step_id: What names the step.
        **changes: Fields of the step.
    """
    step = Step(run.run_id, step_id, StepKind.TASK, StepStatus.DONE, epoch=run.epoch, payload=_JSON)
    return replace(step, **changes)  # type: ignore[arg-type]


async def _opened(journal: Journal, run_id: str = "r/1", **changes: object) -> Run:
    opening = replace(_RUN, run_id=run_id, **changes)  # type: ignore[arg-type]
    return (await journal.open_run(opening)).run


async def _steps(journal: Journal, run_id: str = "r/1") -> dict[str, Step]:
    snapshot = await journal.read_run(run_id)
    return {} if snapshot is None else {step.step_id: step for step in snapshot.steps}


class RunContract:
    """What a journal does with runs."""

    pytestmark = pytest.mark.asyncio

    async def test_setup_again_is_harmless(self, journal: Journal) -> None:
        """What is recorded survives another ``setup``."""
        run = await _opened(journal)
        await journal.setup()
        assert await journal.get_run("r/1") == run

    async def test_after_close_everything_is_refused(self, journal: Journal) -> None:
        """``close`` is idempotent, and every call after it raises ``StoreUnavailable``."""
        run = await _opened(journal)
        await journal.close()
        await journal.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: journal.open_run(_RUN),
            lambda: journal.get_run("r/1"),
            lambda: journal.read_run("r/1"),
            lambda: journal.list_runs(),
            lambda: journal.rename_run("r/1", "r/2"),
            lambda: journal.put_step(sample_step(run)),
            lambda: journal.get_step("r/1", "load"),
            lambda: journal.finish_run(run),
            lambda: journal.reset_steps("r/1", ["load"]),
            lambda: journal.put_signal(Signal("r/1", "go", _JSON)),
            lambda: journal.get_signal("r/1", "go"),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                await call()

    async def test_a_new_run_keeps_every_field(self, journal: Journal) -> None:
        """All but ``epoch``, ``passes`` and ``result`` is as in the opening."""
        snapshot = await journal.open_run(replace(_RUN, result=_JSON, passes=7))
        assert snapshot.run == replace(_RUN, epoch=snapshot.run.epoch, passes=1)
        assert snapshot.run.epoch >= 1
        assert snapshot.steps == ()
        assert await journal.get_run("r/1") == snapshot.run
        assert await journal.read_run("r/1") == snapshot

    async def test_a_run_of_nothing_but_a_name(self, journal: Journal) -> None:
        """Fields that were never set come back as None."""
        run = (await journal.open_run(Run("bare", ""))).run
        assert run == Run("bare", "", epoch=run.epoch, passes=1)

    async def test_taking_a_run_over(self, journal: Journal) -> None:
        """Another opening takes the next epoch and pass, and changes what the contract names, no more."""
        first = await _opened(journal)
        await journal.finish_run(replace(first, status=RunStatus.DONE, result=_PICKLE, updated_at=3.0))
        other = Run("r/1", "other", owner="b", python="3.12", code="x", created_at=9.0, updated_at=10.0)
        again = (await journal.open_run(other)).run
        assert again == replace(
            first,
            status=RunStatus.RUNNING,
            owner="b",
            python="3.12",
            updated_at=10.0,
            epoch=first.epoch + 1,
            passes=2,
        )
        assert await journal.get_run("r/1") == again

    async def test_taking_a_run_over_gives_its_steps(self, journal: Journal) -> None:
        """They come in the order in which they were recorded, and none of another run's."""
        run, other = await _opened(journal), await _opened(journal, "r/2")
        await journal.put_step(sample_step(other, "theirs"))
        for number, step_id in [(3, "a"), (1, "c"), (2, "b")]:
            await journal.put_step(sample_step(run, step_id, recorded=number))
        again = await journal.open_run(_RUN)
        assert [step.step_id for step in again.steps] == ["c", "b", "a"]
        assert await journal.read_run("r/1") == again

    async def test_what_is_not_there(self, journal: Journal) -> None:
        """Unknown ids give None."""
        assert await journal.get_run("none") is None
        assert await journal.read_run("none") is None
        assert await journal.get_step("none", "load") is None
        assert await journal.get_signal("none", "go") is None
        assert list(await journal.list_runs()) == []

    @pytest.mark.parametrize("payload", [None, _JSON, _PICKLE, _BLOB, Payload("raw", b"")])
    async def test_finishing_a_run(self, journal: Journal, payload: Payload | None) -> None:
        """Status, result and time are recorded, and nothing else."""
        run = await _opened(journal)
        end = replace(run, status=RunStatus.FAILED, result=payload, updated_at=99.5)
        await journal.finish_run(replace(end, workflow="x", owner="x", code="x", passes=50, created_at=0.0))
        assert await journal.get_run("r/1") == end

    async def test_an_old_owner_cannot_finish_a_run(self, journal: Journal) -> None:
        """``RunHeld`` names who has it now; the run is as the new owner left it."""
        old = await _opened(journal)
        new = await _opened(journal, owner="the other kernel")
        with pytest.raises(RunHeld, match="the other kernel"):
            await journal.finish_run(replace(old, status=RunStatus.DONE))
        assert await journal.get_run("r/1") == new

    async def test_runs_are_listed_latest_first(self, journal: Journal) -> None:
        """By ``updated_at``."""
        runs = [
            await _opened(journal, name, updated_at=at) for name, at in [("b", 2.0), ("c", 3.0), ("a", 1.0)]
        ]
        assert list(await journal.list_runs()) == [runs[1], runs[0], runs[2]]
        await journal.finish_run(replace(runs[2], updated_at=4.0))
        assert [run.run_id for run in await journal.list_runs()] == ["a", "c", "b"]

    async def test_renaming_a_run(self, journal: Journal) -> None:
        """Run, steps and signals move; nothing is left under the old id."""
        run, step, signal = await self._written(journal)
        await journal.rename_run("r/1", "r/1~old")
        assert await journal.read_run("r/1") is None
        assert await journal.get_signal("r/1", "go") is None
        moved = await journal.read_run("r/1~old")
        assert moved is not None
        assert moved.run == replace(run, run_id="r/1~old")
        assert moved.steps == (replace(step, run_id="r/1~old"),)
        assert await journal.get_signal("r/1~old", "go") == replace(signal, run_id="r/1~old")

    async def test_a_renamed_run_stays_fenced_off_from_its_successor(self, journal: Journal) -> None:
        """Who owned the old one cannot write to the one that starts over under its id, nor to the old one."""
        old = await _opened(journal)
        await journal.rename_run("r/1", "r/1~old")
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(old))
        new = await _opened(journal)
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(old))
        assert new.passes == 1
        assert await _steps(journal) == await _steps(journal, "r/1~old") == {}

    async def test_renaming_what_is_not_there(self, journal: Journal) -> None:
        """``RunNotFound``, and a signal that waits for such a run stays where it is."""
        await journal.put_signal(Signal("none", "go", _JSON))
        with pytest.raises(RunNotFound):
            await journal.rename_run("none", "other")
        assert await journal.get_signal("none", "go") is not None
        assert await journal.get_signal("other", "go") is None

    async def test_renaming_to_an_id_that_is_taken(self, journal: Journal) -> None:
        """``StoreError``, and both runs are as they were."""
        run, step, signal = await self._written(journal)
        other = await _opened(journal, "r/2")
        await journal.put_signal(Signal("r/3", "go", _PICKLE))
        for taken in ("r/2", "r/3", "r/1"):
            with pytest.raises(StoreError, match=taken):
                await journal.rename_run("r/1", taken)
        assert await journal.get_run("r/1") == run
        assert await journal.get_run("r/2") == other
        assert await _steps(journal) == {"load": step}
        assert await journal.get_signal("r/1", "go") == signal

    async def test_recorded_is_recorded(self, journal: Journal, reopen: Reopen) -> None:
        """What was acknowledged is there when the store is opened anew."""
        if reopen is None:
            pytest.skip("this journal keeps nothing beyond itself")
        run, step, signal = await self._written(journal)
        await journal.close()
        again = await reopen()
        assert await again.get_run("r/1") == run
        assert await _steps(again) == {"load": step}
        assert await again.get_signal("r/1", "go") == signal
        await again.close()

    @pytest.fixture
    def reopen(self) -> Reopen:
        """A coroutine function that opens the same place anew; None where nothing outlives the object."""
        return None

    async def _written(self, journal: Journal) -> tuple[Run, Step, Signal]:
        run = await _opened(journal)
        step, signal = sample_step(run), Signal("r/1", "go", _JSON, "ann", 5.0)
        await journal.put_step(step)
        await journal.put_signal(signal)
        return run, step, signal


class StepContract:
    """What a journal does with steps."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [None, _JSON, _PICKLE, _BLOB, Payload("raw", b"")])
    async def test_every_field_comes_back(self, journal: Journal, payload: Payload | None) -> None:
        """A step is read as it was written."""
        run = await _opened(journal)
        step = Step(
            "r/1",
            "load/fetch#1",
            StepKind.SIGNAL,
            StepStatus.FAILED,
            attempt=4,
            epoch=run.epoch,
            began=11,
            recorded=12,
            code="c2",
            arguments="a=1",
            shown="{}",
            reads="[]",
            once=True,
            payload=payload,
            started_at=1.5,
            finished_at=2.75,
            delivered_by="ann",
        )
        await journal.put_step(step)
        assert await journal.get_step("r/1", "load/fetch#1") == step
        assert await _steps(journal) == {"load/fetch#1": step}

    async def test_a_step_of_nothing_but_its_names(self, journal: Journal) -> None:
        """Fields that were never set come back as None, and every kind and status as itself."""
        run = await _opened(journal)
        wanted = {}
        for kind in StepKind:
            for status in StepStatus:
                step = Step("r/1", f"{kind}-{status}", kind, status, epoch=run.epoch)
                wanted[step.step_id] = step
                await journal.put_step(step)
        assert await _steps(journal) == wanted

    async def test_the_last_record_of_a_step_stands(self, journal: Journal) -> None:
        """A step is written over as a whole; the same write again changes nothing."""
        run = await _opened(journal)
        await journal.put_step(
            sample_step(run, code="x", reads="y", delivered_by="z", once=True, finished_at=1.0)
        )
        last = sample_step(run, status=StepStatus.STARTED, payload=None, attempt=2)
        await journal.put_step(last)
        await journal.put_step(last)
        assert await _steps(journal) == {"load": last}

    async def test_an_old_owner_cannot_write(self, journal: Journal) -> None:
        """``RunHeld`` names who has the run now; neither a new step nor an old one is touched."""
        old = await _opened(journal)
        kept = sample_step(old, "kept")
        await journal.put_step(kept)
        new = await _opened(journal, owner="the other kernel")
        for step_id in ("kept", "fresh"):
            with pytest.raises(RunHeld, match="the other kernel") as caught:
                await journal.put_step(sample_step(old, step_id, payload=None))
            assert (caught.value.run_id, caught.value.step) == ("r/1", step_id)
        assert await _steps(journal) == {"kept": kept}
        await journal.put_step(sample_step(new, "fresh"))
        assert set(await _steps(journal)) == {"kept", "fresh"}

    async def test_an_epoch_from_the_future_is_no_better(self, journal: Journal) -> None:
        """Only the run's own epoch may write."""
        run = await _opened(journal)
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(run, epoch=run.epoch + 1))
        assert await _steps(journal) == {}

    async def test_a_run_that_was_never_opened(self, journal: Journal) -> None:
        """It has no owner, so nobody may write to it."""
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(Run("none", "w", epoch=1)))
        assert await journal.read_run("none") is None

    async def test_resetting_steps(self, journal: Journal) -> None:
        """Those that are there are marked and counted; all else of them stays, and so do the others."""
        run = await _opened(journal)
        steps = {name: sample_step(run, name) for name in ("a", "b", "c")}
        for step in steps.values():
            await journal.put_step(step)
        assert await journal.reset_steps("r/1", ["a", "c", "a", "none"]) == 2
        assert await journal.reset_steps("r/1", ["a"]) == 1
        assert await journal.reset_steps("r/1", []) == 0
        assert await journal.reset_steps("none", ["a"]) == 0
        reset = {name: replace(steps[name], status=StepStatus.RESET) for name in ("a", "c")}
        assert await _steps(journal) == steps | reset

    async def test_many_steps_at_once(self, journal: Journal) -> None:
        """A gather of 1,500 loses none; all can be reset together."""
        run = await _opened(journal)
        steps = [sample_step(run, f"s#{number}", recorded=number) for number in range(1500)]
        await asyncio.gather(*map(journal.put_step, steps))
        snapshot = await journal.read_run("r/1")
        assert snapshot is not None
        assert list(snapshot.steps) == steps
        assert await journal.reset_steps("r/1", [step.step_id for step in steps]) == 1500

    async def test_one_refused_write_leaves_its_neighbours_alone(self, journal: Journal) -> None:
        """Of writes that are made together only the fenced one fails."""
        old = await _opened(journal)
        run = await _opened(journal)
        writes = [sample_step(old if number == 5 else run, f"s#{number}") for number in range(10)]
        outcomes = await asyncio.gather(*map(journal.put_step, writes), return_exceptions=True)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [5]
        assert isinstance(outcomes[5], RunHeld)
        assert set(await _steps(journal)) == {f"s#{number}" for number in range(10) if number != 5}

    async def test_a_cancelled_caller_takes_nobody_along(self, journal: Journal) -> None:
        """Whoever else is waiting for the same commit gets it."""
        run = await _opened(journal)
        names = [f"s#{number}" for number in range(20)]
        tasks = [asyncio.ensure_future(journal.put_step(sample_step(run, name))) for name in names]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.done() and not task.cancelled() for task in tasks[1::2])
        assert set(await _steps(journal)) >= set(names[1::2])

    @pytest.mark.parametrize("name", _ODD)
    async def test_any_text_is_an_id(self, journal: Journal, name: str) -> None:
        """Quotes, control characters and other scripts stay apart from each other and come back."""
        run = await _opened(journal, f"r{name}")
        await _opened(journal, f"r{name}x")
        await journal.put_step(sample_step(run, name, shown=name))
        signal = Signal(run.run_id, name, _JSON)
        assert await journal.put_signal(signal)
        assert await _steps(journal, run.run_id) == {name: sample_step(run, name, shown=name)}
        assert await _steps(journal, f"r{name}x") == {}
        assert await journal.get_signal(run.run_id, name) == signal
        assert await journal.reset_steps(run.run_id, [name]) == 1


class SignalContract:
    """What a journal does with signals and blobs."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("payload", [_JSON, _PICKLE, _BLOB, Payload("raw", b"")])
    async def test_the_first_delivery_wins(self, journal: Journal, payload: Payload) -> None:
        """The run need not be there; later deliveries change nothing."""
        first = Signal("r/1", "go", payload, "ann", 1.5)
        assert await journal.put_signal(first) is True
        assert await journal.put_signal(Signal("r/1", "go", _JSON, "bob", 2.5)) is False
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
        signal = Signal("r/1", "go", _JSON)
        await journal.put_signal(signal)
        await _opened(journal)
        await _opened(journal)
        assert await journal.get_signal("r/1", "go") == signal

    async def test_blobs_come_back(self, journal: Journal) -> None:
        """Bytes are found under their digest, however they were handed over; others are said to be missing."""
        blobs = journal.blobs
        digest = blobs.put(b"large" * 1000)
        assert blobs.put([b"large", memoryview(b"large" * 999)]) == digest
        assert blobs.get(digest) == b"large" * 1000
        assert blobs.exists(digest)
        assert not blobs.exists("0" * 64)
        with pytest.raises(StepNotRestored):
            blobs.get("0" * 64)


class JournalContract(RunContract, StepContract, SignalContract):
    """All of it. Subclass it, and define the fixture ``journal``: one that is set up, and empty.

    Where the data outlives the object, define ``reopen`` too: it gives a coroutine function without arguments
    that opens the same place anew.

    Example:
        >>> class TestMyJournal(JournalContract):
        ...     @pytest_asyncio.fixture
        ...     async def journal(self): ...
    """


Reopen = Callable[[], Awaitable[Journal]] | None
"""What the fixture ``reopen`` gives."""
