"""State outside the namespace: what durable cells changed of it is there again in a new kernel."""

import pytest

OPEN = "%load_ext durable_nb\n%durable_workflow ambient --db runs.db"
# Each cell, and what must hold after it and after its replay: an expression and its repr.
CELLS = {
    "random": ("import random\nrandom.seed(3)\nfirst = random.random()", "random.getstate()[1][-1]"),
    "numpy": (
        (
            "import numpy as np\nnp.random.seed(4)\nnp.random.normal()\nnp.seterr(over='ignore')\n"
            "np.set_printoptions(precision=3)"
        ),
        "np.random.get_state()[2:], np.geterr()['over'], np.get_printoptions()['precision']",
    ),
    "environment": (
        "import os\nos.environ['MODE'] = 'x'\nos.environ['API_KEY'] = 'hush-hush'\ndel os.environ['GONE']",
        "os.environ['MODE'], 'GONE' in os.environ",
    ),
    "path": (
        "import sys\nsys.path.insert(0, os.path.abspath('sub'))\nimport local\nthing = local.Thing()",
        "sys.path[0].endswith('sub'), type(thing) is local.Thing",
    ),
    "directory": ("os.chdir('sub')", "os.path.basename(os.getcwd())"),
    "pandas": (
        (
            "import pandas as pd\npd.set_option('display.max_rows', 7)\n"
            "def shout(x): return f'{x}!'\npd.options.display.float_format = shout"
        ),
        "pd.get_option('display.max_rows'), '1.5!' in str(pd.Series([1.5]))",
    ),
    "matplotlib": (
        "import matplotlib.pyplot as plt\nplt.rcParams['figure.figsize'] = (2, 1)",
        "list(plt.rcParams['figure.figsize'])",
    ),
    "python": (
        (
            "import decimal, logging, warnings\ndecimal.getcontext().prec = 7\n"
            "logging.getLogger().setLevel(10)\nwarnings.filterwarnings('ignore', 'hush')"
        ),
        "decimal.getcontext().prec, logging.getLogger().level, warnings.filters[0][0]",
    ),
    "loggers": (
        (
            "log = logging.getLogger('mine.part')\nlog.setLevel(10)\nlog.propagate = False\n"
            "shown = logging.StreamHandler(sys.stdout)\nshown.setFormatter(logging.Formatter('%(name)s!'))\n"
            "log.addHandler(shown)\nfiled = logging.FileHandler('my.log', mode='w')\nlog.addHandler(filed)\n"
            "log.info('first')\nlogging.basicConfig(format='root: %(message)s', stream=sys.stdout)"
        ),
        "log.info('next'), logging.error('no'), log.handlers == [shown, filed], open('my.log').read()[:11]",
    ),
    "handlers": (
        "import threading\nodd = logging.Handler()\nodd.own = threading.local()\nlog.addHandler(odd)",
        "log.handlers[0] is shown",
    ),
    "drawn": ("second = random.random(), np.random.random()", "second"),
}
NEXT_DRAWS = "print(random.random(), np.random.random(), np.random.normal(), first, second)"
FIGURES = (
    (
        "%config InlineBackend.close_figures = False\nfig, ax = plt.subplots(num=5)\n"
        "plt.figure('other')\nplt.figure(5)"
    ),
    "plt.title('later')",
    "plt.close('other')",
)
HELD = "print(plt.get_fignums(), fig.number, plt.gcf() is fig, plt.gca() is ax, ax.get_title())"


def run_all(kernel):
    """Run every cell; gives the badges by name, the state after each, the next draws, and the figures."""
    assert kernel.run(OPEN).status == "ok"
    badges, states = {}, []
    for name, (code, state) in CELLS.items():
        badges[name] = badge(kernel.run(f"%%durable_step {name}\n{code}"))
        states.append(kernel.run(f"print({state})").text)
    for number, code in enumerate(FIGURES):
        badges[f"fig{number}"] = badge(kernel.run(f"%%durable_step fig{number}\n{code}"))
    return badges, states, kernel.run(HELD).text, kernel.run(NEXT_DRAWS).text


def badge(cell):
    assert cell.status == "ok", cell.error
    [text] = [one["data"]["text/plain"] for one in cell.outputs if "durable_nb" in one.get("metadata", {})]
    return text


@pytest.fixture
def folder(tmp_path):
    work = tmp_path / "ambient"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "local.py").write_text("class Thing: pass\n")
    return work


def test_what_cells_changed_around_them_comes_back(kernel_factory, folder):
    first = kernel_factory(cwd=folder, GONE="here")
    badges, states, held, draws = run_all(first)
    assert "sub\n" in states
    assert held == "[5] 5 True True later\n"
    assert "os.environ['API_KEY'] is not saved: it looks like a secret" in badges["environment"]
    assert "odd is not saved" in badges["handlers"]
    assert "mine.part!\nroot: no\nNone None True first\nnext\n\n" in states
    first.sigkill()
    assert b"hush-hush" not in b"".join(path.read_bytes() for path in folder.glob("runs.db*"))
    again = kernel_factory(cwd=folder, GONE="here")
    replayed, *restored = run_all(again)
    assert restored == [states, held, draws]
    assert all("replayed" in one for one in replayed.values())
    assert again.run("print(os.environ.get('API_KEY'))").text == "None\n"
    for name in ("environment", "handlers"):
        assert "is not restored" in replayed[name]


def test_how_figures_are_shown_comes_back(kernel_factory):
    cells = (
        "import matplotlib.pyplot as plt\n%matplotlib inline",
        "%config InlineBackend.figure_format = 'svg'\n%config InlineBackend.close_figures = False",
        "%config InlineBackend.print_figure_kwargs = {'facecolor': 'red'}\n_ = plt.figure(3).add_subplot()",
    )
    seen = []
    for _ in range(2):
        kernel = kernel_factory()
        kernel.run(OPEN)
        badges = [badge(kernel.run(f"%%durable_step c{n}\n{code}")) for n, code in enumerate(cells)]
        drawn = kernel.run("_ = plt.figure(4).add_subplot()").outputs
        seen.append(([sorted(one["data"]) for one in drawn], kernel.run("print(plt.get_fignums())").text))
        kernel.sigkill()
    assert seen[0] == seen[1] == ([["image/svg+xml", "text/plain"]], "[3, 4]\n")
    assert [text for text in badges if "replayed" not in text or "not saved" in text] == []


def test_a_backend_without_windows_comes_back_and_another_is_named(kernel_factory):
    cells = ("import matplotlib.pyplot as plt\nplt.switch_backend('svg')\nfig = plt.figure(7)", "x = 1")
    state = "print(plt.get_backend(), plt.get_fignums(), plt.gcf() is fig)"
    for _ in range(2):
        kernel = kernel_factory()
        kernel.run(OPEN)
        for number, code in enumerate(cells):
            assert "not saved" not in badge(kernel.run(f"%%durable_step c{number}\n{code}"))
        assert kernel.run(state).text == "svg [7] True\n"
        kernel.sigkill()
    first = kernel_factory()
    first.run(OPEN)
    chosen = "import matplotlib\nmatplotlib.rcParams['backend'] = 'webagg'"
    first.run(f"%%durable_step web\n{chosen}")
    first.sigkill()
    again = kernel_factory()
    again.run(OPEN)
    assert "matplotlib's backend is not restored: the backend was webagg" in badge(
        again.run(f"%%durable_step web\n{chosen}")
    )


def test_a_directory_that_is_gone_is_named(kernel_factory, folder):
    first = kernel_factory(cwd=folder)
    first.run(OPEN)
    first.run("%%durable_step move\nimport os\nos.mkdir('gone'); os.chdir('gone')\nx = 1")
    first.sigkill()
    (folder / "gone").rmdir()
    again = kernel_factory(cwd=folder)
    again.run(OPEN)
    cell = again.run("%%durable_step move\nimport os\nos.mkdir('gone'); os.chdir('gone')\nx = 1")
    assert "working directory is not restored: FileNotFoundError" in badge(cell)
    assert again.run("print(x)").text == "1\n"


def test_a_stopped_cell_names_what_it_changed_and_restore_puts_it_back(kernel):
    kernel.run(OPEN + " --badge plain")
    kernel.run("%%durable_step load\nimport random\nrows = [1]; n = 1; random.seed(1); kept = (rows,)")
    kernel.run("own = [1]")
    draws = "print(random.random())"
    expected = kernel.run(draws).text
    kernel.run("%durable_restore")
    stopped = kernel.run(
        "%%durable_step clean\nrows.append(2); n += 1; own.append(2); new = 1; random.random()\n"
        "1 / 0\nlater = 1"
    )
    assert stopped.status == "error"
    assert badge_of(stopped) == (
        "durable step clean stopped · changed before it stopped: new, n, rows, kept, own"
        " · to restore n, rows, kept: %durable_restore"
    )
    told = kernel.run("%durable_restore")
    assert told.text == "restored 4 names from the finished steps\n"
    assert kernel.run("print(rows, n, own, kept[0] is rows)").text == "[1] 1 [1, 2] True\n"
    assert kernel.run(draws).text == expected
    silent = kernel.run("%%durable_step nothing\n1 / 0")
    assert [one["output_type"] for one in silent.outputs] == ["error"]


def badge_of(cell):
    return next(one["data"]["text/plain"] for one in cell.outputs if one["output_type"] == "display_data")


def test_an_interrupted_cell_names_what_it_changed(kernel):
    kernel.run(OPEN + " --badge plain")
    request = kernel.start(
        "%%durable_step wait\nimport time\nx = 1\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    kernel.wait(request, until="begun")
    kernel.interrupt()
    stopped = kernel.wait(request)
    told = "durable step wait stopped · changed before it stopped: time, x"
    assert badge_of(stopped) == f"{told} · to keep that as its result: %durable_keep"


def test_restore_without_running_cells_in_a_new_kernel(kernel_factory):
    first = kernel_factory()
    first.run(OPEN)
    first.run("%%durable_step a\nx = [1]; con = (i for i in x)\nopen('ran', 'a').write('a')")
    first.run("%%durable_step b\nx.append(2); y = x")
    first.sigkill()
    again = kernel_factory()
    again.run(OPEN)
    told = again.run("%durable_restore").text
    assert told.startswith("restored 2 names from the finished steps\ncon: ")
    assert again.run("print(x, y is x)").text == "[1, 2] True\n"
    assert (again.cwd / "ran").read_text() == "a"


def test_a_name_whose_changes_cannot_be_seen_is_told_once_and_only_where_it_is_named(kernel):
    kernel.run(OPEN)
    kernel.run("import sqlite3; con = sqlite3.connect(':memory:')")
    told = "con cannot be saved: any in-place changes to it are not in the checkpoint."
    assert told not in badge(kernel.run("%%durable_step other\nx = 1"))
    assert told in badge(kernel.run("%%durable_step uses\ncon.execute('create table t(a)')"))
    assert told not in badge(kernel.run("%%durable_step again\ncon.execute('drop table t')"))


def test_a_sweep_over_its_budget_says_what_it_did_not_look_at(kernel):
    kernel.run(OPEN)
    kernel.run("from durable_nb import settings; settings.SWEEP_BUDGET = 0.0")
    kernel.run("big = [[i] for i in range(9)]; near = [0]; far = [0]\ndef touch(): far.append(1)")
    text = badge(kernel.run("%%durable_step a\nnear.append(1); touch()"))
    assert "): big. In-place changes to them were not saved." in text
    assert "near" in text
    assert "far" in text
    kernel.run("settings.SWEEP_BUDGET = 1.0")
    assert "skipped (" not in badge(kernel.run("%%durable_step b\nglobals()['big'].append(1)"))


def test_errors_show_the_users_frames_alone(kernel):
    kernel.run(OPEN + " --badge plain")
    kernel.run("@wf.task(retries=0)\ndef divide(x): return x / 0")
    for code in (
        "divide(1)",
        "divide(object())",
        "%%durable_step s\ndivide(2)",
        "%%durable_step t\ntry:\n    divide(3)\nexcept ZeroDivisionError as e:\n    raise ValueError from e",
    ):
        cell = kernel.run(code)
        assert cell.status == "error"
        assert "durable_nb/" not in cell.error
        assert "Cell In[" in cell.error
    native, durable = (
        kernel.run(f"{first}raise ExceptionGroup('g', [ValueError('a'), KeyError('b')])")
        for first in ("", "%%durable_step group\n")
    )
    assert native.status == durable.status == "error"
    assert native.stderr.splitlines()[-6:] == durable.stderr.splitlines()[-6:]
    assert "durable_nb/workflow/" not in durable.stderr


def test_cells_that_use_what_stopped_others(kernel_factory):
    """`_`, %run, %matplotlib inline, and an object whose repr must not run again."""
    folder = kernel_factory().cwd
    (folder / "script.py").write_text("ran = [1]\ndef helper(): return ran\n")
    cells = (
        "%matplotlib inline\nimport matplotlib.pyplot as plt",
        "%run script.py",
        "40 + 2",
        "answer = _ + 1",
        "class Loud:\n    def __repr__(self): open('shown', 'a').write('x'); return 'loud'\nloud = Loud()",
        "loud",
        "n = len(ran)",
    )
    for _ in range(2):
        kernel = kernel_factory()
        kernel.run(OPEN)
        for number, code in enumerate(cells):
            badge(kernel.run(f"%%durable_step c{number}\n{code}"))
        assert kernel.run("print(answer, n, ran, helper() is ran, type(loud) is Loud)").text == (
            "43 1 [1] True True\n"
        )
        assert (folder / "shown").read_text() == "x"
        kernel.sigkill()
