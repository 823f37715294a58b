"""Runs of real processes that were killed with SIGKILL, and resumed by another one without their callers."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest

SHOP = """
    import asyncio, json, os, signal, sys, warnings
    from dataclasses import dataclass
    from durable_nb import Workflow

    wf = Workflow("shop", db=sys.argv[1])

    @dataclass
    class Order:
        number: str
        items: list

    def log(line):
        file = os.open("bodies.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

    @wf.task
    def charge(order):
        log(f"charge {order.number}")
        return f"{order.number}: {len(order.items)} items"

    @wf.task(retries=0)
    def ship(number):
        log(f"ship {number}")
        if number == "lost":
            raise ValueError("lost on the way")

    killing = sys.argv[2] == "kill"
    begun = 0

    async def killed():
        "Kills the process when all its runs have come here."
        global begun
        begun += 1
        while begun < int(sys.argv[3]):
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    @wf.workflow(id="order-{order.number}")
    async def process(order, gift=False):
        receipt = charge(order)
        order.items.clear()  # after they were kept
        if killing:
            await killed()
        ship(order.number)
        return receipt, gift

    @wf.workflow(id="sync-{number}")
    def process_sync(number):
        receipt = charge(Order(number, [1]))
        if killing:
            os.kill(os.getpid(), signal.SIGKILL)
        return receipt

    @wf.workflow(id="approved-{number}")
    async def approved(number):
        charge(Order(number, []))
        return await wf.signal("approval")

    @wf.workflow(id="login-{user}")
    async def login(user, password):
        charge(Order(user, []))
        if killing:
            await killed()
        return user

    async def waits():
        "Returns when the run waits."
        while not os.path.exists("bodies.log"):
            await asyncio.sleep(0.01)
        while [run.status for run in await wf.runs()] != ["waiting"]:
            await asyncio.sleep(0.01)

    def show(runs):
        print(json.dumps([[run.run_id, run.status, repr(run.value), str(run.error or "")] for run in runs]))
"""


def run(cwd, db, *arguments, code):
    program = textwrap.dedent(SHOP) + textwrap.dedent(code)
    command = [sys.executable, "-c", program, str(db), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def resume(cwd, db, code="show(asyncio.run(wf.resume_interrupted()))"):
    done = run(cwd, db, "resume", code=code)
    assert done.returncode == 0, done.stderr
    return {run_id: found for run_id, *found in json.loads(done.stdout)}, done.stderr


def bodies(cwd):
    return sorted((cwd / "bodies.log").read_text().split("\n")[:-1])


@pytest.fixture(params=["sqlite", "redis"])
def db(request, tmp_path):
    """Where a test keeps its runs: each on both stores."""
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("redis_server").url


def kill_three(cwd, db):
    code = """
        async def main():
            orders = [Order("a", [1, 2]), Order("b", []), Order("lost", ["x" * 1_000_000])]
            await asyncio.gather(*(process(order, gift=order.number == "b") for order in orders))

        asyncio.run(main())
    """
    assert run(cwd, db, "kill", 3, code=code).returncode == -signal.SIGKILL


def test_all_runs_are_resumed_with_the_arguments_that_their_callers_gave(tmp_path, db):
    kill_three(tmp_path, db)
    runs, said = resume(tmp_path, db)
    assert runs == {
        "order-a": ["done", "('a: 2 items', False)", ""],
        "order-b": ["done", "('b: 0 items', True)", ""],
        "order-lost": ["failed", "None", "lost on the way"],
    }
    assert not said
    assert bodies(tmp_path) == [
        *("charge a", "charge b", "charge lost"),
        *("ship a", "ship b", "ship lost"),
    ]
    assert resume(tmp_path, db) == ({}, "")  # none is left, and none failed is entered again


def test_they_are_resumed_from_synchronous_code_and_from_a_loop_that_runs(tmp_path, db):
    kill_three(tmp_path, db)
    code = "process_sync('s')"
    assert run(tmp_path, db, "kill", 1, code=code).returncode == -signal.SIGKILL
    in_loop = """
        async def main():
            show(wf.sync.resume_interrupted())

        asyncio.run(main())
    """
    runs, said = resume(tmp_path, db, in_loop)
    assert {run_id: found[0] for run_id, found in runs.items()} == {
        "order-a": "done",
        "order-b": "done",
        "order-lost": "failed",
        "sync-s": "done",
    }
    assert not said
    assert bodies(tmp_path).count("charge s") == 1


def test_a_run_that_waits_is_resumed_and_goes_on_waiting(tmp_path, db):
    code = """
        async def main():
            waiting = asyncio.create_task(approved("a"))
            await waits()
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    assert run(tmp_path, db, "kill", 1, code=code).returncode == -signal.SIGKILL
    resumed = """
        async def main():
            resuming = asyncio.create_task(wf.resume_interrupted())
            await waits()
            await wf.complete("approved-a", "approval", "yes")
            show(await resuming)

        asyncio.run(main())
    """
    assert resume(tmp_path, db, resumed)[0] == {"approved-a": ["done", "'yes'", ""]}
    assert bodies(tmp_path) == ["charge a"]


def test_a_run_whose_owner_lives_is_left_alone(tmp_path, db):
    code = """
        import subprocess

        async def main():
            held = asyncio.create_task(approved("held"))
            await waits()
            rest = "show(asyncio.run(wf.resume_interrupted()))"
            program = open("shop.py").read() + rest
            other = [sys.executable, "-c", program, sys.argv[1], "resume"]
            print(subprocess.run(other, capture_output=True, text=True, timeout=120))
            await wf.complete("approved-held", "approval", "yes")
            print(await held)

        asyncio.run(main())
    """
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    done = run(tmp_path, db, "resume", code=code)
    assert "stdout='[]\\n', stderr=''" in done.stdout, done
    assert done.stdout.endswith("yes\n")


def test_a_run_with_a_secret_says_so_at_its_start_and_is_not_resumed(tmp_path, db):
    code = "asyncio.run(login('ann', password='" + "hunter2-hunter2" + "'))"
    killed = run(tmp_path, db, "kill", 1, code=code)
    assert killed.returncode == -signal.SIGKILL
    assert (
        "run 'login-ann' is not resumable without its caller: its argument password looks like a secret, and "
        "is not kept. After a crash: login.run('login-ann', …)" in killed.stderr
    )
    runs, said = resume(tmp_path, db)
    refused = (
        "run 'login-ann': its arguments are not kept. Call it again with its arguments: .run('login-ann', …)"
    )
    assert runs == {"login-ann": ["interrupted", "None", refused]}
    assert f"not resumed: {refused}" in said
    again = run(tmp_path, db, "resume", code=code + ".__repr__()")
    assert again.returncode == 0, again.stderr
    assert bodies(tmp_path) == ["charge ann"]


def test_a_run_whose_function_is_missing_is_named(tmp_path, db):
    kill_three(tmp_path, db)
    forgotten = """
        del process
        show(asyncio.run(wf.resume_interrupted()))
    """
    runs, said = resume(tmp_path, db, forgotten)
    assert [found[0] for found in runs.values()] == ["interrupted"] * 3
    assert "run 'order-a': its function 'shop.process' is none of this workflow object" in said
    assert resume(tmp_path, db)[0]["order-a"][0] == "done"


def test_a_server_that_starts_for_the_first_time_has_nothing_to_resume(tmp_path, db):
    assert resume(tmp_path, db) == ({}, "")
    assert resume(tmp_path, db, "show(wf.sync.resume_interrupted())") == ({}, "")


def test_two_servers_start_at_once_and_each_run_is_entered_once(tmp_path, db):
    kill_three(tmp_path, db)
    program = textwrap.dedent(SHOP) + "show(asyncio.run(wf.resume_interrupted()))"
    command = [sys.executable, "-c", program, str(db), "resume"]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    servers = [subprocess.Popen(command, **options) for _ in range(2)]
    found = [json.loads(server.communicate(timeout=120)[0]) for server in servers]
    statuses = {}
    for run_id, status, *_ in [each for runs in found for each in runs]:
        statuses.setdefault(run_id, set()).add(status)
    assert {run_id: status - {"running"} for run_id, status in statuses.items()} == {
        "order-a": {"done"},
        "order-b": {"done"},
        "order-lost": {"failed"},
    }
    assert [line for line in bodies(tmp_path) if "ship" in line] == ["ship a", "ship b", "ship lost"]
