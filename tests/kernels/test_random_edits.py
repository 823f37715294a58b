"""Ordinary cells are edited between kill and replay: names hold what a plain run of the edited cells gives."""

# ruff: noqa: E501 - tables of cells

import random
import re
from dataclasses import dataclass

import pytest

from helpers.kernel import Kernel

SEEDS = range(40)

# Ordinary cells: {n} is a number of the cell, {v} one that an edit changes.
ORDINARY = [
    "limit{n} = {v}",
    "def rule{n}(x): return x + {v}",
    "class Part{n}:\n    size = {v}\n    def twice(self): return 2 * self.size\npart{n} = Part{n}()",
    "from dataclasses import dataclass\n@dataclass\nclass Row{n}:\n    at: int = {v}\nrow{n} = Row{n}()",
    "table{n} = {{'at': {v}, 'seen': [{v}]}}\nshared{n} = table{n}['seen']",
    "import functools\n@functools.lru_cache\ndef known{n}(x): return x * {v}",
    "mark{n} = ({v}, {v} + 1)\nnote{n} = 'note {v}'",
    "none{n} = -{v}.5",
]
# What a durable cell reads or changes of each, to be bound to {r}.
READS = {
    "limit": ["{r} = limit{n} * 2", "{r} = [limit{n}] * 3"],
    "rule": ["{r} = rule{n}(1)", "{r} = list(map(rule{n}, range(3)))"],
    "Part": ["{r} = part{n}.twice()", "{r} = Part{n}().size", "part{n}.extra = 1; {r} = vars(part{n})"],
    "Row": ["{r} = row{n}.at", "{r} = [Row{n}(1), row{n}][0].at", "row{n}.at += 1; {r} = row{n}.at"],
    "table": ["{r} = table{n}['seen']", "shared{n}.append(5); {r} = len(shared{n})", "{r} = dict(table{n})"],
    "known": ["{r} = known{n}(2)"],
    "mark": ["{r} = {{'is': mark{n}}}", "{r} = note{n} + '!'"],
    "none": ["{r} = [none{n}, {{'is': none{n}}}]"],
}
# What a durable cell makes besides, of its own.
MAKES = [
    "class Own{m}:\n    value = 1\nown{m} = Own{m}()",
    "from dataclasses import dataclass\n@dataclass\nclass Made{m}:\n    x: int = 1\nmade{m} = [Made{m}()]",
    "def own_rule{m}(): return 1",
    "text{m} = ['t']",
]
STATE = """
def described(value):
    kind = type(value)
    if kind.__module__ == '__main__':
        return kind.__name__, kind.__dict__.get('size'), sorted((k, described(v)) for k, v in vars(value).items())
    if isinstance(value, dict):
        return {k: described(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
    return value if isinstance(value, (int, float, str)) else value(2) if getattr(value, '__name__', '')[:5] in ('rule0', 'known') else kind.__name__
found = {k: described(v) for k, v in sorted(globals().items()) if k[-1:].isdigit() and not k.startswith('_')}
held = [[a, b] for a in found for b in found if a < b and globals()[a] is globals()[b] and isinstance(globals()[a], (list, dict))]
print(found, held)
"""


@dataclass(frozen=True)
class Notebook:
    """A notebook that a seed draws.

    Attributes:
        cells: Whether each cell is durable, and its text.
        edited: The same after the edit.
        upto: How many cells run before the kernel is killed.
    """

    cells: list
    edited: list
    upto: int


def drawn(seed):
    draw = random.Random(f"edits {seed}")
    cells, known = [], []
    for n in range(draw.randint(3, 5)):
        known.append((n, draw.choice(ORDINARY)))
        cells.append((False, known[-1][1].format(n=n, v=draw.randint(1, 9))))
        for m in range(draw.randint(0, 2)):
            cells.append((True, durable(draw, known, f"{n}{m}")))
    cells.append((True, durable(draw, known, "99")))
    ordinary = [at for at, (is_durable, _) in enumerate(cells) if not is_durable]
    chosen = draw.sample(ordinary, draw.randint(1, 2))
    edited = [
        (is_durable, edit(draw, text) if at in chosen else text)
        for at, (is_durable, text) in enumerate(cells)
    ]
    return Notebook(cells, edited, draw.randint(len(cells) // 2, len(cells)))


def durable(draw, known, number):
    lines = []
    for place in range(draw.randint(1, 3)):
        n, text = draw.choice(known)
        kind = next(kind for kind in READS if f"{kind}{{n}}" in text)
        lines.append(draw.choice(READS[kind]).format(r=f"r{number}{place}", n=n))
    return "\n".join([*lines, draw.choice(MAKES).format(m=number)])


def edit(draw, text):
    """Another number in place of those of the cell that are not part of a name."""
    value = draw.randint(10, 99)
    return re.sub(r"(?<![\w.])\d+(?! \*)(?!\w)", str(value), text)


def play(kernel, seed, cells, *, plain=False):
    kernel.run("%reset -f\n%load_ext durable_nb")
    if not plain:
        kernel.run(f"%durable_workflow edits{seed} --db {kernel.cwd / 'runs.db'}")
    for number, (is_durable, text) in enumerate(cells):
        first = f"%%durable_step cell{number}\n" if is_durable and not plain else ""
        assert kernel.run(first + text).error is None
    looked = kernel.run(STATE)
    return looked.text or looked.error


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What each notebook holds: killed, edited and replayed; and the edited one without us."""
    home = tmp_path_factory.mktemp("edits")
    kernel = Kernel(home, home / "home")
    try:
        books = {seed: drawn(seed) for seed in SEEDS}
        for seed, book in books.items():
            play(kernel, seed, book.cells[: book.upto])
        kernel.sigkill()
        kernel.restart()
        replayed = {seed: play(kernel, seed, book.edited) for seed, book in books.items()}
        plain = {seed: play(kernel, seed, book.edited, plain=True) for seed, book in books.items()}
        return {seed: (replayed[seed], plain[seed]) for seed in SEEDS}
    finally:
        kernel.shutdown()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edited_notebook_holds_what_a_plain_run_holds(played, seed):
    replayed, plain = played[seed]
    assert replayed == plain


def test_the_edits_change_what_cells_hold():
    assert all(drawn(seed).cells != drawn(seed).edited for seed in SEEDS)
