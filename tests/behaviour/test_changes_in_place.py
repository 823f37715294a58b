"""What a task changes in its arguments is part of its result: a replay changes the caller's objects alike."""

import asyncio
import collections
import dataclasses
import sqlite3
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pydantic
import pytest

from durable_nb import settings
from durable_nb.errors import DurableNotice, StepNotRestored


class Down(Exception):
    """Ends the first pass of a run."""


class Box:
    def __init__(self, value):
        self.value, self.items = value, [1]

    def __repr__(self):
        return f"Box({vars(self)})"


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"Slotted({self.value})"


@dataclasses.dataclass
class Order:
    lines: list
    total: int = 0


class Model(pydantic.BaseModel):
    n: int = 0


class Rows(list):
    """A list of the user's own class."""


def replayed(again, change, make):
    """What two passes see of an argument, of what it holds, and of the result, and how often the body ran."""
    ran, seen = [], []

    def define(wf):
        @wf.task(retries=0)
        def work(value):
            ran.append(1)
            return change(value)

        @wf.workflow
        def main():
            value = make()
            held = list(value.values()) if isinstance(value, dict) else value
            result = work(value)
            seen.append((repr(value), repr(held), result is value))
            if len(seen) == 1:
                raise Down

        return main

    with pytest.raises(Down):
        define(again()).run("r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        define(again()).run("r")
    assert len(ran) == 1
    return seen


def deepest(value):
    value["rows"][0]["n"] = 2
    value["rows"].append(value["rows"][0])


def moved(value):
    value.move_to_end("a")


def filled(array):
    array[1:] = 7


def located(frame):
    frame.loc[0, "a"] = 5
    frame["c"] = frame["a"] * 2


def numbered(box):
    box.value += 1
    box.items.append(2)
    del box.items[0]
    box.more = {"n": 1}


def reordered(value):
    first = value.pop("a")
    value["a"] = first


def emptied(rows):
    rows.clear()


CHANGES = {
    "a list": (lambda rows: rows.sort(), lambda: [3, 1, 2]),
    "a list that is emptied": (lambda rows: rows.clear(), lambda: [3, 1, 2]),
    "a list that is returned": (lambda rows: rows.append(1) or rows, lambda: [0]),
    "a list of the user's class": (lambda rows: rows.append(1), lambda: Rows([0])),
    "a dict": (lambda value: value.update(b=2, c=3) or value.pop("a"), lambda: {"a": 1, "b": 1}),
    "the order of a dict": (reordered, lambda: {"a": 1, "b": 2}),
    "what a dict holds": (deepest, lambda: {"rows": [{"n": 1}, {"n": 1}]}),
    "a defaultdict": (lambda value: value["b"].append(1), lambda: collections.defaultdict(list, a=[0])),
    "a Counter": (lambda value: value.update("aab"), lambda: collections.Counter("a")),
    "an OrderedDict": (moved, lambda: collections.OrderedDict(a=1, b=2)),
    "a set": (lambda value: value.symmetric_difference_update({1, 2}), lambda: {1}),
    "a deque": (lambda value: value.rotate(), lambda: collections.deque([1, 2, 3], maxlen=3)),
    "a bytearray": (lambda value: value.extend(b"z"), lambda: bytearray(b"a")),
    "a list in a tuple": (lambda value: value[1].append(3), lambda: (1, [2])),
    "an array": (filled, lambda: np.arange(4.0)),
    "an array of objects": (lambda value: value[0].append(1), lambda: np.array([[0], None], dtype=object)),
    "a large array": (filled, lambda: np.zeros(300_000)),
    "a frame": (located, lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})),
    "a series": (filled, lambda: pd.Series([1, 2, 3], name="n")),
    "an object": (numbered, lambda: Box(1)),
    "an object with slots": (lambda value: setattr(value, "value", 2), lambda: Slotted(1)),
    "a dataclass": (lambda order: order.lines.append(1) or setattr(order, "total", 5), lambda: Order([])),
    "a model": (lambda model: setattr(model, "n", 3), Model),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_replay_makes_the_change_again(again, kind):
    change, make = CHANGES[kind]
    first, second = replayed(again, change, make)
    assert first == second
    assert first[0] != repr(make())


RETURNED = {
    "an argument": (lambda value: value, lambda result, value: result is value),
    "an array": (lambda value: value["array"], lambda result, value: result is value["array"]),
    "what an argument holds": (lambda value: value["rows"], lambda result, value: result is value["rows"]),
    "a tuple": (lambda value: (1, value["rows"]), lambda result, value: result[1] is value["rows"]),
    "a copy": (lambda value: [*value["rows"]], lambda result, value: result is not value["rows"]),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_an_argument_that_is_returned_unchanged_is_the_callers_own(again, kind):
    """What the caller does to the result, the argument shows, also on replay."""
    give, is_own = RETURNED[kind]
    ran, seen = [], []

    def define(wf):
        @wf.task
        def work(value):
            ran.append(1)
            return give(value)

        @wf.workflow
        def main():
            value = {"rows": [1, 2], "array": np.arange(3)}
            result = work(value)
            seen.append((is_own(result, value), repr(result)))
            raise Down

        return main

    for _ in range(3):
        with pytest.raises(Down):
            define(again()).run("r")
    assert ran == [1]
    assert seen == [(True, seen[0][1])] * 3


def test_an_argument_that_is_returned_is_the_recorded_one_where_the_caller_has_another(again):
    seen = []

    def define(wf, rows):
        @wf.task(on_change="keep")
        def work(rows):
            return rows

        @wf.workflow
        def main():
            seen.append(work(rows))
            raise Down

        return main

    for rows in ([1], [1], [1, 2]):
        main = define(again(), rows)
        with warnings.catch_warnings(action="ignore"), pytest.raises(Down):
            main.run("r")
    assert seen == [[1]] * 3


def test_what_else_refers_to_a_changed_object_sees_the_change_too(again):
    ran, seen = [], []

    def define(wf):
        @wf.task
        def clean(rows):
            ran.append(1)
            rows[0]["seen"] = True
            rows.reverse()
            return {"first": rows[0], "all": rows}

        @wf.workflow
        def main():
            one, other = {"n": 1}, {"n": 2}
            rows = [one, other]
            found = clean(rows)
            same = found["first"] is other, found["all"] is rows, rows[1] is one
            seen.append((same, one, other, rows))
            if len(seen) == 1:
                raise Down

        return main

    with pytest.raises(Down):
        define(again()).run("r")
    define(again()).run("r")
    assert (
        seen[0]
        == seen[1]
        == ((True,) * 3, {"n": 1, "seen": True}, {"n": 2}, [{"n": 2}, {"n": 1, "seen": True}])
    )
    assert ran == [1]


def test_changes_made_before_a_failure_that_was_caught_are_made_again(again):
    seen = []

    def define(wf):
        @wf.task(retries=0)
        def work(rows):
            rows.append(1)
            raise ValueError("no")

        @wf.workflow
        def main():
            rows = []
            try:
                work(rows)
            except ValueError:
                wf.sync.now()
            seen.append(list(rows))
            if len(seen) == 1:
                raise Down

        return main

    with pytest.raises(Down):
        define(again()).run("r")
    define(again()).run("r")
    assert seen == [[1], [1]]


@pytest.mark.parametrize("executor", [False, True])
def test_a_body_in_another_process_changes_nothing_here(again, executor):
    seen = []
    options = {"executor": lambda: ProcessPoolExecutor(1)} if executor else {}

    def define(wf):
        work = wf.task(name="work", **options)(emptied)

        @wf.workflow
        def main():
            rows = collections.deque([1])
            work(rows)
            seen.append(list(rows))
            if len(seen) == 1:
                raise Down

        return main

    with pytest.raises(Down):
        define(again()).run("r")
    define(again()).run("r")
    assert seen == ([[1], [1]] if executor else [[], []])


def test_a_change_that_cannot_be_saved_is_named_and_its_replay_refused(again):
    ran = []

    def define(wf):
        @wf.task
        def connect(pool):
            ran.append(1)
            pool.append(sqlite3.connect(":memory:"))
            return 1

        @wf.workflow
        def main():
            pool = []
            connect(pool)
            pool[0].close()
            raise Down

        return main

    with pytest.warns(DurableNotice) as said, pytest.raises(Down):
        define(again()).run("r")
    (message,) = [str(one.message) for one in said]
    assert message.startswith(
        "run 'r', step 'connect': its body changed 'pool' in place, and the change cannot be saved: it "
        "contains "
    )
    assert message.endswith(
        ". A replay of the step will be refused. Return the new value from the task instead"
    )
    with pytest.raises(
        StepNotRestored, match=r"step 'connect': its body changed 'pool' in place, and .*'rerun'"
    ):
        define(again()).run("r")
    assert ran == [1]


async def test_what_steps_share_that_run_at_the_same_time_is_named_and_not_restored(again):
    seen = []

    def define(wf):
        @wf.task
        async def put(found, n):
            await asyncio.sleep(0.01)
            found[n] = n

        @wf.workflow
        async def main():
            found = {}
            await asyncio.gather(put(found, 1), put(found, 2))
            seen.append(found)
            if len(seen) == 1:
                raise Down

        return main

    with (
        pytest.warns(
            DurableNotice, match="changed 'found' in place while another step that has it was running"
        ),
        pytest.raises(Down),
    ):
        await define(again()).run("r")
    with pytest.warns(
        DurableNotice, match="replayed without its changes of 'found', which other steps were using"
    ):
        await define(again()).run("r")
    assert seen == [{1: 1, 2: 2}, {}]


async def test_a_step_inside_another_is_part_of_it(again):
    seen = []

    def define(wf):
        @wf.task
        async def inner(rows):
            rows.append("inner")

        @wf.task
        async def outer(rows):
            await inner(rows)
            rows.append("outer")

        @wf.workflow
        async def main():
            rows = []
            await outer(rows)
            seen.append(rows)
            if len(seen) == 1:
                raise Down

        return main

    with pytest.raises(Down):
        await define(again()).run("r")
    await define(again()).run("r")
    assert seen == [["inner", "outer"]] * 2


@pytest.mark.parametrize(
    ("value", "reason"), [(threading.Event(), "Event"), ([0] * 100, "it holds too much")]
)
def test_what_cannot_be_checked_is_replayed_with_one_notice(again, monkeypatch, value, reason):
    monkeypatch.setattr(settings, "WATCHED_ITEMS", 50)
    passes = []

    def define(wf):
        @wf.task
        def fetch(client, n):
            return n

        @wf.workflow
        def main():
            found = [fetch(value, n) for n in range(3)]
            passes.append(found)
            if len(passes) == 1:
                raise Down

        return main

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Down):
            define(again()).run("r")
    with pytest.warns(
        DurableNotice, match=f"whether its body changes 'client' .*{reason}.* cannot be checked"
    ) as said:
        define(again()).run("r")
    assert len(said) == 1
    assert passes == [[0, 1, 2]] * 2


def test_a_replay_does_not_undo_what_the_user_has_written_since(again):
    """An object of a class that has no fingerprint may be another one now."""

    def define(wf, items, retries):
        @wf.task
        def work(box):
            box.value += 1
            box.items.append(9)

        @wf.workflow
        def main():
            box = Box(1)
            box.items, box.retries = items, retries
            work(box)
            seen.append(vars(box))
            raise Down

        return main

    seen = []
    with pytest.raises(Down):
        define(again(), [1, 2], 3).run("r")
    with pytest.raises(Down):
        define(again(), [1, 2], 5).run("r")
    assert seen[1] == {"value": 2, "items": [1, 2, 9], "retries": 5}
    with pytest.raises(StepNotRestored, match="'box' holds something else"):
        define(again(), [1, 7], 5).run("r")


def test_a_result_that_is_kept_although_arguments_changed_changes_nothing(again):
    seen = []

    def define(wf, rows):
        @wf.task(on_change="keep")
        def work(rows):
            rows.append(1)
            return "done"

        @wf.workflow
        def main():
            seen.append((work(rows), rows))
            raise Down

        return main

    with pytest.raises(Down):
        define(again(), []).run("r")
    with pytest.warns(DurableNotice, match="replayed although its arguments changed"), pytest.raises(Down):
        define(again(), [5]).run("r")
    assert seen == [("done", [1]), ("done", [5])]


def test_in_the_process_that_ran_it_an_object_may_have_changed_already(again):
    class Shop:
        def __init__(self):
            self.sold = []

        def __eq__(self, other):  # it has no fingerprint
            return self is other

        __hash__ = None

    wf = again()

    @wf.task
    def sell(shop, n):
        shop.sold.append(n)
        return n

    fails = [True]

    @wf.workflow(id="r")
    def main(shop):
        found = sell(shop, 3)
        if fails:
            raise OSError("down")
        return found

    shop = Shop()
    with pytest.raises(OSError, match="down"):
        main(shop)
    fails.clear()
    assert main(shop) == 3
    assert shop.sold == [3]
