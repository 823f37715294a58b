"""``wf.runs``, ``wf.result``, ``wf.fork`` and ``wf.reset``."""

import pytest

from durable_nb import Workflow
from durable_nb.errors import RunNotDone, RunNotFound, StepNotFound, StoreUnavailable


@pytest.fixture(params=["sqlite", "redis"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on both stores."""
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url


def shop(wf, ran):
    @wf.task
    def charge(order):
        ran.append("charge")
        return f"receipt for {order}"

    @wf.task(retries=0)
    def ship(order):
        ran.append("ship")
        if order == "lost":
            raise ValueError("lost on the way")
        return {order, ("by", "sea")}

    @wf.workflow(id="order-{order}")
    def process(order):
        return charge(order), ship(order)

    return process


async def test_the_runs_of_a_database_and_their_results(again):
    process = shop(wf := again(), [])
    done = process("a17")
    with pytest.raises(ValueError, match="lost"):
        process("lost")
    wf = again()
    assert [(run.run_id, run.status) for run in await wf.runs()] == [
        ("order-lost", "failed"),
        ("order-a17", "done"),
    ]
    assert await wf.result("order-a17") == done
    with pytest.raises(ValueError, match="lost on the way"):
        await wf.result("order-lost")
    with pytest.raises(RunNotFound):
        await wf.result("order-b2")


def test_a_run_that_has_not_ended_has_no_result(again):
    wf = again()

    @wf.workflow(id="r")
    def main():
        with pytest.raises(
            RunNotDone, match=r"run 'r': the run has no result: it is running\. Call it again"
        ):
            wf.sync.result("r")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main()
    with pytest.raises(RunNotDone, match="it is interrupted"):
        wf.sync.result("r")


def test_a_fork_continues_from_a_step_and_the_run_stays(again):
    ran = []
    done = shop(again(), ran)("a17")
    wf = again()
    assert wf.sync.fork("order-a17", "b", before="ship") == 1
    assert shop(wf, ran).run("b", "a17") == done
    assert ran == ["charge", "ship", "ship"]
    assert wf.sync.result("order-a17") == wf.sync.result("b") == done
    with pytest.raises(StepNotFound):
        wf.sync.fork("order-a17", "c", before="shop")


async def test_a_step_that_is_reset_runs_again_at_its_next_call(again):
    ran = []
    done = shop(again(), ran)("a17")
    await again().reset("order-a17", "ship")
    with pytest.raises(RunNotDone):
        await again().result("order-a17")
    assert shop(again(), ran)("a17") == done
    assert ran == ["charge", "ship", "ship"]


def test_no_database_is_made_for_a_look(tmp_path):
    wf = Workflow("shop", db=tmp_path / "none.db")
    with pytest.raises(StoreUnavailable):
        wf.sync.runs()
    with pytest.raises(StoreUnavailable):
        wf.sync.result("r")
    assert not (tmp_path / "none.db").exists()
