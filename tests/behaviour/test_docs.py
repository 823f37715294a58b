"""The README and docs/: scripts print what is said here, commands are taken, links and paths lead somewhere.

Notebooks of these pages run in kernels/test_docs.py. Between the two, no block of Python is left out.
"""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from helpers import ROOT, pages
from helpers.pages import section

LINK = re.compile(r"\]\(([^)\s]+)\)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = [one for one in pages.sections() if one.blocks() and not one.is_notebook]

# The lines that each script prints when it is run, and when it is run again in the same directory.
CHARGED = ["['receipt for a17', 'receipt for a17-delivery']"]
JOINED = ["['receipt for a17', 'receipt for a17']", "in payment-b2"]
PRINTED = {
    "README.md: A workflow": (["charging a17", "receipt for a17"], ["receipt for a17"]),
    "README.md: An agent": (
        ["asking for the weather", '{"weather":"sunny in a"}'],
        ['{"weather":"sunny in a"}'],
    ),
    "docs/scripts.md: Tasks and workflows": (
        ["charging a17", "charging a17-delivery", *CHARGED],
        CHARGED,
    ),
    "docs/scripts.md: Time and chance": (
        ["charging with key 36", "receipt for a17, due in 13 days"],
        ["receipt for a17, due in 13 days"],
    ),
    "docs/scripts.md: After a crash": (["charging a17", "receipt for a17"], ["receipt for a17"]),
    "docs/scripts.md: Changes of arguments": (["cleaning", "2.0"], ["2.0"]),
    "docs/signals.md: Waiting for a person": (["durable notebooks published"],) * 2,
    "docs/signals.md: Messages": (["['hello', 'how are you?']"],) * 2,
    "docs/signals.md: Time": (["a reminder for Ann"],) * 2,
    "docs/agents.md: A durable agent": (
        ["transferring 250", '{"transfer":"transferred 250"} 2'],
        ['{"transfer":"transferred 250"} 2'],
    ),
    "docs/joining.md: One run, many callers": (
        ["in payment-a17", "charging a17", *JOINED, "charging b2", "True", "True"],
        [*JOINED[:1], "True", "True"],
    ),
    "docs/stores.md: A Redis server": ([], []),
    "docs/executors.md: Any executor": (["[(0, True), (1, True), (4, True)]"],) * 2,
    "docs/executors.md: Dask": ([], []),
}


@pytest.fixture
def dask_scheduler():
    """The address of a Dask scheduler."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, protocol="tcp://", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def printed(place, text):
    """The lines that a script prints, run in a directory by a process of its own."""
    (place / "script.py").write_text(text)
    command = [sys.executable, "-W", "error::UserWarning:__main__", "script.py"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def script_of(page, heading):
    (script,) = section(page, heading).blocks()
    return script


@pytest.mark.parametrize("one", SCRIPTS, ids=str)
def test_a_script_prints_what_it_should_and_again_when_it_replays(one, tmp_path, request):
    (script,) = one.blocks()  # one section, one script
    if "redis://localhost:6379/0" in script:
        script = script.replace("redis://localhost:6379/0", request.getfixturevalue("redis_server").url)
    if "tcp://scheduler:8786" in script:
        script = script.replace("tcp://scheduler:8786", request.getfixturevalue("dask_scheduler"))
    assert (printed(tmp_path, script), printed(tmp_path, script)) == PRINTED[str(one)]


def test_every_block_has_a_language_and_every_script_has_its_output_here():
    named = {(str(one), language) for one in pages.sections() for language, _ in one.fences}
    assert [one for one in named if one[1] not in pages.LANGUAGES] == []
    assert {str(one) for one in SCRIPTS} == PRINTED.keys()
    fenced = sum(len(one.fences) for one in pages.sections())
    lines = [line.strip() for page in pages.PAGES for line in pages.text_of(page).splitlines()]
    marks = [line for line in lines if line.startswith(("```", "~~~"))]
    assert len(marks) == 2 * fenced  # none is indented, left open, or above the first heading


def test_what_a_page_prints_under_a_script_is_what_it_prints():
    for one in SCRIPTS:
        for text in one.blocks("text"):
            assert text.splitlines() in PRINTED[str(one)]


def commands():
    """Each line of the blocks of shell, without its comment."""
    for one in pages.sections():
        for block in one.blocks("sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield pytest.param(words, id=f"{one}: {shlex.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_is_taken(words):
    from durable_nb.cli import _parser

    name, *rest = words
    if name == "durable-nb":
        assert _parser(rest).parse_args(rest).run
    elif name == "make":
        targets = re.findall(r"^([\w-]+)(?: [\w./$()-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        assert {each for some in extras for each in some.split(",")} <= PROJECT[
            "optional-dependencies"
        ].keys()
    else:
        assert name in ("git", "pre-commit")


def test_extras_that_are_named_are_those_that_there_are():
    named = {
        extra
        for page in pages.PAGES
        for some in re.findall(r"(?:durable_nb|'\.)\[([\w,-]+)\]", pages.prose_of(page))
        for extra in some.split(",")
    }
    assert named <= PROJECT["optional-dependencies"].keys()


def slug(heading):
    """What GitHub and MkDocs call the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_to_files_and_headings_that_there_are(page):
    broken = []
    for link in LINK.findall(pages.prose_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        inside = target.resolve().relative_to(ROOT).as_posix()
        if not target.exists() or (anchor and anchor not in map(slug, pages.headings_of(inside))):
            broken.append(link)
    assert broken == []


def test_every_page_is_on_the_map():
    linked = {link.partition("#")[0] for link in LINK.findall(pages.text_of("docs/index.md"))}
    there = {page.removeprefix("docs/") for page in pages.PAGES if page.startswith("docs/")}
    assert there - {"index.md"} <= linked


@pytest.mark.parametrize("page", pages.PAGES)
def test_paths_that_a_page_names_are_there(page):
    text = pages.text_of(page)
    paths = re.findall(r"\b(?:durable_nb|tests|benchmarks|notebooks|examples|docs)/[\w./-]*[\w/]", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_modules_in_the_diagrams_of_the_architecture_are_there():
    diagrams = [
        text for one in pages.sections() if one.page == "docs/architecture.md" for text in one.blocks("text")
    ]
    named = re.findall(
        r"(?:^|[ │├─►]) ((?:[a-z_]+/)+(?:[a-z_]+\.py)?)(?=\s)", "\n".join(diagrams), re.MULTILINE
    )
    assert len(named) > 20
    assert [path for path in named if not (ROOT / "durable_nb" / path).exists()] == []


def test_identifiers_in_the_architecture_are_there():
    classes = re.findall(
        r"`([A-Z][a-z]+(?:[A-Z][a-z]*)+|[A-Z]{2,}(?:_[A-Z]+)+)`", pages.text_of("docs/architecture.md")
    )
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "durable_nb").rglob("*.py"))
    assert [name for name in classes if not re.search(rf"\b{name}\b", source)] == []


def test_an_image_is_small():
    images = [path for path in (ROOT / "docs" / "images").iterdir() if path.stat().st_size > 150_000]
    assert images == []


def test_the_readme_is_two_screens():
    assert len(pages.text_of("README.md").splitlines()) <= 140


def test_the_command_that_sends_is_taken_as_printed(tmp_path):
    printed(tmp_path, script_of("docs/signals.md", "Messages"))
    (block,) = section("docs/signals.md", "Messages").blocks("sh")
    done = subprocess.run(
        [sys.executable, "-m", "durable_nb.cli", *shlex.split(block)[1:]],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "message sent to run 'chat-7' under 'messages'\n"


def test_the_commands_that_answer_are_taken_as_printed(tmp_path):
    printed(tmp_path, script_of("docs/signals.md", "Waiting for a person"))
    (block,) = section("docs/signals.md", "Prompts and commands").blocks("sh")
    said = []
    for command in block.splitlines():
        done = subprocess.run(
            [sys.executable, "-m", "durable_nb.cli", *command.split()[1:]],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said.append((done.returncode, done.stdout.split(":")[0]))
    assert said == [
        (0, "no run waits for a signal\n"),
        (3, "nothing was changed"),  # the script has delivered it
    ]


def test_the_commands_that_show_runs_are_taken(tmp_path):
    from durable_nb import Workflow

    with Workflow("w", db=tmp_path / "runs.db") as wf:
        wf.workflow(lambda: 1).run("RUN_ID")
    (block,) = section("docs/ownership.md", "Which runs there are").blocks("sh")
    for command in block.splitlines():
        words = [sys.executable, "-m", "durable_nb.cli", *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[1].startswith("RUN_ID  w.<lambda>  done")


def table(page, heading):
    """The rows of the tables of a section, each a list of its cells."""
    rows = re.findall(r"^\| (.*) \|$", section(page, heading).text, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_the_signal_options_it_names_are_taken(tmp_path):
    from durable_nb import Workflow

    cells = " ".join(row[0] for row in table("docs/signals.md", "Waiting for a person"))
    options = {name: eval(text) for name, text in re.findall(r"`(\w+)=([^`…]+)`", cells)}
    assert options.keys() == {"prompt", "schema", "choices", "timeout", "default"}
    with Workflow("w", db=tmp_path / "a.db") as wf:
        wf.sync.complete("r", "go", True)
        del options["choices"]
        assert wf.workflow(lambda: wf.sync.signal("go", **options)).run("r") is True


def test_the_task_options_it_names_are_taken(tmp_path):
    from durable_nb import Workflow, exponential

    cells = " ".join(row[0] for row in table("docs/scripts.md", "Options of a task"))
    options = {
        name: eval(text, {"exponential": exponential})
        for name, text in re.findall(r"`(\w+)=([^`…]+)`", cells)
    }
    assert {
        "retries",
        "backoff",
        "retry_on",
        "timeout",
        "on_edit",
        "on_change",
        "on_drift",
        "once",
        "failure",
        "executor",
    } == options.keys()
    Workflow("w", db=tmp_path / "a.db").task(**options)


def test_the_options_of_a_cell_that_it_names_are_those_that_there_are():
    from durable_nb.notebook.magic_options import step_parser

    rows = table("docs/notebooks.md", "Options of a durable cell")
    named = {option for row in rows for option in re.findall(r"^`(--[a-z-]+)", row[0])}
    there = {option for action in step_parser()._actions for option in action.option_strings}
    assert named == there


def test_the_lines_under_a_cell_are_those_that_it_shows(monkeypatch):
    from durable_nb.notebook.display import badge

    shown = []
    monkeypatch.setattr(badge, "display", lambda bundle, **_: shown.append(bundle["text/plain"]))
    for replayed in (False, True):
        facts = {"run": "sales-2026", "step": "load", "seconds": 3 * 3600 + 2 * 60, "names": ("sales",)}
        badge.show_cell("full", replayed=replayed, **facts)
    assert section("docs/notebooks.md", "Notebooks").blocks("text") == ["{}\n{}\n".format(*shown)]


def test_the_notebooks_it_lists_are_those_that_there_are():
    rows = table("docs/index.md", "Examples and notebooks")
    listed = [name for row in rows for name in re.findall(r"^`(\d\d_\w+)`$", row[0])]
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_magics_it_names_are_those_that_there_are():
    from durable_nb.notebook.magics import DurableMagics

    rows = table("docs/notebooks.md", "Magics")
    named = {name for row in rows for name in re.findall(r"^`%%?(durable_\w+)", row[0])}
    assert named == {name for name in vars(DurableMagics) if name.startswith("durable_")}


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_is_worded_by_the_rules(page):
    words = re.sub(r"`[^`]*`", "", pages.prose_of(page))
    assert (
        re.findall(r"\b(?:nobody|somebody|whoever|makes? no sense|the same for)\b", words, re.IGNORECASE)
        == []
    )
    assert [line for line in pages.text_of(page).splitlines() if len(line) > 120 and line[0] != "|"] == []
