"""Where runs stand, asked for in a notebook; and an edit of a step that was given up by hand."""

import pytest

from durable_nb.notebook import magic_options

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
    assert ">&lt;b&gt;book&lt;/b&gt;</td>" in runs["text/html"]
    assert "<b>" not in runs["text/html"]
    heading, row = runs["text/plain"].splitlines()
    assert heading.split() == ["run", "workflow", "status", "steps", "updated", "owner"]
    assert row.split()[:5] == ["<b>book</b>", "notebook", "running", "1", "done"]
    status = shown(opened, "%durable_status")
    assert status["text/html"].count("<table>") == 2
    assert status["text/plain"].split("\n\n")[1].splitlines()[1].split()[:4] == ["load", "cell", "done", "1"]
    assert shown(opened, "%durable_status '<b>book</b>' --db runs.db") == status
    for line, words in (
        ("%durable_status none", "RunNotFound: run 'none': not found in "),
        ("%durable_runs --db none.db", "no database at"),
    ):
        cell = opened.run(line)
        assert (cell.reply["ename"], words in cell.reply["evalue"]) == ("UsageError", True)
    assert not (opened.cwd / "none.db").exists()
    opened.run("%durable_workflow '<b>book</b>' --badge plain")
    assert shown(opened, "%durable_status") == {
        "text/plain": (
            "run          workflow  status   steps\n"
            "<b>book</b>  notebook  running  1 done\n\n"
            "step  kind  status  attempts\nload  cell  done    1"
        )
    }


def test_the_status_of_a_run_says_what_failed(opened):
    opened.run("%%durable_step load\nraise ValueError('no <i>luck</i>\\nat all')")
    status = shown(opened, "%durable_status")
    assert status["text/plain"].split("\n\n")[2] == "failed  error\nload    ValueError: no <i>luck</i> at all"
    assert "<i>" not in status["text/html"]


def test_a_plain_line_names_what_is_not_saved_and_none_is_shown_where_it_is_off(opened):
    opened.run("%durable_workflow '<b>book</b>' --badge plain")
    step = "%%durable_step ledger\nimport sqlite3\nrows = [1]\nlink = sqlite3.connect(':memory:')"
    lines = [opened.run(step).outputs[-1]["data"] for _ in range(2)]
    assert lines == [{"text/plain": "durable step ledger · not saved: link"}] * 2
    opened.run("%durable_workflow '<b>book</b>' --badge off")
    assert [one["data"] for one in opened.run(step).outputs] == [{}]


def test_a_question_mark_shows_each_option_of_a_magic(opened):
    for magic, parser in (("%durable_workflow", "workflow_parser"), ("%%durable_step", "step_parser")):
        options = [text for one in getattr(magic_options, parser)()._actions for text in one.option_strings]
        told = str(opened.run(f"{magic}?").reply["payload"])
        assert options
        assert [option for option in options if option not in told] == []


def test_a_line_that_makes_no_sense_is_refused_with_how_it_is_written(opened):
    for line, words in (
        (
            "%%durable_step",
            "the following arguments are required: NAME. usage: %%durable_step NAME [--retries N]",
        ),
        ("%%durable_step a --retries x", "--retries: invalid number 'x': expected 0, 1, 2, …"),
        ("%durable_fork", "usage: %durable_fork NEW_RUN [--from STEP]"),
        (
            "%durable_plan none.ipynb",
            "none.ipynb: No such file or directory. Give the path",
        ),
    ):
        assert words in opened.run(f"{line}\nx = 1").reply["evalue"], line
    assert opened.run("%durable_restore").text == "restored 0 names from the finished steps\n"
    opened.run("%%durable_step load\nx = 1")
    assert opened.run("%durable_restore").text == "restored 1 name from the finished steps\n"


def test_a_given_up_cell_runs_again_when_it_is_edited(opened):
    opened.run("%%durable_step load\n1 / 0")
    assert opened.run("%durable_resolve load fail").status == "ok"
    assert "the step was given up on" in opened.run("%%durable_step load\n1 / 0").reply["evalue"]
    edited = "%%durable_step load\nprint('edited')\nx = 1"
    assert opened.run(edited).text == "edited\n"
    assert opened.run(edited).text == "edited\n"
    assert opened.run("print(x)").text == "1\n"
