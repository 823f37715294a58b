"""Notebooks that nobody prepared, with every cell a step: what a person does to them, and what runs again."""

import re
import shutil
from dataclasses import dataclass, field
from functools import cache

import pytest

from durable_nb.engine import failpoints
from durable_nb.engine.failpoints import FAILPOINTS
from helpers.kernel import Kernel, KernelDied
from helpers.notebooks import OpenNotebook, facts
from helpers.stub import Stub

OPEN = "%load_ext durable_nb\n%durable_workflow r --db runs.db --cells all"


@dataclass(frozen=True)
class Book:
    """A notebook, what is done to it, and which of its cells run again then.

    Attributes:
        cells: Its cells by their ids.
        edit: A cell, and what is in it afterwards.
        insert: A cell, and what is put below it, as the cell ``new``.
        move: A cell, and the one above which it is moved.
        delete: A cell.
        kill: A cell in which the kernel dies, when its body has ended and nothing of it is saved.
        more: A further cell at the end of the first session.
        runs: The steps that run, for each; by default those that were killed, edited or inserted.
        first: The cells of the first session; by default all of them in order.
        order: The cells of a plain run that shows the same, for each of those; by default all in order.
        fails: What was in cells when they were executed first, and failed.
    """

    cells: dict
    edit: tuple
    insert: tuple
    move: tuple
    delete: str
    kill: str
    more: str
    runs: dict = field(default_factory=dict)
    first: tuple = ()
    order: dict = field(default_factory=dict)
    fails: dict = field(default_factory=dict)


POINT = "class Point:\n    def __init__(self, x):\n        self.x = x"

BOOKS = {
    "plots": Book(
        {
            "import": "import matplotlib.pyplot as plt",
            "inline": "%matplotlib inline",
            "data": "# The data\nxs = [1, 2, 3]\nys = [x * x for x in xs]",
            "figure": "fig, (left, right) = plt.subplots(1, 2, figsize=(3, 2))",
            "left": "left.plot(xs, ys)\nleft.set_title('squares');",
            "right": "right.bar(xs, ys)\nfig",
            "legend": "left.legend(['squares'])\n(len(left.lines), len(right.patches))",
            "save": "fig.savefig('plot.png')\nlen(open('plot.png', 'rb').read()) > 1000",
        },
        edit=("left", "left.plot(xs, ys, 'r--')\nleft.set_title('red');"),
        insert=("right", "right.set_ylim(0, 20)\nfig"),
        move=("save", "legend"),
        delete="data",
        kill="right",
        more="fig.axes[0].get_title(), len(left.lines), plt.fignum_exists(fig.number)",
        runs={
            "edit": "left right legend save",
            "insert": "new legend save",
            "move": "save legend",
            "kill again": "right legend save",
        },
    ),
    "widgets": Book(
        {
            "import": "import ipywidgets as widgets",
            "make": "slider = widgets.IntSlider(value=3, max=10)\nseen = []",
            "listen": "def note(change):\n    seen.append(change['new'])\nslider.observe(note, 'value')",
            "change": "slider.value = 7\nseen",
            "button": "button = widgets.Button(description='go')\nbutton.description",
            "total": "total = sum(seen)\ntotal",
        },
        edit=("total", "total = sum(seen) * 10\ntotal"),
        insert=("change", "slider.max"),
        move=("button", "change"),
        delete="button",
        kill="total",
        more="slider.value = 9\nslider.value, total",
    ),
    "bash": Book(
        {
            "write": "%%bash\nprintf 'ada\\ngrace\\nada\\n' > names.txt",
            "sort": "%%bash\nsort -u names.txt > sorted.txt\nwc -l < sorted.txt",
            "lines": "lines = !cat sorted.txt\nlines",
            "captured": "%%bash --out shouted\ntr a-z A-Z < sorted.txt",
            "shown": "print(shouted.split())",
            "timed": "%time count = len(lines)",
            "count": "!echo {count} names",
        },
        edit=("lines", "lines = !head -1 sorted.txt\nlines"),
        insert=("sort", "!head -1 sorted.txt"),
        move=("shown", "count"),
        delete="timed",
        kill="captured",
        more="lines, shouted, count",
        runs={"edit": "lines timed count"},
    ),
    "pip": Book(
        {
            "install": "!pip --version > /dev/null",
            "percent": "%pip --version",
            "env": "%env MODE=fast",
            "import": "import os\nimport wave as sound",
            "mode": "mode = os.environ['MODE']\nmode",
            "folder": "os.makedirs('made', exist_ok=True)\nos.path.isdir('made')",
            "enter": "%cd -q made",
            "here": "here = os.path.basename(os.getcwd())\nhere",
            "leave": "%cd -q ..",
            "kind": "sound.__name__",
        },
        edit=("here", "here = os.path.basename(os.getcwd()).upper()\nhere"),
        insert=("enter", "print(os.path.basename(os.getcwd()), mode)"),
        move=("kind", "mode"),
        delete="folder",
        kill="here",
        more="os.environ['MODE'], os.path.basename(os.getcwd()) != 'made', here",
    ),
    "classes": Book(
        {
            "class": POINT,
            "make": "points = [Point(1), Point(2)]\nfirst = points[0]",
            "again": "class Point:\n    def __init__(self, x):\n        self.x = x\n"
            "    def __repr__(self):\n        return f'<{self.x}>'",
            "more": "points.append(Point(3))\nrepr(points[-1])",
            "kinds": "[isinstance(one, Point) for one in points]",
            "same": "first is points[0], type(points[0]) is type(points[1]), sum(one.x for one in points)",
            "base": "class Base:\n    def area(self):\n        return self.x * self.factor",
            "sub": "class Square(Base, Point):\n    factor = 2\nSquare(4).area()",
        },
        edit=(
            "again",
            f"{POINT}\n    __repr__ = lambda self: str(self.x)",
        ),
        insert=("kinds", "points.append(Point(9))"),
        move=("base", "more"),
        delete="same",
        kill="more",
        more="[isinstance(one, Point) for one in points], Square(2).area(), first is points[0]",
        runs={
            "edit": "again more kinds same sub",
            "insert": "new same",
            "kill again": "more kinds same",
        },
    ),
    "three times": Book(
        {
            "make": "xs = []\ncount = 0",
            "add": "xs.append(len(xs))\ncount += 1\nxs, count",
            "show": "sum(xs)",
            "reset": "best = max(xs)\nbest",
        },
        edit=("make", "xs = [5]\ncount = 0"),
        insert=("add", "xs[-1]"),
        move=("reset", "show"),
        delete="show",
        kill="add",
        more="xs, count",
        first=("make", "add", "add", "add", "show", "reset"),
        runs={"edit": "make add show reset", "kill again": "add show reset"},
        order={
            "insert": ("make", "add", "add", "add", "new"),
            "more": ("make", "add", "add", "add", "show", "reset"),
        },
    ),
    "out of order": Book(
        {
            "make": "x = 1",
            "scale": "x = x * 10\nx",
            "use": "y = x + 1\ny",
            "last": "z = (x, y)\nz",
        },
        edit=("last", "z = [x, y]\nz"),
        insert=("make", "w = x\nw"),
        move=("use", "scale"),
        delete="scale",
        kill="use",
        more="x, y, z",
        first=("make", "use", "scale", "last"),
        runs={
            "go on": "use last",
            "edit": "use last",
            "insert": "new use last",
            "delete": "last",
            "kill again": "use",
        },
    ),
    "mended": Book(
        {
            "rows": "rows = ['1', '2', 'x']",
            "parse": "parsed = []\nfor row in rows:\n    parsed.append(int(row) if row < 'x' else 0)\nparsed",
            "total": "total = sum(parsed)\ntotal",
            "label": "label = 'sum'",
            "report": "print(f'{label}: {total} of {len(rows)}')",
        },
        edit=("rows", "rows = ['1', '2', 'x', '5']"),
        insert=("parse", "parsed.append(9)\nparsed"),
        move=("label", "rows"),
        delete="total",
        kill="parse",
        fails={"parse": "parsed = []\nfor row in rows:\n    parsed.append(int(row))"},
        more="parsed, total",
        runs={"edit": "rows parse total report", "insert": "new total report"},
    ),
    "llm": Book(
        {
            "import": "import os\nfrom openai import OpenAI",
            "client": "client = OpenAI(base_url=os.environ['URL'], api_key='none')\nanswers = {}",
            "ask": "def ask(question):\n    messages = [{'role': 'user', 'content': question}]\n"
            "    reply = client.chat.completions.create(model='m', messages=messages)\n"
            "    return reply.choices[0].message.content",
            "first": "answers['one'] = ask('one')\nanswers",
            "second": "answers['two'] = ask('two')\nprint(len(answers))",
            "words": "words = {key: len(text.split()) for key, text in answers.items()}\nwords",
        },
        edit=("second", "answers['two'] = ask('two, please')\nprint(len(answers))"),
        insert=("second", "answers['three'] = ask('three')\nanswers['three']"),
        move=("words", "second"),
        delete="first",
        kill="second",
        more="ask('more'), sorted(answers)",
        runs={
            "edit": "second words",
            "insert": "new words",
            "move": "words",
            "delete": "second words",
        },
    ),
    "database": Book(
        {
            "connect": "import sqlite3\ncon = sqlite3.connect('data.db')\ncur = con.cursor()",
            "table": "cur.execute('create table if not exists t (name text, n integer)')\ncon.commit()",
            "rows": "rows = [('a', 1), ('b', 2)]",
            "insert": "cur.executemany('insert into t values (?, ?)', rows)\ncon.commit()\ncur.rowcount",
            "read": "found = cur.execute('select name, n from t order by n').fetchall()\nfound",
            "total": "total = sum(n for _, n in found)\ntotal",
        },
        edit=("total", "total = [n for _, n in found]\ntotal"),
        insert=("insert", "cur.execute('select count(*) from t').fetchone()"),
        move=("rows", "table"),
        delete="read",
        kill="read",
        more="cur.execute('select * from t order by n').fetchall(), con.total_changes >= 0, rows",
    ),
    "tqdm": Book(
        {
            "import": "import sys\nfrom tqdm import tqdm",
            "look": "look = {'bar_format': '{n}/{total}', 'file': sys.stdout}",
            "loop": "done = []\nfor n in tqdm(range(3), **look):\n    done.append(n)",
            "nested": "for n in tqdm(done, **look):\n    for _ in tqdm(range(2), leave=False, **look):\n"
            "        pass",
            "bar": "with tqdm(total=6, **look) as bar:\n    for _ in done:\n        bar.update(2)",
            "close": "bar.n, len(done)",
        },
        edit=("loop", "done = []\nfor n in tqdm(range(2), **look):\n    done.append(n)"),
        insert=("bar", "print(sum(done))"),
        move=("bar", "nested"),
        delete="nested",
        kill="bar",
        more="done, bar.total, bar.n",
        runs={"edit": "loop nested bar close", "kill again": "bar close"},
    ),
    "async": Book(
        {
            "import": "import asyncio",
            "fetch": "async def fetch(n):\n    await asyncio.sleep(0)\n    return n * n",
            "gather": "squares = await asyncio.gather(*(fetch(n) for n in range(4)))\nsquares",
            "queue": "queue = asyncio.Queue()\nfor n in squares:\n    await queue.put(n)\nqueue.qsize()",
            "lock": "lock = asyncio.Lock()\nasync with lock:\n    taken = await queue.get()\ntaken",
            "numbers": "async def numbers():\n    for n in range(3):\n        yield n\nsource = numbers()",
            "rest": "rest = [await queue.get() for _ in range(queue.qsize())]\nrest",
            "drain": "[n async for n in source]",
        },
        edit=("fetch", "async def fetch(n):\n    await asyncio.sleep(0)\n    return n + 1"),
        insert=("lock", "async with lock:\n    print(queue.qsize())"),
        move=("numbers", "queue"),
        delete="drain",
        kill="rest",
        more="await fetch(3), queue.qsize(), lock.locked(), rest",
        runs={"edit": "fetch gather queue lock rest"},
    ),
    "background": Book(
        {
            "import": "import asyncio\nfrom threading import Thread",
            "log": "log = []\nready = asyncio.Event()",
            "ticker": "async def tick():\n    for n in range(3):\n        log.append(n)\n"
            "        await asyncio.sleep(0)\n    ready.set()\ntask = asyncio.create_task(tick())",
            "wait": "await task\nlog",
            "state": "task.done()",
            "thread": "found = []\nreader = Thread(target=found.extend, args=[log])\nreader.start()",
            "join": "reader.join()\nfound",
        },
        edit=(
            "thread",
            "found = [0]\nreader = Thread(target=found.extend, args=[log])\nreader.start()",
        ),
        insert=("wait", "len(log)"),
        move=("thread", "state"),
        delete="state",
        kill="wait",
        more="log, found",
        runs={"edit": "thread join", "insert": "new"},
    ),
}

ACTIONS = ("go on", "edit", "insert", "move", "delete", "kill", "kill again")


def changed(book, action):
    """The cells of a notebook after an action."""
    cells = dict(book.cells)
    if action == "edit":
        cells[book.edit[0]] = book.edit[1]
    if action == "delete":
        del cells[book.delete]
    if action == "insert":
        below, source = book.insert
        order = list(cells)
        order.insert(order.index(below) + 1, "new")
        cells = {name: cells.get(name, source) for name in order}
    if action == "move":
        name, above = book.move
        order = [each for each in cells if each != name]
        order.insert(order.index(above), name)
        cells = {each: cells[each] for each in order}
    return cells


def expected_runs(book, action):
    own = {"edit": book.edit[0], "insert": "new", "kill again": book.kill}
    return set(book.runs.get(action, own.get(action, "")).split())


def ran(done):
    return {name for name, action in facts(done, "action").items() if action == "executed"}


def shown(done):
    """What cells show, but for the ids of widgets and what they took."""
    changing = re.compile(r"[0-9a-f]{32}|CPU times.*?Wall time[^\\]*")
    return {name: changing.sub("…", repr(cell.visible)) for name, cell in done.items()}


@pytest.fixture(scope="module")
def stub():
    server = Stub()
    yield server
    server.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, stub):
    """Gives what a notebook shows without us, after an action; ``more`` with its further cell."""

    @cache
    def run(name, action):
        book, home = BOOKS[name], tmp_path_factory.mktemp("plain")
        cells = changed(book, action)
        order = book.order.get(action, cells)
        if action == "more":
            cells, order = cells | {"further": book.more}, (*order, "further")
        kernel = Kernel(home, home / "home", URL=stub.url)
        try:
            return shown({each: kernel.run(cells[each]) for each in order})
        finally:
            kernel.shutdown()

    return run


class Session:
    """A notebook in its folder, as its first session left it."""

    def __init__(self, home, name, url):
        self.book, self.home, self.work = BOOKS[name], home, home / "work"
        self.work.mkdir()
        self.kernel = Kernel(self.work, home / "home", URL=url, **{FAILPOINTS: "run.opened=delay:0"})
        self.opened = OpenNotebook(self.kernel, open=OPEN, **self.book.cells)

    def run_first(self, *, until=None):
        """Execute the cells of the first session; the kernel dies in a cell if that is to be."""
        self.opened.run("open")
        done = {}
        for name in self.book.first or self.book.cells:
            if name in self.book.fails:
                failed = self.kernel.run(self.book.fails[name], cell=name)
                assert failed.error
            if name == until:
                return self.die_in(name)
            done[name] = self.opened.run(name)
        self.first = shown(done)
        return self.keep()

    def keep(self):
        self.kernel.sigkill()
        shutil.copytree(self.work, self.home / "kept")

    def die_in(self, name):
        """Execute a cell; the kernel is killed when the body has ended, and nothing of it is saved."""
        plan = "{'body.after': (points._kill, '', 0)}"
        points = f"__import__('sys').modules['{failpoints.__name__}']"
        code = f"(lambda points: points._plan.update({plan}))({points})"
        assert self.kernel.run(code, store_history=False).status == "ok"
        with pytest.raises(KernelDied):
            self.opened.run(name)

    def back(self, cells=None):
        """Start a kernel where the first session ended."""
        self.kernel.shutdown()
        shutil.rmtree(self.work)
        shutil.copytree(self.home / "kept", self.work)
        self.go_on(cells or self.book.cells)

    def go_on(self, cells):
        self.opened.cells = {"open": OPEN, **cells}
        self.opened.restart()
        return self.opened


@pytest.fixture(scope="module")
def sessions(tmp_path_factory, stub):
    made = []

    @cache
    def session(name, until=None):
        made.append(Session(tmp_path_factory.mktemp("session"), name, stub.url))
        made[-1].run_first(until=until)
        return made[-1]

    yield session
    for one in made:
        one.kernel.shutdown()


def done_after(sessions, name, action):
    """What came back from the cells of a notebook after an action, and what they showed before."""
    book = BOOKS[name]
    if action == "kill":
        session = sessions(name, book.kill)
        return session.go_on(book.cells).run_all(), {}
    session = sessions(name)
    if action == "kill again":
        session.back()
        first = shown(session.opened.run_all())
        session.die_in(book.kill)
        return session.go_on(book.cells).run_all(), first
    session.back(changed(book, action))
    return session.opened.run_all(), session.first


QUICK = {
    ("three times", "insert"),
    ("out of order", "go on"),
    ("mended", "edit"),
    ("bash", "kill"),
    ("database", "kill again"),
}
CASES = [
    pytest.param(name, action, marks=() if (name, action) in QUICK else pytest.mark.slow)
    for name in BOOKS
    for action in ACTIONS
]


@pytest.mark.parametrize(("name", "action"), CASES)
def test_what_a_person_expects(sessions, plain, name, action):
    book = BOOKS[name]
    done, first = done_after(sessions, name, action)
    done.pop("open")
    assert {each: cell.error for each, cell in done.items() if cell.error} == {}
    again, order = ran(done), book.first or tuple(book.cells)
    if action == "kill":
        assert again.isdisjoint(order[: order.index(book.kill)])
    else:
        assert again == expected_runs(book, action)
    expected = plain(name, action) | {each: text for each, text in first.items() if each not in again}
    found = shown(done)
    different = {each: (text, expected[each]) for each, text in found.items() if text != expected[each]}
    assert different == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOOKS)
def test_a_further_cell_finds_what_it_reads(sessions, plain, name):
    session = sessions(name)
    session.back()
    session.opened.run_all()
    more = session.kernel.run(BOOKS[name].more, cell="further")
    assert shown({"further": more})["further"] == plain(name, "more")["further"], more.told
