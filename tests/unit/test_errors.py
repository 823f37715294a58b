"""Every error of ours: what happened, to which run and step, and what to type next, in one line."""

import asyncio
import contextlib
import inspect
import os
import pickle
import re
import sqlite3
import sys
import types
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor

import pytest

from durable_nb import InMemoryStore, Workflow, errors
from durable_nb.codec import decode
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.errors import DurableError
from durable_nb.records import Payload, Run, RunStatus, SignalRequest
from durable_nb.stores.sqlite.schema import MIGRATIONS
from helpers.unfinished import leave_unfinished

BASES = {"DurableError", "RunError", "StepError", "StoreError"}


def invalid_option(wf):
    wf.task(retries=-1)(print)


def invalid_run_id(wf):
    wf.workflow(lambda: None).run("")


def no_open_run(wf):
    wf.sync.signal("approval")


def forked_process(wf):
    """In a child, which sends the error back."""
    work = wf.task(lambda: None, name="work")
    reading, writing = os.pipe()

    @wf.workflow
    def main():
        if os.fork() == 0:
            try:
                work()
            except DurableError as error:
                os.write(writing, pickle.dumps(error))
            os._exit(0)
        os.wait()

    main.run("r")
    raise pickle.loads(os.read(reading, 10_000))


def run_not_found(wf):
    run_blocking(SYNC.store(wf.journal.setup()))
    run_blocking(SYNC.store(wf.journal.rename_run("nowhere", "else")))


def run_not_done(wf):
    wf.workflow(lambda: None).run("r")
    leave_unfinished(wf).sync.result("r")


def run_changed(wf):
    run = wf.workflow(lambda n: n).run
    run("r", 1)
    run("r", 2)


def crash_loop(wf):
    task = wf.task(name="load")(lambda: 1)
    main = wf.workflow(lambda: task())
    run_blocking(SYNC.store(wf.journal.setup()))
    run = run_blocking(SYNC.store(wf.journal.open_run(Run("r", main.workflow_id)))).run
    run_blocking(SYNC.store(wf.journal.finish_run(run._replace(status=RunStatus.FAILED, crashes=5))))
    main.run("r")


def run_held(wf):
    task = wf.task(name="late")(lambda: 1)

    def main():
        run_blocking(SYNC.store(wf.journal.open_run(Run("r", wf.name, owner="process 1 on elsewhere"))))
        task()

    wf.workflow(main).run("r")


def session(wf):
    from IPython.core.interactiveshell import InteractiveShell

    from durable_nb.notebook.session import Session

    shell = InteractiveShell()
    opened = Session(shell)
    opened.open("r", db=wf.db, name="notebook")
    return opened


def step_not_found(wf):
    session(wf).reset("loda")


def step_changed(wf):
    task = wf.task(name="double")(lambda n: 2 * n)
    numbers = iter((1, 2))
    main = wf.workflow(lambda: task(next(numbers)) and {}["no such key"])
    with contextlib.suppress(KeyError):
        main.run("r")
    main.run("r")


def untrusted(wf):
    task = wf.task(name="many")(lambda: bytearray)
    with contextlib.suppress(KeyError):
        wf.workflow(lambda: task() and {}["no such key"]).run("r")
    with contextlib.closing(sqlite3.connect(wf.db)) as connection, connection:
        connection.execute("UPDATE steps SET payload_signature = x'00'")
    wf.close()
    with Workflow("test", db=wf.db) as again:
        again.workflow(again.task(name="many")(lambda: bytearray)).run("r")


def step_in_doubt(wf):
    def stop():
        raise KeyboardInterrupt

    main = wf.workflow(wf.task(name="pay", once=True)(stop))
    with contextlib.suppress(KeyboardInterrupt):
        main.run("r")
    main.run("r")


def step_nested(wf):
    from durable_nb.engine.scopes import Scope, enter_scope
    from durable_nb.notebook.cell import CellOptions, run_cell
    from durable_nb.workflow.retry import Policy

    opened = session(wf)
    with enter_scope(Scope(opened.current, "outer/")):
        asyncio.run(run_cell(opened, CellOptions("inner", Policy(0, lambda _: 0), "rerun"), "1"))


def step_not_saved(wf):
    task = wf.task(name="connect")(lambda: sqlite3.connect(":memory:"))
    wf.workflow(task).run("r")


def step_not_restored(wf):
    decode(Payload("json", b'{"cut of'))


def step_failed(wf):
    module = types.ModuleType("gone")
    sys.modules["gone"] = module
    module.Gone = type("Gone", (Exception,), {"__module__": "gone"})

    def raising():
        raise module.Gone("no more")

    first, second = wf.task(name="first", retries=0)(raising), wf.task(name="second")(lambda: 1)

    def main():
        try:
            first()
        except errors.StepFailed:
            raise
        except Exception:
            return second() and {}["no such key"]

    with contextlib.suppress(KeyError):
        wf.workflow(main).run("r")
    del sys.modules["gone"]
    wf.workflow(main).run("r")


def step_timeout(wf):
    async def wait():
        await asyncio.sleep(30)

    async def main():
        await wf.task(name="wait", retries=0, timeout=0.01)(wait)()

    asyncio.run(wf.workflow(main).run("r"))


def store_unavailable(wf):
    Workflow("w", db=wf.db.parent / "no" / "such" / "folder.db").workflow(lambda: None).run("r")


def store_unreadable(wf):
    wf.db.write_bytes(b"this is no database, whatever its name says" * 100)
    wf.workflow(lambda: None).run("r")


def store_too_new(wf):
    wf.workflow(lambda: None).run("r")
    wf.close()
    with sqlite3.connect(wf.db) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    wf.workflow(lambda: None).run("r")


def executor_lost(wf):
    with ThreadPoolExecutor() as pool:
        pool.submit = lambda *_: Lost()

        @wf.task(executor=pool, retries=0)
        def fit():
            return 1

        wf.workflow(fit).run("r")


class Lost(Future):
    def __init__(self):
        super().__init__()
        self.set_exception(BrokenExecutor("a process died"))


def signal_timeout(wf):
    wf.db = InMemoryStore()
    wf.workflow(lambda: wf.sync.signal("go", timeout=0.01)).run("r")


def signal_invalid(wf):
    request = SignalRequest("r", "go", schema='{"type": "string"}')
    run_blocking(SYNC.store(wf.journal.setup()))
    run_blocking(SYNC.store(wf.journal.request_signal(request)))
    wf.sync.complete("r", "go", 3)


EXPECTED = {
    "InvalidOption": (invalid_option, "invalid retries=-1: expected an integer >= 0"),
    "InvalidRunId": (invalid_run_id, "'' cannot name a run.*Use a string"),
    "NoOpenRun": (no_open_run, r"signal\('approval'\) was called outside a run.*\.run\('RUN_ID'"),
    "ForkedProcess": (forked_process, r"process \d+ was forked from the one that has it open.*other runs"),
    "RunNotFound": (run_not_found, "run 'nowhere': not found in .*To list the runs: durable-nb runs"),
    "RunNotDone": (
        run_not_done,
        r"run 'r': the run has no result: it is interrupted\. Call it again .*\.run\('r', …\)",
    ),
    "RunChanged": (
        run_changed,
        r"run 'r': the run was started with other arguments \(n: 1 → 2\).*fresh=True",
    ),
    "CrashLoop": (
        crash_loop,
        r"run 'r', step 'load': the process died in 5 passes .*wf\.sync\.resolve\('r', 'load', 'rerun'\)",
    ),
    "RunHeld": (
        run_held,
        r"no longer owns .*process 1 on elsewhere.*\.run\('r', …, take_over=True\)",
    ),
    "StepNotFound": (
        step_not_found,
        "run 'r', step 'loda': no step of that name. Steps: none yet.",
    ),
    "StepChanged": (step_changed, r"run 'r', step 'double': .*\(n: 1 → 2\). .*'double', 'rerun'"),
    "StepInDoubt": (
        step_in_doubt,
        r"run 'r', step 'pay': it was started but never recorded.*\(started at 20.*'pay', 'value', VALUE",
    ),
    "StepNested": (step_nested, "run 'r', step 'inner': a durable cell cannot be nested .*cell of its own"),
    "StepNotSaved": (step_not_saved, r"run 'r', step 'connect': .*sqlite3\.Connection.*\. \w+"),
    "StepNotRestored": (step_not_restored, r"damaged.*To execute the step again: .*'rerun'"),
    "UntrustedCheckpoint": (
        untrusted,
        r"run 'r', step 'many': .*runs\.db.* would run code.* durable-nb trust .*runs\.db",
    ),
    "StepFailed": (step_failed, "run 'r', step 'first': .*Gone.*no more"),
    "ExecutorLost": (executor_lost, r"run 'r', step 'fit': .*a process died.*executor=lambda: "),
    "StepTimeout": (step_timeout, r"run 'r', step 'wait': .*timeout of 0.01 s. Set a longer timeout"),
    "SignalTimeout": (
        signal_timeout,
        r"run 'r', step 'signal:go': no answer to signal 'go' within 0.01 s.*complete\('r'",
    ),
    "SignalInvalid": (
        signal_invalid,
        r"run 'r', step 'signal:go': 3 is not accepted: 3 is not of type .*Deliver another",
    ),
    "StoreUnavailable": (store_unavailable, r"run 'r': .*folder.db.*\. \w+"),
    "StoreUnreadable": (store_unreadable, r"run 'r': .*runs.db.*\. \w+"),
    "StoreTooNew": (store_too_new, r"run 'r': .*runs.db.*newer.*\. \w+"),
}


@pytest.fixture
def wf(tmp_path):
    with Workflow("test", db=tmp_path / "runs.db") as workflow:
        yield workflow


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", EXPECTED)
def test_what_an_error_says(wf, name):
    provoke, pattern = EXPECTED[name]
    with pytest.raises(getattr(errors, name)) as caught:
        provoke(wf)
    message = str(caught.value)
    assert type(caught.value).__name__ == name
    assert "\n" not in message
    assert re.search(pattern, message), message
    assert caught.value.remedy


CLASSES = {
    name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, DurableError)
}


def test_every_error_there_is_has_its_line_here():
    assert EXPECTED.keys() == CLASSES - BASES


def test_the_tree_in_the_docstring_has_them_all():
    assert set(re.findall(r"\w+", errors.__doc__)) >= CLASSES


def test_an_error_survives_pickling():
    error = errors.StepChanged("it changed", run_id="r", step="s", remedy="Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
