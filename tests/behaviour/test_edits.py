"""Edits run again, drift does not: two versions of a notebook, and what becomes of each durable cell.

Each case runs the first version in a real IPython shell, asks for the plan of the second, and runs that: in a new
shell, as after a kill, and in the same one. Bodies that are executed are counted.
"""

# ruff: noqa: E501 - a table of cells

import builtins
import json
import sys
from dataclasses import dataclass, field

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from durable_nb.cli import main
from durable_nb.notebook.lineage import names
from durable_nb.signals import prompter
from durable_nb.workflow.workflow import NOTEBOOK
from helpers.notebooks import write_notebook

OPEN = "%load_ext durable_nb\n%durable_workflow edits --db runs.db"


@dataclass(frozen=True)
class Case:
    """Cells, parted by lines of `‖`; one that begins with `@NAME` is the durable cell NAME.

    `expected` has what each step does the second time: "" replays without a word, `run: WHY` runs again,
    anything else replays and says that.
    """

    name: str
    first: str
    second: str
    expected: dict = field(default_factory=dict)
    files: tuple = ()
    living: bool = True
    planned: dict = field(default_factory=dict)
    """Where the plan can know less: what it says of a step."""


C = Case
FRAME = "import pandas as pd; df = pd.DataFrame({'a': [1, 2], 'b': [3, 4]})"
MODEL = "class M:\n    def fit(self, x): self.n = len(x); return self\n    def fit_transform(self, x): return self.fit(x) and x"
RESULT = "whose result changed"
PART = "class Part:\n    def times(self): return {}\npart = Part()"
CASES = [
    C("comment in the cell", "@s x = 1", "@s x = 1  # one", {"s": ""}),
    C("formatting of the cell", "@s x = [1,2]", "@s x = [\n    1, 2,\n]", {"s": ""}),
    C("constant in the cell", "@s x = 1", "@s x = 2", {"s": "run: its code changed"}),
    C("expression in the cell", "@s x = 1 + 1", "@s x = 1 * 2", {"s": "run: its code changed"}),
    C("comment upstream", "N = 1 ‖ @s x = N", "N = 1  # one ‖ @s x = N", {"s": ""}),
    C("formatting upstream", "N = [1,2] ‖ @s x = N", "N = [ 1,\n 2 ] ‖ @s x = N", {"s": ""}),
    C(
        "constant upstream",
        "N = 1 ‖ @s x = N",
        "N = 2 ‖ @s x = N",
        {"s": "run: it now reads `N = 2` (was `N = 1`)"},
    ),
    C(
        "two hops",
        "N = 10 ‖ x = N * 2 ‖ @s y = x",
        "N = 20 ‖ x = N * 2 ‖ @s y = x",
        {"s": "run: `x = N * 2` now reads `N = 20` (was `N = 10`)"},
    ),
    C(
        "three hops, the first edited",
        "N = 1 ‖ x = N * 2 ‖ z = x + 1 ‖ @s y = z",
        "N = 2 ‖ x = N * 2 ‖ z = x + 1 ‖ @s y = z",
        {"s": "run: `x = N * 2` now reads `N = 2` (was `N = 1`)"},
    ),
    C(
        "another expression of the same value",
        "x = 2 * 2 ‖ @s y = x",
        "x = 2 + 2 ‖ @s y = x",
        {"s": "run: it now reads `x = 2 + 2` (was `x = 2 * 2`)"},
    ),
    C(
        "a change in place added",
        f"{FRAME} ‖ @s y = df.shape",
        f"{FRAME} ‖ df.drop('a', axis=1, inplace=True) ‖ @s y = df.shape",
        {"s": "run: `df.drop('a', axis=1, inplace=True)` was added"},
    ),
    C(
        "a change in place edited",
        f"{FRAME} ‖ df.drop('a', axis=1, inplace=True) ‖ @s y = df.shape",
        f"{FRAME} ‖ df.drop('b', axis=1, inplace=True) ‖ @s y = df.shape",
        {
            "s": "run: it now reads `df.drop('b', axis=1, inplace=True)` (was `df.drop('a', axis=1, inplace=True)`)"
        },
    ),
    C(
        "the class of an object that a step changed in place",
        f"{PART.format(2)} ‖ @s part.extra = 1 ‖ @t y = part.times()",
        f"{PART.format(3)} ‖ @s part.extra = 1 ‖ @t y = part.times()",
        {
            "s": "run: `part = Part()` now reads `class Part: …`, which was edited",
            "t": "run: it now reads `class Part: …`, which was edited",
        },
    ),
    C(
        "the class of an object in a list that a step made",
        f"{PART.format(2)} ‖ @s parts = [part, Part()] ‖ @t y = parts[1].times()",
        f"{PART.format(3)} ‖ @s parts = [part, Part()] ‖ @t y = parts[1].times()",
        {
            "s": "run: `part = Part()` now reads `class Part: …`, which was edited",
            "t": "run: it now reads `class Part: …`, which was edited",
        },
    ),
    C(
        "the class of an object that a step changed in place, not edited",
        f"{PART.format(2)} ‖ @s part.extra = 1 ‖ @t y = part.times()",
        f"{PART.format(2)} ‖ @s part.extra = 1 ‖ @t y = part.times()",
        {"s": "", "t": ""},
    ),
    C(
        "a change in place removed",
        f"{FRAME} ‖ df.drop('a', axis=1, inplace=True) ‖ @s y = df.shape",
        f"{FRAME} ‖ @s y = df.shape",
        {"s": "run: `df.drop('a', axis=1, inplace=True)` was removed"},
    ),
    C(
        "a store into a step's frame",
        f"@load {FRAME} ‖ @s y = int(df.a.sum())",
        f"@load {FRAME} ‖ df.loc[0, 'a'] = 9 ‖ @s y = int(df.a.sum())",
        {"load": "", "s": "run: `df.loc[0, 'a'] = 9` was added"},
    ),
    C(
        "an append added",
        "l = [1] ‖ @s y = len(l)",
        "l = [1] ‖ l.append(2) ‖ @s y = len(l)",
        {"s": "run: `l.append(2)` was added"},
    ),
    C(
        "a look at a frame added",
        f"{FRAME} ‖ @s y = df.shape",
        f"{FRAME} ‖ df.head() ‖ @s y = df.shape",
        {"s": ""},
    ),
    C(
        "an augmented assignment edited",
        "n = 1\nn += 1 ‖ @s y = n",
        "n = 1\nn += 2 ‖ @s y = n",
        {"s": "run: it now reads `n += 2` (was `n += 1`)"},
    ),
    C(
        "an attribute set",
        "class O: pass\no = O() ‖ @s y = vars(o)",
        "class O: pass\no = O() ‖ o.x = 1 ‖ @s y = vars(o)",
        {"s": "run: `o.x = 1` was added"},
    ),
    C(
        "an item deleted",
        "d = {1: 1, 2: 2} ‖ @s y = len(d)",
        "d = {1: 1, 2: 2} ‖ del d[1] ‖ @s y = len(d)",
        {"s": "run: `del d[1]` was added"},
    ),
    C(
        "a function two calls away edited",
        "def h(): return 1\ndef g(): return h() ‖ def f(): return g() ‖ @s y = f()",
        "def h(): return 2\ndef g(): return h() ‖ def f(): return g() ‖ @s y = f()",
        {"s": "run: it now reads `def h(): …`, which was edited"},
    ),
    C(
        "a global of a function edited",
        "K = 1 ‖ def f(): return K ‖ @s y = f()",
        "K = 2 ‖ def f(): return K ‖ @s y = f()",
        {"s": "run: it now reads `K = 2` (was `K = 1`)"},
    ),
    C(
        "a docstring upstream",
        "def f():\n    return 1 ‖ @s y = f()",
        "def f():\n    'One.'\n    return 1 ‖ @s y = f()",
        {"s": ""},
    ),
    C(
        "a class edited",
        "class A:\n    def m(self): return 1 ‖ @s y = A().m()",
        "class A:\n    def m(self): return 2 ‖ @s y = A().m()",
        {"s": "run: it now reads `class A: …`, which was edited"},
    ),
    C(
        "a global of a method edited",
        "K = 1 ‖ class A:\n    def m(self): return K ‖ @s y = A().m()",
        "K = 2 ‖ class A:\n    def m(self): return K ‖ @s y = A().m()",
        {"s": "run: it now reads `K = 2` (was `K = 1`)"},
    ),
    C(
        "a function of a durable cell edited",
        "@lib def f(): return 1 ‖ @s y = f()",
        "@lib def f(): return 2 ‖ @s y = f()",
        {"lib": "run: its code changed", "s": f"run: `f` comes from step `lib`, {RESULT}"},
        planned={"s": "may run"},
    ),
    C(
        "a global that a durable cell's function reads",
        "K = 1 ‖ @lib def f(): return K ‖ @s y = f()",
        "K = 2 ‖ @lib def f(): return K ‖ @s y = f()",
        {"lib": "run: it now reads `K = 2` (was `K = 1`)", "s": "run: it now reads `K = 2` (was `K = 1`)"},
    ),
    C(
        "a helper added beside what is read",
        "x = 1 ‖ @s y = x",
        "def helper(): return 5\nx = 1 ‖ @s y = x",
        {"s": ""},
    ),
    C(
        "a step upstream with the same result",
        "@load x = 2 ‖ @s y = x",
        "@load x = 1 + 1 ‖ @s y = x",
        {"load": "run: its code changed", "s": ""},
        planned={"s": "may run"},
    ),
    C(
        "a step upstream with another result",
        "@load x = 2 ‖ @s y = x",
        "@load x = 3 ‖ @s y = x",
        {"load": "run: its code changed", "s": f"run: `x` comes from step `load`, {RESULT}"},
        planned={"s": "may run"},
    ),
    C(
        "a frame upstream with the same result",
        f"@load {FRAME} ‖ @s y = df.shape",
        f"@load {FRAME}; df = df.copy() ‖ @s y = df.shape",
        {"load": "run: its code changed", "s": ""},
        planned={"s": "may run"},
    ),
    C(
        "only another name of the step differs",
        "@load x = 2; meta = 'a' ‖ @s y = x",
        "@load x = 2; meta = 'b' ‖ @s y = x",
        {"load": "run: its code changed", "s": ""},
        planned={"s": "may run"},
    ),
    C(
        "a chain of steps with another result",
        "@a x = 1 ‖ @b y = x + 1 ‖ @c z = y + 1",
        "@a x = 2 ‖ @b y = x + 1 ‖ @c z = y + 1",
        {
            "a": "run: its code changed",
            "b": f"run: `x` comes from step `a`, {RESULT}",
            "c": f"run: `y` comes from step `b`, {RESULT}",
        },
        planned={"b": "may run", "c": "may run"},
    ),
    C(
        "a chain that is the same in the middle",
        "@a x = 1 ‖ @b y = x > 0 ‖ @c z = not y",
        "@a x = 2 ‖ @b y = x > 0 ‖ @c z = not y",
        {"a": "run: its code changed", "b": f"run: `x` comes from step `a`, {RESULT}", "c": ""},
        planned={"b": "may run", "c": "may run"},
    ),
    C(
        "an ordinary cell between steps",
        "@a x = 1 ‖ m = x * 2 ‖ @b y = m",
        "@a x = 2 ‖ m = x * 2 ‖ @b y = m",
        {"a": "run: its code changed", "b": f"run: `x` comes from step `a`, {RESULT}"},
        planned={"b": "may run"},
    ),
    C(
        "another step writes last",
        "@a x = 1 ‖ @s y = x",
        "@a x = 1 ‖ @b x = 5 ‖ @s y = x",
        {"a": "", "b": "run: ", "s": "run: `x` now comes from step `b` (was step `a`)"},
    ),
    C(
        "a step that changes in place",
        "@a l = [1] ‖ @b l.append(2) ‖ @s y = len(l)",
        "@a l = [1] ‖ @b l.append(2) ‖ @s y = len(l)",
        {"a": "", "b": "", "s": ""},
    ),
    C(
        "a clock drifts",
        "import time ‖ now = time.time_ns() ‖ @s y = now",
        "import time ‖ now = time.time_ns() ‖ @s y = now",
        {"s": "drifted: `now`"},
        planned={"s": "replay"},
    ),
    C(
        "a random draw drifts",
        "import random ‖ r = random.random() ‖ @s y = r",
        "import random ‖ r = random.random() ‖ @s y = r",
        {"s": "drifted: `r`"},
        planned={"s": "replay"},
    ),
    C(
        "a client object is another one",
        "class Client: pass\nclient = Client() ‖ @s y = client is None",
        "class Client: pass\nclient = Client() ‖ @s y = client is None",
        {"s": ""},
    ),
    C(
        "an environment variable drifts",
        "import os ‖ place = os.environ['PLACE'] ‖ @s y = place",
        "import os ‖ place = os.environ['PLACE'] ‖ @s y = place",
        {"s": "drifted: `place`"},
        planned={"s": "replay"},
    ),
    C(
        "drift that is to run again",
        "import time ‖ now = time.time_ns() ‖ @s --on-drift rerun\ny = now",
        "import time ‖ now = time.time_ns() ‖ @s --on-drift rerun\ny = now",
        {"s": "run: drifted: `now`"},
        planned={"s": "replay"},
    ),
    C(
        "imports parted, joined and added to",
        "import math, time\nfrom os import path ‖ @s y = math.pi, path.sep",
        "import time, os\nfrom os import getcwd, path\nimport math ‖ @s y = math.pi, path.sep",
        {"s": ""},
    ),
    C(
        "another import of the same name",
        "from os import path, sep ‖ @s y = path.sep",
        "from posixpath import sep\nimport ntpath as path ‖ @s y = path.sep",
        {"s": "run: it now reads `import ntpath as path` (was `from os import path`)"},
    ),
    C(
        "a model fitted to something else, whose value is kept or shown",
        f"{MODEL} ‖ m = M() ‖ given = m.fit_transform([1]) ‖ @s y = m.n",
        f"{MODEL} ‖ m = M() ‖ given = m.fit_transform([1, 2]) ‖ @s y = m.n",
        {"s": "run: it now reads `given = m.fit_transform([1, 2])` (was `given = m.fit_transform([1])`)"},
    ),
    C(
        "a model fitted once more, at the end of a cell",
        f"{MODEL} ‖ m = M() ‖ m.fit([1]) ‖ @s y = m.n",
        f"{MODEL} ‖ m = M() ‖ m.fit([1])\nm.fit([1, 2]) ‖ @s y = m.n",
        {"s": "run: `m.fit([1, 2])` was added"},
    ),
    C(
        "a model that is made and fitted in one, by a class that is imported",
        "from collections import Counter ‖ c = Counter('ab').pop('a') ‖ @s y = Counter('a')",
        "from collections import Counter ‖ c = Counter('abc').pop('a') ‖ @s y = Counter('a')",
        {"s": ""},
    ),
    C(
        "a name that a comprehension has for itself",
        f"{MODEL} ‖ m = 1 ‖ fitted = [m.fit([1]) for m in [M()]] ‖ @s y = m",
        f"{MODEL} ‖ m = 1 ‖ fitted = [m.fit([1, 2]) for m in [M()]] ‖ @s y = m",
        {"s": ""},
    ),
    C(
        "something popped",
        "d = {'a': 1, 'b': 2} ‖ x = d.pop('a') ‖ @s y = dict(d)",
        "d = {'a': 1, 'b': 2} ‖ x = d.pop('b') ‖ @s y = dict(d)",
        {"s": "run: it now reads `x = d.pop('b')` (was `x = d.pop('a')`)"},
    ),
    C(
        "a star import",
        "from helpers import * ‖ @s y = helped()",
        "from helpers import * ‖ @s y = helped()",
        {"s": ""},
        files=({"helpers.py": "def helped(): return 1"},) * 2,
    ),
    C(
        "another star import",
        "from helpers import * ‖ @s y = helped()",
        "from others import * ‖ @s y = helped()",
        {"s": "run: it now reads `from others import *` (was `from helpers import *`)"},
        files=({"helpers.py": "def helped(): return 1", "others.py": "def helped(): return 2"},) * 2,
    ),
    C(
        "an edited module of the user's own",
        "import helpers ‖ @s y = helpers.helped()",
        "import helpers ‖ @s y = helpers.helped()",
        {"s": "drifted: `helpers`"},
        files=({"helpers.py": "def helped(): return 1"}, {"helpers.py": "def helped(): return 2"}),
        planned={"s": "replay"},
    ),
    C(
        "a function of an edited module",
        "from helpers import helped ‖ @s y = helped()",
        "from helpers import helped ‖ @s y = helped()",
        {"s": "drifted: `helped`"},
        files=({"helpers.py": "def helped(): return 1"}, {"helpers.py": "def helped(): return 2"}),
        planned={"s": "replay"},
    ),
    C(
        "renamed",
        "N = 1 ‖ @old y = N ‖ @z w = y",
        "N = 1 ‖ @new y = N ‖ @z w = y",
        {"new": "it was called `old`", "z": ""},
    ),
    C("renamed and edited", "N = 1 ‖ @old y = N", "N = 2 ‖ @new y = N", {"new": "run: "}),
    C("duplicated", "@a x = 1", "@a x = 1 ‖ @b x = 1", {"a": "", "b": "run: "}),
    C("duplicated above", "@a x = 1", "@b x = 1 ‖ @a x = 1", {"a": "", "b": "run: "}),
    C("deleted", "@a x = 1 ‖ @b y = 2", "@b y = 2", {"b": ""}),
    C(
        "moved",
        "a = 1 ‖ b = 2 ‖ @s y = a + b ‖ @t z = 3",
        "b = 2 ‖ a = 1 ‖ @t z = 3 ‖ @s y = a + b",
        {"s": "", "t": ""},
    ),
    C("inserted", "a = 1 ‖ @s y = a", "print('hello') ‖ a = 1 ‖ c = a * 7 ‖ @s y = a", {"s": ""}),
    C("parted and joined cells", "a = 1\nb = 2 ‖ @s y = a + b", "a = 1 ‖ b = 2 ‖ @s y = a + b", {"s": ""}),
    C(
        "rebound below is another order",
        "a = 1 ‖ @s y = a ‖ a = 2",
        "a = 2 ‖ @s y = a ‖ a = 1",
        {"s": "run: it now reads `a = 2` (was `a = 1`)"},
    ),
    C(
        "papermill parameters",
        "N = 1 ‖ @s y = N",
        "N = 1 ‖ # Parameters\nN = 5 ‖ @s y = N",
        {"s": "run: it now reads `N = 5` (was `N = 1`)"},
    ),
    C(
        "the same papermill parameters",
        "N = 1 ‖ # Parameters\nN = 5 ‖ @s y = N",
        "N = 1 ‖ # Parameters\nN = 5 ‖ @s y = N",
        {"s": ""},
    ),
    C(
        "in a timed cell",
        "%%time\nx = 1 ‖ @s y = x",
        "%%time\nx = 2 ‖ @s y = x",
        {"s": "run: it now reads `x = 2` (was `x = 1`)"},
    ),
    C(
        "bound in a loop",
        "t = 0\nfor i in range(3):\n    t += i ‖ @s y = t",
        "t = 0\nfor i in range(4):\n    t += i ‖ @s y = t",
        {"s": "run: it now reads `for i in range(4): …` (was `for i in range(3): …`)"},
    ),
    C(
        "a lambda's global",
        "K = 1\nf = lambda: K ‖ @s y = f()",
        "K = 2\nf = lambda: K ‖ @s y = f()",
        {"s": "run: it now reads `K = 2` (was `K = 1`)"},
    ),
    C(
        "kept in spite of an edit",
        "N = 1 ‖ @s --on-edit keep\ny = N",
        "N = 2 ‖ @s --on-edit keep\ny = N",
        {"s": "it now reads `N = 2` (was `N = 1`)"},
    ),
    C(
        "a secret is not shown",
        "api_key = 'sk-1' ‖ @s y = len(api_key)",
        "api_key = 'sk-22' ‖ @s y = len(api_key)",
        {"s": "run: it now reads `api_key = '\u2039hidden\u203a'`, which was edited"},
    ),
    C("it changes what it reads", "l = [1] ‖ @s l.append(2)", "l = [1] ‖ @s l.append(2)", {"s": ""}),
    C(
        "a name that shadows a builtin",
        "@s y = len([1])",
        "len = sum ‖ @s y = len([1])",
        {"s": "run: `len = sum` was added"},
        living=True,
    ),
]


def parted(cells):
    """The cells of a version, durable ones with their magic and a line that counts executions."""
    for cell in cells.split(" ‖ "):
        if not cell.startswith("@"):
            yield cell
            continue
        name, _, body = cell[1:].partition(" ")
        options = ""
        if body.startswith("--"):
            options, _, body = body.partition("\n")
        yield f"%%durable_step {name} {options}\nran(1)\n{body}"


class Shell:
    """A real IPython shell of this process; `restart` leaves nothing of the namespace."""

    def __init__(self):
        self.ran = []
        self.restart()

    def restart(self):
        InteractiveShell.clear_instance()
        self.shell = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
        self.run("import os")
        for name in ("helpers", "others"):
            sys.modules.pop(name, None)

    def run(self, cell):
        """Execute one cell; gives the facts of a durable one."""
        self.shell.display_pub.outputs.clear()
        result = self.shell.run_cell(cell, store_history=True)
        result.raise_error()
        found = [one["metadata"].get("durable_nb", {}) for one in self.shell.display_pub.outputs]
        return next((facts for facts in found if "step" in facts), None)

    def run_all(self, cells):
        """Execute a version of a notebook; gives the facts by step."""
        self.ran.clear()
        found = [self.run(cell) for cell in (OPEN, *cells)]
        return {facts["step"]: facts for facts in found if facts}


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PLACE", "here")
    monkeypatch.setattr(prompter, "_prompters", [])  # nobody is asked through a shell that is gone
    shell = Shell()
    monkeypatch.setattr(builtins, "ran", shell.ran.append, raising=False)
    yield shell
    NOTEBOOK.attach(None)
    InteractiveShell.clear_instance()


def planned(tmp_path, cells, capsys):
    """The plan as the command prints it, by step."""
    write_notebook(tmp_path / "book.ipynb", cells)
    capsys.readouterr()
    assert main(["plan", str(tmp_path / "book.ipynb"), "--run-id", "edits", "--db", "runs.db"]) == 0
    rows = capsys.readouterr().out.splitlines()
    found = {}
    for row in rows:
        place, _, rest = row[:4].strip(), row[4:6], row[6:]
        words = rest.split(maxsplit=1)
        if words and not rest.startswith(" "):
            found[words[0]] = words[1]
        assert place or "gone" in row
    return found


def write(tmp_path, files, version):
    for name, text in (files[version] if files else {}).items():
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize("living", [False, True], ids=["killed", "living"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_becomes_of_each_cell(case, living, shell, tmp_path, monkeypatch, capsys):
    write(tmp_path, case.files, 0)
    shell.run_all(parted(case.first))
    second = list(parted(case.second))
    plan = planned(tmp_path, (OPEN, *second), capsys)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "book.ipynb"))
    monkeypatch.setenv("PLACE", "there")
    write(tmp_path, case.files, 1)
    if not living or case.files:
        shell.restart()
    facts = shell.run_all(second)
    assert facts.keys() == case.expected.keys()
    for step, expected in case.expected.items():
        check(facts[step], expected)
        foreseen = case.planned.get(step, "run" if expected.startswith("run: ") else "replay")
        assert plan[step].startswith(foreseen), plan
        assert facts[step]["action"] != "executed" or foreseen != "replay" or step in case.planned
    assert sum(shell.ran) == sum(facts[step]["action"] == "executed" for step in facts)
    again = shell.run_all(second)
    assert {step: one["action"] for step, one in again.items()} == dict.fromkeys(
        facts, "replayed"
    ) or "drift" in case.name


def check(facts, expected):
    notice = facts.get("notice", "")
    if expected.startswith("run: "):
        assert facts["action"] == "executed", (facts, expected)
        assert notice == (expected.replace("run: ", "ran again: ") if expected != "run: " else "")
    elif expected:
        assert facts["action"] == "replayed", (facts, expected)
        assert notice == f"replayed; {expected}; to run it again: %durable_reset {facts['step']}"
    else:
        assert (facts["action"], notice) == ("replayed", "")


def actions(found):
    return {step: facts["action"] for step, facts in found.items()}


def test_hours_of_work_run_again_after_an_edit_only(shell):
    """Everything that is no edit, one after the other, and the counter stays at one."""
    before = ["import time, random", "today = time.time_ns()", "N = 3"]
    hours = "%%durable_step hours\nran(1)\nresult = (N, today, random.random())"
    shell.run_all([*before, hours])
    for cells in (
        [*before, hours],
        ["# a comment", *before, hours],
        [before[2], *before[:2], hours],
        [*before, "plot = [N, today]", hours],
        [*before, "def helper(): return 1", hours + "  # three hours"],
        ["M = 5", "import time, random\ntoday = time.time_ns()\nN = 3", hours],
    ):
        shell.restart()
        assert actions(shell.run_all(cells)) == {"hours": "replayed"}
        assert shell.ran == []
    shell.restart()
    shell.run_all([before[0], before[1], "N = 4", hours])
    assert shell.ran == [1]


def test_the_plan_of_a_notebook_of_twenty_cells(shell, tmp_path, capsys):
    def cells(edited):
        yield from ("import math", "scale = 2")
        for i in range(9):
            yield f"p{i} = scale * {i}{' + 1' if i == edited else ''}"
            before = f"s{i - 1} + " if i else ""
            yield f"%%durable_step step{i}\nran(1)\ns{i} = {before}math.floor(p{i})"

    assert len(list(cells(None))) == 20
    shell.run_all(cells(None))
    for edited in (8, 4, None):
        second = list(cells(edited))
        plan = planned(tmp_path, (OPEN, *second), capsys)
        shell.restart()
        ran = {step for step, action in actions(shell.run_all(second)).items() if action == "executed"}
        certain = {step for step, row in plan.items() if row.startswith("run")}
        possible = certain | {step for step, row in plan.items() if row.startswith("may run")}
        assert certain <= ran <= possible, (edited, plan)
        if edited == 8:
            assert certain == ran == {"step8"}


def test_the_plan_in_the_notebook_itself(shell, tmp_path, capsys, monkeypatch):
    cells = [OPEN, "N = 1", "%%durable_step s\ny = N", "%%durable_step t\nz = y"]
    for cell in cells:
        shell.run(cell)
    with pytest.raises(UsageError, match="does not tell the kernel which notebook"):
        shell.run("%durable_plan")
    write_notebook(tmp_path / "book.ipynb", [cells[0], "N = 2", *cells[2:], "%%durable_step new\n1"])
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "book.ipynb"))
    capsys.readouterr()
    shell.run("%durable_plan")
    assert capsys.readouterr().out.splitlines() == [
        "   1       runs",
        "   2       runs",
        "   3  s    run      it now reads `N = 2` (was `N = 1`)",
        "   4  t    may run  `y` comes from step `s`, whose result may change",
        "   5  new  run      first run",
    ]
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UsageError, match=r"broken\.ipynb is not a notebook"):
        shell.run("%durable_plan broken.ipynb")


def test_the_plan_needs_a_run_and_makes_no_database(tmp_path, capsys):
    write_notebook(tmp_path / "book.ipynb", ["1"])
    db = tmp_path / "none.db"
    assert main(["plan", str(tmp_path / "book.ipynb"), "--run-id", "r", "--db", str(db)]) == 1
    assert "no database at" in capsys.readouterr().err
    assert not db.exists()


def test_the_plan_names_a_step_whose_cell_is_gone_and_two_of_one_name(shell, tmp_path, capsys):
    shell.run_all(parted("@a x = 1 ‖ @b y = 2"))
    plan = planned(tmp_path, parted("@b y = 2 ‖ @b y = 3"), capsys)
    assert plan["a"].startswith("gone")
    assert plan["b"].startswith("refuse")


def test_the_order_of_execution_counts(shell):
    cells = {"a": "x = 1", "b": "x = 2", "s": "%%durable_step s\nran(1)\ny = x"}
    shell.run_all([cells["a"], cells["b"], cells["s"]])
    shell.restart()
    shell.run_all([cells["b"], cells["a"], cells["s"]])
    assert shell.ran == [1]
    shell.restart()
    shell.run_all([cells["a"], cells["a"], cells["s"]])
    assert shell.ran == []


def test_a_cell_executed_again_in_a_living_kernel(shell):
    """What it changed itself, and what came of that, is no edit of it."""
    clean = "%%durable_step clean\nran(1)\nrows.append(2)"
    cells = ["%%durable_step load\nran(1)\nrows = [1]", clean, "%%durable_step more\nran(1)\nrows.append(3)"]
    shell.run_all([*cells, "count = len(rows)"])
    shell.ran.clear()
    assert shell.run(clean)["action"] == "replayed"
    assert shell.shell.user_ns["rows"] == [1, 2]
    assert shell.run(clean)["action"] == "replayed"
    assert shell.run(cells[2])["action"] == "replayed"
    assert shell.ran == []
    for _ in range(2):  # an ordinary cell that is executed once more counts once
        shell.run("total = 0")
        shell.run("total += 1")
        shell.run("total += 1")
        shell.run("%%durable_step last\nran(1)\nlast = total")
    assert shell.ran == [1]


def test_what_ran_before_the_extension_was_loaded_counts(shell):
    for n in (1, 1, 2):
        shell.restart()
        shell.run(f"N = {n}")
        facts = shell.run_all(["%%durable_step s\nran(1)\ny = N"])
    assert facts["s"]["notice"] == "ran again: it now reads `N = 2` (was `N = 1`)"


def test_a_cell_that_fails_counts_up_to_where_it_failed(shell):
    shell.run(OPEN)
    with pytest.raises(ZeroDivisionError):
        shell.run("x = 1\n1 / 0\nx = 2")
    shell.run("%%durable_step s\nran(1)\ny = x")
    shell.restart()
    assert actions(shell.run_all(["x = 1", "%%durable_step s\nran(1)\ny = x"])) == {"s": "replayed"}


def test_reset_downstream(shell, capsys):
    cells = list(parted("@a x = 1 ‖ m = x + 1 ‖ @b y = m ‖ @c z = y ‖ @d w = 5"))
    shell.run_all(cells)
    capsys.readouterr()
    shell.run("%durable_reset a --downstream")
    assert capsys.readouterr().out == "step 'a' will run again, and downstream: b, c\n"
    shell.restart()
    again = shell.run_all(cells)
    assert actions(again) == {"a": "executed", "b": "executed", "c": "executed", "d": "replayed"}


def test_a_renamed_step_keeps_its_tasks_and_its_new_name(shell, tmp_path, monkeypatch):
    body = "@wf.task\ndef f(n):\n    ran(n)\n    return n\nfound = [f(1), f(2)]"
    shell.run_all([f"%%durable_step old\n{body}"])
    new = f"%%durable_step new\n{body}"
    write_notebook(tmp_path / "book.ipynb", [OPEN, new])
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "book.ipynb"))
    shell.restart()
    assert shell.run_all([new])["new"]["notice"].startswith("replayed; it was called `old`;")
    monkeypatch.delenv("JPY_SESSION_NAME")
    shell.restart()
    assert shell.run_all([new])["new"].get("notice") is None
    shell.restart()
    assert actions(shell.run_all([f"{new}.copy()"])) == {"new": "executed"}
    assert shell.ran == []  # its tasks replayed
    # A second cell with that code is another step.
    write_notebook(tmp_path / "book.ipynb", [OPEN, new, f"%%durable_step twin\n{body}"])
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "book.ipynb"))
    shell.restart()
    assert shell.run_all([f"%%durable_step twin\n{body}"])["twin"]["action"] == "executed"


def test_which_values_are_small_enough_to_be_compared():
    import numpy as np
    import pandas as pd

    from durable_nb.notebook.lineage.drift import portable
    from durable_nb.notebook.namespace.placeholder import placeholder

    for value in (1, "a", [1] * 100, {"a": (1, 2)}, np.zeros(10), pd.DataFrame({"nbytes": [1], "size": [2]})):
        assert portable("x", value) == portable("x", value) != None  # noqa: E711
    for value in (
        [1] * 5000,
        {n: n for n in range(5000)},
        "a" * 5_000_000,
        np.zeros(10**6),
        object(),
        json,
    ):
        assert portable("x", value) is None
    assert portable("api_key", "sk-1") is None
    assert portable("con", placeholder("con", "load", "it cannot be saved")) is None


def test_what_cannot_be_looked_at_costs_no_step(shell):
    class Rude(list):
        def __len__(self):
            raise RuntimeError("ask me nothing")

    shell.shell.user_ns["Rude"] = Rude
    cells = [
        "rude = Rude()",
        f"deep = {' + '.join(['1'] * 900)}",
        "%%durable_step s\nran(1)\ny = deep + 0 * (rude is None)",
    ]
    for expected in ([1], []):
        shell.shell.user_ns["Rude"] = Rude
        shell.run_all(cells)
        assert shell.ran == expected
        shell.restart()


def test_a_cell_alone_in_a_new_kernel_is_replayed(shell):
    shell.run_all(["N = 1", "%%durable_step a\nran(1)\nx = N", "%%durable_step b\nran(1)\ny = x"])
    shell.restart()
    assert shell.run_all(["%%durable_step b\nran(1)\ny = x"])["b"]["action"] == "replayed"
    shell.restart()
    facts = shell.run_all(
        ["%durable_restore", "%%durable_step a\nran(1)\nx = N", "%%durable_step b\nran(1)\ny = x"]
    )
    assert facts["a"]["notice"] == "replayed; drifted: `N`; to run it again: %durable_reset a"
    assert actions(facts) == {"a": "replayed", "b": "replayed"}
    assert shell.ran == []


def test_a_policy_that_refuses_and_one_that_asks(shell):
    shell.run_all(["N = 1", "%%durable_step s --on-edit error\ny = N"])
    shell.run("N = 2")
    with pytest.raises(UsageError, match=r"step 's': it now reads `N = 2` \(was `N = 1`\)"):
        shell.run("%%durable_step s --on-edit error\ny = N")
    with pytest.raises(UsageError, match="this session has no one to ask"):
        shell.run("%%durable_step s --on-edit ask\ny = N")


def test_a_secret_is_not_on_record(shell, tmp_path):
    shell.run_all(["api_key = 'sk-very-secret'", "%%durable_step s\ny = len(api_key)"])
    files = [path for path in tmp_path.iterdir() if path.name.startswith("runs.db")]
    assert files
    assert not any(b"sk-very-secret" in path.read_bytes() for path in files)


def test_a_match_binds_what_its_patterns_capture():
    body = names.parse("match d:\n    case {'a': [x, *others], **rest} as whole: pass")
    assert names.mentioned(body).bound == {"x", "others", "rest", "whole"}
