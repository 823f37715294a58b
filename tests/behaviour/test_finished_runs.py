"""A run that is done gives its recorded result, and its code is not entered, unless something has changed."""

import asyncio
import sqlite3
import warnings
from datetime import UTC, datetime

import pytest

from durable_nb import InMemoryStore, Workflow
from durable_nb.errors import DurableNotice, RunChanged, RunHeld, StepChanged
from helpers.json_store import JsonFileStore


@pytest.fixture(params=["sqlite", "redis", "memory"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on every store."""
    if request.param == "memory":
        return InMemoryStore()
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url


@pytest.fixture
def entered():
    """The times at which a body was entered."""
    return []


def reading(wf, entered, path, **options):
    @wf.task(**options)
    def size_of(path):
        return len(path.read_text())

    @wf.workflow
    def main(path):
        entered.append("main")
        return size_of(path)

    return main


RESULTS = [None, 0, (1, {2: b"x"}), datetime(2026, 1, 1, tzinfo=UTC), list(range(200_000)), "ü" * 300_000]


@pytest.mark.parametrize("result", RESULTS, ids=lambda one: type(one).__name__)
def test_its_result_comes_back_as_it_was(again, entered, result):
    def define(wf):
        return wf.workflow(lambda: entered.append(1) or result, id="r")

    for _ in range(3):
        found = define(again()).run("r")
        assert (type(found), found) == (type(result), result)
    assert entered == [1]


async def test_callers_that_come_together_get_one_result(again, entered):
    def define(wf):
        @wf.workflow
        async def main():
            entered.append(1)
            return {"n": 1}

        return main

    first = await define(again()).run("r")
    main = define(again())
    one, other = await asyncio.gather(main.run("r"), main.run("r"))
    assert one is other
    assert one == first
    assert entered == [1]


def test_other_arguments_are_still_an_error(again):
    main = again().workflow(lambda n: n)
    main.run("r", 1)
    with pytest.raises(RunChanged, match=r"run 'r': the run was started with other arguments \(n: 1 → 2\)"):
        main.run("r", 2)


def test_an_edited_workflow_is_entered_and_says_so(again, entered):
    def define(wf, edited):
        charge = wf.task(lambda: entered.append("charge") or 1, name="charge")

        def main():
            return charge()

        def main_edited():
            return charge() + 1

        main_edited.__name__ = "main"
        return wf.workflow(main_edited if edited else main)

    assert define(again(), edited=False).run("r") == 1
    said = "its workflow was edited since; it is entered again, and its finished steps replay"
    with pytest.warns(DurableNotice, match=f"^run 'r': is done, but {said}$"):
        assert define(again(), edited=True).run("r") == 2
    assert entered == ["charge"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert define(again(), edited=False).run("r") == 2  # the result of the last pass


@pytest.mark.parametrize(("on_drift", "entries"), [("keep", 2), ("rerun", 2), ("error", 2)])
def test_a_file_that_has_changed_is_found_by_the_step_that_read_it(
    again, entered, tmp_path, on_drift, entries
):
    path = tmp_path / "data.csv"
    path.write_text("one")
    reading(again(), entered, path, on_drift=on_drift).run("r", path)
    reading(again(), entered, path, on_drift=on_drift).run("r", path)
    assert entered == ["main"]
    path.write_text("three")
    main = reading(again(), entered, path, on_drift=on_drift)
    if on_drift == "error":
        with pytest.raises(StepChanged, match=r"data\.csv has changed since"):
            main.run("r", path)
    else:
        with pytest.warns(DurableNotice, match=r"step 'size_of': .*data\.csv has changed since"):
            assert main.run("r", path) == (3 if on_drift == "keep" else 5)
    assert entered == ["main"] * entries


@pytest.mark.parametrize(("answer", "result"), [("rerun", 2), ("earlier", 1)])
def test_a_step_that_was_reset_or_taken_back_changes_the_result(again, answer, result):
    ran = []

    def define(wf):
        count = wf.task(lambda: ran.append(1) or len(ran), name="count")
        return wf.workflow(lambda: count(), id="r")

    assert define(again()).run("r") == 1
    wf = again()
    wf.sync.resolve("r", "count", "rerun")
    assert wf.sync.status("r").run.status == "interrupted"
    if answer == "earlier":
        wf.sync.resolve("r", "count", "earlier")
    assert define(again()).run("r") == result
    assert define(again()).run("r") == result


def test_a_result_that_could_not_be_saved_is_made_again(again, entered):
    def define(wf):
        return wf.workflow(lambda: entered.append(1) or sqlite3.connect(":memory:"), id="r")

    for _ in range(2):
        with pytest.warns(DurableNotice, match="run 'r' is done, but its result was not saved"):
            define(again()).run("r").close()
    assert entered == [1, 1]


def family(wf, ran):
    @wf.task
    def work(i):
        ran.append(i)
        return i

    @wf.workflow(id="grandchild-{i}")
    def grandchild(i):
        return work(i)

    @wf.workflow(id="child-{i}")
    def child(i):
        return work(i), grandchild(10 * i)

    @wf.workflow
    def parent():
        return [child(1), child(2), work(3)]

    return parent


def test_fresh_sets_the_runs_that_it_called_aside_too(again):
    ran = []
    first = family(again(), ran).run("p")
    wf = again()
    work = wf.workflow(lambda: 7)
    work.run("other")
    for _ in range(2):
        ran.clear()
        assert family(wf, ran).run("p", fresh=True) == first
        assert ran == [1, 10, 2, 20, 3]
    assert family(again(), ran).run("p") == first
    assert len(ran) == 5
    assert work.run("other") == 7


async def test_fresh_is_refused_while_a_run_that_it_called_is_under_way(again):
    wf = again()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @wf.workflow(id="child")
    async def child():
        begun.set()
        await go_on.wait()

    @wf.workflow
    async def parent():
        task = asyncio.create_task(child())
        await begun.wait()
        return task

    with pytest.warns(DurableNotice, match="its result was not saved"):
        task = await parent.run("p")
    with pytest.raises(RunHeld, match=r"run 'p': it has called run 'child', which is under way"):
        await parent.run("p", fresh=True)
    go_on.set()
    await task


def test_edited_tasks_decide_by_their_own_policy(again, entered):
    def one():
        return 1

    def two():
        return 2

    def define(wf, body, policy):
        give = wf.task(name="give", on_edit=policy)(body)
        return wf.workflow(lambda: entered.append(1) or give(), id="r")

    assert define(again(), one, "rerun").run("r") == 1
    with pytest.warns(DurableNotice, match="step 'give': run again, since its code changed"):
        assert define(again(), two, "rerun").run("r") == 2
    assert entered == [1, 1]
    assert define(again(), two, "rerun").run("r") == 2
    assert entered == [1, 1]


def test_a_store_of_the_users_enters_its_runs_again(entered, tmp_path):
    wf = Workflow("shop", db=JsonFileStore(tmp_path / "store.json"))
    main = wf.workflow(lambda: entered.append(1) or 5, id="r")
    assert main.run("r") == main.run("r") == 5
    assert entered == [1, 1]
