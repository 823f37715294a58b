"""The golden runs of workflows and of an agent: what they call, and what they return.

Each body notes in ``EXECUTED`` that it ran: a replay of finished runs executes none.
"""

import asyncio
import os
import sys
import types
import warnings
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel
from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from durable_nb import DurableAgent, Workflow, constant, errors
from golden.values import VALUES, Paint, Refused

EXECUTED = []
FAILURES = ("notes", "cause", "group", "odd init", "system error", "cannot be pickled", "class gone")
GONE = "golden_gone"
"""A module that the writer alone has."""


class Order(BaseModel):
    item: str
    amount: int


def failure(kind):
    """The exception of a kind, as a body raises it."""
    if kind == "notes":
        error = KeyError("k", 1)
        error.add_note("first")
        error.add_note("second")
        error.kept = [Paint.RED]
    elif kind == "cause":
        error = LookupError("outer")
        error.__cause__ = ZeroDivisionError("inner")
    elif kind == "group":
        error = ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [Refused(2, hint="h")])])
    elif kind == "odd init":
        error = Refused(3, hint="h")
    elif kind == "system error":
        error = FileNotFoundError(2, "No such file", "nowhere.txt")
    elif kind == "cannot be pickled":
        error = ValueError("held", (n for n in ()))
    else:
        module = sys.modules.setdefault(GONE, types.ModuleType(GONE))
        module.Vanished = type("Vanished", (Exception,), {"__module__": GONE})
        error = module.Vanished("it was here")
        error.add_note("noted")
    return error


def respond(messages, info):
    """The model: it calls a tool, one that needs an approval, and gives its output."""
    number = sum(isinstance(message, ModelResponse) for message in messages)
    EXECUTED.append(f"model {number}")
    calls = [
        ("look", {"item": "tea"}),
        ("pay", {"amount": 3}),
        ("final_result", {"item": "tea", "amount": 3}),
    ]
    name, arguments = calls[number]
    return ModelResponse(parts=[TextPart(f"turn {number}"), ToolCallPart(name, arguments, f"call-{number}")])


class Runs:
    """The workflows, over a database.

    Args:
        db: Its path.
        dies: Whether a body that is to be killed ends its process.
    """

    def __init__(self, db, dies=False):  # noqa: C901 - one run after the other
        self.wf = wf = Workflow("golden", db=db, default_retries=0, default_backoff=constant(0))

        @wf.task
        def value(kind):
            EXECUTED.append(kind)
            return VALUES[kind].make()

        @wf.task
        async def twice(n):
            EXECUTED.append(f"twice {n}")
            return 2 * n, datetime(2026, 1, n, tzinfo=UTC)

        @wf.task
        async def fails(kind):
            EXECUTED.append(kind)
            raise failure(kind)

        attempts = []

        @wf.task(retries=2, retry_on=ConnectionError)
        async def third_time(word):
            EXECUTED.append(word)
            attempts.append(word)
            if len(attempts) < 3:
                raise ConnectionError
            return word

        @wf.task
        async def outer(n):
            EXECUTED.append(f"outer {n}")
            return [await twice(n), await twice(n)]

        @wf.task(once=True)
        def pay(amount):
            EXECUTED.append(f"pay {amount}")
            if dies:
                os._exit(9)
            return f"paid {amount}"

        @wf.task(once=True)
        def charge(amount):
            EXECUTED.append(f"charge {amount}")
            raise ConnectionError("lost")

        @wf.workflow(id="values")
        def values():
            found = {}
            for kind in VALUES:
                try:
                    found[kind] = value(kind)
                except errors.StepNotRestored as error:  # on another version of Python
                    found[kind] = error
            self.found = found
            return sorted(found)

        @wf.workflow(id="failures")
        async def failures():
            caught = []
            for kind in FAILURES:
                try:
                    await fails(kind)
                except Exception as error:
                    caught.append(error)
            self.caught = caught
            return await twice(1)

        @wf.workflow(id="failed")
        async def failed():
            await twice(2)
            raise failure("odd init")

        @wf.workflow(id="branches-{n}")
        async def branches(n, word="w"):
            mapped = await wf.map(twice, range(1, n + 1), limit=2)
            both = await asyncio.gather(outer(1), twice(2))
            return mapped, both, await third_time(word), await twice(1), await twice(1)

        @wf.workflow(id="child-{n}")
        async def child(n):
            return await twice(n)

        @wf.workflow(id="parent")
        async def parent():
            return [await child(3), await twice(4)]

        @wf.workflow(id="signals")
        async def signals():
            return (
                await wf.signal("early"),
                await wf.signal("chosen", choices=["a", "b"]),
                await wf.signal("typed", schema=Order),
                await wf.signal("nobody", timeout=0.01, default=None),
                await twice(5),
            )

        @wf.workflow(id="sleeps")
        async def sleeps():
            await wf.sleep(0.01)
            await wf.sleep(timedelta(milliseconds=5))
            await wf.sleep_until(datetime(2026, 1, 1, tzinfo=UTC))
            return await twice(6)

        @wf.workflow(id="over")
        async def over(n=7):
            return await twice(n), Paint.BLUE, {1, 2}

        @wf.workflow(id="resolved")
        def resolved():
            return charge(8)

        @wf.workflow(id="in-doubt")
        def in_doubt():
            return pay(9)

        @wf.workflow(id="waiting")
        async def waiting():
            first = await twice(8)
            if dies:
                asyncio.get_running_loop().call_later(0.3, os._exit, 9)
            return first, await wf.signal("go", prompt="Go on?", schema=bool)

        @wf.workflow(id="cancelled")
        async def cancelled():
            first = await twice(9)
            return first, await wf.signal("go")

        self.values, self.failures, self.failed, self.branches = values, failures, failed, branches
        self.child, self.parent, self.signals, self.sleeps, self.over = child, parent, signals, sleeps, over
        self.resolved, self.in_doubt, self.waiting, self.cancelled = resolved, in_doubt, waiting, cancelled
        self.agent = self._agent()

    def _agent(self):
        def look(item: str) -> tuple[str, set[int], datetime]:
            EXECUTED.append("look")
            return item, {1, 2}, datetime(2026, 1, 1, tzinfo=UTC)

        async def pay(amount: int) -> str:
            EXECUTED.append("agent pay")
            return f"paid {amount}"

        tools = [look, Tool(pay, requires_approval=True)]
        model = FunctionModel(respond, model_name="golden")
        return DurableAgent(Agent(model, name="clerk", tools=tools, output_type=Order), self.wf)

    async def finished(self):
        """Start or resume every run that came to its end; gives what each returned."""
        wf = self.wf
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a replay has no notice to give, but that this Python is another
            warnings.filterwarnings("ignore", "run '.*' was started on Python")
            return {
                "values": await asyncio.to_thread(self.values),
                "failures": await self.failures(),
                "failed": await self._raised(self.failed()),
                "branches-3": await self.branches(3),
                "parent": await self.parent(),
                "child-3": await self.child(3),
                "signals": await self.signals(),
                "sleeps": await self.sleeps(),
                "over": await self.over(),
                "resolved": await asyncio.to_thread(self.resolved),
                "agent": await self._asked(wf),
            }

    async def _raised(self, pass_):
        try:
            return await pass_
        except Refused as error:
            return error.args

    async def _asked(self, wf):
        result = await self.agent.run("tea, please", run_id="agent")
        return result.output, result.usage, result.all_messages()


def expected(found):
    """What the finished runs return; of the agent's messages, what stands in them for certain."""
    moment = lambda n: (2 * n, datetime(2026, 1, n, tzinfo=UTC))
    return {
        "values": sorted(VALUES),
        "failures": moment(1),
        "failed": ("3: h",),
        "branches-3": (
            [moment(1), moment(2), moment(3)], [[moment(1), moment(1)], moment(2)], "w", moment(1), moment(1),
        ),
        "parent": [moment(3), moment(4)],
        "child-3": moment(3),
        "signals": ({"n": (1, 2)}, "b", Order(item="tea", amount=2), None, moment(5)),
        "sleeps": moment(6),
        "over": (moment(7), Paint.BLUE, {1, 2}),
        "resolved": ("by hand", {8}),
    }  # fmt: skip
