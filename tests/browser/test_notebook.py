"""What a person sees: a notebook in JupyterLab and Notebook 7 that goes on after its kernel has died."""

import json
import os

import pytest

from helpers import ROOT
from helpers.pages import section

pytestmark = pytest.mark.slow
NOTEBOOKS = ROOT / "notebooks"
OPEN = "%load_ext durable_nb\n%durable_workflow {name} --db {name}.db"
LOAD = """\
%%durable_step load
print("loaded", file=open("{name}.log", "a"))
sold = [3, 4]
print("loaded")
sold"""
CHART = """\
%%durable_step chart
import matplotlib.pyplot as plt
_ = plt.bar(["mon", "tue"], sold)"""
CHECK = "print(sum(sold), open('{name}.log').read())"


@pytest.mark.parametrize("face", ["doc", "notebooks"])
def test_after_a_kill_run_all_replays(opened, shot, face):
    notebook = opened(*(cell.format(name=face) for cell in (OPEN, LOAD, CHART, CHECK)), face=face)
    notebook.run_all()
    notebook.expect(1, "loaded")
    notebook.expect_printed(3, "7 loaded")
    notebook.kill_kernel()
    notebook.run_all()
    notebook.expect(0, "resuming, 2 finished")
    notebook.expect(1, "loaded", "[3, 4]", "replayed")
    assert notebook.cell(2).locator("img").count() == 1
    notebook.expect_printed(3, "7 loaded")
    shot(notebook)


UNMARKED = (
    "import matplotlib.pyplot as plt",
    'print("loaded", file=open("{name}.log", "a"))\nsold = [3, 4]\nprint("loaded")\nsold',
    '# Chart\n_ = plt.bar(["mon", "tue"], sold)',
    "out = open('out.txt', 'w')",
    "print(sum(sold), len(open('{name}.log').readlines()))",
)


@pytest.mark.parametrize("face", ["doc", "notebooks"])
def test_a_notebook_without_marks_replays_after_a_kill(opened, shot, face):
    cells = [cell.format(name=f"every-{face}") for cell in (f"{OPEN} --cells all", *UNMARKED)]
    notebook = opened(*cells, face=face)
    notebook.run_all()
    notebook.expect_printed(5, "7 1")
    notebook.kill_kernel()
    notebook.run_all()
    notebook.expect(0, "resuming")
    notebook.expect(2, "loaded", "[3, 4]", "replayed")
    notebook.expect(3, "chart", "replayed")
    assert notebook.cell(3).locator("img").count() == 1
    notebook.expect(4, "out", "not")
    notebook.expect_printed(5, "7 1")
    shot(notebook)


def test_the_notebook_about_steps_in_doubt_asks_as_it_says(opened, shot):
    cells = json.loads((NOTEBOOKS / "03_once_and_in_doubt.ipynb").read_text())["cells"]
    notebook = opened(*("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    notebook.start_all()
    notebook.button("it succeeded", 2).click()
    notebook.form(2).get_by_label("Value").fill('"receipt by hand"')
    notebook.button("Submit", 2).click()
    notebook.finish()
    notebook.expect(3, "receipt by hand")
    notebook.expect(8, "charged a17", "charged b5", "shipped")
    shot(notebook)


def test_the_notebook_of_the_readme_replays_as_its_picture_shows(opened):
    cells = [block.rstrip() for block in section("README.md", "A notebook").blocks()]
    notebook = opened(*cells, name="sales", scale=1.5)
    notebook.tidy()
    notebook.run_all()
    notebook.kill_kernel()
    notebook.run_all()
    notebook.expect(1, "loaded 3 rows", "load", "replayed", "restored sales")
    notebook.expect(2, "chart", "replayed", "restored figure, axes")
    assert notebook.cell(2).locator("img").count() == 1
    notebook.expect_printed(3, "13 sold")
    # Made anew by DURABLE_NB_PICTURES=1 pytest tests/browser -k picture --basetemp=/tmp/jupyter
    if os.environ.get("DURABLE_NB_PICTURES"):
        notebook.picture(ROOT / "docs" / "images" / "replayed.png")
