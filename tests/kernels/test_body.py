"""A body runs as the same cell would without the magic: each test compares the two in a real kernel."""

import json
import re
import time

import pytest

from helpers import AT_ONCE

SAME = {
    "the last expression": "x = 40\nx + 2",
    "a last None": "print('printed')\nNone",
    "a silencing semicolon": "'not shown';  # really",
    "a semicolon in the middle": "a = 1; a",
    "a shell command": "!echo from the shell",
    "a shell command's lines": "lines = !printf 'a\\nb'\nlines",
    "a line magic": "%env NOT_SET_ANYWHERE=5\n%env NOT_SET_ANYWHERE",
    "a nested cell magic": "%%bash\necho from bash",
    "capturing": "%%capture caught\nprint('hidden')",
    "top-level await": "import asyncio\nawait asyncio.sleep(0.01, 'slept')",
    "async for": "async def numbers():\n    yield 1\nasync for n in numbers():\n    print(n)",
    "await in a comprehension": "import asyncio\n[await asyncio.sleep(0, n) for n in range(3)]",
    "text over lines": "text = '''one\n%not_a_magic\n!not a command\n'''\ntext",
    "blank lines at the top": "\n\n'after blank lines'",
    "an indented body": "    y = 5\n    y",
    "only a comment": "# nothing here",
    "walrus": "(z := 3)",
    "the usual suspects": "from IPython.display import display\nfor i in 0, 1:\n    display(i)\nprint('end')",
    "stderr": "import sys\nprint('a', file=sys.stderr)\nprint('b')",
    "autocall": "%autocall 0",
    "a usage error": "%env --no such option",
    "an unknown magic": "%no_such_magic_at_all",
}
PADDING = "pad = 1\n" * 5  # the first line, which is shown near it, is another
ERRORS = {
    "plain": "a = 1\nb = 2\nc = 3\nd = 1 / 0\n",
    "in a function": "def f(n):\n    return 1 / n\n\nx = 1\nx = 2\nx = 3\nf(0)\n",
    "in the library": "import json\njson.loads('{')",
    "awaited": "async def f():\n    raise KeyError('k')\n\n\nawait f()",
    "below a magic": "%env A=1\n!true\n\n\nraise ValueError('below')",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('v') from error",
    "no statement at all": "    \nx = = 3",
    "unfinished": "a = 1\nb = (",
    "unterminated": "a = 1\n'abc",
    "indentation": "if True:\npass",
    "return": "return 3",
    "nonlocal": "nonlocal x",
    "exit": "raise SystemExit(3)",
}


def comparable(text):
    """A text without cell and file numbers, which differ from cell to cell."""
    return re.sub(r"In\s?\[\d+\]|\b\d+\.py\b|ipython-input-\w+-\w+", "…", text)


def outputs_of(cell):
    return json.loads(comparable(json.dumps([one | {"execution_count": 0} for one in cell.outputs])))


@pytest.mark.parametrize("code", SAME.values(), ids=SAME.keys())
def test_a_body_shows_what_the_cell_would(probed, code):
    native = probed.run(code)
    cell = probed.run(f"%%probe same\n{code}")
    assert outputs_of(cell) == outputs_of(native)
    assert cell.status == native.status


@pytest.mark.parametrize("code", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_looks_as_it_would_in_the_cell(probed, code):
    native = probed.run(f"# the first line\n{PADDING}{code}")
    cell = probed.run(f"%%probe error\n{PADDING}{code}")
    assert cell.status == native.status == "error"
    assert comparable(cell.error).splitlines() == comparable(native.error).splitlines()
    assert not (probed.cwd / "error.json").exists()


@pytest.mark.parametrize("code", ["import warnings; warnings.warn('careful')", "1 is 1"])
def test_a_warning_comes_once_and_names_its_line(probed, code):
    cell = probed.run(f"%%probe warned\n\n{code}")
    assert re.findall(r":(\d+): \w+Warning: ", cell.stderr) == ["3"]


def test_an_error_below_blank_lines_at_the_top_of_the_cell(probed):
    cell = probed.run("\n\n%%probe error\n1 / 0")
    assert "----> 2 1 / 0" in cell.error
    assert "run_cell_magic" not in cell.error


def test_an_empty_body_is_a_usage_error(probed):
    cell = probed.run("%%probe empty")
    assert cell.status == "error"
    assert cell.stderr == "UsageError: %%probe is a cell magic, but the cell body is empty.\n"


def test_output_history(probed):
    first = probed.run("%%probe history\n41 + 1")
    second = probed.run("%%probe history\n_ + 1")
    assert second.result["text/plain"] == "43"
    checks = f"[Out[{first.execution_count}], _{second.execution_count}, __, _i]"
    assert probed.run(checks).result["text/plain"] == r"[42, 43, 42, '%%probe history\n_ + 1']"


@pytest.mark.parametrize("mode", ["all", "last", "last_expr", "last_expr_or_assign", "none"])
def test_interactivity_is_respected(probed, mode):
    code = "1\nfor i in 2, 3:\n    i\na = b = 4\nc: int = 5\nc += 1"
    probed.run(f"get_ipython().ast_node_interactivity = {mode!r}")
    try:
        native, cell = probed.run(code), probed.run(f"%%probe mode\n{code}")
        with_result = probed.run(f"%%probe mode\n{code}\nc"), probed.run(f"{code}\nc")
    finally:
        probed.run("get_ipython().ast_node_interactivity = 'last_expr'")
    assert outputs_of(cell) == outputs_of(native)
    assert outputs_of(with_result[0]) == outputs_of(with_result[1])


def test_ast_transformers_see_the_body_once(probed):
    probed.run(
        "import ast\n"
        "class Double(ast.NodeTransformer):\n"
        "    def visit_Constant(self, node):\n"
        "        return ast.Constant(node.value * 2) if isinstance(node.value, int) else node\n"
        "get_ipython().ast_transformers.append(Double())"
    )
    try:
        assert probed.run("%%probe ast\n21").result["text/plain"] == "42"
    finally:
        probed.run("get_ipython().ast_transformers.clear()")


def test_timing_magics(probed):
    cell = probed.run("%%probe time\n%time x = 5\nx")
    assert "Wall time" in cell.text
    assert cell.result["text/plain"] == "5"


def test_source_of_what_a_body_defines(probed):
    probed.run("%%probe source\n# a comment\ndef defined():\n    return 'here'\n")
    shown = probed.run("import inspect; print(inspect.getsource(defined), end='')")
    assert shown.text == "def defined():\n    return 'here'\n"


def test_an_error_can_be_pickled_and_still_shows(probed):
    probed.run("%%probe pickled\n1 / 0")
    probed.run("import pickle, sys; error = pickle.loads(pickle.dumps(sys.last_value))")
    assert "ZeroDivisionError: division by zero" in probed.run("raise error").error


def test_future_imports_reach_the_next_cell(kernel_factory):
    from helpers import pythonpath

    kernel = kernel_factory(**pythonpath())
    kernel.run("%load_ext helpers.probe")
    kernel.run("%%probe future\nfrom __future__ import annotations")
    assert kernel.run("def f(x: no_such_name): pass").status == "ok"


BUSY = {
    "awaiting": "await asyncio.sleep(60)",
    "busy after an await": "await asyncio.sleep(0)\nwhile True:\n    pass",
    "blocked in C": "time.sleep(60)",
    "a busy child": (
        "async def busy():\n    while True:\n        pass\nawait asyncio.gather(asyncio.sleep(60), busy())"
    ),
    "a task group": (
        "async with asyncio.TaskGroup() as group:\n"
        "    group.create_task(asyncio.sleep(60))\n"
        "    group.create_task(asyncio.sleep(60))"
    ),
    "under a timeout": "async with asyncio.timeout(50):\n    await asyncio.sleep(60)",
    "a thread": "await asyncio.to_thread(time.sleep, 30)",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY.keys())
def test_an_interrupt_ends_a_body_at_once(probed, code):
    probed.run("import asyncio, signal, time; handler = signal.getsignal(signal.SIGINT)")
    request = probed.start(f"%%probe interrupted\nprint('begun', flush=True)\n{code}")
    probed.wait(request, until="begun")
    time.sleep(0.2)
    interrupted_at = time.monotonic()
    probed.interrupt()
    cell = probed.wait(request)
    assert time.monotonic() - interrupted_at < AT_ONCE
    assert cell.status == "error"
    assert cell.error.startswith("KeyboardInterrupt")
    assert "durable_nb" not in cell.error
    assert "Cell In[" in cell.error
    assert not (probed.cwd / "interrupted.json").exists()
    assert probed.run("%%probe after\nawait asyncio.sleep(0.01, 'alive')").result["text/plain"] == "'alive'"
    assert probed.run("signal.getsignal(signal.SIGINT) is handler").result["text/plain"] == "True"


def test_after_an_interrupt_the_task_and_the_handler_are_as_before(probed):
    request = probed.start(
        "import asyncio, signal\nfrom durable_nb.notebook.shell import execute\n"
        "before = signal.getsignal(signal.SIGINT)\nprint('begun', flush=True)\n"
        "try:\n    with execute.interruptible():\n        await asyncio.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print(asyncio.current_task().cancelling(), signal.getsignal(signal.SIGINT) is before)"
    )
    probed.wait(request, until="begun")
    time.sleep(0.2)
    probed.interrupt()
    assert probed.wait(request).text == "begun\n0 True\n"


def test_an_interrupt_ends_a_shell_command_and_no_more(probed):
    for first_line in ("# the cell itself", "%%probe shell"):
        request = probed.start(f"{first_line}\nprint('begun', flush=True)\n!sleep 60\n_exit_code")
        probed.wait(request, until="begun")
        time.sleep(0.3)
        probed.interrupt()
        assert probed.wait(request, timeout=3).result["text/plain"] == "-2"


def test_a_cancellation_of_the_users_stays_one(probed):
    code = "asyncio.current_task().cancel()\nawait asyncio.sleep(60)"
    cell = probed.run(f"%%probe cancelled\nimport asyncio\n{code}")
    assert cell.error.startswith("CancelledError")


def test_an_interrupt_that_the_body_catches_is_over(probed):
    code = "try:\n    await asyncio.sleep(60)\nexcept asyncio.CancelledError:\n    print('caught')\n"
    request = probed.start(f"%%probe caught\nimport asyncio\nprint('begun', flush=True)\n{code}'went on'")
    probed.wait(request, until="begun")
    time.sleep(0.2)
    probed.interrupt()
    cell = probed.wait(request)
    assert (cell.status, cell.result["text/plain"]) == ("ok", "'went on'")
    assert probed.run("%%probe after\nawait asyncio.sleep(0.01, 'alive')").result["text/plain"] == "'alive'"
