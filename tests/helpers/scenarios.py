"""What cells do to a notebook, as data: cells, and what is true after them, killed or not.

Fifty numbered ones, found on notebooks that other tools brought back wrong, and some besides. Expectations
are written down here, never taken from a first run.
"""

# ruff: noqa: E501 - a table of cells; what seeded generators draw

import random
import textwrap
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scenario:
    """Cells, parted by `‖`, each to be a durable cell; one that begins with `# ordinary` is none.

    Attributes:
        number: Its number; a word for those besides the fifty.
        cells: The cells.
        expect: Expressions, for an ordinary cell after them all, and their values.
        named: What cannot be saved: the name, and words of the reason.
    """

    number: int | str
    cells: str
    expect: dict[str, object] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    @property
    def run_id(self):
        return f"scenario-{self.number}".replace(" ", "-")

    @property
    def parted(self):
        return [textwrap.dedent(cell).strip() for cell in self.cells.split("‖")]


def drawn(generator, draw):
    """What a stream gives after its first draw."""
    draw(generator)
    return draw(generator)


S = Scenario
VALUES = [
    S(
        1,
        "import pandas as pd; df = pd.DataFrame({'a': [1, 2]}) ‖ df.loc[0, 'a'] = 9",
        {"df.a.tolist()": [9, 2]},
    ),
    S(2, "l = [1] ‖ l.append(2)", {"l": [1, 2]}),
    S(3, "d = {'k': 0} ‖ d.update(a=1)", {"d": {"k": 0, "a": 1}}),
    S(4, "class O: pass\no = O() ‖ o.x = 5", {"(o.x, type(o) is O)": (5, True)}),
    S(5, "a = [1] ‖ b = a ‖ b.append(2)", {"(a, a is b)": ([1, 2], True)}),
    S(
        6,
        "x = [0]; c = [x, x] ‖ c[0].append(1)",
        {"(c, c[0] is c[1], c[0] is x)": ([[0, 1], [0, 1]], True, True)},
    ),
    S(7, "i = [0] ‖ box = {'x': i} ‖ box['x'].append(1)", {"(i, box['x'] is i)": ([0, 1], True)}),
    S(
        8,
        "import numpy as np; base = np.arange(9000.0) ‖ v = base[2:5] ‖ v[:] = 0",
        {
            "(float(base[2:5].sum()), np.shares_memory(base, v))": (0.0, True),
            "(v.fill(7), float(base[2]))": (None, 7.0),
        },
    ),
    S(9, "x = 1; y = 2 ‖ del x", {"('x' in globals(), y)": (False, 2)}),
    S(
        10,
        "import math as m, os.path as p",
        {"(m.sqrt(4), m.__name__, p.join('a', 'b'))": (2.0, "math", "a/b")},
    ),
    S(11, "from math import *", {"(sqrt(4), round(pi, 2))": (2.0, 3.14)}),
    S(12, "k = 2 ‖ def f(x): return k * x ‖ k = 3", {"(f(1), f.__globals__ is globals())": (3, True)}),
    S(
        13,
        "class C:\n    def __init__(self): self.x = 1\n    def get(self): return self.x ‖ o = C() ‖ o.x += 1",
        {"(type(o) is C, o.get(), C.__module__)": (True, 2, "__main__")},
    ),
    S(
        14,
        "class C:\n    v = 1 ‖ o = C() ‖ class C:\n    v = 2 ‖ o.x = 1",
        {"(o.v, C.v, isinstance(o, C), o.x)": (1, 2, False, 1)},
    ),
    S(
        15,
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2 ‖ m = E.A; d = {E.B: 1}",
        {"(m is E.A, d[E.B], E(1) is m)": (True, 1, True)},
    ),
    S(
        16,
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n    y: list ‖ p = P(1, [2]) ‖ p.y.append(3)",
        {"(p == P(1, [2, 3]), dataclasses.asdict(p))": (True, {"x": 1, "y": [2, 3]})},
    ),
    S(
        17,
        "import pydantic\nclass M(pydantic.BaseModel):\n    x: int\n    y: list[str] = [] ‖ m = M(x='3', y=['a']) ‖ m.y.append('b')",
        {"(m == M(x=3, y=['a', 'b']), M.model_validate({'x': '4'}).x)": (True, 4)},
    ),
    S(
        18,
        "import collections\nN = collections.namedtuple('N', 'a b') ‖ n = N(1, [2]) ‖ n.b.append(3)",
        {"(tuple(n), type(n) is N, n.a)": ((1, [2, 3]), True, 1)},
    ),
    S(19, "k = 2; f = lambda x: x * k ‖ k = 5", {"f(2)": 10}),
    S(
        20,
        "def make():\n    n = 0\n    def count():\n        nonlocal n\n        n += 1\n        return n\n    return count\nc = make() ‖ c(); c()",
        {"c()": 3},
    ),
    S(
        21,
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    def get(): return n\n    return up, get\nup, get = make() ‖ up()",
        {"(up(), get())": (None, 2)},
    ),
    S(
        22,
        "def even(n): return n == 0 or odd(n - 1) ‖ def odd(n): return n != 0 and even(n - 1)",
        {"(even(10), odd(3), even(7))": (True, True, False)},
    ),
    S(23, "g = (i for i in range(3)); next(g); n = [1] ‖ n.append(2)", {"n": [1, 2]}, {"g": "generator"}),
    S(
        24,
        "l = [1, 2, 3]; it = iter(l); next(it) ‖ next(it)",
        {"(next(it), l.append(4), next(it))": (3, None, 4)},
    ),
    S(25, "import os; f = open(os.devnull); n = 1", {"n": 1}, {"f": "TextIOWrapper"}),
    S(
        26,
        "import sqlite3; con = sqlite3.connect(':memory:'); n = 1",
        {"n": 1},
        {"con": "sqlite3.Connection"},
    ),
    S(27, "import socket; s = socket.socket(); n = 1", {"n": 1}, {"s": "socket"}),
    S(
        28,
        "import threading, queue; lk = threading.Lock(); q = queue.Queue(); q.put(1) ‖ q.put(2)",
        {
            "(lk.acquire(False), lk.locked(), q.get_nowait(), q.get_nowait(), q.empty())": (
                True,
                True,
                1,
                2,
                True,
            )
        },
    ),
    S(
        29,
        "import threading; lk = threading.Lock(); good = 42; held = threading.Lock(); held.acquire()",
        {"good": 42, "lk.acquire(False)": True},
        {"held": "lock"},
    ),
    S(31, "41 + 1 ‖ y = _ + 1", {"(y, _, 42 in Out.values())": (43, 42, True)}),
    S(
        32,
        "a = [1]; d = {} ‖ try:\n    a.append(2); d['x'] = a; raise ValueError\nexcept ValueError: pass",
        {"(a, d['x'] is a)": ([1, 2], True)},
    ),
    S(
        35,
        "import random; r = random.Random(3) ‖ x = r.random()",
        {"(x, r.random())": (random.Random(3).random(), drawn(random.Random(3), random.Random.random))},
    ),
    S(
        41,
        "files = !printf 'a\\nb\\n'",
        {"(list(files), files.s, type(files).__name__)": (["a", "b"], "a b", "SList")},
    ),
    S(42, "%time x = 5", {"x": 5}),
    S(
        43,
        "import asyncio ‖ x = await asyncio.sleep(0, 5)\ny = [x] ‖ y += await asyncio.gather(asyncio.sleep(0, 6))",
        {"(x, y)": (5, [5, 6])},
    ),
    S(44, "def f():\n    global G, old\n    G = [1]; old = 2\nold = 1 ‖ f()", {"(G, old)": ([1], 2)}),
    S(45, "exec('y = 1'); globals()['z'] = 2 ‖ exec('def f(): return y + z')", {"(y, z, f())": (1, 2, 3)}),
    S(46, "for i in range(3): pass\n[w := j for j in range(4)]", {"(i, w, 'j' in globals())": (2, 3, False)}),
    S(47, "_x = [1]; __y = 2 ‖ _x.append(2)", {"(_x, __y)": ([1, 2], 2)}),
    S(
        48,
        "import numpy as np; mm = np.memmap('map48', 'f8', 'w+', shape=(40, 3)); mm[:] = 1 ‖ mm[3] = 2",
        {"(type(mm) is np.memmap, float(mm[3, 0]), float(mm[4, 0]))": (True, 2.0, 1.0)},
    ),
    S(49, "a = b = [1] ‖ a += [2]", {"(a, a is b)": ([1, 2], True)}),
    S(
        50,
        "class C:\n    x = 1\nc = C() ‖ import pickle; data = pickle.dumps(c)",
        {"(type(pickle.loads(data)) is C, pickle.loads(pickle.dumps(C)) is C)": (True, True)},
    ),
]

FIGURES = "__import__('matplotlib').use('agg')"
AMBIENT_STATE = [
    S(
        30,
        f"# ordinary\n{FIGURES} ‖ import matplotlib.pyplot as plt; fig, ax = plt.subplots(); ax.plot([1, 2]) ‖ plt.title('sold')",
        {"(ax.get_title(), plt.gcf() is fig, len(plt.get_fignums()))": ("sold", True, 1)},
    ),
    S(
        33,
        "import random; random.seed(7) ‖ x = random.random()",
        {"random.random()": drawn(random.Random(7), random.Random.random)},
    ),
    # What NumPy's legacy generator gives second after seed(7), for good: its streams are frozen.
    S(
        34,
        "import numpy as np; np.random.seed(7) ‖ x = np.random.rand()",
        {"round(np.random.rand(), 6)": 0.779919},
    ),
    S(
        36,
        "import os; os.environ['SCENARIO_36'] = 'x'",
        {"os.environ.get('SCENARIO_36')": "x"},
    ),
    S(
        38,
        """
        import pathlib, sys
        pathlib.Path("lib38").mkdir(exist_ok=True)
        pathlib.Path("lib38/local38.py").write_text("VALUE = 38\\nclass K: pass\\n")
        sys.path.insert(0, str(pathlib.Path("lib38").absolute()))
        ‖
        import local38
        k = local38.K()
        """,
        {"(local38.VALUE, type(k) is local38.K)": (38, True)},
    ),
    S(
        39,
        "import pandas as pd; pd.set_option('display.max_rows', 7)",
        {"pd.get_option('display.max_rows')": 7},
    ),
    S(
        40,
        "import logging; logging.getLogger().setLevel('ERROR')",
        {"logging.getLogger().level": 40},
    ),
    S(
        "rcParams",
        f"# ordinary\n{FIGURES} ‖ import matplotlib.pyplot as plt; plt.rcParams['figure.figsize'] = 2, 1",
        {"plt.rcParams['figure.figsize']": [2.0, 1.0]},
    ),
    S(
        37,
        "import os; os.makedirs('sub37', exist_ok=True) ‖ os.chdir('sub37')",
        {"os.path.basename(os.getcwd())": "sub37"},
    ),
]

OUTPUTS = [
    S(
        "order",
        """
        import sys
        from IPython.display import HTML, display
        print("one"); print("two", file=sys.stderr); display(HTML("<b>three</b>")); print("four"); "five"
        """,
    ),
    S(
        "updates",
        """
        from IPython.display import display
        handle = display("first", display_id="shown"); handle.update("second"); display("beside")
        ‖
        display("third", display_id="shown", update=True)
        """,
    ),
    S(
        "tqdm",
        """
        import sys
        for done in range(50): print(f"\\r{done + 1}/50 {'#' * done}", end="", file=sys.stderr)
        """,
    ),
    S(
        "clear",
        """
        from IPython.display import clear_output
        print("gone"); clear_output(); print("gone too"); clear_output(wait=True); print("kept")
        """,
    ),
    S(
        "subprocess",
        "!printf 'from a child\\n'\nimport subprocess; subprocess.run(['printf', 'and another\\n']); None",
    ),
    S("nothing", "x = 1;"),
    S("a quiet last value", "5;"),
    S("trailing semicolon in text", "'a;b'"),
]

BESIDES = [
    S(
        "bound builtins",
        "d = {'a': 1}; join = ''.join; get = d.get ‖ d['b'] = 2",
        {"(join(['x', 'y']), get('b'))": ("xy", 2)},
    ),
    S(
        "a repr that raises",
        "class R:\n    def __repr__(self): raise ValueError('no')\nr = R(); n = 1 ‖ n += 1",
        {"(type(r) is R, n)": (True, 2)},
    ),
    S(
        "too deep",
        "deep = []\nfor _ in range(5000): deep = [deep]\nn = [1] ‖ n.append(2)",
        {"n": [1, 2]},
        {"deep": "nested too deeply"},
    ),
    S(
        "a later clearing of globals",
        "space = {}; exec('k = 4\\ndef f(): return k', space); f = space['f']; space.clear() ‖ n = 1",
        {"n": 1},
    ),
    S(
        "run",
        "# ordinary\n__import__('pathlib').Path('script.py').write_text('made = [1]'); ‖ %run script.py ‖ made.append(2)",
        {"made": [1, 2]},
    ),
    S(
        "ordinary between",
        "a = [1] ‖ # ordinary\nfresh = [2] ‖ a.append(fresh)",
        {"(a, a[1] is fresh)": ([1, [2]], True)},
    ),
    S(
        "a client in an object",
        "# ordinary\nimport sqlite3; client = sqlite3.connect(':memory:') ‖ class M: pass\nm = M(); m.client = client ‖ m.x = [1]",
        {"(m.client is client, m.x)": (True, [1])},
    ),
]

GROUPS = {"values": VALUES, "ambient": AMBIENT_STATE, "outputs": OUTPUTS, "besides": BESIDES}
FIFTY = sorted(
    (one for group in GROUPS.values() for one in group if isinstance(one.number, int)),
    key=lambda one: one.number,
)
