"""What is damaged, missing or of another version: named, contained, nothing else lost, nothing executed."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from durable_nb.engine.failpoints import FAILPOINTS
from helpers import ROOT, pythonpath
from helpers.kernel import KernelDied
from helpers.marks import marked, marking

BODIES = {
    "small": "x = [1]",
    "large": "import numpy as np\nbig = np.arange(100_000.0)\nbeside = ['kept']",
    "last": "x.append(2)\ntotal = float(big.sum())",
}


class Notebook:
    """Durable cells in one kernel after another."""

    def __init__(self, kernel, db="runs.db", bodies=BODIES):
        self.kernel, self.bodies = kernel, bodies
        self.opening = f"%load_ext durable_nb\n%durable_workflow damaged --db {db}"

    def run(self):
        assert self.kernel.run(self.opening).error is None
        return {
            name: self.kernel.run(f"%%durable_step {name}\n" + marking(name, body))
            for name, body in self.bodies.items()
        }

    def again(self):
        """Kill the kernel, and run all in a new one."""
        self.kernel.sigkill()
        self.kernel.restart()
        return self.run()

    def shown(self, *expressions):
        return self.kernel.run("\n".join(f"print({one})" for one in expressions)).text.splitlines()

    def began(self):
        return Counter(marked(self.kernel.cwd.parent / "marks"))


@pytest.fixture
def start(kernel_factory, tmp_path):
    def begin(**options):
        return kernel_factory(**{**pythonpath(), "MARKS": str(tmp_path / "marks"), **options})

    return begin


def truncate(blob):
    blob.write_bytes(blob.read_bytes()[:-5000])


def flip(blob):
    data = bytearray(blob.read_bytes())
    place = random.Random("flip").randrange(len(data) // 2, len(data))
    data[place] ^= 255
    blob.write_bytes(data)


DAMAGES = {
    "torn": truncate,
    "flipped": flip,
    "empty": lambda blob: blob.write_bytes(b""),
    "gone": Path.unlink,
}


def blobs(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=DAMAGES)
def damaged(request, start):
    """A notebook with a damaged blob, run again, and what came back."""
    notebook = Notebook(start())
    assert [cell.error for cell in notebook.run().values()] == [None] * 3
    (blob,) = blobs(notebook.kernel.cwd / "runs.db.blobs")
    notebook.kernel.sigkill()
    blob.chmod(0o600)
    DAMAGES[request.param](blob)
    notebook.kernel.restart()
    return notebook, notebook.run()


def test_a_damaged_blob_is_said_and_runs_nothing_again(damaged):
    notebook, cells = damaged
    large = cells["large"]
    said = "".join([large.error or "", large.stderr, large.told])
    assert "large" in said
    assert "blob" in said or "big" in said, said
    assert notebook.began() == {"small": 1, "large": 1, "last": 1}
    assert [cells[name].error for name in ("small", "last")] == [None, None]
    assert notebook.shown("x", "total") == ["[1, 2]", "4999950000.0"]


def test_a_damaged_blob_takes_no_other_name_along(damaged):
    notebook, cells = damaged
    assert cells["large"].error is None
    assert notebook.shown("beside") == ["['kept']"]
    use = notebook.kernel.run("big.sum()").error
    assert "StepNotRestored" in use
    assert "step 'large'" in use


def test_killed_between_the_blob_and_its_row(start):
    notebook = Notebook(start())
    notebook.kernel.setenv(FAILPOINTS, "blob.after=kill@2")
    notebook.kernel.restart()
    with pytest.raises(KernelDied):
        notebook.run()
    assert len(blobs(notebook.kernel.cwd / "runs.db.blobs")) == 1
    notebook.kernel.setenv(FAILPOINTS, None)
    notebook.kernel.restart()
    assert [cell.error for cell in notebook.run().values()] == [None] * 3
    assert notebook.began() == {"small": 1, "large": 2, "last": 1}
    assert notebook.shown("x", "total", "beside") == ["[1, 2]", "4999950000.0", "['kept']"]


def test_a_disk_that_is_full_when_a_cell_commits(start, small_disk):
    # Each array is smaller than half of what is free, so that it is kept; all four are larger than that.
    arrays = "import numpy as np\nbig, b, c, d = (np.arange(20_000.0) + n for n in range(4))"
    bodies = BODIES | {"large": f"{arrays}\nbeside = ['kept']"}
    notebook = Notebook(start(), db=small_disk / "runs.db", bodies=bodies)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 400_000)
    cells = notebook.run()
    said = cells["large"].error or cells["large"].stderr
    assert "step 'large'" in said
    assert "space" in said or "full" in said
    assert notebook.shown("len(big)", "beside") == ["20000", "['kept']"], "what the cell did stays"
    filler.unlink()
    again = notebook.again()
    assert [cell.error for cell in again.values()] == [None] * 3
    assert notebook.began()["small"] == 1
    assert notebook.shown("x", "total") == ["[1, 2]", "199990000.0"]


def test_a_module_that_is_gone(start):
    bodies = {
        "made": "import shop\nbasket = shop.Basket([1])\nalias = basket.items\nn = [1]",
        "later": "n.append(2)",
    }
    notebook = Notebook(start(), bodies=bodies)
    module = notebook.kernel.cwd / "shop.py"
    module.write_text("class Basket:\n    def __init__(self, items):\n        self.items = items\n")
    assert [cell.error for cell in notebook.run().values()] == [None] * 2
    module.unlink()
    cells = notebook.again()
    assert [cell.error for cell in cells.values()] == [None] * 2
    assert "⚠ basket is not restored: ModuleNotFoundError: No module named 'shop'" in cells["made"].told
    assert notebook.shown("n") == ["[1, 2]"]
    use = notebook.kernel.run("basket.items").error
    assert "step 'made'" in use
    assert "No module named 'shop'" in use
    assert notebook.began() == {"made": 1, "later": 1}


def test_a_frame_of_another_pandas(start):
    """Its class has another name there, as when a library moves what it pickles by."""
    bodies = {
        "made": "import pandas as pd\nframe = pd.DataFrame({'a': [1]})\nn = [1]",
        "later": "n.append(2)",
    }
    notebook = Notebook(start(), bodies=bodies)
    assert [cell.error for cell in notebook.run().values()] == [None] * 2
    notebook.kernel.sigkill()
    notebook.kernel.restart()
    notebook.kernel.run("import pandas.core.internals.managers as moved; del moved.BlockManager")
    notebook.kernel.run("import pandas._libs.internals as older; del older._unpickle_block")
    cells = notebook.run()
    assert [cell.error for cell in cells.values()] == [None] * 2
    assert "frame" in cells["made"].told
    assert "step 'made'" in notebook.kernel.run("frame.sum()").error
    assert notebook.shown("n") == ["[1, 2]"]
    assert notebook.began() == {"made": 1, "later": 1}


FOR_ANY_PYTHON = {
    "code": """
def double(x):
    return [2 * one for one in x]
class Box:
    def get(self):
        return self.x
box = Box()
box.x = 5
m = ['kept']
""",
    "data": "n = {'k': [1, (2, 3)]}",
    "later": "n['k'].append(double(n['k'][:1]))",
}


@pytest.mark.long  # after the suite has run on the other Python, which made its environment
def test_another_python(start):
    version = (3, 13) if sys.version_info[:2] == (3, 12) else (3, 12)
    number = "{}.{}".format(*version)
    other = ROOT / f".venv-{number}" / "bin" / "python"
    if not other.exists():
        pytest.skip(f"NOT TESTED: no second Python; make venv PYTHON=python{number} VENV=.venv-{number}")
    notebook = Notebook(start(), bodies=FOR_ANY_PYTHON)
    assert [cell.error for cell in notebook.run().values()] == [None] * 3
    notebook.kernel.sigkill()
    paths = f"{ROOT}:{pythonpath()['PYTHONPATH']}"
    kernel = start(python=other, cwd=notebook.kernel.cwd, PYTHONPATH=paths)
    newer = Notebook(kernel, bodies=FOR_ANY_PYTHON)
    assert newer.shown("__import__('sys').version_info[:2]") == [str(version)]
    cells = newer.run()
    assert [cell.error for cell in cells.values()] == [None] * 3
    assert newer.shown("n", "m") == ["{'k': [1, (2, 3), [2]]}", "['kept']"]
    for name, use in {"double": "double([1])", "Box": "Box()", "box": "box.get()"}.items():
        assert name in cells["code"].told
        error = newer.kernel.run(use).error
        assert "StepNotRestored" in error
        assert "step 'code'" in error
        assert "Python {}.{}".format(*sys.version_info) in cells["code"].told
    assert newer.began() == {"code": 1, "data": 1, "later": 1}
