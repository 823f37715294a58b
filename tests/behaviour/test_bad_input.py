"""Bad input: each is one clear line of ours that says what to do, and nothing is lost."""

import asyncio
import re
import sqlite3

import pytest

from durable_nb import DurableError, Workflow, constant
from durable_nb.errors import (
    InvalidOption,
    InvalidRunId,
    StepChanged,
    StepError,
    StoreTooNew,
    StoreUnavailable,
    StoreUnreadable,
)
from durable_nb.stores.sqlite import schema


@pytest.fixture
def wf(tmp_path):
    with Workflow("shop", db=tmp_path / "runs.db") as wf:
        yield wf


def one_line(error):
    """The message of an error of ours, which is one line and has a remedy."""
    assert isinstance(error, DurableError)
    message = str(error)
    assert "\n" not in message
    assert message.isprintable()
    assert error.remedy
    assert len(message) < 600
    return message


# Names


FIT = [
    "a",
    "order/17",
    "two words",
    " padded ",
    "ünïcode",
    "👩‍💻 emoji",
    "50%",
    "a#1",
    "~0",
    "[x]",
    "x" * 1000,
    "'quoted'",
]
UNFIT = [
    "",
    "  ",
    "two\nlines",
    "tab\t",
    "nul\x00",
    "\x7f",
    "\x85",
    "lone \udc80",
    "\u2028",
    "x" * 1001,
    "x" * 10_000,
]
NO_TEXT = [None, 3, b"bytes", ["list"], object()]


@pytest.mark.parametrize("name", FIT, ids=lambda name: name[:12])
async def test_names_that_work_everywhere(wf, name):
    ran = []

    @wf.task
    async def give(n):
        ran.append(n)
        return n

    @wf.workflow
    async def main():
        return await give(1, step_id=name), await give(2), await wf.signal(name)

    assert await wf.complete(name, name, "came")
    assert await main.run(name) == (1, 2, "came")
    assert await main.run(name) == (1, 2, "came")
    assert ran == [1, 2]


@pytest.mark.parametrize("name", [*UNFIT, *NO_TEXT], ids=lambda name: ascii(name)[:16])
async def test_ids_that_can_name_no_run(wf, name):
    @wf.workflow
    async def main():
        raise AssertionError("not to be run")

    with pytest.raises(InvalidRunId, match="cannot name a run") as caught:
        await main.run(name)
    one_line(caught.value)
    with pytest.raises(InvalidRunId, match="cannot name a run"):
        await wf.complete(name, "approval")
    with pytest.raises(ValueError, match="cannot name a run"):
        wf.sync.complete(name, "approval")


@pytest.mark.parametrize("name", [*UNFIT, *NO_TEXT[1:]], ids=lambda name: ascii(name)[:16])
async def test_names_that_steps_and_signals_cannot_have(wf, name):
    @wf.task(retries=3, backoff=constant(0))
    async def give():
        raise AssertionError("not to be run")

    @wf.workflow
    async def step():
        await give(step_id=name)

    @wf.workflow
    async def signal():
        await wf.signal(name)

    with pytest.raises(InvalidOption, match="cannot name a step") as caught:
        await step.run("a")
    one_line(caught.value)
    with pytest.raises(InvalidOption, match="cannot name a signal") as caught:
        await signal.run("b")
    one_line(caught.value)
    with pytest.raises(InvalidOption, match="cannot name a signal"):
        await wf.complete("c", name)


# Templates


@pytest.mark.parametrize(
    "template",
    ["order-{order}", "order-{0}", "order-{order_id.missing}", "order-{order_id[x]}", "order-{", "{note:d}"],
)
def test_a_template_that_cannot_be_filled(wf, template):
    @wf.workflow(id=template)
    def process(order_id, note=None):
        raise AssertionError("not to be run")

    with pytest.raises(InvalidRunId, match=r"cannot fill the template .* of shop\.process") as caught:
        process("a17")
    assert "Use the arguments of the function: order_id, note." in one_line(caught.value)


def test_arguments_that_make_no_run_id(wf):
    @wf.workflow
    def summarize(text):
        return len(text)

    with pytest.raises(InvalidRunId, match="cannot name a run: it has 2015 characters") as caught:
        summarize("x" * 2000)
    one_line(caught.value)
    assert summarize.run("a text", "x" * 2000) == 2000


# Two calls of one name


@pytest.mark.one_pass
async def test_two_running_calls_of_one_name(wf):
    ran = []

    @wf.task
    async def double(n):
        ran.append(n)
        await asyncio.sleep(0)
        return 2 * n

    async def both(first, second):
        return await asyncio.gather(
            double(first, step_id="x"), double(second, step_id="x"), return_exceptions=True
        )

    @wf.workflow
    async def main(second):
        return await both(1, second)

    for second in 1, 2:
        result, error = await main.run(f"r{second}", second)
        assert result == 2
        assert isinstance(error, StepError)
        assert one_line(error).startswith(
            f"run 'r{second}', step 'x': another call of that name is still running."
        )
    assert ran == [1, 1]


async def test_calls_of_one_name_one_after_the_other(wf):
    ran = []

    @wf.task
    async def double(n):
        ran.append(n)
        return 2 * n

    @wf.workflow
    async def main():
        first = await double(1, step_id="x"), await double(1, step_id="x")
        with pytest.raises(StepChanged, match="n: 1 → 2") as caught:
            await double(2, step_id="x")
        one_line(caught.value)
        return first

    assert await main.run("r") == (2, 2)
    assert ran == [1]


@pytest.mark.one_pass
async def test_a_call_that_was_given_up_can_be_made_again_under_its_name(wf):
    ran = []

    @wf.task
    async def slow(n):
        ran.append(n)
        await asyncio.sleep(0 if len(ran) > 1 else 3600)
        return n

    @wf.workflow
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(1, step_id="x"), 0.01)
        return await slow(1, step_id="x")

    assert await main.run("r") == 1
    assert ran == [1, 1]


async def test_two_tasks_cannot_share_a_name(wf):
    @wf.task
    async def one():
        return 1

    @wf.task
    async def two():
        return 2

    @wf.workflow
    async def named():
        await one(step_id="x")
        await two(step_id="x")

    with pytest.raises(StepError, match=r"run 'r', step 'x': the name is taken by a call of 'one'") as caught:
        await named.run("r")
    one_line(caught.value)

    @wf.workflow
    async def counted():
        await one()
        await two(step_id="one")

    with pytest.raises(StepError, match=r"run 's', step 'one': the name is taken by a call without step_id="):
        await counted.run("s")


async def test_a_counted_call_does_not_take_the_name_that_was_given_to_another(wf):
    @wf.task
    async def fetch(n):
        return n

    @wf.workflow
    async def main():
        return [await fetch(0, step_id="fetch"), await fetch(1), await fetch(2)]

    assert await main.run("r") == await main.run("r") == [0, 1, 2]


# What cannot be durable


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
@pytest.mark.parametrize("role", ["task", "workflow"])
def test_generators_are_refused_when_they_are_declared(wf, function, role):
    with pytest.raises(
        TypeError, match=rf"{function.__name__} is a generator function, which cannot be a {role}"
    ):
        getattr(wf, role)(function)
    with pytest.raises(TypeError, match=f"a {role} must be a function, not int"):
        getattr(wf, role)(3)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"retries": "3"}, "invalid retries='3': expected an integer >= 0"),
        ({"timeout": "30s"}, "invalid timeout='30s': expected a number of seconds > 0"),
        ({"backoff": "exp"}, "invalid backoff='exp': expected a function"),
        ({"retry_on": "OSError"}, "invalid retry_on='OSError': expected an exception class"),
        ({"give_up_on": (OSError, "x")}, "invalid give_up_on="),
    ],
)
def test_an_option_of_another_type_is_refused_where_it_is_written(wf, option, expected):
    with pytest.raises(InvalidOption, match=re.escape(expected)) as caught:
        wf.task(**option)(len)
    assert "For example: " in str(caught.value)


@pytest.mark.parametrize("length", ["soon", "1", b"1", [1], -1, float("nan"), float("inf")])
def test_a_length_of_time_of_another_type_is_refused(wf, length):
    waits = (
        lambda: wf.sync.sleep(length),
        lambda: asyncio.run(wf.sleep(length)),
        lambda: wf.sync.signal("s", timeout=length),
    )
    for wait in waits:
        with pytest.raises(InvalidOption) as caught:
            wait()
        assert str(caught.value) == (
            f"invalid length of time {length!r}: expected a number of seconds >= 0, or a timedelta. "
            "For example: 0.5, or timedelta(hours=1)."
        )


def test_a_sleep_of_no_length_is_refused(wf):
    for wait in (lambda: wf.sync.sleep(None), lambda: asyncio.run(wf.sleep(None))):
        with pytest.raises(InvalidOption, match="invalid length of time None: expected a number of seconds"):
            wait()


def test_retries_below_zero(wf):
    with pytest.raises(InvalidOption, match="invalid retries=-1: expected an integer >= 0"):
        wf.task(retries=-1)(generator.__class__)


# Databases


def run_on(db):
    wf = Workflow("shop", db=db)

    @wf.workflow
    def main():
        raise AssertionError("not to be run")

    with pytest.raises(DurableError) as caught:
        main.run("r")
    with pytest.raises(DurableError):
        wf.sync.complete("r", "approval", True)
    wf.close()
    return caught.value


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "notes.txt").write_text("remember the milk\n" * 100)
    error = run_on(tmp_path / "notes.txt")
    assert isinstance(error, StoreUnreadable)
    assert "is not an SQLite database" in one_line(error)
    assert (tmp_path / "notes.txt").read_text() == "remember the milk\n" * 100


def test_somebody_elses_database(tmp_path):
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("CREATE TABLE steps (mine TEXT)")
    connection.close()
    before = (tmp_path / "theirs.db").read_bytes()
    error = run_on(tmp_path / "theirs.db")
    assert isinstance(error, StoreUnreadable)
    one_line(error)
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_a_database_of_a_newer_version(tmp_path):
    wf = Workflow("shop", db=tmp_path / "runs.db")
    wf.sync.complete("r", "approval", True)
    wf.close()
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    error = run_on(tmp_path / "runs.db")
    assert isinstance(error, StoreTooNew)
    one_line(error)
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        assert connection.execute("SELECT count(*) FROM signals").fetchone() == (1,)
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 1,)
    connection.close()


def test_a_folder_and_a_folder_that_is_not_there(tmp_path):
    folder, missing = run_on(tmp_path), run_on(tmp_path / "missing" / "runs.db")
    assert isinstance(folder, StoreUnavailable)
    assert "is a folder, not a database" in one_line(folder)
    assert isinstance(missing, StoreUnavailable)
    assert "does not exist" in one_line(missing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "db", ["", " ", ":memory:", "mysql://host/db", "sqlite://runs.db", 3, None, "a\x00b"]
)
def test_places_that_are_none(db, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption) as caught:
        Workflow("shop", db=db)
    one_line(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_memory_is_refused_with_what_to_write_instead():
    with pytest.raises(InvalidOption) as caught:
        Workflow("shop", db=":memory:")
    assert one_line(caught.value).endswith("db=InMemoryStore(), from durable_nb.")


def test_after_each_of_them_the_workflow_goes_on_in_the_right_place(tmp_path):
    """What failed leaves nothing behind: the same path works as soon as its folder is there."""
    wf = Workflow("shop", db=tmp_path / "later" / "runs.db")

    @wf.workflow
    def main():
        return 3

    with pytest.raises(StoreUnavailable):
        main.run("r")
    (tmp_path / "later").mkdir()
    assert main.run("r") == 3
    wf.close()


class Order:
    pass


@pytest.mark.parametrize("template", [None, "order-{order}", "order-{order.place}"])
def test_an_id_with_a_memory_address_is_refused(wf, template):
    """The next process would make another id of it, and start over."""
    place = wf.workflow(id=template)(lambda order: 1)
    order = Order()
    order.place = order.__init__ if template == "order-{order.place}" else None
    with pytest.raises(InvalidRunId) as caught:
        place(order)
    said = one_line(caught.value)
    assert "cannot name a run: it contains a memory address, which differs in each process" in said
    assert ".run('…', …), or a template: @wf.workflow(id='…')" in said
    assert place.run("named", order) == 1


def test_arguments_that_give_no_run_id(wf):
    """An id made of long or multi-line values is refused with the two ways to give a better one."""

    @wf.workflow
    def summarise(text):
        return len(text)

    for text in ("one\ntwo", "x" * 2000):
        with pytest.raises(InvalidRunId) as caught:
            summarise(text)
        assert "summarise.run('…', …), or a template: @wf.workflow(id='…')" in one_line(caught.value)
        assert summarise.run("named", text, fresh=True) == len(text)
