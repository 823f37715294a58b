"""What stands on the first line of a durable cell: retries, backoff, timeout, what becomes of an edit."""

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow options --db runs.db\nimport asyncio, time, os"


@pytest.fixture
def opened(shared):
    assert shared.run(OPEN).status == "ok"
    return shared


def test_a_failing_cell_is_tried_again_as_often_as_it_says(opened):
    flaky = "tries = globals().get('tries', 0) + 1\nprint('try', tries)\nif tries % 3: raise OSError(tries)"
    cell = opened.run("%%durable_step flaky --retries 2 --backoff constant:0.01\n" + flaky)
    assert (cell.status, cell.text) == ("ok", "try 1\ntry 2\ntry 3\n")
    once = opened.run("%%durable_step other\n" + flaky)
    assert once.status == "error"
    assert "OSError: 4" in once.error
    assert opened.run("%%durable_step other\n" + flaky).status == "error"  # tried again
    assert opened.run("%%durable_step other\n" + flaky).text == "try 6\n"


@pytest.mark.parametrize("body", ["time.sleep(60)", "await asyncio.sleep(60)", "while True: pass"])
def test_a_cell_that_takes_too_long_is_ended(opened, body):
    cell = opened.run("%%durable_step slow --timeout 0.3s\nprint('begun')\n" + body, timeout=20)
    assert (cell.status, cell.text) == ("error", "begun\n")
    assert "step 'slow': an attempt took longer than its timeout of 0.3 s" in (cell.error or cell.stderr)
    assert cell.seconds < 5
    assert opened.run("%%durable_step slow --timeout 30s\nprint('done')").text == "done\n"


def test_what_becomes_of_an_edited_cell(opened):
    opened.run("%%durable_step s\nx = 1")
    opened.run(OPEN)
    kept = opened.run("%%durable_step s --on-edit keep\nx = 2")
    assert (
        "replayed; its code changed; to run it again: %durable_reset s"
        in kept.outputs[-1]["data"]["text/plain"]
    )
    assert opened.run("print(x)").text == "1\n"
    opened.run(OPEN)
    refused = opened.run("%%durable_step s --on-edit error\nx = 2")
    assert "run 'options', step 's': its code changed" in refused.stderr
    opened.run(OPEN)
    again = opened.run("%%durable_step s\nx = 2")
    assert "ran again: its code changed" in again.outputs[-1]["data"]["text/plain"]
    assert opened.run("print(x)").text == "2\n"


def test_fresh_starts_over_and_done_ends(opened):
    opened.run("%%durable_step s\nprint('ran')")
    assert opened.run("%durable_workflow options --fresh").status == "ok"
    assert opened.run("%%durable_step s\nprint('ran')").text == "ran\n"
    done = opened.run("%durable_workflow --done")
    assert done.outputs[0]["data"]["text/plain"] == "▸ options · done"
    assert "no run is open" in opened.run("%%durable_step s\n1").stderr


def test_a_timeout_is_refused_outside_the_main_thread(opened):
    """As in a subshell: nothing could end the cell there."""
    cell = opened.run(
        "import asyncio, threading\n"
        "def use():\n"
        "    try: asyncio.run(get_ipython().durable_nb.durable_step('s --timeout 3s', 'begun = 1'))\n"
        "    except Exception as error: told.append(str(error))\n"
        "told = []\n"
        "thread = threading.Thread(target=use); thread.start(); thread.join()\n"
        "print(*told, 'begun' in globals())"
    )
    assert cell.text == (
        "InvalidOption: step 's': invalid --timeout outside the main thread: Python cannot end code in a "
        "thread. Leave --timeout out, or run the cell in the kernel's main shell. False\n"
    )


@pytest.mark.parametrize("timeout", ["soon", "0", "-1s", "5d", "nan"])
def test_a_timeout_that_is_no_time(opened, timeout):
    cell = opened.run(f"%%durable_step s --timeout {timeout}\n1")
    assert cell.stderr.startswith("UsageError: %%durable_step: argument --timeout: ")
    assert cell.stderr.count("\n") == 1
