"""Tasks in cells: in ordinary ones their arguments name them, in durable ones an edit keeps what is equal."""

SETUP = """
%load_ext durable_nb
%durable_workflow cells --db runs.db --badge plain
import random
@wf.task
def draw(n):
    print("drew", n)
    return n, random.random()
@wf.task
async def wait(n):
    print("waited", n)
    return n
"""


def opened(kernel):
    cell = kernel.run(SETUP)
    assert cell.status == "ok", cell.error
    return kernel


def test_an_ordinary_cell_names_calls_by_their_arguments(kernel):
    """Cells run in any order and again; five samples stay five; after a kill all of it replays."""
    opened(kernel)
    five = "samples = [draw(0)[1] for _ in range(5)]\nprint(len(set(samples)), samples)"
    first = kernel.run(five)
    assert first.text.count("drew 0") == 5
    assert "5 [" in first.text
    again = kernel.run(five)
    assert again.text == first.text.replace("drew 0\n", "")
    assert kernel.run("draw(1); draw(n=1)").text == "drew 1\ndrew 1\n"
    assert kernel.run("print(await wait(2))").text == "waited 2\n2\n"
    kernel.sigkill()
    kernel.restart()
    opened(kernel)
    assert kernel.run("print(await wait(2))").text == "2\n"
    assert kernel.run("draw(1)").text == ""
    assert kernel.run(five).text == again.text


def test_an_argument_without_a_fingerprint_needs_a_name_in_an_ordinary_cell(kernel):
    opened(kernel)
    refused = kernel.run("draw(object())")
    assert "no stable fingerprint exists for n" in refused.error
    assert "draw(…, step_id='…')" in refused.error
    assert kernel.run("draw(object(), step_id='mine')[0]").text.startswith("drew <object")
    assert kernel.run("draw(object(), step_id='mine')[0]").text == ""
    assert kernel.run("%%durable_step s\nprint(draw((1, 2)))").status == "ok"


def test_an_edited_durable_cell_replays_its_tasks_with_equal_arguments(kernel):
    """Inserted, removed and moved calls: the equal ones replay, wherever they stand now."""
    opened(kernel)
    show = "; print(values)"
    first = kernel.run("%%durable_step s\nvalues = [draw(1), draw(2), draw(3)]" + show)
    assert first.text.startswith("drew 1\ndrew 2\ndrew 3\n")
    kernel.run(SETUP)  # the next pass
    edited = kernel.run("%%durable_step s\nvalues = [draw(3), draw(4), draw(1)]" + show)
    assert edited.text.startswith("drew 4\n[(3, ")
    old = dict(eval(first.text.splitlines()[-1]))
    new = dict(eval(edited.text.splitlines()[-1]))
    assert (new[3], new[1]) == (old[3], old[1])
    kernel.run(SETUP)
    gathered = "import asyncio\nvalues = await asyncio.gather(wait(1), wait(2), wait(1))"
    assert kernel.run("%%durable_step g\n" + gathered).text == "waited 1\nwaited 2\nwaited 1\n"
    kernel.run(SETUP)
    gathered = "import asyncio\nvalues = await asyncio.gather(wait(2), wait(1), wait(5), wait(1))"
    assert kernel.run("%%durable_step g\n" + gathered + show).text == "waited 5\n[2, 1, 5, 1]\n"


def test_a_workflow_in_a_durable_cell_is_a_run_of_its_own_which_a_replay_does_not_touch(kernel):
    opened(kernel)
    define = "@wf.workflow(id='child-{n}')\ndef child(n):\n    return draw(n)[0], draw(n)[0]\n"
    cell = "%%durable_step s\nvalue = child(5)\nprint(value)"
    look = (
        "import sqlite3\nrows = sqlite3.connect('runs.db').execute(\n"
        "    'SELECT run_id, status, parent, passes FROM runs ORDER BY run_id').fetchall()\nprint(rows)"
    )
    kernel.run(define)
    assert kernel.run(cell).text == "drew 5\ndrew 5\n(5, 5)\n"
    assert kernel.run(look).text == "[('cells', 'running', None, 1), ('child-5', 'done', 'cells', 1)]\n"
    kernel.sigkill()
    kernel.restart()
    opened(kernel)
    kernel.run(define)
    assert kernel.run(cell).text == "drew 5\ndrew 5\n(5, 5)\n"  # what was shown, shown again
    assert kernel.run(look).text == "[('cells', 'running', None, 2), ('child-5', 'done', 'cells', 1)]\n"
    assert kernel.run("print(child(5))").text == "(5, 5)\n"


DEFINED = """
%%durable_step define
from durable_nb import Workflow, durable_step, exponential, linear
print("defined")
other = Workflow("other", db="other.db", default_retries=1, default_backoff=linear(0, 0))

@wf.task(retries=2, backoff=exponential(base=0, max=0), once=False, name="drawing")
def draw(n):
    return n + 1

@other.task
def elsewhere(n):
    return n * 2

@durable_step(once=True)
def pay(n):
    return f"paid {n}"

def counting():
    @wf.task
    def down(n):
        return [n, *(down(n - 1) if n else [])]
    return down

down = counting()

@wf.workflow(id="order-{n}")
def order(n):
    return draw(n)
"""

USED = "print(draw(1), elsewhere(2), pay(3), down(2), order(4), draw.policy.retries, pay.once, other.db)"


def test_what_a_durable_cell_defines_is_a_task_again_after_a_restart(kernel):
    """Tasks, workflow functions and workflows come back with their options, whatever modules they are in."""
    opened(kernel)
    first = kernel.run(DEFINED)
    assert "not saved" not in first.told
    used = kernel.run(USED)
    assert used.text == "2 4 paid 3 [2, 1, 0] 5 2 True other.db\n", used.error
    kernel.sigkill()
    kernel.restart()
    opened(kernel)
    replayed = kernel.run(DEFINED)
    assert "not restored" not in replayed.told
    again = kernel.run(USED)
    assert again.text == used.text, again.error
    same = kernel.run("print(draw.workflow is wf, pay.workflow is durable_step.__self__, draw)")
    assert same.text == "True True <task drawing>\n"
