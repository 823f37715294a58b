"""Steps marked once: never started twice unasked; what each answer about one in doubt does."""

import asyncio
import contextlib
import re

import pytest

from durable_nb import InMemoryStore, constant
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.resolve import recorded_run, resolve_step
from durable_nb.errors import (
    InvalidOption,
    RunNotFound,
    StepChanged,
    StepError,
    StepFailed,
    StepInDoubt,
    StepNotFound,
    StepNotSaved,
)


@pytest.fixture
def ran():
    return []


class Unfinished(Exception):
    """Ends a pass of a run that is to be resumed: one that is done would give its result."""


def paying(wf, ran, *errors, amount=7, ends=True, **options):
    """A workflow with one once task, whose body raises these errors one after the other."""
    left = list(errors)

    @wf.task(**{"once": True, "backoff": constant(0), **options})
    def pay(amount):
        ran.append(amount)
        if left:
            raise left.pop(0)
        return f"paid {amount}"

    @wf.workflow
    def main():
        paid = pay(amount)
        if not ends:
            raise Unfinished
        return paid

    main.pay = pay
    return main


def interrupted(wf, ran):
    """A run that was left inside the once step."""
    main = paying(wf, ran, KeyboardInterrupt())
    with contextlib.suppress(KeyboardInterrupt):
        main.run("r")
    return main


def test_a_started_step_is_refused_however_often_it_is_called(again, ran):
    interrupted(again(), ran)
    for _ in range(2):
        with pytest.raises(StepInDoubt):
            paying(again(), ran).run("r")
    assert ran == [7]


def test_what_the_error_says(again, ran):
    interrupted(again(), ran)
    with pytest.raises(StepInDoubt) as caught:
        paying(again(), ran).run("r")
    message = re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "WHEN", str(caught.value))
    assert message == (
        "run 'r', step 'pay': it was started but never recorded as finished (started at WHEN); its side "
        "effects may or may not have happened. "
        "If they did not: wf.sync.resolve('r', 'pay', 'rerun'); if they did: "
        "wf.sync.resolve('r', 'pay', 'value', VALUE); to give the step up: "
        "wf.sync.resolve('r', 'pay', 'fail')."
    )


def test_it_stays_in_doubt_when_its_mark_is_taken_away(again, ran):
    interrupted(again(), ran)
    with pytest.raises(StepInDoubt):
        paying(again(), ran, once=False).run("r")
    assert ran == [7]


def test_a_finished_step_replays(again, ran):
    assert paying(again(), ran).run("r") == paying(again(), ran).run("r") == "paid 7"
    assert ran == [7]


def test_a_body_that_raised_is_in_doubt_and_not_retried(again, ran):
    with pytest.raises(OSError, match="late"):
        paying(again(), ran, OSError("late")).run("r")
    with pytest.raises(StepInDoubt, match="it failed last time"):
        paying(again(), ran).run("r")
    assert ran == [7]


def test_retries_that_are_asked_for_are_made(again, ran):
    assert paying(again(), ran, OSError(), OSError(), retries=2).run("r") == "paid 7"
    assert ran == [7, 7, 7]


def test_a_failure_that_the_run_went_on_from_replays(again, ran):
    def going_on(wf):
        pay, after = paying(wf, ran, OSError("no")).pay, wf.task(name="after")(lambda: "after")

        @wf.workflow
        def main():
            try:
                pay(7)
            except OSError:
                return after()

        return main

    assert going_on(again()).run("r") == going_on(again()).run("r") == "after"
    assert ran == [7]


def test_rerun_runs_it_once_more(again, ran):
    wf = again()
    interrupted(wf, ran)
    wf.sync.resolve("r", "pay", "rerun")
    assert paying(again(), ran).run("r") == paying(again(), ran).run("r") == "paid 7"
    assert ran == [7, 7]


@pytest.mark.parametrize("value", ["receipt 7", None, False, "x" * 400_000])
def test_a_value_is_what_it_gave(again, ran, value):
    wf = again()
    interrupted(wf, ran)
    wf.sync.resolve("r", "pay", "value", value)
    assert paying(again(), ran).run("r") == value
    assert ran == [7]


def test_one_that_is_given_up_fails_each_time_until_it_is_run_again(again, ran):
    interrupted(again(), ran)
    again().sync.resolve("r", "pay", "fail")
    for _ in range(2):
        with pytest.raises(StepFailed, match=r"run 'r', step 'pay': the step was given up on .*'rerun'"):
            paying(again(), ran).run("r")
    assert ran == [7]
    again().sync.resolve("r", "pay", "rerun")
    assert paying(again(), ran).run("r") == "paid 7"


async def test_the_async_face_in_a_run_that_is_open(again, ran):
    """The history in memory knows of the answer, too."""
    wf = again()
    left = [True]

    @wf.task(once=True)
    async def pay():
        ran.append(7)
        if left:
            left.pop()
            raise asyncio.CancelledError
        return "paid"

    @wf.workflow
    async def main():
        with contextlib.suppress(asyncio.CancelledError):
            await pay(step_id="pay")
        with pytest.raises(StepInDoubt):
            await pay(step_id="pay")
        await wf.resolve("r", "pay", "rerun")
        return await pay(step_id="pay")

    assert await main.run("r") == "paid"
    assert ran == [7, 7]


def test_an_answer_from_elsewhere_reaches_a_run_that_is_open(again, ran):
    wf = again()
    pay = interrupted(wf, ran).pay

    @wf.workflow
    def main():
        with pytest.raises(StepInDoubt):
            pay(7, step_id="pay")
        elsewhere = run_blocking(recorded_run(wf.journal, "r", SYNC))
        run_blocking(resolve_step(elsewhere, "pay", "value", "by hand"))
        return pay(7, step_id="pay")

    assert main.run("r") == "by hand"
    assert ran == [7]


def test_one_that_failed_and_is_given_up_says_how_it_had_failed(again, ran):
    with pytest.raises(OSError, match="no route"):
        paying(again(), ran, OSError("no route")).run("r")
    again().sync.resolve("r", "pay", "fail")
    with pytest.raises(StepFailed, match="the step was given up on") as caught:
        paying(again(), ran).run("r")
    assert repr(caught.value.__cause__) == "OSError('no route')"


def test_a_finished_step_runs_again_with_what_is_inside_it(again, ran):
    def nested(wf):
        inner = wf.task(name="inner")(lambda: ran.append("inner"))
        outer = wf.task(name="outer")(lambda: (ran.append("outer"), inner())[1])
        return wf.workflow(outer)

    nested(again()).run("r")
    again().sync.resolve("r", "outer", "rerun")
    nested(again()).run("r")
    assert ran == ["outer", "inner"] * 2


def test_of_one_in_doubt_what_had_finished_inside_it_replays(again, ran):
    def nested(wf, stop):
        inner = wf.task(name="inner")(lambda: ran.append("inner"))

        @wf.task(once=True)
        def outer():
            ran.append("outer")
            inner()
            if stop:
                raise KeyboardInterrupt

        return wf.workflow(outer)

    with contextlib.suppress(KeyboardInterrupt):
        nested(again(), True).run("r")
    again().sync.resolve("r", "outer", "rerun")
    nested(again(), False).run("r")
    assert ran == ["outer", "inner", "outer"]


def test_a_step_whose_result_could_not_be_saved_is_in_doubt(again, ran):
    def connecting(wf):
        @wf.task(once=True)
        def connect():
            ran.append(1)
            return (n for n in "no")

        return wf.workflow(connect)

    with pytest.raises(StepNotSaved):
        connecting(again()).run("r")
    with pytest.raises(StepInDoubt):
        connecting(again()).run("r")
    assert ran == [1]


@pytest.mark.parametrize("policy", ["rerun", "ask"])
def test_a_changed_call_is_not_run_again_unasked(again, ran, policy):
    with pytest.raises(Unfinished):
        paying(again(), ran, ends=False).run("r")
    with pytest.raises(StepChanged, match=r"no one to ask .*'r', 'pay', 'rerun'"):
        paying(again(), ran, amount=8, on_change=policy).run("r")
    assert ran == [7]
    again().sync.resolve("r", "pay", "rerun")
    assert paying(again(), ran, amount=8, on_change=policy).run("r") == "paid 8"


@pytest.mark.parametrize(
    ("step", "answer", "error", "words"),
    [
        ("pya", ("rerun",), StepNotFound, r"no step of that name. Steps: pay\."),
        ("pay", ("value", 3), StepError, "the step is not in doubt: it is done. .*rerun"),
        ("pay", ("fail",), StepError, "it is done"),
        (
            "pay",
            ("maybe",),
            InvalidOption,
            "'maybe': expected 'rerun', 'value', 'fail' or 'earlier'",
        ),
        ("pay", ("rerun", 3), InvalidOption, "answer 'rerun' takes no value"),
    ],
)
def test_answers_that_make_no_sense(again, ran, step, answer, error, words):
    paying(again(), ran).run("r")
    with pytest.raises(error, match=words):
        again().sync.resolve("r", step, *answer)
    assert paying(again(), ran).run("r") == "paid 7"
    assert ran == [7]


def test_an_answer_for_a_step_that_will_run_anyway(again, ran):
    interrupted(again(), ran)
    again().sync.resolve("r", "pay", "rerun")
    with pytest.raises(StepError, match="it will run at its next call"):
        again().sync.resolve("r", "pay", "fail")


def test_an_answer_for_a_run_that_there_is_not(again):
    with pytest.raises(RunNotFound, match="run 'nowhere': not found in "):
        again().sync.resolve("nowhere", "pay", "fail")


def test_a_step_that_is_running_cannot_be_answered_for(again, ran):
    wf = again()

    @wf.task(once=True)
    def pay():
        wf.sync.resolve("r", "pay", "fail")

    with pytest.raises(StepError, match="the step is running now"):
        wf.workflow(pay).run("r")


def test_a_value_that_cannot_be_saved_changes_nothing(again, ran):
    interrupted(again(), ran)
    with pytest.raises(StepNotSaved):
        again().sync.resolve("r", "pay", "value", (n for n in "no"))
    with pytest.raises(StepInDoubt):
        paying(again(), ran).run("r")


def test_who_answered_is_on_record(again, ran):
    wf = again()
    interrupted(wf, ran)
    wf.sync.resolve("r", "pay", "value", 3)
    step = run_blocking(SYNC.store(wf.journal.get_step("r", "pay")))
    assert step.delivered_by.startswith("process ")


def test_in_memory(again, ran):
    store = InMemoryStore()
    interrupted(wf := again(db=store), ran)
    wf.sync.resolve("r", "pay", "value", 3)
    assert paying(wf, ran).run("r") == 3
