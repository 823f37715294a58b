"""A replay writes what its cell made or changed, and nothing else: what the user edited stays edited."""

# ruff: noqa: E501 - a table of cells

import sys
from dataclasses import dataclass

import pytest

from helpers.kernel import Kernel


@dataclass(frozen=True)
class Edit:
    """An ordinary cell that is edited, and a durable cell after it, which prints ``body`` when it runs.

    Attributes:
        ordinary: The ordinary cell.
        durable: The durable cell.
        edit: A text in the ordinary cell, and what replaces it.
        look: An expression for a cell after both.
        shown: Its value before the edit and after it.
        runs_again: Whether the durable cell reads what was edited.
    """

    ordinary: str
    durable: str
    edit: tuple[str, str]
    look: str
    shown: tuple[str, str]
    runs_again: bool = False


# What a class, a library or pyplot keeps of several names ties none of them together.
REGISTRIES = {
    "pydantic": Edit(
        "from pydantic import BaseModel\nclass Config(BaseModel):\n    limit: float = 0.3\nconfig = Config()",
        "class Row(BaseModel):\n    name: str\nrows = [Row(name='a')]",
        ("0.3", "0.9"),
        "config.limit, Config().limit, rows == [Row(name='a')]",
        ("(0.3, 0.3, True)", "(0.9, 0.9, True)"),
    ),
    "dataclasses": Edit(
        "from dataclasses import dataclass\n@dataclass\nclass Config:\n    limit: float = 0.3\nconfig = Config()",
        "@dataclass\nclass Row:\n    name: str\nrows = [Row('a')]",
        ("0.3", "0.9"),
        "config.limit, Config().limit, rows == [Row('a')]",
        ("(0.3, 0.3, True)", "(0.9, 0.9, True)"),
    ),
    "attrs": Edit(
        "import attrs\n@attrs.define\nclass Config:\n    limit: float = 0.3\nconfig = Config()",
        "@attrs.define\nclass Row:\n    name: str\nrows = [Row('a')]",
        ("0.3", "0.9"),
        "config.limit, Config().limit, rows == [Row('a')]",
        ("(0.3, 0.3, True)", "(0.9, 0.9, True)"),
        # There the two classes are tied to one another: nothing is undone, but the step runs again.
        runs_again=sys.version_info >= (3, 13),
    ),
    "protocols": Edit(
        "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass Has(Protocol):\n"
        "    def f(self): ...\nclass A(Has):\n    def f(self): return 1\na = A()",
        "isinstance(3, Has)\nclass Other(Protocol):\n    def g(self): ...\nclass B(Other):\n"
        "    def g(self): return 1\nb = B()",
        ("return 1", "return 2"),
        "a.f(), b.g(), isinstance(a, Has), Other in B.__mro__",
        ("(1, 1, True, True)", "(2, 1, True, True)"),
    ),
    "abstract classes": Edit(
        "import abc\nclass Base(abc.ABC): pass\nclass First(Base):\n    value = 1\nfirst = First()",
        "class Second(Base): pass\nclass Stranger: pass\nBase.register(Stranger)\nsecond = Second()",
        ("value = 1", "value = 2"),
        "first.value, [isinstance(one, Base) for one in (first, second, Stranger())]",
        ("(1, [True, True, True])", "(2, [True, True, True])"),
    ),
    "a registry of subclasses": Edit(
        "class Base:\n    known = {}\n    def __init_subclass__(cls): Base.known[cls.__name__] = cls\n"
        "class First(Base):\n    value = 1\nfirst = First()",
        "class Second(Base): pass\nsecond = Second()",
        ("value = 1", "value = 2"),
        "first.value, Base.known == {'First': First, 'Second': Second}, isinstance(second, Base)",
        ("(1, True, True)", "(2, True, True)"),
    ),
    "a function with implementations": Edit(
        "from functools import singledispatch\n@singledispatch\ndef show(x): return 'any'\nheld = [show]\nn = 1",
        "@show.register\ndef of_text(x: str): return 'text'",
        ("n = 1", "n = 2"),
        "n, show(1), held[0]('a'), held[0] is show",
        ("(1, 'any', 'text', True)", "(2, 'any', 'text', True)"),
    ),
    "pyplot": Edit(
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots(); _ = ax.plot([1, 2])",
        "fig2, ax2 = plt.subplots(); _ = ax2.plot([3, 4])",
        ("[1, 2]", "[9, 9]"),
        "[[int(y) for y in one.lines[0].get_ydata()] for one in (ax, ax2)], "
        "plt.get_fignums(), plt.gcf() is fig2, plt.figure(1) is fig, fig2.axes[0] is ax2",
        ("([[1, 2], [3, 4]], [1, 2], True, True, True)", "([[9, 9], [3, 4]], [1, 2], True, True, True)"),
    ),
    "tasks of a workflow": Edit(
        "@wf.task\ndef one(): return 1",
        "@wf.task\ndef two(): return 2",
        ("return 1", "return 5"),
        "one.function(), two.function(), one.workflow is two.workflow is wf",
        ("(1, 2, True)", "(5, 2, True)"),
    ),
}
# A name of which the cell's result holds a part is not the cell's to write.
SHARED = {
    "a part of a name": Edit(
        "settings = {'a': [1], 'b': 1}\ndef unrelated(): return settings",
        "mine = settings['a']",
        ("unrelated(): return settings", "unrelated(): return 'edited'"),
        "mine, mine is settings['a'], unrelated() == 'edited'",
        ("([1], True, False)", "([1], True, True)"),
    ),
    "an object that is held twice": Edit(
        "item = [1]\nlogs = [item]\nnote = 1",
        "class Box: pass\nbox = Box(); box.held = item; box.own = [2]",
        ("note = 1", "note = 2"),
        "note, box.held is item is logs[0], box.own",
        ("(1, True, [2])", "(2, True, [2])"),
    ),
    "a view of an array": Edit(
        "import numpy as np\nbase = np.zeros(9000)\nnote = 1",
        "view = base[2:5]",
        ("note = 1", "note = 2"),
        "note, np.shares_memory(base, view), view.shape",
        ("(1, True, (3,))", "(2, True, (3,))"),
    ),
    "a closure": Edit(
        "def make():\n    seen = []\n    def add(x): seen.append(x); return seen\n    return add\nadd = make()\nnote = 1",
        "kept = add(1)",
        ("note = 1", "note = 2"),
        "note, kept, add(2) is kept",
        ("(1, [1, 2], True)", "(2, [1, 2], True)"),
    ),
    "a tuple that marks what is empty": Edit(
        "n = 0; empty = (n, n)\nnote = 1",
        "grid = [[empty] * 2 for _ in range(2)]",
        ("note = 1", "note = 2"),
        "note, all(cell is empty for row in grid for cell in row)",
        ("(1, True)", "(2, True)"),
    ),
    "what a thread writes": Edit(
        "import os, threading, time\nresults = ['old']\ndef work():\n"
        "    while not os.path.exists('asked'): time.sleep(0.01)\n"
        "    results.append('thread')\n    open('done', 'w').close()\n"
        "threading.Thread(target=work, daemon=True).start()",
        "open('asked', 'w').close()\nwhile not os.path.exists('done'): time.sleep(0.01)\nn = 45",
        ("'old'", "'new'"),
        "n, results[0]",
        ("(45, 'old')", "(45, 'new')"),
    ),
}
# What the cell changed in place it has read, also where its code does not mention it: the edit wins.
READ = {
    "an object under another name": Edit(
        "base = {'n': 1}\nview = {'base': base}",
        "view['base']['extra'] = 1",
        ("'n': 1", "'n': 2"),
        "base, view['base'] is base",
        ("({'n': 1, 'extra': 1}, True)", "({'n': 2, 'extra': 1}, True)"),
        runs_again=True,
    ),
    "a name that a function changes": Edit(
        "seen = ['old']\ndef note(x): seen.append(x)",
        "note(1)",
        ("'old'", "'new'"),
        "seen",
        ("['old', 1]", "['new', 1]"),
        runs_again=True,
    ),
    "a list that a hook fills": Edit(
        "import logging\nlines = ['old']\nclass Keep(logging.Handler):\n"
        "    def emit(self, record): lines.append(record.getMessage())\n"
        "logging.getLogger('kept').handlers[:] = [Keep()]",
        "logging.getLogger('kept').error('said')",
        ("'old'", "'new'"),
        "lines",
        ("['old', 'said']", "['new', 'said']"),
        runs_again=True,
    ),
    "code in a text": Edit(
        "total = ['old']",
        "exec('total.append(1)')",
        ("'old'", "'new'"),
        "total",
        ("['old', 1]", "['new', 1]"),
        runs_again=True,
    ),
    "a name that both bind": Edit(
        "limit = 1\ndef double(): return limit * 2",
        "limit = double() + 1",
        ("limit = 1", "limit = 5"),
        "limit",
        ("3", "11"),
        runs_again=True,
    ),
}
EDITS = {**REGISTRIES, **SHARED, **READ}


def play(kernel, name, *, edited):
    """Run both cells of an edit; gives what the durable cell printed and what the look shows."""
    case = EDITS[name]
    run_id = name.replace(" ", "-")
    kernel.run(f"%reset -f\n%load_ext durable_nb\n%durable_workflow {run_id} --db {kernel.cwd / 'runs.db'}")
    ordinary = case.ordinary.replace(*case.edit) if edited else case.ordinary
    done = [kernel.run(ordinary), kernel.run(f"%%durable_step s\nprint('body')\n{case.durable}")]
    assert [cell.error for cell in done] == [None, None]
    looked = kernel.run(case.look)
    return done[1].facts["action"], (looked.result or {}).get("text/plain", looked.error)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Each edit in a kernel, and after the edit in the next one: action and value of both, by name."""
    home = tmp_path_factory.mktemp("edits")
    kernel = Kernel(home, home / "home")
    try:
        before = {name: play(kernel, name, edited=False) for name in EDITS}
        kernel.sigkill()
        kernel.restart()
        return {name: (before[name], play(kernel, name, edited=True)) for name in EDITS}
    finally:
        kernel.shutdown()


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_never_undone_by_a_replay(played, name):
    case = EDITS[name]
    action = "executed" if case.runs_again else "replayed"
    assert played[name] == (("executed", case.shown[0]), (action, case.shown[1]))


def test_a_part_of_a_name_that_drifted_keeps_its_recorded_value(kernel):
    def run_all():
        kernel.run("%load_ext durable_nb\n%durable_workflow drift --db runs.db")
        kernel.run("import time\nnow = {'times': [time.time_ns()]}")
        told = kernel.run("%%durable_step s\nmine = now['times']; first = mine[0]").told
        return told, kernel.run("mine[0] == first, now['times'] is mine").result["text/plain"]

    assert run_all()[1] == "(True, True)"
    kernel.sigkill()
    kernel.restart()
    told, state = run_all()
    assert "drifted: `now`" in told
    assert state == "(True, False)"


def test_a_part_of_a_name_that_is_missing_comes_back(kernel):
    opened = "%load_ext durable_nb\n%durable_workflow missing --db runs.db"
    cell = "%%durable_step s\nmine = settings['a']"
    for code in (opened, "settings = {'a': [1]}", cell):
        kernel.run(code)
    kernel.sigkill()
    kernel.restart()
    kernel.run(opened)
    assert kernel.run(cell).error is None
    assert kernel.run("mine, 'settings' in globals()").result["text/plain"] == "([1], False)"
