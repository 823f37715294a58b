"""Random workflow programs: what they are made of, and how they are executed.

A program is a list of nodes: the name of a method of ``Interpreter``, without ``do_``, and its arguments.
Whether it is killed or not, its result is the same. Branches that run at the same time get their results in
an order that the program names. Where a step may have another outcome in another process, the step after it
has that outcome as its argument, which may not change once its body has begun.
"""

import asyncio
import itertools
import json
import os
from contextvars import ContextVar

from hypothesis import strategies as st

from durable_nb import Workflow, constant
from durable_nb.engine import scopes
from durable_nb.errors import SignalTimeout

OUTSIDE = 2
"""The messages that a program gets from outside: one before its first pass, one before its last."""

SOON = 0.02
"""Seconds until a time limit ends a step that never ends by itself; later, the outcome would be the same."""

numbers = st.integers(0, 3)
orders = st.integers(2, 4).flatmap(lambda count: st.permutations(range(count)))
hows = st.sampled_from(["ends", "fails", "sometimes"])


def node(name, *parts):
    return st.tuples(st.just(name), *parts)


calls = node("call", numbers)
leaves = st.one_of(
    calls,
    calls,
    node("fail", numbers),
    node("flaky", numbers),
    node("sometimes", numbers),
    node("chance"),
    node("completed", orders),
    node("first", orders, st.integers(1, 3)),
    node("queue", st.integers(1, 3), st.lists(numbers, min_size=2, max_size=5)),
    node("saga", numbers, st.sampled_from(["fails", "sometimes"])),
    node("messages", st.lists(numbers, max_size=3)),
)


def larger(inner):
    return st.one_of(
        node("gather", st.lists(inner, min_size=2, max_size=3)),
        node("loop", st.integers(1, 3), inner),
        node("nested", inner),
        node("in_time", st.booleans(), inner),
        node("late", st.booleans(), inner, st.integers(1, 2)),
        node("child", hows, inner),
        node("in_place", st.lists(st.sampled_from(["add", "sort", "fail"]), min_size=1, max_size=3), inner),
    )


def made_of(inner):
    return st.lists(st.one_of(leaves, larger(inner)), min_size=1, max_size=3)


programs = st.recursive(st.lists(leaves, min_size=1, max_size=3), made_of, max_leaves=6)


def shapes(program):
    """The name of each node of a program."""
    for name, *parts in program:
        yield name
        for part in parts:
            if isinstance(part, list) and name not in ("completed", "first", "queue", "messages"):
                inner = part if name == "gather" else [part] if part and isinstance(part[0], tuple) else []
                yield from itertools.chain.from_iterable(map(shapes, inner))


class Gate:
    """Lets bodies that run at the same time end one at a time, in an order."""

    def __init__(self, order):
        self.order = order
        self.open = [asyncio.Event() for _ in order]
        self.passed = 0
        self.open[0].set()

    async def wait(self, place):
        await self.open[self.order.index(place)].wait()

    def let_next(self):
        self.passed += 1
        if self.passed < len(self.open):
            self.open[self.passed].set()


gate = ContextVar("gate", default=None)
where = ContextVar("where", default=())


def key():
    """Names the node that is executed, the same in each pass, and no other node."""
    return "-".join(map(str, where.get()))


class Interpreter:
    """Executes a random program as a workflow, and notes each body that is entered."""

    def __init__(self, place):
        self.place = place
        self.wf = Workflow("random", db=place / "runs.db", default_retries=1, default_backoff=constant(0))
        task = self.wf.task
        self.call, self.note = task(name="call")(self.call_body), task(name="note")(self.call_body)
        self.fail = task(name="fail")(self.fail_body)
        self.flaky = task(name="flaky")(self.flaky_body)
        self.sometimes = task(name="sometimes", retries=0)(self.flaky_body)
        self.gated = task(name="gated")(self.gated_body)
        self.forever = task(name="forever")(self.forever_body)
        self.add = task(name="add")(self.add_body)
        self.sort = task(name="sort")(self.sort_body)
        self.add_and_fail = task(name="add_and_fail", retries=0)(self.add_and_fail_body)
        self.nested, self.nested_add = task(name="nested")(self.run), task(name="nested_add")(self.add_around)
        self.child = self.wf.workflow(self.child_body)
        self.main = self.wf.workflow(self.main_body)

    def noted(self, *given):
        """Note that a body is entered, and with what; return the id of its step among those of all runs."""
        scope = scopes.current_scope()
        step_id = f"{scope.run.run_id}:{scope.path[:-1]}"
        log = os.open(self.place / "bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, f"{step_id} {json.dumps(given)}\n".encode())
        os.close(log)
        return step_id

    # Bodies

    async def call_body(self, n):
        step_id = self.noted(n)
        await asyncio.sleep(0)
        return step_id, n

    async def fail_body(self, n):
        self.noted()
        raise ValueError(n)

    async def flaky_body(self, n):
        """Fails when it is executed first, also if that was in a process that was killed."""
        step_id = self.noted()
        marker = self.place / ("tried-" + step_id.replace("/", "-"))
        if not marker.exists():
            marker.touch()
            raise ConnectionError(n)
        return step_id, n

    async def gated_body(self, place, n):
        step_id = self.noted()
        await gate.get().wait(place)
        return step_id, n

    async def forever_body(self, n):
        self.noted()
        await asyncio.Event().wait()

    async def add_body(self, rows, n):
        self.noted()
        rows["rows"].append(n)
        rows.setdefault("seen", set()).add(n)
        rows["bytes"].append(n)
        return rows["rows"]

    async def sort_body(self, rows, n):
        self.noted()
        rows["rows"].sort(reverse=n % 2 == 0)
        return rows["rows"]

    async def add_and_fail_body(self, rows, n):
        self.noted()
        rows["rows"].append(["failed", n])
        raise ValueError(n)

    async def add_around(self, rows, program):
        self.noted()
        rows.append("before")
        result = await self.run(program)
        await self.add({"rows": rows, "bytes": bytearray()}, len(rows))
        rows.append("after")
        return result

    # Nodes

    async def main_body(self, program, outside):
        result = await self.run(program)
        return result, [await self.wf.receive("outside") for _ in range(OUTSIDE if outside else 0)]

    async def child_body(self, program, how):
        result = await self.run(program)
        if how != "ends":
            await (self.fail if how == "fails" else self.sometimes)(0)
        return result, await self.wf.receive("from above")

    async def run(self, program):
        return [await self.run_node(index, *each) for index, each in enumerate(program)]

    async def run_node(self, index, name, *parts):
        token = where.set((*where.get(), index))
        try:
            return await getattr(self, f"do_{name}")(*parts)
        finally:
            where.reset(token)

    async def do_call(self, n):
        return await self.call(n)

    async def do_flaky(self, n):
        return await self.flaky(n)

    async def do_fail(self, n):
        try:
            await self.fail(n)
        except ValueError as error:
            return ["caught", *error.args]

    async def do_sometimes(self, n):
        try:
            found = (await self.sometimes(n))[1]
        except ConnectionError:
            found = "caught"
        await self.note(found)

    async def do_chance(self):
        await self.note([await self.wf.random(), str(await self.wf.uuid4()), str(await self.wf.now())])

    async def do_gather(self, branches):
        return await asyncio.gather(*(self.branch(n, each) for n, each in enumerate(branches)))

    async def branch(self, n, program):
        where.set((*where.get(), f"b{n}"))
        return await self.run(program)

    async def do_loop(self, times, program):
        return [await self.branch(f"l{n}", program) for n in range(times)]

    async def do_nested(self, program):
        return await self.nested(program)

    async def do_completed(self, order):
        passing = Gate(order)
        found = []
        for each in asyncio.as_completed([self.behind(passing, n, n) for n in range(len(order))]):
            found.append((await each)[1])
            passing.let_next()
        return found, await self.note(found)

    async def behind(self, passing, place, n):
        gate.set(passing)
        return await self.gated(place, n)

    async def do_first(self, order, count):
        passing = Gate(order)
        left = {asyncio.create_task(self.behind(passing, n, n)) for n in range(len(order))}
        found = []
        while left and len(found) < count:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            found.append(sorted(each.result()[1] for each in done))
            if len(found) < count:
                passing.let_next()
        for each in left:
            each.cancel()
        cancelled = [type(each).__name__ for each in await asyncio.gather(*left, return_exceptions=True)]
        return found, cancelled, await self.note(found)

    async def do_queue(self, workers, choices):
        passing = Gate(feasible(workers, choices))
        queue, found = asyncio.Queue(), []
        for n in range(len(choices)):
            queue.put_nowait(n)

        async def work(worker):
            gate.set(passing)
            while not queue.empty():
                n = queue.get_nowait()
                found.append((worker, (await self.gated(n, n))[1]))
                passing.let_next()

        await asyncio.gather(*map(work, range(workers)))
        return found, await self.note(found)

    async def do_in_time(self, waits, program):
        if waits:
            return await asyncio.wait_for(self.run(program), 600)
        async with asyncio.timeout(600):
            return await self.run(program)

    async def do_late(self, waits, program, count):
        try:
            if waits:
                await self.run(program)
                await asyncio.wait_for(asyncio.gather(*map(self.forever, range(count))), SOON)
            else:
                async with asyncio.timeout(None) as limit:
                    await self.run(program)
                    limit.reschedule(asyncio.get_running_loop().time() + SOON)
                    await asyncio.gather(*map(self.forever, range(count)))
        except TimeoutError:
            return "late", await self.note(count)

    async def do_child(self, how, program):
        run_id = f"child-{how}-{key()}"
        await self.wf.send(run_id, "from above", key())
        try:
            result = await self.child.run(run_id, program, how)
        except (ValueError, ConnectionError):
            result = "caught"
        await self.note(result)
        return None if how == "sometimes" else result

    async def do_in_place(self, changes, program):
        rows = {"rows": [2, 1], "bytes": bytearray()}
        held, same = rows["rows"], []
        for n, change in enumerate(changes):
            if change == "fail":
                try:
                    await self.add_and_fail(rows, n)
                except ValueError as error:
                    same.append(error.args)
                held.remove(["failed", n])
            else:
                same.append(await getattr(self, change)(rows, n) is held)
        more = []
        result = await self.nested_add(more, program)
        return result, same, held, more, sorted(rows.get("seen", ())), list(rows["bytes"])

    async def do_saga(self, count, how):
        done, outcome = [], "confirm"
        try:
            for n in range(count):
                await self.call(n)
                done.append(n)
            await (self.fail if how == "fails" else self.sometimes)(count)
        except (ValueError, ConnectionError):
            outcome = "undo"
        settled = [await self.note([outcome, n]) for n in reversed(done)]
        return None if how == "sometimes" else settled

    async def do_messages(self, values):
        run_id, topic = scopes.current_scope().run.run_id, f"own-{key()}"
        for value in values:
            await self.wf.send(run_id, topic, value)
        first = [await self.wf.receive(topic) for _ in values[:1]]
        rest = [value async for value in self.wf.receive(topic, timeout=0)]
        try:
            await self.wf.receive(topic, timeout=0)
        except SignalTimeout:
            return first + rest


def feasible(workers, choices):
    """An order in which so many workers can end the items of a queue."""
    items = iter(range(len(choices)))
    begun, order = list(itertools.islice(items, workers)), []
    for choice in choices:
        order.append(begun.pop(choice % len(begun)))
        begun.extend(itertools.islice(items, 1))
    return order
