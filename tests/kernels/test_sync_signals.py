"""`wf.sync.signal` and a step in doubt that blocks ask at a terminal and over a client's input line."""

import re
import sys

import pexpect
import pytest

ANSI = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]|\x1b[=>]")
OPEN = "%load_ext durable_nb\n%durable_workflow asks --db runs.db"
ASK = "print('got', wf.sync.signal('amount', prompt='How much?', schema=int) + 1)"
AWAIT = ASK.replace("wf.sync.signal", "(await wf.signal").replace("int)", "int))")
TERMINALS = {"plain lines": ("--simple-prompt",), "a line that is edited": ()}
PROMPT = r"In \[[^\]]*\d"
QUESTION = r"How much\? \["
PAY = """@wf.task(once=True)
def pay():
    import os, signal
    if not os.path.exists('paid'):
        open('paid', 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    return 'paid'
print('got', pay())"""


def answer(kernel, request, text):
    """Answer the next question over the input line; gives the question."""
    asked = kernel.client.get_stdin_msg(timeout=30)["content"]["prompt"]
    kernel.client.input(text)
    return asked


def test_a_client_with_an_input_line_alone_is_asked(kernel):
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    assert "How much?" in answer(kernel, request, "41")
    assert kernel.wait(request).text == "got 42\n"


def test_an_answer_that_is_not_accepted_is_asked_for_again(kernel):
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    answer(kernel, request, "many")
    assert "How much?" in answer(kernel, request, "1")
    assert kernel.wait(request).text == "got 2\n"


def test_an_answer_from_elsewhere_ends_the_question(kernel):
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=30)
    command = [sys.executable, "-m", "durable_nb.cli", "signal", "asks", "amount", "6", "--db", "runs.db"]
    pexpect.run(" ".join(command), cwd=str(kernel.cwd))
    assert kernel.wait(request).text == "got 7\n"
    assert kernel.run("1 + 1").result == {"text/plain": "2"}


def test_an_interrupt_ends_the_question(kernel):
    kernel.run(OPEN)
    request = kernel.start(ASK, allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=30)
    kernel.interrupt()
    assert kernel.wait(request).error.startswith("KeyboardInterrupt")
    assert kernel.run("1 + 1").result == {"text/plain": "2"}


def test_a_durable_cell_is_asked(kernel):
    kernel.run(OPEN)
    request = kernel.start(f"%%durable_step s\n{ASK}", allow_stdin=True)
    answer(kernel, request, "41")
    assert kernel.wait(request).text == "got 42\n"


def test_a_synchronous_step_in_doubt_asks(kernel):
    kernel.run(OPEN)
    kernel.start(PAY)
    kernel.process.wait(timeout=30)
    kernel.restart()
    kernel.run(OPEN)
    request = kernel.start(PAY, allow_stdin=True)
    assert "run again" in answer(kernel, request, "run again")
    assert kernel.wait(request).text == "got paid\n"


@pytest.fixture
def terminal(tmp_path):
    """IPython in a terminal, with a run opened."""
    started = []

    def start(*options):
        arguments = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor", *options]
        env = {**__import__("os").environ, "IPYTHONDIR": str(tmp_path / "ipython"), "TERM": "xterm"}
        started.append(
            pexpect.spawn(sys.executable, arguments, cwd=str(tmp_path), env=env, encoding="utf-8", timeout=60)
        )
        for line in OPEN.splitlines():
            started[-1].expect(PROMPT)
            started[-1].send(f"{line}\r")
        started[-1].expect(PROMPT)
        return started[-1]

    yield start
    for one in started:
        one.close(force=True)


@pytest.mark.parametrize("options", TERMINALS.values(), ids=TERMINALS)
@pytest.mark.parametrize("ask", [ASK, AWAIT], ids=["sync", "await"])
def test_a_terminal_is_asked(terminal, options, ask):
    shell = terminal(*options)
    shell.send(f"{ask}\r")
    shell.expect(QUESTION)
    shell.send("many\r")
    shell.expect("many")
    shell.expect(QUESTION)
    shell.send("41\r")
    shell.expect("got 42")
    shell.expect(PROMPT)


@pytest.mark.parametrize("options", TERMINALS.values(), ids=TERMINALS)
def test_an_interrupt_ends_the_question_in_a_terminal(terminal, options):
    shell = terminal(*options)
    shell.send(f"{ASK}\r")
    shell.expect(QUESTION)
    shell.send("\x03")
    shell.expect("KeyboardInterrupt")
    shell.expect(PROMPT)
    shell.send("print(40 + 2)\r")
    shell.expect("42")


def test_a_synchronous_step_in_doubt_asks_in_a_terminal(terminal, tmp_path):
    shell = terminal("--simple-prompt")
    (tmp_path / "pay.py").write_text(PAY)
    shell.sendline("%run -i pay.py")
    shell.expect(pexpect.EOF)
    shell = terminal("--simple-prompt")
    shell.sendline("%run -i pay.py")
    shell.expect("run again")
    shell.send("run again\r")
    shell.expect("got paid")
