"""``wf.map``: many items, several at a time, in two colours."""

import asyncio
import subprocess
import sys
import textwrap
import threading

import pytest

from durable_nb.errors import InvalidOption


class Busy:
    """Counts how many calls are under way, and the most there were."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self.lock:
            self.now -= 1


class Squares:
    """A workflow that maps two tasks over numbers; some numbers fail while it is not healed."""

    def __init__(self, wf, ran, mode, *, fails=(), limit=None):
        self.busy, self.limit = Busy(), limit

        @wf.task(retries=0)
        def square(n):
            if n in fails:
                raise ValueError(n)
            ran.append(n)
            return n * n

        @wf.task(retries=0)
        async def async_square(n):
            with self.busy:
                await asyncio.sleep(0.01 * (5 - n % 5))
                return square.function(n)

        async def both(n, more):
            return await async_square(n) + await async_square(more)

        def sync_both(n, more):
            with self.busy:
                return square(n) + square(more)

        @wf.workflow
        async def async_main(numbers):
            return await wf.map(both, numbers, [n + 100 for n in numbers], limit=limit)

        @wf.workflow
        def main(numbers):
            return wf.sync.map(sync_both, numbers, [n + 100 for n in numbers], limit=limit)

        self.run = (lambda *args: asyncio.run(async_main.run(*args))) if mode == "await" else main.run


@pytest.fixture(params=["await", "sync"])
def mode(request):
    return request.param


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_results_are_in_order_and_replay(again, mode, limit):
    ran = []
    expected = [n * n + (n + 100) ** 2 for n in range(12)]
    for _first_and_replay in range(2):
        squares = Squares(again(), ran, mode, limit=limit)
        assert squares.run("r", list(range(12))) == expected
    assert sorted(ran) == [*range(12), *range(100, 112)]


def test_no_more_are_under_way_than_the_limit(again):
    squares = Squares(again(), [], "await", limit=3)
    squares.run("r", list(range(12)))
    assert squares.busy.most == 3


def test_after_a_failure_nothing_further_begins_and_what_had_ended_is_kept(again, mode):
    ran = []
    with pytest.raises(ValueError, match="5"):
        Squares(again(), ran, mode, fails={5}, limit=2).run("r", list(range(12)))
    done = len(ran)
    assert {0, 1, 2, 3} <= set(ran)
    assert done < 24
    expected = [n * n + (n + 100) ** 2 for n in range(12)]
    assert Squares(again(), ran, mode, limit=2).run("r", list(range(12))) == expected
    assert len(ran) == len(set(ran)) == 24


def test_the_first_item_that_failed_is_the_one_to_see(again, mode):
    with pytest.raises(ValueError, match=r"^2$"):
        Squares(again(), [], mode, fails={2, 9}, limit=2).run("r", list(range(12)))


def test_a_value_may_be_an_exception(again):
    wf = again()

    async def give(n):
        return ValueError(n)

    assert [str(each) for each in asyncio.run(wf.map(give, [1, 2]))] == ["1", "2"]


def test_outside_a_run_it_is_a_plain_map(again):
    wf = again()
    assert wf.sync.map(pow, [1, 2, 3], [4, 5, 6], limit=2) == [1, 32, 729]
    assert wf.sync.map(pow, [], []) == []


def test_bad_input(again):
    wf = again()
    with pytest.raises(InvalidOption, match=r"invalid limit=0: expected 1 or more"):
        wf.sync.map(pow, [1], [2], limit=0)
    with pytest.raises(ValueError, match="shorter"):
        wf.sync.map(pow, [1, 2], [2])

    @wf.task
    async def asynchronous(n):
        return n

    with pytest.raises(TypeError, match=r"await wf\.map"):
        wf.sync.map(asynchronous, [1])
    with pytest.raises(TypeError):
        asyncio.run(wf.map(pow, [1], [2]))


def test_cancelled_it_cancels_what_is_under_way(again):
    wf = again()
    ended = []

    @wf.task
    async def work(n):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(n)

    @wf.workflow(id="r")
    async def main():
        await wf.map(work, range(3), limit=2)

    async def cancelled():
        run = asyncio.create_task(main())
        await asyncio.sleep(0.2)
        run.cancel()
        await asyncio.wait([run])
        return run.cancelled()

    assert asyncio.run(cancelled())
    assert len(ended) <= 2


KILLED = """
import os, sys
from durable_nb import Workflow

wf = Workflow("shop", db="runs.db")

@wf.task
def work(n):
    print("ran", n, flush=True)
    if n == 6 and sys.argv[1] == "dies":
        os.kill(os.getpid(), 9)
    return n

@wf.workflow(id="r")
def main():
    return wf.sync.map(work, range(10), limit=1)

print(main())
"""


def test_killed_it_goes_on(tmp_path):
    def printed(how):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), how]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert printed("dies").returncode == -9
    lines = printed("lives").stdout.splitlines()
    assert lines == ["ran 6", "ran 7", "ran 8", "ran 9", str(list(range(10)))]
