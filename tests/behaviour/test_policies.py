"""What a task's options do: on_change, on_edit, fresh, retry_on, give_up_on, timeout; and what they say."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from durable_nb import constant
from durable_nb.errors import DurableNotice, InvalidOption, StepChanged, StepTimeout


@pytest.fixture
def ran():
    return []


class Unfinished(Exception):
    """Ends a pass of a run that is to be resumed: one that is done would give its result."""


def doubling(wf, ran, n, *, ends=True, **options):
    @wf.task(name="double", **options)
    async def double(n):
        ran.append(n)
        return 2 * n

    @wf.workflow
    async def main():
        found = await double(n)
        if not ends:
            raise Unfinished
        return found

    return main


async def left_unfinished(wf, ran, n, **options):
    with pytest.raises(Unfinished):
        await doubling(wf, ran, n, ends=False, **options).run("r")


@pytest.mark.parametrize(("policy", "value", "bodies"), [("rerun", 8, [3, 4]), ("keep", 6, [3])])
async def test_what_becomes_of_a_call_with_other_arguments(again, ran, policy, value, bodies):
    await left_unfinished(again(), ran, 3, on_change=policy)
    with pytest.warns(DurableNotice, match="step 'double': .*(although|since) its arguments changed"):
        assert await doubling(again(), ran, 4, on_change=policy).run("r") == value
    assert ran == bodies


ASKED = ", and this session has no one to ask whether to run it again"
REFUSALS = {"error": "", "ask": ASKED}


@pytest.mark.parametrize("policy", REFUSALS)
async def test_a_call_with_other_arguments_is_refused_with_the_difference(again, ran, policy):
    await left_unfinished(again(), ran, 3, on_change=policy)
    with pytest.raises(StepChanged) as caught:
        await doubling(again(), ran, 4, on_change=policy).run("r")
    assert str(caught.value) == (
        f"run 'r', step 'double': its arguments changed (n: 3 → 4){REFUSALS[policy]}. "
        "To run it again: wf.sync.resolve('r', 'double', 'rerun'); "
        "to make it another step: step_id='…'; to start the run over: .run('r', …, fresh=True)."
    )
    assert ran == [3]
    assert await doubling(again(), ran, 3, on_change=policy).run("r") == 6


def edited(wf, ran, body, **options):
    task = wf.task(name="give", **options)(body)

    @wf.workflow
    async def main():
        value = await task()
        ran.append(value)
        return value

    return main


async def one():
    return 1


async def two():
    return 2


@pytest.mark.parametrize(("policy", "value"), [("keep", 1), ("rerun", 2)])
async def test_what_becomes_of_an_edited_task(again, ran, policy, value):
    await edited(again(), ran, one, on_edit=policy).run("r")
    with pytest.warns(DurableNotice, match="step 'give': .*(although|since) its code changed"):
        await edited(again(), ran, two, on_edit=policy).run("r")
    assert ran == [1, value]


async def test_an_edited_task_can_be_refused(again, ran):
    await edited(again(), ran, one, on_edit="error").run("r")
    with pytest.raises(StepChanged, match="step 'give': its code changed"):
        await edited(again(), ran, two, on_edit="error").run("r")
    assert ran == [1]


async def test_fresh_starts_over_and_sets_the_old_history_aside(again, ran):
    assert await doubling(again(), ran, 3).run("r") == 6
    wf = again()
    assert await doubling(wf, ran, 4).run("r", fresh=True) == 8
    from durable_nb.concurrency.bridge import ASYNC

    runs = await ASYNC.store(wf.journal.list_runs())
    assert sorted(run.run_id for run in runs) == ["r", "r~1"]
    old = await ASYNC.store(wf.journal.read_run("r~1"))
    assert [step.step_id for step in old.steps] == ["double"]
    assert ran == [3, 4]


async def attempts_of(wf, errors, **options):
    left = list(errors)
    made = []

    @wf.task(backoff=constant(0), **options)
    async def flaky():
        made.append(1)
        if left:
            raise left.pop(0)
        return "done"

    @wf.workflow
    async def main():
        return await flaky()

    with contextlib.suppress(Exception):
        await main.run("r")
    return len(made)


@pytest.mark.parametrize(
    ("errors", "options", "made"),
    [
        ([OSError(), OSError()], {}, 3),
        ([OSError(), KeyError()], {"retry_on": OSError}, 2),
        ([OSError(), KeyError()], {"retry_on": (OSError, KeyError)}, 3),
        ([ConnectionError(), PermissionError()], {"retry_on": OSError, "give_up_on": PermissionError}, 2),
        ([ValueError(5), ValueError(4)], {"retry_on": lambda error: error.args[0] >= 5}, 2),
        ([ValueError(5), ValueError(4)], {"give_up_on": lambda error: error.args[0] < 5}, 2),
        ([OSError()] * 9, {"retries": 2}, 3),
        ([OSError()] * 9, {"retries": 0}, 1),
    ],
)
async def test_after_which_failures_another_attempt_is_made(again, errors, options, made):
    assert await attempts_of(again(), errors, **options) == made


async def test_an_attempt_that_takes_too_long_is_ended_and_tried_again(again, ran):
    wf = again()

    @wf.task(retries=1, backoff=constant(0), timeout=0.05)
    async def slow():
        ran.append("begun")
        try:
            await asyncio.sleep(30)
        finally:
            ran.append("ended")

    @wf.workflow
    async def main():
        await slow()

    with pytest.raises(
        StepTimeout, match=r"run 'r', step 'slow': an attempt took longer than .* 0.05 s"
    ) as caught:
        await main.run("r")
    assert ran == ["begun", "ended", "begun", "ended"]
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.__notes__ == ["durable_nb: run 'r', step 'slow' failed after 2 attempts"]


async def test_a_bodys_own_timeout_error_is_its_own(again):
    wf = again()

    @wf.task(retries=0, timeout=30)
    async def own():
        raise TimeoutError("mine")

    @wf.workflow
    async def main():
        await own()

    with pytest.raises(TimeoutError, match="mine") as caught:
        await main.run("r")
    assert type(caught.value) is TimeoutError


def slow_sync(wf, ran, body):
    @wf.task(retries=1, backoff=constant(0), timeout=0.1)
    def slow():
        ran.append("begun")
        try:
            body()
        finally:
            ran.append("ended")

    @wf.workflow
    def main():
        slow()

    return main


def busy():
    until = time.monotonic() + 30
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("body", [busy, lambda: time.sleep(30)], ids=["busy", "sleep"])
def test_a_sync_body_is_ended_before_the_next_begins(again, ran, body):
    began = time.monotonic()
    with pytest.raises(StepTimeout):
        slow_sync(again(), ran, body).run("r")
    assert ran == ["begun", "ended", "begun", "ended"]
    assert time.monotonic() - began < 10


REFUSED = (
    "run 'r', step {!r}: invalid timeout=0.1 outside the main thread: Python cannot end code in a thread, "
    "expected an executor or an async task. "
    "Use @wf.task(timeout=…, executor=lambda: ProcessPoolExecutor(4)), or make it async def."
)


def in_a_thread(main, wf):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(main.run, "r").result()


def on_another_loop(main, wf):
    async def use():
        await asyncio.to_thread(main.run, "r")

    asyncio.run(use())


@pytest.mark.parametrize("call", [in_a_thread, on_another_loop])
def test_a_sync_body_with_a_timeout_is_refused_in_another_thread(again, ran, db, call):
    wf = again()
    main = slow_sync(wf, ran, busy)
    with pytest.raises(InvalidOption) as caught:
        call(main, wf)
    assert str(caught.value) == REFUSED.format("slow")
    assert ran == []
    assert wf.sync.status("r").steps == ()


def test_a_sync_body_with_a_timeout_is_refused_under_map(again, ran):
    wf = again()
    slow = wf.task(name="slow", timeout=0.1)(lambda n: ran.append(n))
    main = wf.workflow(lambda: wf.sync.map(slow, [1, 2]))
    with pytest.raises(InvalidOption) as caught:
        main.run("r")
    assert str(caught.value) == REFUSED.format("~0/slow")
    assert ran == []
    assert wf.sync.status("r").steps == ()


def test_a_task_marked_once_is_not_in_doubt_after_it_was_refused(again, ran):
    def define(wf):
        pay = wf.task(name="pay", once=True, timeout=30)(lambda: ran.append(1))
        return wf.workflow(lambda: pay())

    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidOption):
        pool.submit(define(again()).run, "r").result()
    define(again()).run("r")
    assert ran == [1]


def test_outside_a_run_a_task_with_a_timeout_is_the_plain_function_in_any_thread(again):
    give = again().task(timeout=30)(lambda: 1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(give).result() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retries": -1}, "retries=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"on_edit": "maybe"}, "on_edit='maybe'"),
        ({"on_change": "maybe"}, "on_change='maybe'"),
    ],
)
def test_options_that_make_no_sense(again, options, words):
    with pytest.raises(InvalidOption, match=words):
        again().task(**options)(lambda: None)


async def test_a_call_cancelled_while_it_commits_keeps_its_result(again, ran, monkeypatch):
    """The commit is waited for: a second call of the name finds the result, and executes nothing."""
    wf = again()
    put, entered = type(wf.journal).put_step, asyncio.Event()
    loop = asyncio.get_running_loop()

    async def slow_put(journal, step):
        loop.call_soon_threadsafe(entered.set)
        await asyncio.sleep(0.1)
        await put(journal, step)

    monkeypatch.setattr(type(wf.journal), "put_step", slow_put)

    @wf.task
    async def work():
        ran.append(1)
        return "done"

    @wf.workflow
    async def main():
        first = asyncio.create_task(work(step_id="x"))
        await entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await work(step_id="x")

    assert await main.run("r") == "done"
    assert ran == [1]
