"""Whole notebooks are killed in a cell, and run again: they show and hold what an undisturbed run does."""

import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from durable_nb.engine.failpoints import FAILPOINTS
from helpers import pythonpath
from helpers.kernel import Kernel, KernelDied
from helpers.marks import marked, marking

FOLDER = Path(__file__).parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
QUICK = ["text", "fetching"]
"""Those that import nothing large."""

SETUP = "%load_ext durable_nb\n%durable_workflow whole --db runs.db"
PLAIN_SETUP = "# no extension\n# no run"
INLINE = "\n%matplotlib inline"
REACHED = {
    "step.started": lambda number: 1 + number,
    "body.after": lambda number: 1 + number,
    "blob.before": lambda number: 1 + number,
    "blob.after": lambda number: 1 + number,
    "commit.before": lambda number: 2 + 2 * number,
    "commit.after": lambda number: 2 + 2 * number,
    "step.recorded": lambda number: 1 + number,
}
"""How often a point was reached when a cell's result passes it: that it started is a commit too."""

ON_RECORD = {"commit.after", "step.recorded"}
"""A cell that died there is done."""


class Pages(BaseHTTPRequestHandler):
    """Pages that link to further ones."""

    def do_GET(self):
        number = int(self.path.strip("/"))
        page = {"title": f"page {number}", "links": [2 * number, 2 * number + 1]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield "{}:{}".format(*running.server_address)
        running.shutdown()


@cache
def bodies(name):
    return [cell.strip() for cell in (FOLDER / f"{name}.py").read_text().split("# %%")[1:]]


def cells(name, *, durable=True):
    """A notebook's cells; without us a comment stands where the magic would."""
    first = "%%durable_step cell{}\n" if durable else "# durable_step cell{}\n"
    yield (SETUP if durable else PLAIN_SETUP) + INLINE
    for number, body in enumerate(bodies(name)):
        yield first.format(number) + marking(number, body)


@dataclass
class Notebook:
    """A notebook in a directory, for one kernel after another.

    Attributes:
        kernel: The kernel it is in.
        played: What came back from the cells of the last pass.
    """

    kernel: Kernel
    name: str
    durable: bool = True

    def run(self, upto=None):
        """Run the first cells, or all of them."""
        self.played = [self.kernel.run(cell) for cell in list(cells(self.name, durable=self.durable))[:upto]]
        assert [cell.error for cell in self.played] == [None] * len(self.played)
        return self

    def kill_in(self, number, after):
        """Run to a cell, and kill the kernel some seconds after that began."""
        self.run(1 + number)
        self.kernel.start(list(cells(self.name))[1 + number])
        time.sleep(after)
        self.kernel.sigkill()

    def kill_at(self, point, number):
        """Run in a kernel that dies at a failpoint of a cell."""
        self.kernel.setenv(FAILPOINTS, f"{point}=kill@{REACHED[point](number)}")
        self.kernel.restart()
        with pytest.raises(KernelDied):
            self.run()
        self.kernel.setenv(FAILPOINTS, None)

    def described(self):
        told = self.kernel.run('print(__import__("helpers.portable").portable.described())')
        assert told.error is None, told.error
        return json.loads(told.text)

    def visible(self):
        """What the cells show, but for the file that a warning names: it has the process in its name."""
        shown = json.dumps([cell.visible for cell in self.played[1:]])
        return json.loads(re.sub(r"ipykernel_\d+/\d+", "ipykernel", shown))

    def began(self):
        return Counter(map(int, marked(self.kernel.cwd / "marks")))


@pytest.fixture(scope="module")
def opened(tmp_path_factory, server):
    @contextmanager
    def open_notebook(name, **options):
        home = tmp_path_factory.mktemp(name)
        kernel = Kernel(home, home / "home", **pythonpath(), MARKS=str(home / "marks"), SERVER=server)
        try:
            yield Notebook(kernel, name, **options)
        finally:
            kernel.shutdown()

    return open_notebook


@dataclass
class Undisturbed:
    """What a run without a kill shows, holds, and how long its cells take."""

    visible: list
    described: dict
    seconds: list


@pytest.fixture(scope="module")
def undisturbed(opened):
    @cache
    def run(name, durable=True):
        with opened(name, durable=durable) as notebook:
            notebook.run()
            seconds = [cell.seconds for cell in notebook.played[1:]]
            return Undisturbed(notebook.visible(), notebook.described(), seconds)

    return run


def differing(found, wanted, place=""):
    """Where two descriptions part: the places, and what is at each of the two."""
    if found == wanted:
        return {}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        found, wanted = dict(enumerate(found)), dict(enumerate(wanted))
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return {place: (found, wanted)}
    parted = (
        differing(found.get(key), wanted.get(key), f"{place}/{key}") for key in found.keys() | wanted.keys()
    )
    return {place: both for one in parted for place, both in one.items()}


def check(notebook, whole, killed):
    """It is as if nothing had happened, and the finished cells ran once."""
    assert notebook.visible() == whole.visible
    found = notebook.described()
    assert differing(found, whole.described) == {}
    began = notebook.began()
    assert set(began) == set(range(len(bodies(notebook.name))))
    assert {number for number, times in began.items() if times > 1} <= set(killed)
    assert max(began.values()) <= 2


def sample(name):
    """Two cells to be killed in, chosen by the notebook's name."""
    return sorted(random.Random(name).sample(range(len(bodies(name))), 2))


def slow_but(cases, quick):
    """Cases of which but some are slow."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("name", slow_but(NAMES, QUICK))
def test_it_shows_and_holds_what_it_does_without_us(undisturbed, name):
    plain, durable = undisturbed(name, durable=False), undisturbed(name)
    assert durable.visible == plain.visible
    assert differing(durable.described, plain.described) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_in_two_cells_one_after_the_other(opened, undisturbed, name):
    whole, killed = undisturbed(name), sample(name)
    moments = random.Random(f"moments of {name}")
    with opened(name) as notebook:
        for number in killed:
            notebook.kill_in(number, moments.uniform(0, whole.seconds[number]))
            notebook.kernel.restart()
        check(notebook.run(), whole, killed)


EVERY_CELL = [(name, number) for name in NAMES for number in range(len(bodies(name)))]


@pytest.mark.long
@pytest.mark.parametrize(("name", "number"), EVERY_CELL)
def test_killed_in_any_cell(opened, undisturbed, name, number):
    whole = undisturbed(name)
    with opened(name) as notebook:
        notebook.kill_in(number, random.Random(f"{name} {number}").uniform(0, whole.seconds[number]))
        notebook.kernel.restart()
        check(notebook.run(), whole, [number])


def check_point(opened, whole, name, point, number):
    with opened(name) as notebook:
        notebook.kill_at(point, number)
        notebook.kernel.restart()
        again = [number] if point not in ON_RECORD and point != "step.started" else []
        check(notebook.run(), whole, again)
        assert [number for number, times in notebook.began().items() if times == 2] == again


AROUND = dict(zip(REACHED, itertools.cycle(QUICK), strict=False))


@pytest.mark.parametrize("point", slow_but(REACHED, ["commit.before", "commit.after"]))
def test_killed_around_the_commit(opened, undisturbed, point):
    name = AROUND[point]
    check_point(opened, undisturbed(name), name, point, random.Random(point).randrange(len(bodies(name))))


@pytest.mark.long
@pytest.mark.parametrize("point", REACHED)
@pytest.mark.parametrize("name", NAMES)
def test_killed_around_any_commit(opened, undisturbed, name, point):
    number = random.Random(f"{name} {point}").randrange(len(bodies(name)))
    check_point(opened, undisturbed(name), name, point, number)
