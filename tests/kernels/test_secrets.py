"""Secrets of many kinds in a notebook, each searched for afterwards in all that is kept and shown."""

import subprocess
import sys

from helpers.notebooks import write_notebook
from helpers.secrets_of import IN_CODE, IN_TEXTS, KNOWN, some

OPEN = "%load_ext durable_nb\n%durable_workflow canaries --db runs.db"
SETUP = """
import os
class Anything(dict):
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name): return Anything()
    def __call__(self, *args, **kwargs): return Anything()
Client = SecretStr = Anything
openai, keyring, options = Anything(), Anything(), {}
token, n = None, 1
def allow(): pass
"""


def canaries():
    """New secrets of each kind, in ordinary cells: what they are called, the cell, the secret."""
    for kind in KNOWN:
        secret = f"{KNOWN[kind][:-6]}{some(6)}" if kind != "age" else KNOWN[kind]
        yield f"shape_{kind}", f"shape_{kind} = ['eu', {secret!r}]", secret
    for kind, (text, secret) in IN_TEXTS.items():
        yield f"text_{kind}", f"text_{kind} = {text!r}", secret.splitlines()[0]
    for kind, (source, _) in IN_CODE.items():
        secret = str(90210000 + len(kind)) if kind == "as_a_number" else f"hush-{kind}-{some(4)}"
        template = source.replace(IN_CODE[kind].secret, secret)
        if kind != "in_a_comment":  # of no statement
            yield f"code_{kind}", f"{template}\ncode_{kind} = {read_from(template)}", secret


def read_from(source):
    """An expression that depends on a cell."""
    name = source.partition("=")[0].strip()
    return name if name.isidentifier() else "n"


def cells_of(found):
    ordinary = [cell for _, cell, _ in found]
    names = ", ".join(name for name, _, _ in found)
    return [SETUP, *ordinary, f"%%durable_step read\nread = len([{names}, client, hdr, connect, C, f])"]


def kept(folder):
    """All bytes of the database: its file, its log, its mark, its blobs."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".db" in str(path))


def shown(cells):
    """All that the notebook would hold of these cells' outputs, except their own source."""
    return "".join(
        str(message["content"]) for cell in cells for message in cell.messages if is_output(message)
    )


def is_output(message):
    return message["msg_type"] not in ("execute_input", "status")


def command(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "durable_nb.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def leaks(found, *places):
    """The kinds whose secret stands in one of the places."""
    texts = [place if isinstance(place, bytes) else place.encode() for place in places]
    return [name for name, _, secret in found if any(secret.encode() in text for text in texts)]


def run_all(kernel, cells):
    done = [kernel.run(cell) for cell in cells]
    assert [cell.error for cell in done if cell.error] == []
    return done


def test_no_secret_of_code_is_kept_or_shown_also_after_a_rotation(kernel):
    old, new = list(canaries()), list(canaries())
    assert len(old) >= 90
    run_all(kernel, [OPEN, *cells_of(old)])
    kernel.sigkill()
    kernel.restart()
    write_notebook(kernel.cwd / "n.ipynb", [OPEN, *cells_of(new)])
    planned = command(kernel.cwd, "plan", "n.ipynb")
    assert "read  run      it now reads" in planned
    done = run_all(kernel, [OPEN, *cells_of(new)])
    assert "ran again: it now reads" in done[-1].facts["notice"]
    status = command(kernel.cwd, "status", "canaries", "--db", "runs.db")
    assert leaks(old + new, kept(kernel.cwd), shown(done), planned, status) == []


def test_each_rotated_secret_is_noticed_and_the_badge_says_where(kernel):
    old, new = list(canaries()), list(canaries())
    for _, found in (("old", old), ("new", new)):
        run_all(kernel, [OPEN, SETUP, *(cell for _, cell, _ in found)])
        steps = [kernel.run(f"%%durable_step of_{name}\nr = str({name})[:0]") for name, _, _ in found]
    notices = {name: step.facts.get("notice", "") for (name, _, _), step in zip(new, steps, strict=True)}
    constant = {name for name, cell, _ in new if cell in {each for _, each, _ in old}}
    unseen = {name for name, notice in notices.items() if "now reads" not in notice} - constant
    assert {name for name in unseen if not name.startswith("code_")} == set()
    assert all("\u2039hidden\u203a" in notices[name] for name, _, _ in new if name not in unseen | constant)


FAILURES = """
import durable_nb, found
wf = durable_nb.Workflow("fails", db="runs.db")
@wf.task(retries=0)
def connect(where, password): raise ConnectionError(f"refused: {where}", {"token": password})
@wf.task
def fine(where, pw, headers): return 1
@wf.workflow
def main():
    for name, (where, secret) in found.FOUND.items():
        try:
            fine(where, secret + AGAIN, {"Authorization": secret + AGAIN}, step_id=f"of {name}")
        except durable_nb.errors.StepChanged as error:
            print(error)
        try:
            connect(where, secret, step_id=name)
        except ConnectionError as error:
            failures.append(error)
    fine("last", "", None, step_id="last")
    if not AGAIN:
        raise KeyError("a run that is done would not be executed again")
failures, AGAIN = [], ""
"""


def test_no_secret_of_arguments_and_errors_is_kept_or_shown(kernel):
    found = {f"t_{name}": tuple(held) for name, held in IN_TEXTS.items()}
    found |= {f"k_{name}": (f"with {secret}", secret) for name, secret in KNOWN.items()}
    (kernel.cwd / "fails.py").write_text(FAILURES)
    (kernel.cwd / "found.py").write_text(f"FOUND = {found!r}")
    assert "KeyError" in kernel.run("import fails\nfails.main.run('r')").error
    kernel.sigkill()
    kernel.restart()
    [again] = run_all(kernel, ["import fails\nfails.AGAIN = '2'\nfails.main.run('r')"])
    [caught] = run_all(kernel, ["print([type(one).__name__ for one in fails.failures], fails.failures)"])
    assert again.text.count("its arguments changed") == len(found)
    assert again.text.count("pw: another value") == len(found)
    assert caught.text.count("'ConnectionError'") == len(found)
    status = command(kernel.cwd, "status", "r", "--db", "runs.db")
    assert "refused: " in status
    canary = [(name, "", secret.splitlines()[0]) for name, (_, secret) in found.items()]
    assert leaks(canary, kept(kernel.cwd), status, shown([again, caught])) == []


HOLDS = """%%durable_step load
import os
api_key, rows = "hush-hush", [1, 2]
config = {"db": {"password": "hush-hush"}}
"""
LEFT_OUT = """%%durable_step load --exclude api_key,config
import os
api_key, rows = "hush-hush", [1, 2]
config = {"db": {"password": "hush-hush"}}
"""


def test_a_secret_among_the_names_of_a_cell_is_named_once_with_the_ways_out(kernel):
    [_, first, again] = run_all(kernel, [OPEN, HOLDS, HOLDS.replace("[1, 2]", "[1, 2, 3]")])
    assert "⚠ api_key looks like a secret, and is saved." in first.told
    assert "⚠ config['db']['password'] looks like a secret, and is saved." in first.told
    assert "%%durable_step load --exclude api_key" in first.told
    assert f"durable-nb forget {kernel.cwd / 'runs.db'} --run canaries --step load" in first.told
    assert "rows looks" not in first.told
    assert "looks like a secret" not in again.told
    assert b"hush-hush" in kept(kernel.cwd)  # it is data


def test_an_excluded_name_is_not_kept_and_its_placeholder_says_so(kernel):
    [_, told] = run_all(kernel, [OPEN, LEFT_OUT])
    assert "excluded api_key, config" in told.told
    assert "looks like a secret" not in told.told
    assert b"hush-hush" not in kept(kernel.cwd)
    kernel.sigkill()
    kernel.restart()
    [_, replayed] = run_all(kernel, [OPEN, LEFT_OUT])
    assert "replayed" in replayed.told
    assert kernel.run("rows").result["text/plain"] == "[1, 2]"
    assert "`--exclude` leaves it out" in kernel.run("api_key").result["text/plain"]
    assert "`api_key` could not be restored" in kernel.run("len(api_key)").error


def test_an_excluded_name_that_is_the_cells_last_value_is_not_kept_as_that(kernel):
    run_all(kernel, [OPEN, "%%durable_step last --exclude token\ntoken = 'hush-hush'\ntoken;"])
    assert b"hush-hush" not in kept(kernel.cwd)


def test_an_excluded_name_that_is_none_or_was_kept_before_is_named(kernel):
    [_, told] = run_all(kernel, [OPEN, "%%durable_step s --exclude tokn\ntoken = 'hush-hush'"])
    assert "--exclude tokn: the cell has bound no such name" in told.told
    kernel.sigkill()
    kernel.restart()
    [_, replayed] = run_all(kernel, [OPEN, "%%durable_step s --exclude token\ntoken = 'hush-hush'"])
    assert "token: saved before `--exclude` was added" in replayed.told
    assert f"durable-nb forget {kernel.cwd / 'runs.db'} --run canaries --step s" in replayed.told
    assert "invalid names 'a-b'" in kernel.run("%%durable_step x --exclude a-b\ny = 1").stderr


HIDING = """%%durable_step hiding
from pydantic import BaseModel, SecretStr, SecretBytes
class Settings(BaseModel):
    user: str
    key: SecretStr
settings, rows = Settings(user="ann", key="hush-hush"), [1]
alone = SecretBytes(b"hush-hush")
"""


def test_what_hides_its_value_is_not_kept(kernel):
    [_, told] = run_all(kernel, [OPEN, HIDING])
    assert "alone is not saved: pydantic.types.SecretBytes cannot be saved" in told.told
    assert (
        "settings is not saved: it contains pydantic.types.SecretStr at .key, which cannot be saved"
        in told.told
    )
    assert "Read it in an ordinary cell, from the environment" in told.told
    assert b"hush-hush" not in kept(kernel.cwd)


TASKS = """
import durable_nb
from pydantic import SecretStr
wf = durable_nb.Workflow("hides", db="runs.db")
@wf.task(retries=0)
def login(key): return 1 if key.get_secret_value() == "hush-hush" else 0
@wf.task(retries=0)
def leak(): return {"key": SecretStr("hush-hush")}
@wf.workflow
def main():
    print(login(SecretStr("hush-hush")))
    leak()
try:
    main.run("r")
except durable_nb.errors.StepNotSaved as error:
    print(error)
"""


def test_what_hides_its_value_is_given_to_a_task_and_not_kept_as_its_result(kernel):
    [told] = run_all(kernel, [TASKS])
    assert told.text.startswith("1\n")
    assert "it contains pydantic.types.SecretStr at ['key'], which cannot be saved" in told.text
    assert "Return the name of an environment variable that has it" in told.text
    assert b"hush-hush" not in kept(kernel.cwd)


def test_a_copy_of_an_ordinary_cells_object_beside_a_result_holds_no_secret(kernel):
    ordinary = "class Api:\n    api_key = 'hush-hush'\n    def rows(self): return [1]"
    durable = "%%durable_step use\napi = Api()\nrows = api.rows()"
    run_all(kernel, [OPEN, ordinary, durable])
    assert b"hush-hush" not in kept(kernel.cwd)
    kernel.sigkill()
    kernel.restart()
    run_all(kernel, [OPEN, ordinary, durable])
    assert kernel.run("api.rows()").result["text/plain"] == "[1]"


def test_the_kept_source_of_a_function_is_without_secrets_and_the_function_is_not_taken_for_edited(kernel):
    cell = "%%durable_step make\ndef ask(n):\n    note = dict(password='hush-hush')\n    return n\n"
    use = "from durable_nb import durable_step\nasked = durable_step(ask)(3)"
    run_all(kernel, [OPEN, cell, use])
    assert kernel.run("import inspect; print(inspect.getsource(ask))").text.count("hush-hush") == 1
    kernel.sigkill()
    kernel.restart()
    [*_, used] = run_all(kernel, [OPEN, cell, use])
    assert "its code changed" not in shown([used])
    source = kernel.run("import inspect; print(inspect.getsource(ask))").text
    assert "note = dict(password='\u2039hidden\u203a')" in source
