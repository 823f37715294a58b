"""A cell that begins with %%durable_step is a step or an error, never silently an ordinary cell."""

# ruff: noqa: E501 - a table of cells

import pytest

from durable_nb.notebook.shell.durable_cells import magic_first

OPEN = "%load_ext durable_nb\n%durable_workflow cells --db runs.db"
STEPS = {
    "a comment above": "# Slow!\n%%durable_step s\nx = 1; print('body')",
    "comments and blank lines above": "\n# Slow!\n\n  # very\n\n%%durable_step s\nx = 1; print('body')",
    "spaces before the magic": "   %%durable_step s\nx = 1; print('body')",
    "a mark of byte order": "\ufeff%%durable_step s\nx = 1; print('body')",
    "a future import": "%%durable_step s\nfrom __future__ import annotations\nx = 1; print('body')",
    "a late future import": "%%durable_step s\nimport os\nfrom __future__ import annotations\nx = 1; print('body')",
    "a late global statement": "%%durable_step s\nx = 1; print('body')\nglobal x",
    "lines that end with carriage returns": "%%durable_step s\r\nx = 1; print('body')\r\n",
}
TRANSFORMERS = {
    "cleanup": "def change(lines): return [line.replace('BODY', 'body') for line in lines]\n"
    "get_ipython().input_transformers_cleanup.append(change)",
    "after ours": "def comment(lines): return ['# added\\n', *lines]\n"
    "get_ipython().input_transformers_post.append(comment)",
    "before ours": "def more(lines): return ['import os\\n', *lines]\n"
    "get_ipython().input_transformers_post.insert(0, more)",
}


@pytest.mark.parametrize("name", STEPS)
def test_it_is_a_step_and_replays(kernel, name):
    kernel.run(OPEN)
    assert kernel.run(STEPS[name]).facts["action"] == "executed"
    kernel.sigkill()
    kernel.restart()
    kernel.run(OPEN)
    replay = kernel.run(STEPS[name])
    assert (replay.facts["action"], replay.text) == ("replayed", "body\n")
    assert kernel.run("x").result["text/plain"] == "1"


def test_it_is_a_step_beside_other_transformers(kernel):
    kernel.run(OPEN)
    for name, transformer in TRANSFORMERS.items():
        assert kernel.run(transformer).error is None
        cell = kernel.run(f"# {name}\n%%durable_step '{name}'\nprint('BODY')")
        assert (cell.facts["action"], cell.text) == ("executed", "body\n")


REFUSED = {
    "code above": ("y = 1\n%%durable_step s\nx = 1", "must be the first line of its cell: move it above"),
    "a text above": (
        "'''text'''\n%%durable_step s\nx = 1",
        "must be the first line of its cell: move it above",
    ),
    "a line magic above": ("%matplotlib inline\n%%durable_step s\nx = 1", "move it above the other code"),
    "another cell magic above": ("%%time\n%%durable_step s\nx = 1", "move it above %%time"),
    "two of them": ("%%durable_step s\nx = 1\n%%durable_step t\nx = 2", "or into a cell of its own"),
    "no top-level await": ("%autoawait off\n||%%durable_step s\nx = 1", "%autoawait asyncio"),
    "its transformer was removed": (
        "get_ipython().input_transformers_post.clear()||%%durable_step s\nx = 1",
        "To install the magic again: %reload_ext durable_nb",
    ),
    "called as a function": (
        "run = get_ipython().run_cell_magic\nrun('durable_step', 's', 'x = 1')",
        "is not a step here",
    ),
    "a transformer that takes the magic away": (
        "def bare(lines): return lines[1:] if lines[0].startswith('%%durable') else lines\nget_ipython().input_transformers_cleanup.insert(0, bare)||%%durable_step s\nx = 1",
        "Its body was executed as an ordinary cell",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_an_error_that_says_what_to_type(kernel, name):
    kernel.run(OPEN)
    code, words = REFUSED[name]
    *before, cell = code.split("||")
    for each in before:
        assert kernel.run(each).error is None
    refused = kernel.run(cell)
    assert (refused.reply["status"], refused.reply.get("ename")) == ("error", "UsageError")
    assert words in refused.reply["evalue"]
    assert "step" not in kernel.run("%durable_status").text.replace("%%durable_step", "")


def test_what_was_removed_is_installed_again(kernel):
    kernel.run(OPEN)
    kernel.run(
        "get_ipython().input_transformers_post.clear(); get_ipython().input_transformers_cleanup.pop(0)"
    )
    assert kernel.run("%reload_ext durable_nb").error is None
    assert kernel.run("# above\n%%durable_step s\nx = 1").facts["action"] == "executed"


def test_later_cells_are_compiled_with_the_features_that_a_replayed_cell_imported(kernel):
    for _ in range(2):
        kernel.run(OPEN)
        kernel.run("%%durable_step s\nfrom __future__ import annotations")
        assert kernel.run("class Node:\n    next: Later\nNode.__annotations__").result["text/plain"] == (
            "{'next': 'Later'}"
        )
        kernel.sigkill()
        kernel.restart()


def test_lines_of_a_traceback_are_those_of_the_cell(kernel):
    kernel.run(OPEN)
    failed = kernel.run("# one\n# two\n%%durable_step s\nx = 1\n1 / 0")
    assert "line 5" in failed.error
    assert "----> 5 1 / 0" in failed.error


@pytest.mark.parametrize(
    "cell",
    ["x = 1", "# %%durable_step s\nx = 1", "text = '''\n%%durable_step s\n'''", "%%durable_step s\nx", ""],
)
def test_other_cells_are_left_as_they_are(cell):
    assert magic_first(cell) == cell
