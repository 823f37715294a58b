"""What a plain run shows, a replay shows: the durable cell itself, and ordinary cells after it."""

# ruff: noqa: E501 - a table of cells

import pytest

from helpers.kernel import Kernel

TEE = """import sys
class Tee:
    def __init__(self, to): self.to, self.kept = to, []
    def write(self, text): self.kept.append(text); return self.to.write(text)
    def __getattr__(self, name): return getattr(self.to, name)
sys.stdout = tee = Tee(sys.stdout)
print('one')"""
# Durable cells, and an ordinary one after them; parted by ‖.
SHOWN = {
    "carriage returns": r"print('a\r\r'); print('b\r\r\n', end=''); print('c\rd'); print('\r'); print('x\r\ny\r\n') ‖ 1",
    "a command on lines that end with carriage returns": r"!printf 'one\r\n\r\ntwo\r\n' ‖ 1",
    "a bar of few steps": r"for n in range(5): print(f'\r{n} of 4', end='')" + "\nprint('\\r') ‖ 1",
    "colours and backspaces": r"print('\x1b[31mred\x1b[0m\r\r\n', end=''); print('abc\b\bX\r\r') ‖ 1",
    "a figure": "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(); _ = ax.plot([1, 2]) ‖ fig",
    "a closed figure": "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(); plt.close(fig) ‖ fig",
    "a figure that the last cell draws on": "import matplotlib.pyplot as plt\nfig, ax = plt.subplots() ‖ _ = ax.plot([1, 3]); fig",
    "figures of twice the pixels": "import matplotlib.pyplot as plt\n%config InlineBackend.figure_format = 'retina' ‖ plt.plot([3, 1]);",
    "formats set by a function": "from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('retina')\nimport matplotlib.pyplot as plt ‖ plt.plot([3, 1]);",
    "options of figures": "%config InlineBackend.print_figure_kwargs = {'bbox_inches': None}\nimport matplotlib.pyplot as plt ‖ plt.plot([3, 1]);",
    "figures as drawings": "import matplotlib.pyplot as plt\nplt.rcParams['svg.hashsalt'] = 'fixed'\n%config InlineBackend.print_figure_kwargs = {'metadata': {'Date': None}}\n%config InlineBackend.figure_formats = ['svg'] ‖ fig = plt.figure(figsize=(1, 1)); fig",
    "settings of figures before they are inline": "%config InlineBackend.rc = {'figure.figsize': (2, 1)}\n%matplotlib inline ‖ import matplotlib.pyplot as plt; plt.plot([3, 1]);",
    "settings of figures after they are inline": "%matplotlib inline\n%config InlineBackend.rc = {'figure.dpi': 50} ‖ import matplotlib.pyplot as plt; plt.plot([3, 1]);",
    "settings of figures between": "%matplotlib inline\n%config InlineBackend.rc = {'figure.dpi': 50}\n%matplotlib inline ‖ import matplotlib.pyplot as plt; plt.plot([3, 1]);",
    "settings of figures in a cell of their own": "%config InlineBackend.rc = {'figure.dpi': 50} ‖ %matplotlib inline ‖ import matplotlib.pyplot as plt; plt.plot([3, 1]);",
    "settings of figures once they are drawn": "import matplotlib.pyplot as plt; plt.plot([1]); ‖ %config InlineBackend.rc = {'figure.dpi': 50} ‖ plt.plot([3, 1]);",
    "a format and inline in one cell": "%matplotlib inline\n%config InlineBackend.figure_format = 'jpeg' ‖ import matplotlib.pyplot as plt; plt.plot([3, 1]);",
    "figures that stay open": "%config InlineBackend.close_figures = False\n%matplotlib inline\nimport matplotlib.pyplot as plt; plt.plot([1, 2]); ‖ plt.plot([2, 1]); ‖ plt.plot([5]);",
    "a stream in place of stdout": f"{TEE} ‖ print('two') ‖ print('three'); print(tee.kept); sys.stdout = tee.to",
    "stdout put back in the next cell": "import io, sys\nkept = sys.stdout; sys.stdout = buffer = io.StringIO()\nprint('into it') ‖ sys.stdout = kept\nprint('back', buffer.getvalue()) ‖ print(repr(buffer.getvalue()))",
    "digits of floats": "%precision 3 ‖ import math; math.pi",
    "a formatter of a type": "get_ipython().display_formatter.formatters['text/html'].for_type(dict, lambda d: '<b>mine</b>') and None ‖ {'b': 1}",
    "a formatter of an own class": "class Own: pass\nown = Own()\nget_ipython().display_formatter.formatters['text/plain'].for_type(Own, lambda o, p, cycle: p.text('mine')) and None ‖ own",
    "the mode of tracebacks": "%xmode Minimal ‖ 1 / 0",
    "an alias": "%alias say echo said %s ‖ %say it",
}


def play(kernel, name):
    """Run a case in an empty namespace; gives what each of its cells shows."""
    run_id = name.replace(" ", "-")
    kernel.run(f"%reset -f\n%load_ext durable_nb\n%durable_workflow {run_id} --db {kernel.cwd / 'runs.db'}")
    *durable, plain = SHOWN[name].split(" ‖ ")
    cells = [kernel.run(f"%%durable_step cell{n}\n{body}") for n, body in enumerate(durable)]
    assert [cell.error for cell in cells] == [None] * len(cells)
    done = [*cells, kernel.run(plain)]
    shown = [[one for one in cell.outputs if "durable_nb" not in one.get("metadata", {})] for cell in done]
    for output in [one for outputs in shown for one in outputs]:
        output.pop("execution_count", None)
        if output["output_type"] == "error":
            output["traceback"] = [output["traceback"][-1].splitlines()[-1]]
    return [cell.facts["action"] for cell in cells], shown


@pytest.mark.parametrize("name", SHOWN)
def test_a_replay_shows_what_a_plain_run_shows(kernel, name):
    actions, first = play(kernel, name)
    assert set(actions) == {"executed"}
    kernel.sigkill()
    kernel.restart()
    actions, second = play(kernel, name)
    assert set(actions) == {"replayed"}
    assert second == first
    assert any(first), "the case shows nothing"


WIDGETS = {
    "a bar of tqdm": (
        "from tqdm.notebook import tqdm\nfor n in tqdm(range(3), desc='rows'): pass",
        "rows: 100%",
    ),
    "a bar that is not finished": (
        "from tqdm.auto import tqdm\nbar = tqdm(total=10); _ = bar.update(3)",
        " 30%",
    ),
    "progress": (
        "import ipywidgets as w\nbar = w.IntProgress(max=9); display(bar); bar.value = 7",
        "IntProgress(value=7, max=9)",
    ),
    "html": ("import ipywidgets as w\nh = w.HTML('start'); display(h); h.value = 'end'", "HTML(value='end')"),
    "a box": (
        "import ipywidgets as w\nt = w.Label('start'); display(w.HBox([t])); t.value = 'end'",
        "HBox(children=(Label(value='end'),))",
    ),
    "the last value": ("import ipywidgets as w\ns = w.IntSlider(); s.value = 8; s", "IntSlider(value=8)"),
}


@pytest.fixture(scope="module")
def widgets(tmp_path_factory):
    """What each widget shows once it is replayed."""
    home = tmp_path_factory.mktemp("widgets")
    kernel = Kernel(home, home / "home")
    opened = "%load_ext durable_nb\n%durable_workflow widgets --db runs.db"
    try:
        for _ in range(2):
            kernel.run(opened)
            cells = {
                name: kernel.run(f"%%durable_step '{name}'\n{code}") for name, (code, _) in WIDGETS.items()
            }
            kernel.sigkill()
            kernel.restart()
        return cells
    finally:
        kernel.shutdown()


@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_is_replayed_as_the_text_of_its_last_state(widgets, name):
    cell = widgets[name]
    assert cell.facts["action"] == "replayed"
    [shown] = [one["data"] for one in cell.visible if "data" in one]
    assert shown["text/plain"].startswith(WIDGETS[name][1])
    assert shown.keys() == {"text/plain"}


def test_a_bar_that_is_gone_at_the_end_is_not_replayed(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow r")
    cell = "%%durable_step s\nfrom tqdm.notebook import tqdm\nfor n in tqdm(range(3), leave=False): pass"
    kernel.run(cell)
    kernel.sigkill()
    kernel.restart()
    kernel.run("%load_ext durable_nb\n%durable_workflow r")
    assert kernel.run(cell).visible == []
