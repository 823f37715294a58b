"""Concurrent branches get their recorded results in the order in which they finished."""

import asyncio
import random
from collections import Counter

import pytest

from durable_nb import Workflow
from durable_nb.errors import DurableNotice


class Bodies:
    """Tasks whose bodies end in a given order, and what they have executed."""

    def __init__(self, wf):
        self.wf, self.executed = wf, Counter()
        self.fetch, self.save, self.large = wf.task(self._fetch), wf.task(self._save), wf.task(self._large)
        self.fail = wf.task(retries=0)(self._fail)

    async def _fetch(self, n, delay):
        self.executed["fetch"] += 1
        await asyncio.sleep(delay)
        return n

    async def _save(self, n):
        self.executed["save"] += 1
        return n

    async def _large(self, n):
        self.executed["large"] += 1
        return bytes([n]) * 400_000

    async def _fail(self, n, delay):
        self.executed["fail"] += 1
        await asyncio.sleep(delay)
        raise ValueError(n)


DELAYS = [0.06, 0.02, 0.04, 0.0]


async def as_completed(of):
    calls = [of.fetch(n, delay) for n, delay in enumerate(DELAYS)]
    return [await of.save(await each) for each in asyncio.as_completed(calls)]


async def first_completed(of):
    pending = {asyncio.create_task(of.fetch(n, delay), name=str(n)) for n, delay in enumerate(DELAYS)}
    found = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        found.append(sorted(task.result() for task in done))
        await of.save(len(found))
    return found


async def first_wins(of):
    """The others are cancelled once the first has ended."""
    tasks = [asyncio.create_task(of.fetch(n, delay)) for n, delay in enumerate([30, 0.01, 30])]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    return await of.save(done.pop().result())


async def queue_of_workers(of):
    queue, found = asyncio.Queue(), []
    for each in enumerate(DELAYS * 2):
        queue.put_nowait(each)

    async def worker(name):
        while not queue.empty():
            n, delay = queue.get_nowait()
            found.append((name, await of.fetch(n, delay)))
            await of.save(n)

    await asyncio.gather(*map(worker, "ab"))
    return found


async def append_to_one_list(of):
    found = []

    async def branch(n):
        for at, delay in enumerate(DELAYS[n:] + DELAYS[:n]):
            found.append(await of.fetch(f"{n}.{at}", delay))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(branch(n))
    return found


async def hand_over(of):
    """What one branch does with its result is seen by another before the next result."""
    queue, found = asyncio.Queue(), []

    async def producer():
        for n in range(3):
            await queue.put(await of.fetch(n, DELAYS[n]))
            found.append(f"put {n}")

    async def consumer():
        for _ in range(3):
            n = await queue.get()
            found.append(f"got {n}")
            found.append(await of.save(n))

    await asyncio.gather(producer(), consumer())
    return found


async def failures(of):
    found = []

    async def branch(n):
        try:
            await of.fail(n, DELAYS[n])
        except ValueError as error:
            found.append(error.args)
            await of.save(n)

    await asyncio.gather(*map(branch, range(4)))
    return found


async def sleeps(of):
    found = []

    async def branch(n):
        await of.wf.sleep(DELAYS[n])
        found.append(n)
        await of.save(n)

    await asyncio.gather(*map(branch, range(4)))
    return found


async def large_results(of):
    """Those that are kept in files are there later than those that are not."""
    found = []

    async def branch(n):
        found.append((await (of.large(n) if n % 2 else of.save(n)), n)[1])

    await asyncio.gather(*map(branch, range(6)))
    return found


async def spinning(of):
    """A branch that never waits holds up no other."""
    found = []

    async def spin():
        while len(found) < len(DELAYS):
            await asyncio.sleep(0)

    async def branch(n):
        found.append(await of.fetch(n, DELAYS[n]))

    await asyncio.gather(spin(), *map(branch, range(len(DELAYS))))
    return found


async def nested(of):
    """Steps inside a finished step are not called, and none waits for them."""

    @of.wf.task
    async def outer(n):
        return await asyncio.gather(of.fetch(n, DELAYS[n]), of.save(n))

    return [await each for each in asyncio.as_completed([outer(0), outer(1), of.fetch(2, 0.01)])]


SHAPES = [
    *(as_completed, first_completed, first_wins, queue_of_workers, append_to_one_list),
    *(hand_over, failures, sleeps, large_results, spinning, nested),
]


def ended(of, shape):
    """A workflow that fails at its end, so that it is entered again."""

    async def main():
        raise KeyError(await shape(of))

    return of.wf.workflow(id="r")(main)


async def outcome(of, shape):
    with pytest.raises(KeyError) as raised:
        await ended(of, shape)()
    return raised.value.args[0]


@pytest.mark.parametrize("shape", SHAPES)
async def test_branches_replay_as_they_ran(again, shape):
    first = await outcome(Bodies(again()), shape)
    for _ in range(2):
        of = Bodies(again())
        assert await outcome(of, shape) == first
        assert not of.executed


async def coroutines_as_completed(of, given):
    """``as_completed`` starts coroutines in the order of a set, which is another in each process."""

    async def branch(n):
        return n, await of.count()

    return [await each for each in asyncio.as_completed(given(branch(n) for n in range(20)))]


def count(of):
    """A task whose calls differ in nothing but the branch in which they are made."""
    numbers = iter(range(100))

    @of.wf.task(name="count")
    async def count():
        of.executed["count"] += 1
        return next(numbers)

    return count


@pytest.mark.parametrize("given", [list, tuple, lambda each: dict.fromkeys(each).keys()])
async def test_coroutines_given_to_as_completed_keep_their_steps(again, given):
    found = []
    for _ in range(3):
        of = Bodies(again())
        of.count = count(of)
        found.append(await outcome(of, lambda of: coroutines_as_completed(of, given)))
    assert sorted(n for n, _ in found[0]) == list(range(20))
    assert [sorted(each) for each in found[1:]] == [sorted(found[0])] * 2
    assert found[1:] == [found[0]] * 2
    assert not of.executed


@pytest.mark.parametrize("given", [set, lambda each: iter(list(each))])
async def test_coroutines_without_an_order_are_named(again, given):
    of = Bodies(again())
    of.count = count(of)
    with pytest.warns(DurableNotice, match=r"run 'r': .* Give it a list: as_completed\(\[…\]\)") as told:
        await outcome(of, lambda of: coroutines_as_completed(of, given))
    assert len(told) == 1


@pytest.mark.parametrize("shape", [as_completed, queue_of_workers, append_to_one_list])
async def test_on_redis_too(redis_server, shape):
    found = []
    for _ in range(2):
        with Workflow("shop", db=redis_server.url) as wf:
            of = Bodies(wf)
            found.append(await outcome(of, shape))
    assert found[0] == found[1]
    assert not of.executed


@pytest.mark.parametrize("seed", range(5))
async def test_branches_of_any_delays_replay_as_they_ran(again, seed):
    delays = random.Random(seed)

    async def shape(of):
        found = []

        @of.wf.task
        async def work(name):
            of.executed["work"] += 1
            await asyncio.sleep(delays.choice([0, 0.001, 0.003]))
            return name

        async def branch(name):
            for at in range(3):
                found.append(await work(f"{name}{at}"))
                if len(name) < 3 and at == 1:
                    await asyncio.gather(branch(f"{name}a"), branch(f"{name}b"))

        await asyncio.gather(*map(branch, "klmn"))
        return found

    first = await outcome(Bodies(again()), shape)
    of = Bodies(again())
    assert await outcome(of, shape) == first
    assert not of.executed


async def test_a_result_that_is_never_called_holds_up_no_other(again):
    """The code was edited: the first of the recorded calls is gone."""
    of = Bodies(again())
    await outcome(of, append_to_one_list)
    of = Bodies(again())

    async def fewer(of):
        async def branch(n):
            return await of.fetch(f"{n}.0", DELAYS[n:][0])

        async def none():
            await asyncio.sleep(0)

        return await asyncio.gather(none(), branch(1), branch(2))

    assert await outcome(of, fewer) == [None, "1.0", "2.0"]
    assert not of.executed
