"""Whole notebooks are killed in a cell, and run again: they show and hold what an undisturbed run does."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from durable_nb.engine.failpoints import FAILPOINTS
from helpers import pythonpath
from helpers.kernel import Kernel, KernelDied, visible
from helpers.marks import marked, marking

FOLDER = Path(__file__).parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
QUICK = ["text", "fetching"]
"""Those that import nothing large."""

LIVE = "live/querying"
"""One with names that cannot be kept: only where every cell is durable are they made again."""

OPEN = "%load_ext durable_nb\n%durable_workflow whole --db runs.db"
SETUPS = {"plain": "# no extension\n# no run", "marked": OPEN, "unmarked": f"{OPEN} --cells all"}
"""What is done before the first cell: without us, where cells are marked, and where every cell is durable."""

DURABLE = ["marked", "unmarked"]
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

DESCRIBED = '# durable: skip\nprint(__import__("helpers.portable").portable.described())'
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


def cells(name, how):
    """A notebook's cells; a comment stands where the magic would where none is marked."""
    first = "%%durable_step cell{}\n" if how == "marked" else "# durable_step cell{}\n"
    yield SETUPS[how] + INLINE
    for number, body in enumerate(bodies(name)):
        yield first.format(number) + marking(number, body)


def without_process(shown):
    """What cells show, but for the file that a warning names: it has the process in its name."""
    return json.loads(re.sub(r"ipykernel_\d+/\d+", "ipykernel", json.dumps(shown)))


@dataclass
class Notebook:
    """A notebook in a directory, for one kernel after another.

    Attributes:
        kernel: The kernel it is in.
        name: Its name.
        how: Which of its cells are durable.
        played: What came back from the cells of the last pass.
    """

    kernel: Kernel
    name: str
    how: str = "marked"

    def run(self, upto=None):
        """Run the first cells, or all of them."""
        self.played = [self.kernel.run(cell) for cell in list(cells(self.name, self.how))[:upto]]
        assert [cell.error for cell in self.played] == [None] * len(self.played)
        return self

    def kill_in(self, number, after):
        """Run to a cell, and kill the kernel some seconds after that began."""
        self.run(1 + number)
        self.kernel.start(list(cells(self.name, self.how))[1 + number])
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
        told = self.kernel.run(DESCRIBED)
        assert told.error is None, told.error
        return json.loads(told.text)

    def visible(self):
        return without_process([cell.visible for cell in self.played[1:]])

    def began(self):
        return Counter(map(int, marked(self.kernel.cwd / "marks")))


@pytest.fixture(scope="module")
def opened(tmp_path_factory, server):
    @contextmanager
    def open_notebook(name, **options):
        home = tmp_path_factory.mktemp(Path(name).name)
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
    def run(name, how):
        with opened(name, how=how) as notebook:
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


@pytest.mark.parametrize("how", DURABLE)
@pytest.mark.parametrize("name", slow_but(NAMES, QUICK))
def test_it_shows_and_holds_what_it_does_without_us(undisturbed, name, how):
    plain, durable = undisturbed(name, "plain"), undisturbed(name, how)
    assert durable.visible == plain.visible
    assert differing(durable.described, plain.described) == {}


@pytest.mark.slow
@pytest.mark.parametrize("how", DURABLE)
@pytest.mark.parametrize("name", NAMES)
def test_killed_in_two_cells_one_after_the_other(opened, undisturbed, name, how):
    whole, killed = undisturbed(name, how), sample(name)
    moments = random.Random(f"moments of {name}")
    with opened(name, how=how) as notebook:
        for number in killed:
            notebook.kill_in(number, moments.uniform(0, whole.seconds[number]))
            notebook.kernel.restart()
        check(notebook.run(), whole, killed)


def check_made(notebook, killed):
    """Nothing that could not be kept was made again without a line that says so."""
    made = Counter(marked(notebook.kernel.cwd / "made"))
    told = [cell.told for cell in notebook.played]
    for name, times in made.items():
        said = sum(line.startswith(f"↻ {name} · made again") for text in told for line in text.splitlines())
        makes = next(number for number, body in enumerate(bodies(LIVE)) if f"\n{name} = " in body)
        assert times - 1 <= said or makes in killed, (name, told)


EVERY_CELL = [(name, number) for name in NAMES for number in range(len(bodies(name)))]
SAMPLE = [(name, sample(name)[0]) for name in QUICK]


def long_but(cases, quick):
    """Cases of which but some are long."""
    return [case if case in quick else pytest.param(*case, marks=pytest.mark.long) for case in cases]


@pytest.mark.parametrize("how", DURABLE)
@pytest.mark.parametrize(("name", "number"), long_but(EVERY_CELL, SAMPLE))
def test_killed_in_any_cell(opened, undisturbed, name, number, how):
    whole = undisturbed(name, how)
    with opened(name, how=how) as notebook:
        notebook.kill_in(number, random.Random(f"{name} {number}").uniform(0, whole.seconds[number]))
        notebook.kernel.restart()
        check(notebook.run(), whole, [number])


LIVE_CELLS = [(LIVE, number) for number in range(len(bodies(LIVE)))]


@pytest.mark.parametrize(("name", "number"), long_but(LIVE_CELLS, [(LIVE, 7)]))
def test_killed_in_any_cell_beside_names_that_cannot_be_kept(opened, undisturbed, name, number):
    whole = undisturbed(name, "plain")
    with opened(name, how="unmarked") as notebook:
        notebook.kill_in(number, random.Random(f"{name} {number}").uniform(0, whole.seconds[number]))
        notebook.kernel.restart()
        check(notebook.run(), whole, [number])
        check_made(notebook, [number])


def check_point(opened, whole, name, point, number, how):
    with opened(name, how=how) as notebook:
        notebook.kill_at(point, number)
        notebook.kernel.restart()
        again = [number] if point not in ON_RECORD and point != "step.started" else []
        check(notebook.run(), whole, again)
        assert [number for number, times in notebook.began().items() if times == 2] == again


AROUND = dict(zip(REACHED, itertools.cycle(QUICK), strict=False))


@pytest.mark.parametrize("how", slow_but(DURABLE, ["marked"]))
@pytest.mark.parametrize("point", slow_but(REACHED, ["commit.before", "commit.after"]))
def test_killed_around_the_commit(opened, undisturbed, point, how):
    name = AROUND[point]
    number = random.Random(point).randrange(len(bodies(name)))
    check_point(opened, undisturbed(name, how), name, point, number, how)


@pytest.mark.long
@pytest.mark.parametrize("how", DURABLE)
@pytest.mark.parametrize("point", REACHED)
@pytest.mark.parametrize("name", NAMES)
def test_killed_around_any_commit(opened, undisturbed, name, point, how):
    number = random.Random(f"{name} {point}").randrange(len(bodies(name)))
    check_point(opened, undisturbed(name, how), name, point, number, how)


@dataclass
class Commanded:
    """A notebook on the disk, for ``durable-nb run``.

    Attributes:
        home: The folder it is in.
        name: Its name.
        server: The address of the pages.
    """

    home: Path
    name: str
    server: str

    def write(self):
        _, *unmarked = cells(self.name, "unmarked")
        made = [
            new_code_cell(source, id=f"c{n}")
            for n, source in enumerate([INLINE.strip(), *unmarked, DESCRIBED])
        ]
        nbformat.write(new_notebook(cells=made), self.home / "book.ipynb")
        return self

    def run(self, *, killed=None, after=0.0):
        """Run it; its first kernel is killed some seconds after a cell began.

        Returns:
            The number of the cell that was executed when the kernel died, if it did.
        """
        environment = {**os.environ, **pythonpath(), "MARKS": str(self.home / "marks"), "SERVER": self.server}
        command = [
            sys.executable,
            "-m",
            "durable_nb.cli",
            "run",
            "book.ipynb",
            "--json",
            "--output",
            "out.ipynb",
        ]
        died, pid = None, 0
        with subprocess.Popen(command, cwd=self.home, env=environment, stdout=subprocess.PIPE) as process:
            for line in process.stdout:
                event = json.loads(line)
                pid = event["pid"] if event["event"] == "kernel" and event["pid"] else pid
                if event.get("state") == "running" and event["index"] == killed and died is None:
                    time.sleep(after)
                    os.kill(pid, signal.SIGKILL)
                    killed = None
                died = event["index"] if event.get("state") == "killed" else died
        assert process.returncode == 0
        return None if died is None else died - 1

    def check(self, plain, killed):
        """It is as if nothing had happened, and the finished cells ran once."""
        cells = nbformat.read(self.home / "out.ipynb", as_version=4).cells
        *shown, described = [visible(map(dict, cell.outputs)) for cell in cells[1:]]
        assert without_process(shown) == plain.visible
        assert differing(json.loads(described[0]["text"]), plain.described) == {}
        began = Counter(map(int, marked(self.home / "marks")))
        assert set(began) == set(range(len(bodies(self.name))))
        assert {number: times for number, times in began.items() if times > 1} in ({}, {killed: 2})


@pytest.mark.parametrize(("name", "number"), long_but(EVERY_CELL + LIVE_CELLS, SAMPLE))
def test_run_headless_and_killed_in_any_cell(tmp_path, server, undisturbed, name, number):
    plain = undisturbed(name, "plain")
    book = Commanded(tmp_path, name, server).write()
    after = random.Random(f"{name} {number}").uniform(0, plain.seconds[number])
    book.check(plain, book.run(killed=1 + number, after=after))
