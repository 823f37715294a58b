"""What a resumed run does with a failure, or a cancellation, that an earlier pass has seen."""

import asyncio

import pytest

from durable_nb import errors, settings
from durable_nb.errors import DurableNotice, StepChanged


class Flaky:
    """A workflow whose task fails while `down`; `bodies` are those executed."""

    def __init__(self, wf, **options):
        self.bodies, self.down = [], True
        self.call = wf.task(retries=0, **options)(self._call)
        self.note = wf.task(self._note)

    def _call(self, n=0):
        self.bodies.append("call")
        if self.down:
            raise ValueError(n)
        return n

    def _note(self, found):
        self.bodies.append(found)
        return found


def caught(flaky, end=False):
    def w():
        try:
            found = flaky.call()
        except ValueError:
            found = "fallback"
        flaky.note(found)
        if end:
            raise KeyError(found)
        return found

    return w


def passes(again, **options):
    """The outcomes of a pass in which the task fails, and of one in which it would not, and their bodies."""
    found = []
    for down in (True, False):
        wf = again()
        flaky = Flaky(wf, **options)
        flaky.down = down
        main = wf.workflow(id="r")(caught(flaky, end=True))
        with pytest.raises((KeyError, StepChanged)) as raised:
            main()
        found.append((raised.value.args[0] if raised.type is KeyError else "changed", flaky.bodies))
    return found


def test_a_failure_after_which_the_run_continued_is_replayed(again):
    assert passes(again) == [("fallback", ["call", "fallback"]), ("fallback", [])]


def test_a_failure_to_retry_is_tried_again_although_the_run_continued(again):
    assert passes(again, failure="retry") == [("fallback", ["call", "fallback"]), ("changed", ["call"])]


@pytest.mark.parametrize(("failure", "bodies"), [("caught", ["call"]), ("final", [])])
def test_a_failure_that_ended_the_run_is_tried_again_unless_it_is_final(again, failure, bodies):
    for attempt in range(2):
        wf = again()
        flaky = Flaky(wf, failure=failure)
        with pytest.raises(ValueError, match="7"):
            wf.workflow(id="r")(lambda flaky=flaky: flaky.call(7))()
        assert flaky.bodies == (bodies if attempt else ["call"])


def test_an_unknown_policy_for_failures_is_refused(again):
    with pytest.raises(errors.InvalidOption, match="invalid failure='never': expected 'caught', 'final' or"):
        again().task(failure="never")(print)


def test_a_replayed_failure_of_an_edited_task_says_so(again):
    wf = again()

    @wf.task(name="call", retries=0)
    def call():
        raise ValueError("down")

    with pytest.raises(KeyError):
        wf.workflow(id="r")(caught(Named(wf, call), end=True))()
    wf = again()

    @wf.task(name="call", retries=0)
    def mended():
        return "up"

    with pytest.warns(DurableNotice, match="replayed although its code changed"), pytest.raises(KeyError):
        wf.workflow(id="r")(caught(Named(wf, mended), end=True))()


class Named:
    def __init__(self, wf, call):
        self.call, self.note = call, wf.task(name="note")(print)


async def test_a_branch_that_ended_the_run_is_tried_again_whatever_another_pass_has_recorded(again):  # noqa: C901
    """The second pass records a step and is cancelled before the failed one has run again."""
    events = [asyncio.Event(), asyncio.Event()]
    bodies = []

    async def fail():
        raise ValueError("down")

    async def wait():
        events[0].set()
        await asyncio.Event().wait()

    async def end():
        pass

    in_pass = fail, wait, end

    def made(number):
        wf = again()

        @wf.task(retries=0)
        async def first():
            if number == 0:
                await asyncio.Event().wait()

        @wf.task(retries=0)
        async def second():
            bodies.append(number)
            await in_pass[number]()

        @wf.workflow(id="r")
        async def main():
            async def one():
                await first()
                events[1].set()

            await asyncio.gather(one(), second())

        return main

    with pytest.raises(ValueError, match="down"):
        await made(0)()
    task = asyncio.create_task(made(1)())
    await asyncio.gather(*(event.wait() for event in events))
    task.cancel()
    await asyncio.wait([task])
    await made(2)()
    assert bodies == [0, 1, 2]


def test_each_attempt_of_a_task_tries_its_failed_steps_again(again):
    wf, bodies = again(), []

    @wf.task(retries=0)
    async def inner(n):
        bodies.append(n)
        if len(bodies) <= 2:
            raise ValueError(n)

    @wf.task(retries=1, backoff=lambda _: 0)
    async def outer():
        found = await asyncio.gather(inner(1), inner(2), return_exceptions=True)
        for failure in filter(None, found):
            raise failure

    @wf.workflow(id="r")
    async def main():
        await outer()

    asyncio.run(main())
    assert sorted(bodies) == [1, 1, 2, 2]


async def test_a_step_that_its_caller_no_longer_cancels_is_refused(again, monkeypatch):
    monkeypatch.setattr(settings, "CANCEL_PATIENCE", 0.01)
    bodies = []

    def made(limit):
        wf = again()

        @wf.task
        async def slow():
            bodies.append("slow")
            await asyncio.Event().wait()

        @wf.task
        async def note():
            return "late"

        @wf.workflow(id="r")
        async def main():
            try:
                async with asyncio.timeout(limit):
                    await slow()
            except TimeoutError:
                await note()
            raise KeyError

        return main

    with pytest.raises(KeyError):
        await made(0.01)()
    with pytest.raises(StepChanged, match=r"was cancelled by its caller after .* and is not cancelled now"):
        await made(None)()
    assert bodies == ["slow"]


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
async def test_a_step_that_was_cancelled_with_its_run_runs_again_although_a_step_cleaned_up(again, how):
    bodies, begun = [], asyncio.Event()

    def made(first):
        wf = again()

        @wf.task
        async def slow():
            bodies.append("slow")
            begun.set()
            if first:
                await asyncio.Event().wait()

        @wf.task
        async def clean():
            bodies.append("clean")

        @wf.workflow(id="r")
        async def main():
            try:
                await slow()
            finally:
                await clean()

        return wf, main

    wf, main = made(first=True)
    task = asyncio.create_task(main())
    await begun.wait()
    if how == "cancel":
        await wf.cancel("r")
    else:
        task.cancel()
    await asyncio.wait([task])
    await made(first=False)[1]()
    assert bodies == ["slow", "clean", "slow"]
