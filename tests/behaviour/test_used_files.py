"""The files that tasks read and wrote: a replay says which of them have changed since."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from durable_nb import Workflow
from durable_nb.errors import DurableNotice, StepChanged


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wf(folder):
    return Workflow("files", db=folder / "runs.db")


def told(call):
    """What a call returns, and the notices of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = call()
    return value, [str(one.message) for one in caught if issubclass(one.category, DurableNotice)]


def changed(name):
    return f"replayed although {name} has changed since ("


def test_a_task_whose_input_changed_is_replayed_and_says_so(wf):
    Path("a.csv").write_text("a")

    @wf.task
    def read(name):
        return Path(name).read_text()

    @wf.workflow(id="r")
    def main():
        return read("a.csv")

    assert told(main) == ("a", [])
    assert told(main) == ("a", [])
    os.utime("a.csv", (0, 0))
    assert told(main) == ("a", [])
    Path("a.csv").write_text("other")
    value, (notice,) = told(main)
    assert value == "a"
    assert notice.startswith(f"run 'r', step 'read': {changed('a.csv')}1 byte, ")
    assert notice.endswith("; now 5 bytes). To run it again: wf.sync.resolve('r', 'read', 'rerun')")
    wf.sync.resolve("r", "read", "rerun")
    value, (notice,) = told(main)
    assert value == "other"
    assert "run again, since it was reset" in notice
    assert told(main) == ("other", [])


def test_a_path_among_the_arguments_is_an_input_whoever_reads_it(wf):
    Path("a.bin").write_bytes(b"a")

    @wf.task
    def size(paths):
        return sum(os.stat(path).st_size for path in paths)

    @wf.workflow(id="r")
    def main():
        return size([Path("a.bin")])

    assert told(main) == (1, [])
    assert told(main) == (1, [])
    Path("a.bin").write_bytes(b"aa")
    assert changed("a.bin") in told(main)[1][0]


def test_an_output_of_a_task_that_is_gone_is_named(wf):
    @wf.task
    def save():
        Path("out.txt").write_text("x")

    @wf.workflow(id="r")
    def main():
        save()

    assert told(main) == told(main) == (None, [])
    Path("out.txt").unlink()
    assert "step 'save': replayed although out.txt is gone" in told(main)[1][0]


def test_each_of_the_tasks_that_rewrite_one_file_has_changed_only_if_the_user_wrote_it(wf):
    @wf.task
    def count():
        number = int(Path("n.txt").read_text()) + 1
        Path("n.txt").write_text(str(number))
        return number

    @wf.workflow(id="r")
    def main():
        return [count() for _ in range(5)]

    Path("n.txt").write_text("0")
    assert told(main) == told(main) == ([1, 2, 3, 4, 5], [])
    Path("n.txt").write_text("mine")
    assert len(told(main)[1]) == 5


def test_a_failure_that_the_workflow_caught_has_its_files_on_record(wf):
    @wf.task(retries=0)
    def read():
        return Path("a.csv").read_text()

    @wf.task(retries=0)
    def spoil():
        Path("a.csv").write_text("spoiled")
        raise ValueError

    @wf.workflow(id="r")
    def main():
        text = read()
        try:
            spoil()
        except ValueError:
            return text, read()

    Path("a.csv").write_text("a")
    assert told(main) == told(main) == (("a", "spoiled"), [])


async def test_concurrent_async_tasks_have_each_their_own_files(wf):
    for name in "abc":
        Path(f"{name}.csv").write_text(name)
    all_open = asyncio.Barrier(3)

    @wf.task
    async def read(name):
        with open(f"{name}.csv") as file:
            await all_open.wait()
            return file.read()

    @wf.workflow(id="r")
    async def main():
        return await asyncio.gather(*map(read, "abc"))

    assert await main() == ["a", "b", "c"]
    Path("b.csv").write_text("bb")
    with pytest.warns(DurableNotice) as caught:
        assert await main() == ["a", "b", "c"]
    (notice,) = [str(one.message) for one in caught]
    assert "read" in notice
    assert changed("b.csv") in notice


async def test_what_a_thread_of_a_task_reads_is_the_tasks_beside_another(wf):
    for name in "ab":
        Path(f"{name}.csv").write_text(name)
    both = threading.Barrier(2)

    def body(name):
        both.wait(30)
        return Path(f"{name}.csv").read_text()

    @wf.task
    async def read(name):
        return await asyncio.to_thread(body, name)

    @wf.workflow(id="r")
    async def main():
        return await asyncio.gather(read("a"), read("b"))

    assert await main() == ["a", "b"]
    Path("a.csv").write_text("aa")
    with pytest.warns(DurableNotice) as caught:
        await main()
    assert [changed("a.csv") in str(one.message) for one in caught] == [True]


def test_the_threads_of_a_map_record_each_for_their_own_task(wf):
    for name in "abc":
        Path(f"{name}.csv").write_text(name)

    @wf.task
    def read(name):
        return Path(f"{name}.csv").read_text()

    @wf.workflow(id="r")
    def main():
        return wf.sync.map(read, "abc", limit=3)

    assert told(main) == told(main) == (["a", "b", "c"], [])
    Path("c.csv").write_text("cc")
    assert [changed("c.csv") in one for one in told(main)[1]] == [True]


def test_a_pool_of_threads_in_a_body_that_has_no_context_records_for_the_only_step(wf):
    for name in "ab":
        Path(f"{name}.csv").write_text(name)

    @wf.task
    def read_all(names):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda name: Path(f"{name}.csv").read_text(), names))

    @wf.task
    def outer(names):
        return read_all(names)

    @wf.workflow(id="r")
    def main():
        return outer("ab")

    assert told(main) == told(main) == (["a", "b"], [])
    Path("b.csv").write_text("bb")
    assert [changed("b.csv") in one for one in told(main)[1]] == [True]


async def test_an_executor_of_threads_records_for_the_task_that_it_executes(wf):
    for name in "ab":
        Path(f"{name}.csv").write_text(name)
    pool = ThreadPoolExecutor(2)

    @wf.task(executor=pool)
    def read(name):
        return Path(f"{name}.csv").read_text()

    @wf.workflow(id="r")
    def main():
        return wf.sync.map(read, "ab", limit=2)

    assert await asyncio.to_thread(main) == ["a", "b"]
    Path("a.csv").write_text("aa")
    with pytest.warns(DurableNotice) as caught:
        await asyncio.to_thread(main)
    assert [changed("a.csv") in str(one.message) for one in caught] == [True]
    pool.shutdown()


def test_of_a_task_in_another_process_the_paths_among_its_arguments_are_on_record(wf):
    Path("a.csv").write_text("a")

    @wf.task(executor=lambda: ProcessPoolExecutor(1, mp_context=get_context("spawn")))
    def read(name):
        with open(name) as file:
            return file.read()

    @wf.workflow(id="r")
    def main():
        return read("a.csv")

    assert told(main) == ("a", [])
    Path("a.csv").write_text("aa")
    assert changed("a.csv") in told(main)[1][0]


def test_modules_that_a_task_uses_are_named_when_they_were_edited(folder):
    (folder / "helping.py").write_text("import deeper\ndef help_out(): return deeper.N\n")
    (folder / "deeper.py").write_text("N = 1\n")
    (folder / "program.py").write_text(
        textwrap.dedent("""
        import helping
        from durable_nb import Workflow
        wf = Workflow("files", db="runs.db")

        @wf.task
        def work():
            return helping.help_out()

        @wf.workflow(id="r")
        def main():
            return work()

        print(main())
        """)
    )

    def run():
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONWARNINGS": "always",
        }
        done = subprocess.run(
            [sys.executable, "program.py"], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "DurableNotice" in line]

    assert run() == run() == ("1\n", [])
    (folder / "deeper.py").write_text("N = 1  # one\n")
    (folder / "program.py").write_text((folder / "program.py").read_text() + "# one\n")
    assert run() == ("1\n", [])
    (folder / "deeper.py").write_text("N = 22\n")
    out, (notice,) = run()
    assert out == "1\n"
    assert changed("deeper.py") in notice


def test_a_file_whose_name_is_not_text_in_utf_8_is_on_record(wf):
    name = os.fsdecode(b"h\xe9.csv")
    Path(name).write_text("a")

    @wf.task
    def read():
        return Path(os.fsdecode(b"h\xe9.csv")).read_text()

    @wf.workflow(id="r")
    def main():
        return read()

    assert told(main) == told(main) == ("a", [])
    Path(name).write_text("aa")
    assert changed("h\\udce9.csv") in told(main)[1][0]


def test_a_task_marked_once_is_not_run_again_for_a_changed_file(wf):
    Path("a.csv").write_text("a")

    @wf.task(once=True)
    def read(name):
        return Path(name).read_text()

    @wf.workflow(id="r")
    def main():
        return read("a.csv")

    assert told(main) == ("a", [])
    Path("a.csv").write_text("aa")
    value, (notice,) = told(main)
    assert value == "a"
    assert changed("a.csv") in notice


def test_the_users_open_works_as_ever_in_a_step(wf):
    @wf.task
    def odd():
        with pytest.raises(FileNotFoundError):
            open("missing")  # noqa: SIM115
        with pytest.raises(ValueError, match="null"):
            open("a\0b")  # noqa: SIM115
        with pytest.raises(TypeError):
            open(object())  # noqa: SIM115
        file = os.open("a.csv", os.O_CREAT | os.O_WRONLY)
        with open(file, "w") as writer, open(os.fsencode("b.csv"), "w"):
            writer.write("x")
        os.chdir("..")
        return os.getcwd()

    @wf.workflow(id="r")
    def main():
        return odd()

    assert told(main) == told(main)


async def test_more_files_than_are_put_on_record_are_said(wf, monkeypatch):
    monkeypatch.setattr("durable_nb.settings.FILES_ON_RECORD", 2)
    for name in "abc":
        Path(f"{name}.csv").write_text(name)

    @wf.task
    async def read():
        return [Path(f"{name}.csv").read_text() for name in "abc"]

    @wf.workflow(id="r")
    async def main():
        return await read()

    with pytest.warns(DurableNotice, match="step 'read': used 1 more file than the 2 on record"):
        await main()


def test_a_policy_for_drift_of_tasks(wf):
    Path("a.csv").write_text("a")

    @wf.task(on_drift="rerun")
    def again():
        return Path("a.csv").read_text()

    @wf.task(on_drift="error")
    def refused():
        return Path("a.csv").read_text()

    @wf.workflow(id="{name}")
    def main(name):
        return {"again": again, "refused": refused}[name]()

    assert told(lambda: main("again"))[0] == told(lambda: main("refused"))[0] == "a"
    Path("a.csv").write_text("aa")
    value, (notice,) = told(lambda: main("again"))
    assert value == "aa"
    assert "run again, since a.csv has changed since (" in notice
    with pytest.raises(StepChanged, match=r"a\.csv has changed since \(1 byte, "):
        main("refused")
