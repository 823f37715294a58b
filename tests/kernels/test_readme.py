"""What the README shows works as it is printed there."""

import re
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

README = ROOT / "README.md"


def blocks(section):
    text = README.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def printed(place, section):
    """What the one script of a section prints, run there."""
    (script,) = blocks(section)
    (place / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout


def test_the_notebook_blocks_run_in_a_kernel_and_again_after_a_kill(kernel):
    cells = blocks("In a notebook")
    assert len(cells) == 4
    assert [kernel.run(cell).status for cell in cells] == ["ok"] * 4
    kernel.sigkill()
    kernel.restart()
    again = [kernel.run(cell) for cell in cells]
    assert [cell.status for cell in again] == ["ok"] * 4
    assert again[-1].text == "34\n"
    assert [output["data"]["text/plain"].split(" · ")[1] for output in again[1].outputs[-1:]] == ["replayed"]


def test_what_shares_an_object_and_what_cannot_be_saved(kernel):
    section = README.read_text(encoding="utf-8").split("\n## In a notebook\n")[1].split("\n## ")[0]
    first, second = re.search(r"again: `(.*?)` in one cell and `(.*?)` in the next", section).groups()
    cells = [blocks("In a notebook")[0], first, second, "import sqlite3; c = sqlite3.connect(':memory:')"]
    cells[1:] = [f"%%durable_step s{n}\n{cell}" for n, cell in enumerate(cells[1:])]
    assert "c is not saved" in [kernel.run(cell) for cell in cells][-1].told
    kernel.sigkill()
    kernel.restart()
    assert [kernel.run(cell).error for cell in cells] == [None] * 4
    assert kernel.run("print(a, a is b)").text == "[1, 2] True\n"
    error = kernel.run("c.cursor()").error
    assert all(word in error for word in ("StepNotRestored", "step 's2'", "ordinary cell"))
    assert "`StepNotRestored`" in section


def test_the_cells_about_edits_say_what_is_printed_there(kernel):
    ordinary, durable = blocks("Edits and drift")
    kernel.run("%load_ext durable_nb\n%durable_workflow edits")
    assert [kernel.run(cell).status for cell in (ordinary, durable)] == ["ok", "ok"]
    kernel.run(ordinary.replace("10", "20"))
    again = kernel.run(durable)
    assert again.text == "three hours of work\n"
    told = again.outputs[-1]["metadata"]["durable_nb"]["notice"]
    assert f"```\n{told}\n```" in README.read_text(encoding="utf-8")


def test_the_script_runs_once_and_replays(tmp_path):
    first, second = (printed(tmp_path, "In a script") for _ in range(2))
    result = "['receipt for a17', 'receipt for a17-delivery']\n"
    assert first == "charging a17\ncharging a17-delivery\n" + result
    assert second == result


def test_the_waiting_script_runs(tmp_path):
    assert printed(tmp_path, "Waiting for a person") == "durable notebooks published\n"


def test_the_commands_that_answer_are_taken_as_printed(tmp_path):
    printed(tmp_path, "Waiting for a person")
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^durable-nb (signals? .*)$", text, re.MULTILINE)
    said = []
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "durable_nb.cli", *command.split()],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said.append((done.returncode, done.stdout.split(":")[0]))
    assert said == [
        (0, "no run waits for a signal\n"),
        (3, "run 'article-7' has signal 'approval' already"),  # the script has delivered it
    ]


def test_the_signal_options_it_names_are_taken(tmp_path):
    from durable_nb import Workflow

    table = README.read_text(encoding="utf-8").split("`wf.signal` |")[1].split("\n\n")[0]
    options = {name: eval(text) for name, text in re.findall(r"\| `(\w+)=([^`…]+)`", table)}
    assert options.keys() == {"prompt", "schema", "choices", "timeout", "default"}
    with Workflow("w", db=tmp_path / "a.db") as wf:
        wf.sync.complete("r", "go", True)
        del options["choices"]
        assert wf.workflow(lambda: wf.sync.signal("go", **options)).run("r") is True


def test_the_sleeping_script_runs(tmp_path):
    assert printed(tmp_path, "Time") == "a reminder for Ann\n"


def test_the_agent_runs_once_and_replays(tmp_path):
    first, second = (printed(tmp_path, "Agents") for _ in range(2))
    result = '{"transfer":"transferred 250"} 2\n'
    assert (first, second) == (f"transferring 250\n{result}", result)


def test_the_script_of_many_callers_runs(tmp_path):
    assert printed(tmp_path, "One run, many callers").splitlines() == [
        "in payment-a17",
        "charging a17",
        "['receipt for a17', 'receipt for a17']",
        "in payment-b2",
        "charging b2",
        "True",
        "True",
    ]


def test_the_places_on_redis_are_taken(redis_server, kernel):
    (block,) = blocks("Where runs are kept")
    assert kernel.run(block.replace("redis://localhost:6379/0", redis_server.url)).status == "ok"
    kernel.run("%load_ext durable_nb")
    for state in ("new", "resuming"):
        opened = kernel.run(f"%durable_workflow on-redis --db {redis_server.url}\nwf.journal.location")
        assert opened.status == "ok"
        assert redis_server.url in opened.text + str(opened.outputs)
        assert state in opened.text + str(opened.outputs)
        kernel.run("%%durable_step load\nprint('executed')\nx = 41")
        assert kernel.run("print(x + 1)").text == "42\n"
        kernel.sigkill()
        kernel.restart()
        kernel.run("%load_ext durable_nb")


def test_the_script_with_bodies_in_other_processes_runs(tmp_path):
    (script,) = blocks("Bodies on other processes and machines")
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert finished.stdout == "[(0, True), (1, True), (4, True)]\n"


def test_the_task_options_it_names_are_taken(tmp_path):
    from durable_nb import Workflow, exponential

    table = README.read_text(encoding="utf-8").split("`@wf.task` |")[1].split("\n\n")[0]
    options = {
        name: eval(text, {"exponential": exponential})
        for name, text in re.findall(r"`(\w+)=([^`…]+)`", table)
    }
    assert {
        "retries",
        "backoff",
        "retry_on",
        "timeout",
        "on_edit",
        "on_change",
        "once",
        "executor",
    } == options.keys()
    Workflow("w", db=tmp_path / "a.db").task(**options)


def test_the_options_it_names_are_those_that_there_are():
    from durable_nb.notebook.magic_options import step_parser

    named = set(re.findall(r"\| `(--[a-z-]+)", README.read_text(encoding="utf-8")))
    there = {option for action in step_parser()._actions for option in action.option_strings}
    assert named == there


def test_the_commands_that_show_runs_are_taken(tmp_path):
    from durable_nb import Workflow

    with Workflow("w", db=tmp_path / "runs.db") as wf:
        wf.workflow(lambda: 1).run("RUN_ID")
    text = README.read_text(encoding="utf-8").split("\n## One owner a run\n")[1].split("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for command in commands.splitlines():
        words = command.split()
        words[0] = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[1].startswith("RUN_ID  w.<lambda>  done")


def test_the_lines_on_its_first_screen_are_those_that_a_cell_shows(monkeypatch):
    from durable_nb.notebook.display import badge

    shown = []
    monkeypatch.setattr(badge, "display", lambda bundle, **_: shown.append(bundle["text/plain"]))
    for replayed in (False, True):
        facts = {"run": "sales-2026", "step": "load", "seconds": 3 * 3600 + 2 * 60, "names": ("sales",)}
        badge.show_cell("full", replayed=replayed, **facts)
    assert "```\n{}\n{}\n```".format(*shown) in README.read_text(encoding="utf-8")


def test_the_notebooks_it_lists_are_those_that_there_are():
    listed = re.findall(r"^\| `(\d\d_\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == sorted(path.stem for path in (README.parent / "notebooks").glob("*.ipynb"))


def test_its_links_lead_to_sections_that_there_are():
    text = README.read_text(encoding="utf-8")
    headings = [re.sub(r"[^\w -]", "", one).lower() for one in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    there = {heading.replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= there
