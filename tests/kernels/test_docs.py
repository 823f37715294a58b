"""The notebooks that the README and docs/ show: their cells run as printed there, and again after a kill."""

import re

import pytest

from helpers import pages
from helpers.pages import section

OPEN = "%load_ext durable_nb\n%durable_workflow docs"
NOTEBOOKS = [one for one in pages.sections() if one.is_notebook]

# What the last cell of a notebook prints, where it prints something.
PRINTED = {
    "README.md: A notebook": "13 sold\n",
    "docs/notebooks.md: Runs and durable cells": "34\n",
}


def opened(section):
    """The cells of a section, after those that open a run if none of them does."""
    cells = section.blocks()
    return cells if cells[0].startswith("%load_ext") else [OPEN, *cells]


@pytest.mark.parametrize("one", NOTEBOOKS, ids=str)
def test_the_cells_of_a_section_run_and_again_after_a_kill(kernel, one):
    cells = opened(one)
    first = [kernel.run(cell) for cell in cells]
    assert [cell.error for cell in first] == [None] * len(cells)
    kernel.sigkill()
    kernel.restart()
    again = [kernel.run(cell) for cell in cells]
    assert [cell.error for cell in again] == [None] * len(cells)
    assert [cell.text for cell in again] == [cell.text for cell in first]
    assert again[-1].text == PRINTED.get(str(one), again[-1].text)
    durable = [number for number, cell in enumerate(cells) if cell.startswith("%%durable_step")]
    assert {first[number].facts["action"] for number in durable} <= {"executed"}
    assert {again[number].facts["action"] for number in durable} <= {"replayed"}


def test_what_shares_an_object_and_what_cannot_be_saved(kernel):
    text = section("docs/notebooks.md", "Runs and durable cells").text
    first, second = re.search(r"again: `(.*?)` in one cell and `(.*?)` in the next", text).groups()
    cells = [OPEN, first, second, "import sqlite3; c = sqlite3.connect(':memory:')"]
    cells[1:] = [f"%%durable_step s{n}\n{cell}" for n, cell in enumerate(cells[1:])]
    assert "c is not saved" in [kernel.run(cell) for cell in cells][-1].told
    kernel.sigkill()
    kernel.restart()
    assert [kernel.run(cell).error for cell in cells] == [None] * 4
    assert kernel.run("print(a, a is b)").text == "[1, 2] True\n"
    error = kernel.run("c.cursor()").error
    assert all(word in error for word in ("StepNotRestored", "step 's2'", "ordinary cell"))
    assert "`StepNotRestored`" in section("docs/notebooks.md", "What cannot be saved").text


def test_the_cells_about_edits_say_what_is_printed_there(kernel):
    one = section("docs/edits-and-drift.md", "An edit upstream")
    ordinary, durable = one.blocks()
    kernel.run(OPEN)
    assert [kernel.run(cell).status for cell in (ordinary, durable)] == ["ok", "ok"]
    kernel.run(ordinary.replace("10", "20"))
    again = kernel.run(durable)
    assert again.text == "three hours of work\n"
    assert one.blocks("text") == [again.facts["notice"] + "\n"]


def test_a_notebook_opens_its_run_on_redis(redis_server, kernel):
    magic = f"%durable_workflow RUN_ID --db {redis_server.url}"
    assert magic.replace(redis_server.url, "redis://localhost:6379/0") in pages.text_of("docs/stores.md")
    for state in ("new", "resuming"):
        kernel.run("%load_ext durable_nb")
        opened = kernel.run(f"{magic}\nwf.journal.location")
        assert opened.error is None
        assert redis_server.url in opened.text + str(opened.outputs)
        assert state in opened.text + str(opened.outputs)
        kernel.run("%%durable_step load\nprint('executed')\nx = 41")
        assert kernel.run("print(x + 1)").text == "42\n"
        kernel.sigkill()
        kernel.restart()
