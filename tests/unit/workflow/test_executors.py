"""Bodies that run elsewhere: processes, loky, Dask; and each of the traps."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from durable_nb import DaskExecutor, Workflow, constant
from durable_nb.errors import (
    DurableNotice,
    ExecutorLost,
    InvalidOption,
    StepError,
    StepFailed,
    StepNotSaved,
    StepTimeout,
)
from durable_nb.workflow import executors

PROGRAM = """
import asyncio, os, sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from durable_nb import Workflow, constant

def factory():
    PLACE

class Odd(Exception):
    def __init__(self, n, why):
        super().__init__(n, why)
        self.n = n

if __name__ == "__main__":
    wf = Workflow("away", db="runs.db", default_backoff=constant(0))
    scale = 10

    @wf.task
    def helper(n):
        return n + 1

    @wf.task(executor=factory)
    async def aside(n):
        await asyncio.sleep(0)
        return os.getpid(), helper(n) * scale

    @wf.task(executor=factory)
    def blocking(n):
        return os.getpid(), n

    @wf.task(executor=factory, retries=1)
    async def fails(n):
        open("tried", "a").write("x")
        raise Odd(n, "because")

    large = wf.task(executor=factory, name="large")(lambda size: b"x" * size)

    @wf.workflow
    async def main():
        values = await asyncio.gather(*map(aside, range(4)))
        try:
            await fails(7)
        except Odd as error:
            caught = type(error) is Odd, error.args, error.n, "in fails" in str(error.__notes__)
        return values, blocking(5), caught, len(large(20_000_000))

    values, other, caught, size = asyncio.run(main.run("r"))
    assert [value for _, value in values] == [10, 20, 30, 40]
    assert os.getpid() not in {pid for pid, _ in [*values, other]}
    assert caught == (True, (7, "because"), 7, True)
    assert size == 20_000_000
    assert asyncio.run(main.run("r"))[0] == values
    assert open("tried").read() == "xx"
    print("fine")
"""

PLACES = {
    "processes": "return ProcessPoolExecutor(2)",
    "loky": "import loky; return loky.get_reusable_executor(2)",
}


@pytest.mark.parametrize("place", PLACES)
def test_what_a_script_defines_runs_in_other_processes(tmp_path, place):
    (tmp_path / "job.py").write_text(PROGRAM.replace("PLACE", PLACES[place]))
    done = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fine\n", done.stderr


@pytest.fixture
def wf(tmp_path):
    with Workflow("away", db=tmp_path / "runs.db", default_backoff=constant(0)) as workflow:
        yield workflow


class Fake(Executor):
    """Keeps what was submitted; each future is settled as told."""

    def __init__(self, settle=lambda future, call, *args: future.set_result(call(*args))):
        self.calls, self.settle = [], settle

    def submit(self, call, /, *args, **kwargs):
        assert not kwargs  # trap 2: some executors keep keywords for themselves
        self.calls.append((call, args))
        future = Future()
        threading.Timer(0, self.settle, (future, call, *args)).start()
        return future


def test_no_two_submissions_are_equal(wf):
    """Trap 1: Dask takes equal calls for one, a retry too."""
    place = Fake()

    @wf.task(executor=place, retries=2)
    def work(key, retries, workers, priority):
        if not os.environ.get("WORKED"):
            os.environ["WORKED"] = "1"
            raise ConnectionError
        return key, retries, workers, priority

    @wf.workflow
    def main():
        return [work(key=1, retries=2, workers=3, priority=4) for _ in range(2)]

    try:
        assert main.run("r") == [(1, 2, 3, 4)] * 2
    finally:
        del os.environ["WORKED"]
    assert len({args for _, args in place.calls}) == len(place.calls) == 3


def test_a_scheduler_that_is_gone_is_no_cancellation(wf):
    """Trap 4: it looks like one, and nobody cancelled."""
    place = Fake(lambda future, call, *args: future.cancel() and future.set_running_or_notify_cancel())

    @wf.task(executor=place, retries=1)
    async def work():
        return 1

    @wf.workflow
    async def main():
        return await work()

    with pytest.raises(ExecutorLost, match="lost while it ran the body") as caught:
        asyncio.run(main.run("r"))
    assert len(place.calls) == 2
    assert caught.value.step == "work"
    assert not isinstance(caught.value, CancelledError)


def test_a_broken_pool_is_made_again(wf, tmp_path):
    """Trap 5: a pool that lost a process stays broken."""
    made = []

    def factory():
        made.append(ProcessPoolExecutor(1))
        return made[-1]

    mark = tmp_path / "died"

    @wf.task(executor=factory, retries=1)
    async def dies_once():
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    @wf.workflow
    async def main():
        return await dies_once()

    assert asyncio.run(main.run("r")) != os.getpid()
    assert len(made) == 2
    made[-1].shutdown()


def test_a_pool_that_cannot_be_made_again_says_so(wf):
    with ProcessPoolExecutor(1) as pool:

        @wf.task(executor=pool, retries=1)
        def dies():
            os.kill(os.getpid(), signal.SIGKILL)

        @wf.workflow
        def main():
            return dies()

        with pytest.raises(ExecutorLost, match="executor=lambda: ProcessPoolExecutor"):
            main.run("r")


def test_of_many_on_a_broken_pool_each_is_made_up_for_once(wf, tmp_path):
    """Whoever hears of it late does not break the pool that was made instead."""
    made, mark = [], tmp_path / "died"

    def factory():
        made.append(ProcessPoolExecutor(2))
        return made[-1]

    @wf.task(executor=factory, retries=1)
    async def work(n):
        if n == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    @wf.workflow
    async def main():
        return await asyncio.gather(*map(work, range(20)))

    assert asyncio.run(main.run("r")) == list(range(20))
    assert len(made) == 2
    made[-1].shutdown()


def test_a_pool_that_was_shut_down_is_lost(wf):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    work = wf.task(executor=pool, retries=0, name="work")(lambda: 1)
    with pytest.raises(ExecutorLost, match="cannot schedule new futures"):
        wf.workflow(lambda: work()).run("r")


class Slow(ThreadPoolExecutor):
    """Takes its time to take a body, as a cluster may."""

    def submit(self, *args, **kwargs):
        time.sleep(5)
        return super().submit(*args, **kwargs)


def test_an_attempt_whose_time_is_up_while_it_is_submitted_has_lost_no_executor(wf):
    work = wf.task(executor=Slow, timeout=0.2, retries=0, name="work")(lambda: 1)
    with pytest.raises(StepTimeout):
        wf.workflow(lambda: work()).run("r")


def test_a_class_makes_one(wf):
    work = wf.task(executor=ThreadPoolExecutor, name="work")(lambda: 1)
    assert wf.workflow(lambda: work()).run("r") == 1


def test_what_a_factory_made_goes_with_it(wf):
    """A cell that is run again brings another factory."""
    before = len(executors._executors)
    for number in range(3):
        work = wf.task(executor=lambda: ThreadPoolExecutor(1), name=f"work{number}")(lambda: 1)
        assert wf.workflow(work).run(f"r{number}") == 1
    del work
    gc.collect()
    assert len(executors._executors) <= before + 1


def bodies(log):
    return log.read_text() if log.exists() else ""


def noted(log):
    with log.open("a") as file:
        file.write("x")


def test_a_result_that_cannot_travel_never_repeats_the_body(wf, tmp_path):
    log = tmp_path / "bodies.log"

    def work():
        noted(log)
        return (n for n in range(3))

    with ProcessPoolExecutor(1) as pool:
        work = wf.task(executor=pool, retries=2)(work)
        with pytest.raises(StepNotSaved, match="generator: cannot pickle") as caught:
            wf.workflow(lambda: work()).run("r")
    assert (caught.value.run_id, caught.value.step) == ("r", "work")
    assert bodies(log) == "x"


class Broken:
    """What only its own process can make again."""

    def __reduce__(self):
        return made_in, (os.getpid(),)


def made_in(pid):
    if os.getpid() != pid:
        raise RuntimeError("not here")


def test_a_result_that_cannot_be_read_here_neither(wf, tmp_path):
    log = tmp_path / "bodies.log"

    def work():
        noted(log)
        return Broken()

    with ProcessPoolExecutor(1) as pool:
        work = wf.task(executor=pool, retries=2)(work)
        with pytest.raises(StepNotSaved, match="RuntimeError: not here"):
            wf.workflow(lambda: work()).run("r")
    assert bodies(log) == "x"


def test_a_call_that_cannot_travel_is_said_and_never_retried(wf):
    place, lock = Fake(), threading.Lock()
    work = wf.task(executor=place, retries=2, name="work")(lambda: lock)
    with pytest.raises(StepError, match=r"cannot send the call.*lock.*Pass plain data") as caught:
        wf.workflow(lambda: work()).run("r")
    assert caught.value.step == "work"
    assert place.calls == []


def test_a_body_that_its_worker_cannot_load(wf):
    class Elsewhere:
        def __reduce__(self):
            return __import__, ("no_such_module",)

    thing = Elsewhere()
    place = Fake()
    work = wf.task(executor=place, retries=2, name="work")(lambda: thing)
    with pytest.raises(StepError, match=r"cannot load the body.*no_such_module"):
        wf.workflow(lambda: work()).run("r")
    assert len(place.calls) == 1


class Picky(Exception):
    """Does not take the arguments that it shows."""

    def __init__(self, n, why):
        super().__init__(f"{n}, {why}")
        self.n = n


def test_an_exception_keeps_its_class_whatever_it_takes(wf):
    def work():
        raise Picky(7, "because")

    with ProcessPoolExecutor(1) as pool:
        work = wf.task(executor=pool, retries=0)(work)
        with pytest.raises(Picky, match="7, because") as caught:
            wf.workflow(lambda: work()).run("r")
    assert caught.value.n == 7
    assert "in work" in caught.value.__notes__[0]


def test_an_exception_that_cannot_travel_is_told(wf):
    def work():
        error = ValueError("no")
        error.lock = threading.Lock()
        raise error

    work = wf.task(executor=Fake(), retries=0)(work)
    with pytest.raises(StepFailed, match="ValueError: no"):
        wf.workflow(lambda: work()).run("r")


class Choosy(Exception):
    """Is not even made with the arguments that it shows."""

    def __new__(cls, *, why):
        return super().__new__(cls, why)

    def __init__(self, *, why):
        super().__init__(why)


def test_an_exception_that_cannot_be_made_again_is_told(wf):
    def work():
        raise Choosy(why="no luck")

    work = wf.task(executor=Fake(), retries=0)(work)
    with pytest.raises(StepFailed, match="Choosy: no luck"):
        wf.workflow(lambda: work()).run("r")


LIBRARY = """
from durable_nb import Workflow
wf = Workflow("library")

@wf.task
def helper(n):
    return n + 1

def use(n):
    return helper(n)
"""


def test_a_forked_worker_is_in_no_run(wf, tmp_path, monkeypatch):
    """A task of an imported module is the plain function there, as on another machine."""
    (tmp_path / "a_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    import a_library

    with ProcessPoolExecutor(1) as pool:
        work = wf.task(executor=pool, retries=0, name="work")(lambda: a_library.use(1))
        assert wf.workflow(lambda: work()).run("r") == 2


def test_a_large_global_is_told_of(wf):
    """Trap 7: globals go along with each call."""
    data = b"x" * 11_000_000

    @wf.task(executor=Fake())
    def work():
        return len(data)

    @wf.workflow
    def main():
        return work()

    with pytest.warns(DurableNotice, match="work sends 10 MiB to its executor"):
        assert main.run("r") == 11_000_000


@pytest.mark.parametrize("mode", ["async", "sync", "sync in a thread"])
def test_a_late_result_is_nobodys(wf, mode):
    """Trap 9: a body that runs cannot be cancelled; its result comes to an attempt that is over."""
    release, late = threading.Event(), []

    def settle(future, call, *args):
        number = len(place.calls)
        if number == 1:
            release.wait(5)
            late.append(number)
        future.cancelled() or future.set_result(call(*args))

    place = Fake(settle)
    options = {"executor": place, "timeout": 0.2, "retries": 1, "retry_on": StepTimeout}
    if mode == "async":

        @wf.task(**options)
        async def work():
            return 1

        @wf.workflow
        async def main():
            value = await work()
            release.set()
            return value

        assert asyncio.run(main.run("r")) == 1
    else:

        @wf.task(**options)
        def work():
            return 1

        @wf.workflow
        def main():
            value = work()
            release.set()
            return value

        run = main.run if mode == "sync" else in_a_thread(main.run)
        assert run("r") == 1
    assert len(place.calls) == 2


def in_a_thread(function):
    def call(*args):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *args).result()

    return call


@pytest.mark.parametrize("where", ["the main thread", "a thread", "map"])
def test_a_body_that_is_late_on_its_executor_is_a_timeout_in_any_thread(wf, where, tmp_path):
    """A real process: the wait ends while the body goes on."""
    ended = tmp_path / "ended"

    def wait():
        time.sleep(3)
        ended.touch()

    with ProcessPoolExecutor(1) as place:
        late = wf.task(executor=place, timeout=0.5, retries=0, name="late")(wait)
        main = wf.workflow(lambda: wf.sync.map(lambda _: late(), [0]) if where == "map" else late())
        run = in_a_thread(main.run) if where == "a thread" else main.run
        with pytest.raises(StepTimeout, match=r"run 'r', step '.*late': .* timeout of 0.5 s"):
            run("r")
        assert not ended.exists()


def test_outside_a_run_it_is_the_plain_function(wf):
    place = Fake()

    @wf.task(executor=place)
    def work(n):
        return n

    assert work(3) == 3
    assert place.calls == []


@pytest.mark.parametrize("place", [3, "pool"])
def test_what_is_no_executor(wf, place):
    with pytest.raises(InvalidOption, match="executor="):
        wf.task(executor=place)(lambda: 1)


def test_threads_and_other_executors_of_the_standard_library(wf):
    with ThreadPoolExecutor(2) as pool:

        @wf.task(executor=pool)
        async def work(n):
            return threading.current_thread() is threading.main_thread(), n

        @wf.workflow
        async def main():
            return await asyncio.gather(*map(work, range(3)))

        assert asyncio.run(main.run("r")) == [(False, n) for n in range(3)]


@pytest.fixture(scope="module")
def dask():
    """Two worker processes, which run nothing again by themselves."""
    import dask.config
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_dask_spreads_50_tasks_over_both_workers(wf, dask, tmp_path):
    place, log = DaskExecutor(dask), tmp_path / "bodies.log"

    @wf.task(executor=place)
    async def work(n):
        with log.open("a") as file:
            file.write(f"{n}\n")
        time.sleep(0.02)
        return n, os.getpid()

    @wf.workflow
    async def main():
        return await asyncio.gather(*map(work, range(50)))

    found = asyncio.run(main.run("r"))
    assert [n for n, _ in found] == list(range(50))
    assert len({pid for _, pid in found}) == 2
    assert asyncio.run(main.run("r")) == found
    assert sorted(map(int, log.read_text().split())) == list(range(50))


def test_dask_takes_no_keyword_of_a_body_for_its_own(wf, dask):
    """Trap 2."""

    @wf.task(executor=dask.get_executor())
    async def work(key, *, retries, workers, priority, pure):
        return key, retries, workers, priority, pure

    @wf.workflow
    async def main():
        return await work(key="k", retries=7, workers="w", priority=1, pure=False)

    assert asyncio.run(main.run("r")) == ("k", 7, "w", 1, False)


def test_a_task_that_a_body_names_comes_without_its_store(wf, tmp_path):
    """Trap 6: it is the plain function there."""

    @wf.task
    def helper(n):
        return n + 1

    def work(n):
        return type(helper).__name__, helper(n)

    with ProcessPoolExecutor(1) as pool:
        work = wf.task(executor=pool)(work)
        assert wf.workflow(lambda: work(1)).run("r") == ("function", 2)
    assert wf.workflow(lambda: helper(1)).run("other") == 2


class Alien:
    """What some executors give: like a future in its methods alone."""

    def __init__(self, value):
        self.value = value

    def add_done_callback(self, callback):
        threading.Timer(0.01, callback, [self]).start()

    def done(self):
        return True

    def result(self):
        return self.value


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_what_submit_gives_need_be_no_future_of_the_standard_library(wf, mode):
    """Trap 8."""
    place = Fake(lambda future, call, *args: future.set_result(Alien(call(*args))))
    submit = place.submit
    place.submit = lambda *args: submit(*args).result()

    async def plain():
        return 7

    work = wf.task(executor=place, name="work")(plain if mode == "async" else lambda: 7)
    main = wf.workflow(plain_main(work) if mode == "async" else lambda: work())
    assert (asyncio.run(main.run("r")) if mode == "async" else main.run("r")) == 7


def plain_main(work):
    async def main():
        return await work()

    return main


def test_dask_gives_exact_exceptions_and_equal_calls_are_not_one(wf, dask, tmp_path):
    log = tmp_path / "bodies.log"

    class Odd(Exception):
        pass

    @wf.task(executor=dask.get_executor(), retries=2)
    async def fails(n):
        with log.open("a") as file:
            file.write("x")
        raise Odd(n)

    @wf.workflow
    async def main():
        try:
            await fails(1)
        except Odd as error:
            return error.args

    assert asyncio.run(main.run("r")) == (1,)
    assert log.read_text() == "xxx"


def test_dask_loses_a_worker_and_the_retry_is_ours(wf, dask, tmp_path):
    log = tmp_path / "bodies.log"

    # More than two: a body may be sent to a worker that is dead and not yet missed, and then never begins.
    @wf.task(executor=DaskExecutor(dask), retries=20)
    async def dies_twice():
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    @wf.workflow
    async def main():
        return await dies_twice()

    assert asyncio.run(main.run("r")) == "alive"
    assert log.read_text() == "xxx"


def test_a_retry_on_dask_executes_the_body_again(wf, dask, tmp_path):
    log = tmp_path / "bodies.log"

    @wf.task(executor=DaskExecutor(dask), retries=2)
    async def fails_twice():
        noted(log)
        if len(bodies(log)) < 3:
            raise ValueError(bodies(log))
        return "fine"

    @wf.workflow
    async def main():
        return await fails_twice()

    assert asyncio.run(main.run("r")) == "fine"
    assert bodies(log) == "xxx"


def test_dask_never_begins_a_body_again_by_itself(wf, dask, tmp_path):
    """Not when a worker dies, nor when one that has the result does; a retry is ours, and counted."""
    log = tmp_path / "bodies.log"
    dask.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))

    @wf.task(executor=DaskExecutor(dask), retries=0)
    async def dies():
        noted(log)
        os.kill(os.getpid(), signal.SIGKILL)

    @wf.workflow
    async def main():
        return await dies()

    with pytest.raises(ExecutorLost, match="Dask started it again"):
        asyncio.run(main.run("r"))
    assert bodies(log) == "x"
    dask.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))


def test_what_is_on_record_is_forgotten_by_the_cluster(wf, dask):
    place = DaskExecutor(dask)

    @wf.task(executor=place)
    async def work(n):
        return n

    @wf.workflow
    async def main():
        return await asyncio.gather(*map(work, range(5)))

    assert asyncio.run(main.run("recorded")) == list(range(5))
    place.forget_recorded()
    assert not [name for name in dask.list_datasets() if name.startswith("durable_nb/recorded/")]


KERNEL = """
import asyncio, sys
from distributed import Client
from durable_nb import Workflow
from durable_nb import DaskExecutor

if __name__ == "__main__":
    wf = Workflow("away", db="runs.db")

    @wf.task(executor=DaskExecutor(Client(sys.argv[1])))
    async def slow():
        import time
        open("begun", "a").write("x")
        time.sleep(2)
        return 42

    @wf.workflow
    async def main():
        return await slow()

    print(asyncio.run(main.run("r")), flush=True)
"""


def moved_to(folder, dask):
    """Have both workers there: one that another test has killed must be back first."""
    dask.wait_for_workers(2)
    assert len(dask.run(os.chdir, str(folder))) == 2


def test_the_kernel_dies_while_dask_works(dask, tmp_path):
    """The one that takes the run up waits for what was begun: it is executed once."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    command = [sys.executable, "kernel.py", dask.scheduler.address]
    begun = tmp_path / "begun"
    moved_to(tmp_path, dask)
    first = subprocess.Popen(command, cwd=tmp_path)
    while not begun.exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert second.stdout == "42\n", second.stderr
    assert begun.read_text() == "x"


EARLY = """
import os
from durable_nb import DaskExecutor
DaskExecutor._start_event = lambda *_: os._exit(9)
"""


def test_the_kernel_dies_before_the_body_could_begin(dask, tmp_path):
    """Published and not let go: the next kernel does that; nothing begins that nobody could find again."""
    (tmp_path / "early.py").write_text(KERNEL.replace("\nif __name__", f"{EARLY}\nif __name__"))
    (tmp_path / "kernel.py").write_text(KERNEL)
    moved_to(tmp_path, dask)
    command = [sys.executable, "early.py", dask.scheduler.address]
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == 9
    assert not (tmp_path / "begun").exists()
    command = [sys.executable, "kernel.py", dask.scheduler.address]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert second.stdout == "42\n", second.stderr
    assert (tmp_path / "begun").read_text() == "x"
