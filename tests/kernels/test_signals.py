"""Signals in real kernels: asked over the front end's input line, in a terminal, or answered from outside."""

import os
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty

import nbformat
import pexpect
import pytest

from durable_nb import Workflow
from helpers import pythonpath

OPEN = "%load_ext durable_nb\n%durable_workflow shop --db runs.db --badge full"
ASK = "decision = await wf.signal('approval', prompt='Ship it?')\nprint(decision)"
BIN = Path(sys.executable).parent


def outside(kernel):
    return Workflow("outside", db=kernel.cwd / "runs.db")


def until_waiting(kernel, request):
    """Wait until a cell shows that it waits."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        kernel._receive(deadline)
        for message in kernel._messages.get(request, ()):
            if "waiting for signal" in str(message["content"].get("data", "")):
                return message["content"]["data"]
    raise TimeoutError


def typed(kernel, text):
    """Answer an input request as a front end does; gives its prompt."""
    asked = kernel.client.get_stdin_msg(timeout=30)
    assert asked["msg_type"] == "input_request"
    kernel.client.input(text)
    return asked["content"]["prompt"]


def shown(cell):
    """What the cell's displays say at its end."""
    return [one["data"]["text/plain"] for one in cell.outputs if one["output_type"] == "display_data"]


def test_a_front_end_with_an_input_line_is_asked(kernel):
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    assert typed(kernel, "perhaps") == "Ship it? [y | n, and a comment]: "
    assert typed(kernel, "y go on").startswith("'perhaps' is not accepted: expected y or n\nShip it?")
    cell = kernel.wait(request)
    assert cell.text == "{'approved': True, 'comment': 'go on'}\n"
    (line,) = shown(cell)
    assert line.startswith("✓ approval · answered by process ")

    # Asked in one place and answered in another; what is typed too late goes nowhere.
    kernel.run("%durable_signal early 5")
    request = kernel.start("print(await wf.signal('other', choices=['a', 2]))", allow_stdin=True)
    asked = kernel.client.get_stdin_msg(timeout=30)["content"]["prompt"]
    assert asked == "other [a | 2]: "
    with outside(kernel) as wf:
        assert wf.sync.complete("shop", "other", 2)
    assert kernel.wait(request).text == "2\n"
    kernel.client.input("a")
    request = kernel.start("print(await wf.signal('third', schema=str), input('name? '))", allow_stdin=True)
    assert typed(kernel, "x y") == "third [string]: "
    assert typed(kernel, "Ann") == "name? "
    assert kernel.wait(request).text.endswith("x y Ann\n")
    assert kernel.run("print(await wf.signal('early'))").text == "5\n"


@pytest.mark.long
def test_the_same_on_ipykernel_6(kernel_factory, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, tmp_path / "old", "ipykernel==6.31.*"], check=True, timeout=100)
    kernel = kernel_factory(**pythonpath(tmp_path / "old"))
    assert kernel.run("import ipykernel; print(ipykernel.__version__)").text.startswith("6.31.")
    test_a_front_end_with_an_input_line_is_asked(kernel)


def test_the_loop_is_free_while_a_person_is_asked(kernel):
    kernel.run(OPEN)
    kernel.run("import asyncio\nasync def tick():\n    for n in range(3):\n        await asyncio.sleep(0.02)")
    code = "ticks = asyncio.create_task(tick())\nawait wf.signal('go', schema=bool)\nprint(ticks.done())"
    request = kernel.start(code, allow_stdin=True)
    asked = kernel.client.get_stdin_msg(timeout=30)
    time.sleep(0.5)
    kernel.client.input("y")
    assert asked["content"]["prompt"] == "go [y | n]: "
    assert kernel.wait(request).text == "True\n"
    request = kernel.start("await wf.signal('never')", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=30)
    kernel.interrupt()
    assert kernel.wait(request).reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert kernel.run("1 + 1").result["text/plain"] == "2"


def test_jupyterlab_gets_the_command_and_no_input_line(kernel_factory):
    kernel = kernel_factory(JPY_SESSION_NAME="notebook.ipynb")
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    data = until_waiting(kernel, request)
    told = f"durable-nb signal shop approval VALUE --db {kernel.cwd / 'runs.db'}"
    assert told in data["text/plain"]
    assert told in data["text/html"]
    done = subprocess.run(
        [BIN / "durable-nb", "signal", "shop", "approval", '{"approved": false}', "--db", "runs.db"],
        cwd=kernel.cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "signal 'approval' delivered to run 'shop'\n"
    cell = kernel.wait(request)
    assert cell.text == "{'approved': False}\n"
    assert "waiting" not in str(shown(cell))
    with pytest.raises(Empty):
        kernel.client.get_stdin_msg(timeout=0.2)


def test_killed_while_it_waits_answered_meanwhile_and_resumed(kernel):
    kernel.run(OPEN)
    cell = "%%durable_step publish\ndecision = await wf.signal('approval')\nprint(decision)"
    until_waiting(kernel, kernel.start(cell))
    kernel.sigkill()
    with outside(kernel) as wf:
        assert wf.sync.complete("shop", "approval", False)
    for _ in range(2):
        kernel.restart()
        kernel.run(OPEN)
        again = kernel.run(cell)
        assert again.text == "False\n"
        assert any("answered by process" in line for line in shown(again))
        kernel.sigkill()


def test_the_magic_delivers_and_tells_who_was_faster(kernel):
    kernel.run(OPEN)
    said = kernel.run("""%durable_signal go {"a": [1, "two"]}""")
    assert said.text == "signal 'go' delivered to run 'shop'\n"
    assert (
        "nothing was changed: signal 'go' of run 'shop' was answered by process"
        in kernel.run("%durable_signal go 2").text
    )
    assert kernel.run("print(await wf.signal('go'))").text == "{'a': [1, 'two']}\n"
    assert kernel.run("%durable_signal go 'some text' --run other").text.endswith("to run 'other'\n")
    with outside(kernel) as wf:
        assert wf.sync.complete("other", "go") is False
    cell = kernel.run("%durable_signal go")
    assert cell.reply["evalue"].startswith("%durable_signal: the following arguments are required: VALUE.")


def test_badge_plain_is_the_same_text_every_time(kernel):
    kernel.run(OPEN.replace("full", "plain"))
    code = "wf.sync.complete('shop', 'go', 1)\nprint(await wf.signal('go'))"
    step = "%%durable_step s\nvalue = await wf.signal('go')"
    first, second = ([shown(kernel.run(cell)) for cell in (code, step)] for _ in range(2))
    assert first == second == [["durable signal go"], ["durable signal go", "durable step s"]]
    assert shown(kernel.run(code)) == ["durable signal go"]


def test_a_cell_in_doubt_is_asked_about(kernel):
    kernel.run(OPEN)
    charge = (
        "%%durable_step charge --once\nimport os\n"
        "print('charging', file=open('log', 'a'))\n"
        "if open('log').read().count('charging') == 1: raise OSError('lost')\nreceipt = 7"
    )
    assert kernel.run(charge).reply["ename"] == "OSError"
    assert "StepInDoubt" in kernel.run(charge).reply["evalue"]  # nobody can be asked
    request = kernel.start(charge, allow_stdin=True)
    assert typed(kernel, "run again").endswith("[run again | it succeeded | give up]: ")
    assert kernel.wait(request).status == "ok"
    assert kernel.run("print(receipt)").text == "7\n"
    assert (kernel.cwd / "log").read_text().count("charging") == 2


# Without a front end


WRITE = """
import asyncio
@wf.task
async def write(n):
    return f"invoice {n}"
@wf.workflow(id="invoice-{n}")
async def process(n):
    text = await write(n)
    return text if (await wf.signal("approval"))["approved"] else "withdrawn"
"""
APPROVE = """
async def approve():
    await asyncio.sleep(0.5)
    return await wf.complete("invoice-7", "approval", {"approved": True})
later = asyncio.create_task(approve())
print(await process(7))
"""
INVOICE = ["%load_ext durable_nb\n%durable_workflow invoices --db runs.db", WRITE, APPROVE]


def notebook(path, cells):
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(book, path)


def test_an_answer_after_half_a_second_comes_under_nbclient(tmp_path):
    notebook(tmp_path / "a.ipynb", INVOICE)
    done = execute("jupyter-execute", tmp_path, headless_timeout="10")
    assert done.returncode == 0, done.stderr
    assert "invoice 7" in (tmp_path / "out.ipynb").read_text()


def execute(runner, cwd, *, headless_timeout="0.5"):
    commands = {
        "jupyter-execute": ["jupyter-execute", "a.ipynb", "--output", "out.ipynb"],
        "papermill": ["papermill", "a.ipynb", "out.ipynb", "--cwd", "."],
    }
    name, *arguments = commands[runner]
    return subprocess.run(
        [BIN / name, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "DURABLE_NB_SIGNAL_GRACE": headless_timeout},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["jupyter-execute", "papermill"])
def test_nobody_is_there_then_the_answer_is_delivered_and_it_runs_through(tmp_path, runner):
    cells = [
        "%load_ext durable_nb\n%durable_workflow shop --db runs.db",
        "%%durable_step publish\ndecision = await wf.signal('approval')\nprint('decided', decision)",
        "print('after', decision)",
    ]
    notebook(tmp_path / "a.ipynb", cells)
    pending = execute(runner, tmp_path)
    assert pending.returncode != 0
    told = f"durable-nb signal shop approval VALUE --db {tmp_path / 'runs.db'}"
    assert "SignalPending" in pending.stderr
    assert told in pending.stderr
    listed = subprocess.run(
        [BIN / "durable-nb", "signals", "--db", tmp_path / "runs.db"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "run 'shop' (interrupted) waits for signal 'approval'" in listed.stdout
    with Workflow("outside", db=tmp_path / "runs.db") as wf:
        assert wf.sync.complete("shop", "approval", "yes")
    done = execute(runner, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "after yes" in (tmp_path / "out.ipynb").read_text()


# In a terminal


@pytest.fixture
def shell(tmp_path):
    """IPython in a terminal, with an open run."""
    env = {
        **os.environ,
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    shell = pexpect.spawn(
        str(BIN / "ipython"), ["--simple-prompt", "--no-banner", "--colors=NoColor", "--no-confirm-exit"],
        cwd=str(tmp_path), env=env, encoding="utf-8", timeout=30, dimensions=(40, 200),
    )  # fmt: skip
    shell.expect(r"In \[1\]")
    shell.sendline("%load_ext durable_nb")
    shell.expect(r"In \[2\]")
    shell.sendline("%durable_workflow shop --db runs.db")
    shell.expect(r"In \[3\]")
    yield shell
    shell.close(force=True)


def test_a_terminal_is_asked_and_an_answer_from_elsewhere_ends_it(shell, tmp_path):
    shell.sendline("d = await wf.signal('approval', prompt='Ship?'); print('got', d)")
    shell.expect(r"Ship\? \[y \| n, and a comment\]:")
    shell.send("n too dear\r")
    shell.expect_exact("got {'approved': False, 'comment': 'too dear'}")
    shell.sendline("print('got', await wf.signal('second', choices=['a', 'b']))")
    shell.expect_exact("[a | b]:")
    with Workflow("outside", db=tmp_path / "runs.db") as wf:
        assert wf.sync.complete("shop", "second", "b")
    shell.expect_exact("got b")
    shell.sendline("print(6 * 7)")
    shell.expect_exact("42")
    shell.sendline("await wf.signal('third')")
    shell.expect_exact("a comment]:")
    shell.sendintr()
    shell.expect_exact("KeyboardInterrupt")
    shell.sendline("print(6 * 8)")
    shell.expect_exact("48")


CLERK = """\
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from durable_nb import DurableAgent

def respond(messages, info):
    asked = len(messages) > 1
    part = TextPart(messages[-1].parts[-1].content) if asked else ToolCallPart("pay", {"amount": 300})
    return ModelResponse(parts=[part])

def make(wf):
    agent = DurableAgent(Agent(FunctionModel(respond), name="clerk"), wf)
    agent.tool_plain(requires_approval=True)(pay)
    return agent

def pay(amount: int) -> str:
    return f"paid {amount}"
"""


def test_a_terminal_asks_about_a_tool_call_and_takes_other_arguments(shell, tmp_path):
    (tmp_path / "clerk.py").write_text(CLERK)
    shell.sendline("import clerk; print('got', (await clerk.make(wf).run('go', run_id='a')).output)")
    shell.expect_exact('Call pay({"amount":300})? [y | n, and a comment | y {other arguments}]:')
    shell.send('y {"amount": "much"}\r')
    shell.expect_exact("arguments.amount: 'much' is not of type 'integer'")
    shell.expect_exact("other arguments}]:")
    shell.send('y {"amount": 250}\r')
    shell.expect_exact("got paid 250")
