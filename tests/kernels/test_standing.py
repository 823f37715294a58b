"""Where runs stand, asked for in a notebook; and an edit of a step that was given up by hand."""

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow '<b>book</b>' --db runs.db"


@pytest.fixture
def opened(kernel):
    assert kernel.run(OPEN).status == "ok"
    return kernel


def shown(kernel, line):
    (output,) = kernel.run(line).outputs
    return output["data"]


def test_tables_of_runs_and_of_one_run(opened):
    assert opened.run("%%durable_step load\nx = 1").status == "ok"
    runs = shown(opened, "%durable_runs")
    assert "<td>&lt;b&gt;book&lt;/b&gt;</td>" in runs["text/html"]
    assert "<b>" not in runs["text/html"]
    heading, row = runs["text/plain"].splitlines()
    assert heading.split() == ["run", "workflow", "status", "steps", "waits", "for", "updated", "owner"]
    assert row.split()[:5] == ["<b>book</b>", "notebook", "running", "1", "done"]
    status = shown(opened, "%durable_status")
    assert status["text/html"].count("<table>") == 2
    assert status["text/plain"].split("\n\n")[1].splitlines()[1].split()[:4] == ["load", "cell", "done", "1"]
    assert shown(opened, "%durable_status '<b>book</b>' --db runs.db") == status
    for line, words in (
        ("%durable_status none", "RunNotFound: run 'none': there is no such run"),
        ("%durable_runs --db none.db", "there is no database"),
    ):
        cell = opened.run(line)
        assert (cell.reply["ename"], words in cell.reply["evalue"]) == ("UsageError", True)
    assert not (opened.cwd / "none.db").exists()
    opened.run("%durable_workflow '<b>book</b>' --badge plain")
    assert shown(opened, "%durable_status") == {
        "text/plain": (
            "run          workflow  status   steps   waits for\n"
            "<b>book</b>  notebook  running  1 done\n\n"
            "step  kind  status  attempts\nload  cell  done    1"
        )
    }


def test_a_given_up_cell_runs_again_when_it_is_edited(opened):
    opened.run("%%durable_step load\n1 / 0")
    assert opened.run("%durable_resolve load fail").status == "ok"
    assert "given up by hand" in opened.run("%%durable_step load\n1 / 0").reply["evalue"]
    edited = "%%durable_step load\nprint('edited')\nx = 1"
    assert opened.run(edited).text == "edited\n"
    assert opened.run(edited).text == "edited\n"
    assert opened.run("print(x)").text == "1\n"
