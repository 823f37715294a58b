"""Which cells are steps, what their steps are called, and which step is whose."""

import re

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from durable_nb.notebook.every_cell import UnmarkedSteps, is_ordinary, name_of
from durable_nb.notebook.lineage.origins import Lineage
from durable_nb.notebook.shell.frontend import CodeCell
from durable_nb.records import Step, StepKind, StepStatus
from helpers.secrets_of import KNOWN


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "from a.b import c as d\nimport e, f",
        "from __future__ import annotations\nimport os",
        "%load_ext autoreload\n%autoreload 2",
        "%matplotlib inline",
        "%config InlineBackend.figure_format = 'svg'\nimport matplotlib.pyplot as plt",
        "%pip install pandas",
        "!pip install pandas",
        "!pip3 install -q pandas",
        "!python -m pip install pandas",
        "%env MODE=test",
        "%cd data",
        "%durable_status",
        "x = 1\n%durable_restore",
        "# durable: skip\nx = 1",
        "#durable:skip\nx = 1",
        "x?",
        "# only a comment",
    ],
)
def test_cells_that_run_every_time(source):
    assert is_ordinary(CodeCell(source), TransformerManager().transform_cell(source))


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        "import os\nx = os.getcwd()",
        "%time f()",
        "%%time\nf()",
        "%run other.py",
        "!ls",
        "!pipeline --all",
        "%%bash\npip install pandas",
        "print(1)  # durable: skip",
        "'text'",
        "try:\n    import a\nexcept ImportError:\n    a = None",
    ],
)
def test_cells_that_are_steps(source):
    assert not is_ordinary(CodeCell(source), TransformerManager().transform_cell(source))


def test_a_tag_makes_a_cell_run_every_time():
    assert is_ordinary(CodeCell("x = 1", tags=frozenset({"skip"})), "x = 1")


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (CodeCell("# Load the data\nrows = load()"), "load-the-data"),
        (CodeCell("#\n\n# %% Second try!\nrows = load()"), "second-try"),
        (CodeCell("rows = load()", heading="Results of 2026"), "results-of-2026"),
        (CodeCell("df = pd.read_csv('data.csv')\ndf"), "df-pd-read_csv-data-csv"),
        (CodeCell("%%bash\nls -l"), "bash-ls-l"),
        (CodeCell("größe = 1"), "größe-1"),
        (CodeCell("client = Client(api_key='sk-hush')"), "client-Client-api_key-hidden"),
        (CodeCell("# with sk-proj-Zx8kQ2vB71LmNc0RtYuWpAsD"), "with-hidden"),
        (CodeCell("(\n)"), "cell"),
        (CodeCell("x" * 100), "x" * 40),
        (
            CodeCell("one(two, three, four, five, six, seven, eight)"),
            "one-two-three-four-five-six-seven-eight",
        ),
    ],
)
def test_the_name_of_a_step_can_be_read_and_typed(cell, name):
    assert name_of(cell) == name


def recorded(step_id, code, cell=None, status=StepStatus.DONE):
    lineage = Lineage(step_id, cell=cell, unmarked=True).to_json()
    return Step("r", step_id, StepKind.CELL, status, code=code, lineage=lineage)


def test_a_cell_in_the_file_is_known_by_its_id():
    steps = UnmarkedSteps([recorded("x", "c1", "a"), recorded("x-2", "c1", "b")])
    placed = {"a", "b", "new"}
    assert steps.claim(CodeCell("x", "new"), "c1", placed) == ("x-3", False)
    assert steps.claim(CodeCell("edited", "b"), "c9", placed) == ("x-2", False)
    assert steps.claim(CodeCell("x", "a"), "c1", placed) == ("x", False)
    assert steps.claim(CodeCell("x", "a"), "c1", placed) == ("x", True)


def test_a_cell_without_an_id_is_known_by_its_code_and_order():
    steps = UnmarkedSteps([recorded(f"x-{n}" if n > 1 else "x", "c1", "gone") for n in range(1, 12)])
    found = [steps.claim(CodeCell("x"), "c1", ()) for _ in range(12)]
    assert [step_id for step_id, _ in found] == ["x", *(f"x-{n}" for n in range(2, 13))]
    assert not any(again for _, again in found)


def test_an_id_that_is_not_in_the_file_tells_only_that_a_cell_is_executed_again():
    steps = UnmarkedSteps([recorded("x", "c1", "a")])
    assert steps.claim(CodeCell("x", "made-up"), "c1", {"a"}) == ("x", False)
    assert steps.claim(CodeCell("y", "made-up"), "c2", {"a"}) == ("x", True)


def test_the_step_of_a_cell_that_was_killed_is_found_again():
    steps = UnmarkedSteps([recorded("x", "c1", "a", StepStatus.STARTED)])
    assert steps.claim(CodeCell("x", "a"), "c1", {"a"}) == ("x", False)


def test_a_name_that_another_step_has_is_not_taken():
    marked = Step("r", "x-1", StepKind.CELL, StepStatus.DONE, lineage=Lineage("x-1").to_json())
    steps = UnmarkedSteps([marked])
    assert steps.claim(CodeCell("x = 1"), "c1", ()) == ("x-1-2", False)


@pytest.mark.parametrize("kind", KNOWN)
def test_a_name_made_of_a_first_line_holds_no_secret(kind):
    secret = KNOWN[kind]
    for source in (
        f"c = C('{secret}')",
        f"api_key = '{secret}'",
        f"# with {secret}\nx = 1",
        "api_key = 'hush'",
    ):
        name = name_of(CodeCell(source))
        words = re.findall(r"\w+", secret)
        assert "hush" not in name
        assert not any(word in name or word.lower() in name for word in words if len(word) > 8)
