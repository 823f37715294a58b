"""What a tool changes in the dependencies of its agent is named: dependencies are never saved."""

import asyncio
import dataclasses
import threading
import warnings

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext

from durable_nb import DurableAgent, settings
from durable_nb.errors import DurableNotice


@dataclasses.dataclass
class Deps:
    seen: list = dataclasses.field(default_factory=list)
    total: int = 0
    rows: dict = dataclasses.field(default_factory=dict)
    client: object = None


def add(ctx: RunContext[Deps], n: int) -> int:
    ctx.deps.seen.append(n)
    ctx.deps.total += n
    return ctx.deps.total


def put(ctx: RunContext[Deps], n: int) -> int:
    ctx.deps.rows["n"] = n
    return n


def fail(ctx: RunContext[Deps], n: int) -> int:
    ctx.deps.seen.append(n)
    raise ValueError(n)


def look(ctx: RunContext[Deps], n: int) -> int:
    return len(ctx.deps.seen) + n


def notices(call):
    """What a call says of dependencies."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    told = [str(each.message) for each in found if issubclass(each.category, DurableNotice)]
    return [message for message in told if "ctx.deps" in message or "dependencies" in message]


def run_of(again, model, tools, deps, **options):
    """Notices of one pass of a run that ends with an error, so that it is entered again."""
    agent = Agent(model, name="clerk", tools=tools, deps_type=Deps, **options)
    wf = again(default_retries=0)
    clerk = DurableAgent(agent, wf)

    @wf.workflow(id="r")
    async def main():
        await clerk.run("go", deps=deps)
        raise KeyError

    def call():
        with pytest.raises((KeyError, ValueError)):
            asyncio.run(main())

    return notices(call)


CHANGED = {
    "attributes": (add, "ctx.deps.total, ctx.deps.seen"),
    "a value of a dict": (put, "ctx.deps.rows['n']"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_change_is_named_when_it_is_made_and_when_it_is_not_made_again(again, script, kind):
    tool, places = CHANGED[kind]
    model = script([(tool.__name__, {"n": 2})], "done")
    where = f"run 'r', step 'clerk/tool:{tool.__name__}': "
    first, later = Deps(), Deps()
    instead = "Return the value from the tool instead, or keep it where another process finds it"
    (told,) = run_of(again, model, [tool], first)
    made = (
        f"its body changed {places}, and dependencies are not kept: a replay will not make the change again"
    )
    assert told == f"{where}{made}. {instead}"
    (told,) = run_of(again, model, [tool], later)
    assert (
        told == f"{where}replayed without its changes of {places}, since dependencies are not kept. {instead}"
    )
    assert first != Deps()
    assert later == Deps()


def test_a_tool_that_is_called_often_is_named_once(again, script):
    model = script([("add", {"n": 1})], [("add", {"n": 2})], [("add", {"n": 3})], "done")
    for _ in range(2):
        assert len(run_of(again, model, [add], Deps())) == 1


@pytest.mark.parametrize("deps", [None, "text", 7, Deps(), Deps(client=threading.Lock()), threading.Lock()])
def test_a_tool_that_changes_nothing_is_not_named(again, script, deps):
    def read(ctx: RunContext[Deps], n: int) -> int:
        return n

    for _ in range(2):
        assert run_of(again, script([("read", {"n": 1})], "done"), [read], deps) == []


def test_what_is_over_the_budget_is_not_checked(again, script, monkeypatch):
    monkeypatch.setattr(settings, "WATCHED_ITEMS", 10)
    deps = Deps(seen=[0] * 100)
    for _ in range(2):
        assert run_of(again, script([("put", {"n": 1})], "done"), [put], deps) in ([], [])


def test_a_change_before_a_failure_is_named(again, script):
    (told,) = run_of(again, script([("fail", {"n": 1})], "done"), [fail], Deps())
    assert told.startswith("run 'r', step 'clerk/tool:fail': its body changed ctx.deps.seen, ")


def test_an_output_function_is_named(again, script):
    def total(ctx: RunContext[Deps], n: int) -> int:
        ctx.deps.total = n
        if n < 2:
            raise ModelRetry("more")
        return n

    model = script([("final_result", {"n": 1})], [("final_result", {"n": 2})])
    (told,) = run_of(again, model, [], Deps(), output_type=total)
    assert "its body changed ctx.deps.total, " in told


def test_tools_that_run_at_the_same_time_are_both_named(again, script):
    both = [asyncio.Event(), asyncio.Event()]

    async def one(ctx: RunContext[Deps]) -> int:
        both[0].set()
        await both[1].wait()
        ctx.deps.total = 1
        return 1

    async def other(ctx: RunContext[Deps]) -> int:
        await both[0].wait()
        both[1].set()
        await asyncio.sleep(0)
        return 2

    told = run_of(again, script([("one", {}), ("other", {})], "done"), [one, other], Deps())
    assert all(
        "its body, or that of a step that ran at the same time, changed ctx.deps.total" in each
        for each in told
    )
    assert any("'clerk/tool:one'" in each for each in told)


def test_a_task_inside_a_tool_still_has_its_changes_kept(again, script):
    """The tool's dependencies are watched while the task's arguments, parts of them, are."""
    kept = []

    def define(wf, ends):
        @wf.task
        def sort(rows):
            rows.sort()

        async def tidy(ctx: RunContext[Deps]) -> int:
            sort(ctx.deps.seen)
            kept.append(list(ctx.deps.seen))
            if not ends:
                raise ValueError("not yet")
            return 1

        return DurableAgent(
            Agent(script([("tidy", {})], "done"), name="clerk", tools=[tidy], deps_type=Deps), wf
        )

    for ends in (False, True):
        agent = define(again(default_retries=0), ends)

        def call(agent=agent, ends=ends):
            if ends:
                agent.run_sync("go", run_id="r", deps=Deps(seen=[3, 1, 2]))
            else:
                with pytest.raises(ValueError, match="not yet"):
                    agent.run_sync("go", run_id="r", deps=Deps(seen=[3, 1, 2]))

        told = notices(call)
        assert len(told) == 1
        assert "its body changed ctx.deps.seen, " in told[0]
    assert kept == [[1, 2, 3]] * 2


def test_without_a_run_nothing_is_watched(script):
    agent = Agent(script([("add", {"n": 1})], "done"), tools=[add], deps_type=Deps)
    assert notices(lambda: agent.run_sync("go", deps=Deps())) == []
