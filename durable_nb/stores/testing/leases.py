"""Conformance tests of the ownership of runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from durable_nb.errors import RunHeld
from durable_nb.records import RunStatus
from durable_nb.stores.base import Journal
from durable_nb.stores.testing.samples import RUN, opened, read_steps, sample_step

__all__ = ["LeaseContract", "Rival"]

Rival = Callable[[str], Awaitable[None]]
"""The type of the fixture ``rival``, which opens a run in another process that stays alive."""


class LeaseContract:
    """Tests of runs that other living processes own. Define the fixture ``rival``."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.WAITING])
    async def test_ones_own_run_is_opened_again(self, journal: Journal, status: RunStatus) -> None:
        """A process opens its own run again without a refusal, as another pass."""
        first = await opened(journal, status=status)
        assert (await opened(journal)).epoch == first.epoch + 1
        await journal.check_owner("r/1")
        assert await journal.abandoned() == frozenset()

    @pytest.mark.parametrize("take_over", [False, True])
    async def test_taking_over_what_nobody_owns(self, journal: Journal, take_over: bool) -> None:
        """A run that is new or has ended is opened with any ``take_over``."""
        first = (await journal.open_run(RUN, take_over=take_over)).run
        await journal.finish_run(first._replace(status=RunStatus.DONE))
        again = (await journal.open_run(RUN, take_over=take_over)).run
        assert (again.epoch, again.passes) == (first.epoch + 1, 2)

    async def test_a_living_owner_is_left_alone(self, journal: Journal, rival: Rival) -> None:
        """``RunHeld`` names the owner and has a remedy; nothing is changed."""
        await self._open_elsewhere(journal, rival)
        before = await journal.read_run("r/1")
        assert before is not None
        with pytest.raises(RunHeld, match="take it over: ") as caught:
            await journal.open_run(RUN)
        assert str(before.run.owner) in str(caught.value)
        assert caught.value.run_id == "r/1"
        with pytest.raises(RunHeld):
            await journal.check_owner("r/1")
        assert await journal.read_run("r/1") == before
        assert await journal.abandoned() == frozenset()

    async def test_a_living_owner_is_taken_over(self, journal: Journal, rival: Rival) -> None:
        """``take_over`` opens the run under the next epoch, and its owner may write."""
        await self._open_elsewhere(journal, rival)
        before = await journal.get_run("r/1")
        assert before is not None
        run = (await journal.open_run(RUN, take_over=True)).run
        assert run.epoch == before.epoch + 1
        with pytest.raises(RunHeld):
            await journal.put_step(sample_step(before))
        await journal.put_step(sample_step(run))
        assert await read_steps(journal) == {"load": sample_step(run)}

    async def test_an_owner_of_one_run_is_none_of_another(self, journal: Journal, rival: Rival) -> None:
        """Other runs of the store are not owned by it."""
        await self._open_elsewhere(journal, rival)
        await journal.check_owner("none")
        assert (await opened(journal, "r/2")).passes == 1

    async def _open_elsewhere(self, journal: Journal, rival: Rival) -> None:
        assert journal.has_leases
        await rival("r/1")
