"""The golden notebooks: durable cells, each run's in one namespace, and what is true after them.

Cells are parted by ``‖``; one that begins with ``# ordinary`` is none and runs every time.
"""

# ruff: noqa: E501 - a table of cells

import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

SETUP = "__import__('matplotlib').use('agg')"
"""Comes before the first run: the kernel of the writer and the kernel of the test alike."""


@dataclass(frozen=True)
class Notebook:
    """A run of a notebook.

    Attributes:
        run_id: Its run id.
        cells: The cells.
        expect: Expressions, for an ordinary cell after them all, and their values.
        code: Expressions of which the values depend on bytecode that a cell saved: under another minor
            version of Python they name the version that compiled it.
        unsaved: What cannot be saved: the name, and words of the reason.
        shows: For the number of a cell, what it printed, what it wrote to stderr, and its last value's text.
    """

    run_id: str
    cells: str
    expect: dict[str, object] = field(default_factory=dict)
    code: dict[str, object] = field(default_factory=dict)
    unsaved: dict[str, str] = field(default_factory=dict)
    shows: dict[int, tuple[str, str, str | None]] = field(default_factory=dict)

    @property
    def parted(self):
        """The cells as they are executed; a durable one notes first that it runs."""
        cells = []
        for number, text in enumerate(self.cells.split("‖")):
            body = textwrap.dedent(text).strip()
            if not body.startswith("# ordinary"):
                noted = f'__import__("golden.cells").cells.mark("{self.run_id}/{number}")'
                body = f"%%durable_step cell{number}\n{noted}\n{body}"
            cells.append(body)
        return cells


def mark(what):
    """Note that a body runs, in the file that ``GOLDEN_MARKS`` names."""
    with Path(os.environ["GOLDEN_MARKS"]).open("a") as file:
        file.write(f"{what}\n")


def play(kernel, notebook, db):
    """Run a notebook's cells in an empty namespace; gives what came back from each."""
    opened = kernel.run(f"%reset -f\n%durable_workflow {notebook.run_id} --db {db}")
    assert opened.error is None, opened.error
    return [kernel.run(cell) for cell in notebook.parted]


N = Notebook
NOTEBOOKS = [
    N("nb-plain", "a = 1; b = [1]; c = {'k': (1, {2})}; d = 'ü' ‖ b.append(2); c['new'] = b ‖ del a; d = None", {"(b, c['new'] is b, c['k'], d, 'a' in globals())": ([1, 2], True, (1, {2}), None, False)}),
    N("nb-shared", "x = [0]; y = [x, x]; z = {'x': x} ‖ z['x'].append(1)", {"(y, y[0] is x, y[1] is x, z['x'] is x)": ([[0, 1], [0, 1]], True, True, True)}),
    N("nb-types", "import collections, datetime, decimal, enum, pathlib, uuid; q = collections.deque([1], 3); n = collections.Counter('ab'); t = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC); p = pathlib.PurePosixPath('a'); m = decimal.Decimal('1.50'); e = ...; s = slice(1, None); i = iter([1, 2, 3]); next(i); r = range(3) ‖ q.append(2); next(i)", {"(list(q), q.maxlen, n['a'], t.isoformat(), str(p), str(m), e is ..., s, next(i), r)": ([1, 2], 3, 1, "2026-01-02T00:00:00+00:00", "a", "1.50", True, slice(1, None), 3, range(3))}),
    N("nb-arrays", "import numpy as np; base = np.arange(3000.0); v = base[2:9]; w = base[::-2]; f = np.asfortranarray(np.ones((40, 30))); k = np.ma.masked_greater(np.arange(800.0), 700); o = np.array([1, 'a', None], dtype=object); st = np.zeros(3, dtype=[('a', 'i4'), ('b', 'S2')]) ‖ v[:] = 0; st['a'][1] = 7 ‖ big = np.arange(9000); still = big[:0]", {"(float(base[2:9].sum()), np.shares_memory(base, v), np.shares_memory(base, w), w.strides, v.flags.writeable)": (0.0, True, True, (-16,), True), "(v.fill(7), float(base[2]), bool(f.flags.f_contiguous), int(k.mask.sum()), o.tolist(), st.tolist())": (None, 7.0, True, 99, [1, "a", None], [(0, b""), (7, b""), (0, b"")]), "(int(big.sum()), big.dtype.name, big.flags.writeable)": (40495500, "int64", True)}),
    N("nb-frames", "import numpy as np, pandas as pd; df = pd.DataFrame({f'c{n}': np.arange(2500.0) * n for n in range(3)}); df['k'] = pd.Categorical(['a', 'b'] * 1250); small = pd.DataFrame({'a': [1, 2]}, index=pd.Index([5, 6], name='i')); ser = small['a']; zoned = pd.date_range('2026-03-29', periods=2, freq='h', tz='Europe/Berlin') ‖ df.loc[3, 'c1'] = -1.0; small.loc[5, 'a'] = 9", {"(df.shape, float(df.c1[3]), float(df.c2.sum()), df.k.dtype.name, list(df.k.cat.categories))": ((2500, 4), -1.0, 6247500.0, "category", ["a", "b"]), "(small.a.tolist(), small.index.name, ser.tolist(), str(zoned.tz), zoned[1].isoformat())": ([9, 2], "i", [1, 2], "Europe/Berlin", "2026-03-29T01:00:00+01:00")}),
    N("nb-functions", "k = 2 ‖ def f(x, *, y=1): return k * x + y\ng = lambda x: f(x) + k ‖ k = 3 ‖ def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)", {"k": 3}, {"(f(1), g(1), f.__globals__ is globals(), f.__kwdefaults__)": (4, 7, True, {"y": 1}), "(even(10), odd(3))": (True, True)}),
    N("nb-closures", "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    def get(): return n\n    def walk(d): return [d, *walk(d - 1)] if d else []\n    return up, get, walk\nup, get, walk = make() ‖ up(); fine = [1]", {"fine": [1]}, {"(up(), get(), walk(2))": (2, 2, [2, 1])}),
    N("nb-cached", "import functools\n@functools.lru_cache(maxsize=5)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nten = fib(10)\nhalf = functools.partial(pow, 2) ‖ eleven = fib(11)", {"(ten, eleven, half(3))": (55, 89, 8)}, {"(fib.cache_info().maxsize, fib(12), fib.__wrapped__.__name__)": (5, 144, "fib")}),
    N("nb-classes", "class C:\n    made = 0\n    def __init__(self, x): self.x = x\n    def get(self): return self.x\n    @property\n    def double(self): return 2 * self.x\n    @staticmethod\n    def unit(): return 'kg'\n    @classmethod\n    def of(cls, x): return cls(x)\nclass D(C):\n    def get(self): return super().get() + 1 ‖ o = D(1); o.more = [o] ‖ o.x += 1", code={"(o.get(), o.double, o.more[0] is o, type(o) is D, isinstance(o, C), D.of(4).get(), C.unit())": (3, 4, True, True, True, 5, "kg")}),
    N("nb-bare-class", "class Empty:\n    kind = 'bare' ‖ o = Empty(); o.x = 5", {"(o.x, type(o) is Empty, Empty.kind)": (5, True, "bare")}),
    N("nb-old-class", "class C:\n    v = 1\n    def get(self): return self.v ‖ o = C() ‖ class C:\n    v = 2 ‖ o.x = 1", code={"(o.v, o.get(), C.v, isinstance(o, C), o.x)": (1, 1, 2, False, 1)}),
    N("nb-slots", "class Outer:\n    class In:\n        def get(self): return 6\nclass S:\n    __slots__ = ('a', 'b', '__weakref__')\n    def __init__(self): self.a = [1]\ns = S() ‖ import weakref; w = weakref.ref(s); s.a.append(2)", code={"(s.a, hasattr(s, 'b'), w() is s, Outer.In().get(), Outer.In.__qualname__)": ([1, 2], False, True, 6, "Outer.In")}),
    N("nb-enum", "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    def low(self): return self.name.lower()\nclass F(enum.Flag):\n    R = 1\n    W = 2 ‖ m = E.A; d = {E.B: 1}; rw = F.R | F.W", code={"(m is E.A, d[E.B], E(1) is m, m.low(), rw == F(3))": (True, 1, True, "a", True)}),
    N("nb-dataclass", "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n    y: list\n@dataclasses.dataclass(frozen=True, slots=True)\nclass Q:\n    x: int ‖ p = P(1, [2]); q = Q(3) ‖ p.y.append(3)", code={"(p == P(1, [2, 3]), dataclasses.asdict(p), q == Q(3), hash(q) == hash(Q(3)))": (True, {"x": 1, "y": [2, 3]}, True, True)}),
    N("nb-namedtuple", "import collections, typing\nT = collections.namedtuple('T', 'a b')\nclass V(typing.NamedTuple):\n    x: int = 3 ‖ t = T(1, [2]); v = V() ‖ t.b.append(3)", code={"(tuple(t), type(t) is T, v.x, type(v) is V)": ((1, [2, 3]), True, 3, True)}),
    N("nb-pydantic", "import pydantic\nclass M(pydantic.BaseModel):\n    x: int\n    y: list[str] = []\n    @pydantic.field_validator('x')\n    @classmethod\n    def positive(cls, x): return abs(x) ‖ m = M(x='-3', y=['a']) ‖ m.y.append('b')", code={"(m == M(x=3, y=['a', 'b']), M.model_validate({'x': '-4'}).x)": (True, 4)}),
    N("nb-metaclass", "class Meta(type):\n    seen = []\n    def __init__(cls, name, bases, space): Meta.seen.append(name)\nclass Base(metaclass=Meta): pass\nimport abc\nclass Shape(abc.ABC):\n    @abc.abstractmethod\n    def area(self): ...\nclass Sq(Shape):\n    def area(self): return 4 ‖ class Sub(Base): pass", code={"(Meta.seen, type(Sub) is Meta, Sq().area(), issubclass(Sq, Shape))": (["Base", "Sub"], True, 4, True)}),
    N("nb-exceptions", "class Odd(Exception):\n    def __init__(self, code, *, hint):\n        super().__init__(f'{code}{hint}'); self.code = code\ntry:\n    raise Odd(3, hint='h') from KeyError('k')\nexcept Odd as found: kept = found; kept.add_note('n')\nplain = ValueError(1); group = ExceptionGroup('g', [ValueError(2)]) ‖ more = [kept]", {"(repr(plain), repr(group.exceptions))": ("ValueError(1)", "(ValueError(2),)")}, {"(kept.args, kept.code, repr(kept.__cause__), kept.__notes__, type(kept) is Odd, more[0] is kept)": (("3h",), 3, "KeyError('k')", ["n"], True, True)}),
    N("nb-threads", "import threading, queue; lk = threading.Lock(); rl = threading.RLock(); ev = threading.Event(); ev.set(); q = queue.Queue(); q.put(1); cond = threading.Condition(lk); sem = threading.Semaphore(2) ‖ q.put(2)", {"(lk.acquire(False), lk.locked(), q.get_nowait(), q.get_nowait(), q.empty(), ev.is_set(), cond._lock is lk, rl.acquire(False))": (True, True, 1, 2, True, True, True, True)}),
    N("nb-asyncio", "import asyncio; aq = asyncio.Queue(); al = asyncio.Lock(); ae = asyncio.Event(); sem = asyncio.Semaphore(3) ‖ await aq.put(1); ae.set(); x = await asyncio.sleep(0, 5)", {"(aq.get_nowait(), al.locked(), ae.is_set(), sem._value, x)": (1, False, True, 3, 5)}),
    N("nb-figures", "import matplotlib.pyplot as plt; fig, ax = plt.subplots(figsize=(2, 1), dpi=40); ax.plot([1, 3]) ‖ plt.title('sold'); fig.tag = [ax] ‖ plt.close(fig); n = 1", {"(ax.get_title(), ax.lines[0].get_ydata().tolist(), fig.tag[0] is ax, plt.get_fignums(), n)": ("sold", [1, 3], True, [], 1)}),
    N("nb-open-figure", "import matplotlib.pyplot as plt; fig2 = plt.figure(7, figsize=(1, 1)); fig2.add_subplot() ‖ plt.rcParams['lines.linewidth'] = 3", {"(plt.get_fignums(), plt.gcf() is fig2, plt.rcParams['lines.linewidth'], plt.close('all'))": ([7], True, 3.0, None)}),
    N("nb-loggers", "import logging, sys; log = logging.getLogger('golden.part'); log.setLevel(10); log.propagate = False; shown = logging.StreamHandler(sys.stdout); shown.setFormatter(logging.Formatter('%(name)s!')); log.addHandler(shown) ‖ log.info('x')", {"(log.handlers == [shown], log.level, log.propagate, shown.stream is sys.stdout, shown.formatter._fmt)": (True, 10, False, True, "%(name)s!")}, shows={1: ("golden.part!\n", "", None)}),
    N("nb-process", "import os, sys, random; env = os.environ; out = sys.stdout; inst = random._inst; here = globals() ‖ os.environ['GOLDEN_MODE'] = 'x'; box = [env, here]", {"(env is os.environ, out is sys.stdout, inst is random._inst, here is globals(), box[0] is env, os.environ['GOLDEN_MODE'])": (True, True, True, True, True, "x")}),
    N("nb-random", "import random; random.seed(7); r = random.Random(3) ‖ x = random.random(); y = r.random() ‖ import numpy as np; np.random.seed(7); g = np.random.default_rng(5) ‖ z = np.random.rand(); u = g.random()", {"(x, y, random.random(), r.random())": (0.32383276483316237, 0.23796462709189137, 0.15084917392450192, 0.5442292252959519), "(round(z, 6), round(np.random.rand(), 6), u != g.random())": (0.076308, 0.779919, True)}),
    N("nb-state", "import warnings, decimal, os; warnings.filterwarnings('ignore', 'golden'); decimal.getcontext().prec = 7 ‖ import numpy as np, pandas as pd; np.set_printoptions(precision=3); np.seterr(over='ignore'); pd.set_option('display.max_rows', 7) ‖ import sys; sys.setrecursionlimit(2345)", {"(warnings.filters[0][0], decimal.getcontext().prec, np.get_printoptions()['precision'], np.geterr()['over'], pd.get_option('display.max_rows'), sys.getrecursionlimit())": ("ignore", 7, 3, "ignore", 7, 2345)}),
    N("nb-patch", "import json; json.golden = [1] ‖ import textwrap\ndef shout(text): return text.upper()\ntextwrap.golden = shout", {"json.golden": [1]}, {"(textwrap.golden('a'), textwrap.golden is shout)": ("A", True)}),
    N("nb-outputs", "import sys\nfrom IPython.display import HTML, display\nprint('one'); print('two', file=sys.stderr); display(HTML('<b>three</b>')); 'five' ‖ handle = display('first', display_id='golden'); handle.update('second'); x = 1; ‖ print('gone'); from IPython.display import clear_output; clear_output(); print('kept')", {"x": 1}, shows={0: ("one\n", "two\n", "'five'"), 1: ("", "", None), 2: ("kept\n", "", None)}),
    N("nb-last-value", "[1, {'a': (2,)}] ‖ y = _[0] + 1; y", {"(y, _, [1, {'a': (2,)}] in Out.values())": (2, 2, True)}, shows={0: ("", "", "[1, {'a': (2,)}]"), 1: ("", "", "2")}),
    N("nb-unsaved", "import sqlite3; con = sqlite3.connect(':memory:'); g = (n for n in ()); good = [1]; box = [con] ‖ good.append(2)", {"(good, len(box), box[0] is con)": ([1, 2], 1, True)}, unsaved={"con": "sqlite3.Connection", "g": "generator"}),
    N("nb-modules", "import math as m, os.path as p; from math import sqrt as root; bound = 'x'.join; get = {'a': 1}.get ‖ z = root(4)", {"(m.sqrt(4), p.join('a', 'b'), root(9), bound(['a', 'b']), get('a'), z)": (2.0, "a/b", 3.0, "axb", 1, 2.0)}),
    N("nb-ordinary", "a = [1] ‖ # ordinary\nfresh = [2] ‖ a.append(fresh) ‖ for i in range(3): pass\n[w := j for j in range(4)]; exec('made = 1'); globals()['also'] = 2", {"(a, a[1] is fresh, i, w, made, also)": ([1, [2]], True, 2, 3, 1, 2)}),
    N("nb-tasks", "# ordinary\n@wf.task\ndef task_of(n):\n    __import__('golden.cells').cells.mark(f'nb-tasks/task {n}')\n    return {n, (n,)}\ndirect = task_of(9) ‖ found = task_of(1) ‖ also = [task_of(n) for n in (2, 3)]", {"(direct, found, also)": ({9, (9,)}, {1, (1,)}, [{2, (2,)}, {3, (3,)}])}),
    N("nb-blobs", "text = 'x' * 20000; raw = bytes(range(256)) * 80; both = [text, raw] ‖ ba = bytearray(raw)", {"(len(text), raw[-1], both[0] == text, both[1] == raw, len(ba), type(ba).__name__)": (20000, 255, True, True, 20480, "bytearray")}),
    N("nb-references", "import weakref\nclass Proxy:\n    def __init__(self, inner): self.inner = inner\n    def __getattr__(self, name): return getattr(self.inner, name)\npr = Proxy([1]); wd = weakref.WeakValueDictionary(a=pr); live = weakref.ref(pr); dead = weakref.ref(Proxy(2)) ‖ pr.append(2)", code={"(pr.inner, wd['a'] is pr, live() is pr, dead())": ([1, 2], True, True, None)}),
    N("nb-labelled", "import numpy as np, pandas as pd\nclass Lab(np.ndarray): pass\nlab = np.arange(1000.0); mine = lab[10:20].view(Lab); mine.unit = 'kg'; ext = pd.DataFrame({'i': pd.array([1, None], 'Int64')}) ‖ mine[0] = -1; ext.loc[1, 'i'] = 5", {"(ext.i.tolist(), ext.i.dtype.name)": ([1, 5], "Int64"), "(type(mine) is Lab, mine.unit, float(lab[10]), np.shares_memory(lab, mine))": (True, "kg", -1.0, True)}),
    N("nb-map", "# ordinary\n__import__('pathlib').Path('/tmp/durable_nb-golden.map').write_bytes(bytes(80)); ‖ import numpy as np, os; mm = np.memmap('/tmp/durable_nb-golden.map', 'f8', 'r+', shape=(10,))", {"(type(mm) is np.memmap, mm.shape, mm.mode, os.unlink('/tmp/durable_nb-golden.map'))": (True, (10,), "r+", None)}),
    N("nb-crate", "# ordinary\nclass Crate:\n    def __init__(self, n): self.n = n\n    def get(self): return self.n\n@wf.task\ndef crate(n):\n    __import__('golden.cells').cells.mark(f'nb-crate/task {n}')\n    return Crate(n), Crate ‖ boxed = 1", {"boxed": 1}, {"[(type(c) is Crate, k is Crate, c.get()) for c, k in [crate(2)]]": [(True, True, 2)]}),
    N("nb-bare", "import random; random.seed(11)", {"random.random()": 0.4523795535098186}),
]  # fmt: skip
FORK = ("nb-plain", "nb-forked", 2)
"""A run, another one that is forked from it, and how many cells that has."""
