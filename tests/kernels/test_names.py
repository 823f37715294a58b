"""One name, two cells: an edit of one cell, or a mistake?"""

import time

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow names --db runs.db --badge plain"
FIRST = "%%durable_step load\nx = 1"
OTHER = "%%durable_step load\nx = 2"
REFUSED = (
    "UsageError: StepChanged: run 'names', step 'load': "
    "another cell of this notebook already uses this step name. "
    "Rename one of the two; if the other cell was deleted: %durable_reset load\n"
)


def run(kernel, code, *, cell=None, allow_stdin=False):
    """Execute a cell as a front end would that sends its id."""
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": allow_stdin}
    message = kernel.client.session.msg("execute_request", content)
    message["metadata"] = {"cellId": cell} if cell else {}
    kernel._started_at = time.monotonic()
    kernel.client.shell_channel.send(message)
    return kernel.wait(message["header"]["msg_id"])


def value(kernel):
    return kernel.run("print(x)").text.strip()


@pytest.fixture
def opened(kernel):
    assert kernel.run(OPEN).status == "ok"
    return kernel


def test_a_front_end_that_sends_cell_ids(opened):
    assert run(opened, FIRST, cell="a").status == "ok"
    assert run(opened, OTHER, cell="a").status == "ok"  # the same cell, edited
    assert value(opened) == "2"
    refused = run(opened, FIRST, cell="b")
    assert (refused.status, refused.stderr) == ("error", REFUSED)
    assert run(opened, OTHER, cell="b").status == "ok"  # a copy of the cell replays
    assert value(opened) == "2"


def test_a_headless_run(opened):
    assert run(opened, FIRST).status == "ok"
    assert run(opened, FIRST).status == "ok"
    refused = run(opened, OTHER)
    assert (refused.status, refused.stderr) == ("error", REFUSED)
    assert value(opened) == "1"
    opened.run("%durable_reset load")
    assert run(opened, OTHER).status == "ok"
    assert value(opened) == "2"


def test_a_console_in_which_a_cell_is_typed_again(opened):
    assert run(opened, FIRST, allow_stdin=True).status == "ok"
    assert run(opened, OTHER, allow_stdin=True).status == "ok"
    assert value(opened) == "2"


def test_the_next_pass_of_a_headless_notebook_may_have_edited_it(opened):
    assert run(opened, FIRST).status == "ok"
    assert opened.run(OPEN).status == "ok"
    assert run(opened, OTHER).status == "ok"
    assert value(opened) == "2"
