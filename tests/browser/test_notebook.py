"""What a person sees: a notebook in JupyterLab and Notebook 7 that goes on after its kernel has died."""

import pytest

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
    assert "loaded" in notebook.cell(1).inner_text()
    assert notebook.cell(3).inner_text().split() == ["7", "loaded"]
    notebook.kill_kernel()
    notebook.run_all()
    shot(notebook)
    assert "resuming, 2 finished" in notebook.cell(0).inner_text()
    for text in ("loaded", "[3, 4]", "replayed"):
        assert text in notebook.cell(1).inner_text()
    assert notebook.cell(2).locator("img").count() == 1
    assert notebook.cell(3).inner_text().split() == ["7", "loaded"]
