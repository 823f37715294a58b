"""A user's Store, with the ancestor's seven calls only, works as ``db=``."""

import asyncio
import datetime
import warnings
from decimal import Decimal

import pytest

from durable_nb import Store, Workflow, constant
from durable_nb.errors import DurableNotice, InvalidOption, StepChanged, StoreError
from durable_nb.stores import open_journal
from helpers.json_store import JsonFileStore


class BrokenStore(JsonFileStore):
    """A store that breaks when a certain step is kept."""

    broken = "work#1"

    async def set_step(self, run_id, step_id, result, attempt=1):
        if step_id == self.broken:
            raise ConnectionError("the server\nis away")
        await super().set_step(run_id, step_id, result, attempt)


@pytest.fixture
def again(again, tmp_path):
    """A workflow over a new object for the same file: all that a restart leaves."""
    return lambda kind=JsonFileStore: again(db=kind(tmp_path / "store.json"))


pytestmark = pytest.mark.filterwarnings("ignore:JsonFileStore has only", "ignore:BrokenStore has only")


async def test_one_warning_names_what_it_cannot_give(again):
    class Mine(JsonFileStore):
        """A class that nobody was told about yet."""

    wf = again(Mine)

    @wf.workflow
    async def main():
        return 1

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        await asyncio.gather(*(main.run(f"r{n}") for n in range(3)))
        await wf.complete("r", "approval")
        wf.close()
        other = Workflow("other", db=wf.db)
        await other.complete("r", "another")
    (notice,) = told
    assert notice.category is DurableNotice
    message = str(notice.message)
    assert message.startswith("Mine implements Store, not Journal: runs and open signals cannot be listed")
    assert "two processes may own one run" in message
    assert "fresh=True" in message


VALUE = {"tuple": (1, (2,)), 3: b"\x00\xff", "when": datetime.datetime(2026, 1, 2), "sum": Decimal("1.10")}  # noqa: DTZ001


async def test_results_and_signals_come_back_exactly_after_a_restart(again):
    ran = []

    def define(wf):
        @wf.task
        async def give(n):
            ran.append(n)
            return {**VALUE, "n": (n,)}

        @wf.workflow
        async def main():
            results = await asyncio.gather(*(give(n) for n in range(5)))
            return results, await wf.signal("approval", poll=0.001)

        return main

    wf = again()
    assert await wf.complete("r", "approval", False)
    assert not await wf.complete("r", "approval", True)
    expected = [{**VALUE, "n": (n,)} for n in range(5)], False
    assert await define(wf).run("r") == expected
    assert wf.db.marks == {"r": "done"}
    assert await define(again()).run("r") == expected
    assert sorted(ran) == [0, 1, 2, 3, 4]


async def test_a_run_that_stopped_half_way_goes_on_where_it_stopped(again):
    ran = []

    def define(wf, last):
        @wf.task
        async def work(n):
            ran.append(n)
            return n

        @wf.workflow
        async def main():
            results = [await work(n) for n in range(last)]
            if last < 4:
                raise InterruptedError("the kernel died")
            return results

        return main

    wf = again()
    with pytest.raises(InterruptedError):
        await define(wf, 2).run("r")
    assert wf.db.marks == {"r": "the kernel died"}
    assert await define(again(), 4).run("r") == [0, 1, 2, 3]
    assert ran == [0, 1, 2, 3]


async def test_a_failure_that_the_run_moved_past_is_replayed_after_a_restart(again):
    ran = []

    def define(wf, crash):
        @wf.task(retries=0)
        async def first():
            ran.append("first")
            raise KeyError("first")

        @wf.task
        async def second():
            ran.append("second")
            return 2

        @wf.workflow
        async def main():
            try:
                await first()
            except KeyError as error:
                caught = error.args
            result = await second()
            if crash:
                raise InterruptedError
            return caught, result

        return main

    with pytest.raises(InterruptedError):
        await define(again(), crash=True).run("r")
    assert await define(again(), crash=False).run("r") == (("first",), 2)
    assert ran == ["first", "second"]


async def test_arguments_are_checked_and_attempts_are_counted(again):
    def define(wf, n, works):
        @wf.task(retries=0)
        async def double(n):
            if not works:
                raise ValueError("not yet")
            return 2 * n

        @wf.workflow
        async def main():
            return await double(n)

        return main

    with pytest.raises(ValueError, match="not yet"):
        await define(again(), 3, works=False).run("r")
    wf = again()
    assert await define(wf, 3, works=True).run("r") == 6
    assert [attempt for step, attempt in wf.db.attempts if step == "double"] == [2]
    with pytest.raises(StepChanged, match="n: 3 → 4"):
        await define(again(), 4, works=True).run("r")


async def test_a_result_that_the_ancestor_left_counts(again):
    wf = again()
    await wf.db.setup()
    await wf.db.set_step("r", "fetch", {"from": "before"})
    await wf.db.set_signal("r", "approval", {"ok": True})

    @wf.task
    async def fetch():
        raise AssertionError("not to be run")

    @wf.workflow
    async def main():
        return await fetch(), await wf.signal("approval")

    assert await main.run("r") == ({"from": "before"}, {"ok": True})


async def test_a_large_value_is_kept_in_the_store_itself(again, tmp_path):
    ran = []

    def define(wf):
        @wf.task
        async def load():
            ran.append(1)
            return b"\xff" * 1_000_000

        @wf.workflow
        async def main():
            return await load()

        return main

    assert await define(again()).run("r") == await define(again()).run("r") == b"\xff" * 1_000_000
    assert ran == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


async def test_what_goes_wrong_in_the_store_is_one_line_and_never_runs_a_body_again(again):
    ran = []

    def define(wf):
        @wf.task(retries=3, backoff=constant(0))
        async def work(n):
            ran.append(n)
            return n

        @wf.task(retries=3, backoff=constant(0))
        async def outer():
            ran.append("outer")
            return [await work(n) for n in range(2)]

        @wf.workflow
        async def main():
            return [await work(0), await work(1), await outer()]

        return main

    with pytest.raises(StoreError) as caught:
        await define(again(BrokenStore)).run("r")
    message = str(caught.value)
    assert message.startswith(
        "run 'r', step 'work#1': BrokenStore raised ConnectionError: the server is away."
    )
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert ran == [0, 1]
    assert await define(again()).run("r") == [0, 1, [0, 1]]
    assert ran == [0, 1, 1, "outer", 0, 1]


async def test_what_it_cannot_do_is_said(again):
    wf = again()
    await wf.complete("r", "approval")
    from durable_nb.concurrency.bridge import ASYNC

    with pytest.raises(StoreError, match="JsonFileStore cannot list its runs"):
        await ASYNC.store(wf.journal.list_runs())
    with pytest.raises(StoreError, match="JsonFileStore cannot set a run aside"):
        await ASYNC.store(wf.journal.rename_run("r", "s"))


def test_one_journal_for_one_store_and_none_for_what_is_no_store(again):
    wf = again()
    assert open_journal(wf.db) is wf.journal is Workflow("other", db=wf.db).journal
    with pytest.raises(InvalidOption, match="expected a path, not dict"):
        open_journal({})


def test_a_subclass_that_lacks_a_call_cannot_be_made():
    class Half(Store):
        async def setup(self): ...

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_a_store_with_a_close_is_closed(again):
    closed = []

    class Closing(JsonFileStore):
        async def close(self):
            closed.append(1)

    wf = again(Closing)
    with pytest.warns(DurableNotice):
        wf.sync.complete("r", "approval")
    wf.close()
    assert closed == [1]
    assert not wf.sync.complete("r", "approval")  # a later call opens it again
