"""What belongs to the process or to a module is that again after a kill, and no copy that nobody uses."""

OPEN = "%load_ext durable_nb\n%durable_workflow belongings --db runs.db"
CELLS = (
    (
        "from os import environ\nfrom random import choice, random, seed\nfrom sys import stdout\n"
        "import random as module, matplotlib, numpy as np\nfrom matplotlib import rcParams\n"
        "from numpy.random import rand\nip = get_ipython()\nshell_of = {'shell': ip}\n"
        "environ['MY_API_KEY'] = 'hush-hush'; seed(1); np.random.seed(1)"
    ),
    "drawn = choice(range(100)), random(), rand()\nenviron['PLAIN'] = 'x'\nrcParams['lines.linewidth'] = 7",
    "shell_of['seen'] = [1]",
)
SAME = (
    "environ is __import__('os').environ, ip is get_ipython(), rcParams is matplotlib.rcParams",
    "stdout is __import__('sys').stdout, shell_of['shell'] is ip, shell_of['seen']",
    "rcParams['lines.linewidth']",
    "drawn, random(), module.random(), rand(), np.random.rand(), (seed(2), module.random(), random())",
)


def run_all(kernel, cells):
    kernel.run(OPEN)
    done = [kernel.run(f"%%durable_step cell{number}\n{cell}") for number, cell in enumerate(cells)]
    assert [cell.error for cell in done] == [None] * len(cells)
    return [cell.told for cell in done]


def restarted(kernel):
    kernel.sigkill()
    kernel.restart()


def test_what_every_process_has_one_of_is_its_own(kernel):
    told = run_all(kernel, CELLS)
    found = [kernel.run(expression).result for expression in SAME]
    assert [line for text in told for line in text.splitlines() if "⚠" in line] == [
        (
            "⚠ os.environ['MY_API_KEY'] is not saved: it looks like a secret. "
            "Read it in an ordinary cell, from the environment or with getpass.getpass(): "
            "a value that is written in a cell stays in the notebook."
        )
    ]
    restarted(kernel)
    run_all(kernel, CELLS)
    assert [kernel.run(expression).result for expression in SAME] == found
    assert "False" not in str(found)
    assert b"hush-hush" not in b"".join(path.read_bytes() for path in kernel.cwd.glob("runs.db*"))


def test_what_a_cell_set_in_modules_and_classes_is_set_again(kernel):
    (kernel.cwd / "config.py").write_text(
        "DEBUG = False\nMODEL = api_key = client = None\nclass Options:\n    level = 1\n"
    )
    cells = (
        (
            "import config, statistics, threading\nmodel = {'w': [1]}\n"
            "config.DEBUG = True\nconfig.MODEL = model\nconfig.Options.level = 7\n"
            "config.api_key = 'hush-hush'\nconfig.client = threading.local()\n"
            "statistics.mean = lambda values: 'mine'\nclass Own: pass\nOwn.x = 5\nOwn().y = 6"
        ),
        "config.DEBUG = DEBUG = 3",
    )
    [told, _] = run_all(kernel, cells)
    assert "config.api_key is not saved: it looks like a secret" in told
    assert "config.client is not saved: it contains _thread._local, which cannot be saved" in told
    restarted(kernel)
    run_all(kernel, cells)
    state = "config.DEBUG, config.MODEL is model, config.Options.level, config.api_key, statistics.mean([1])"
    assert kernel.run(state).result["text/plain"] == "(3, True, 7, None, 'mine')"
    assert b"hush-hush" not in b"".join(path.read_bytes() for path in kernel.cwd.glob("runs.db*"))


def test_options_of_the_shell_of_python_and_of_scikit_learn_come_back(kernel):
    cells = (
        "ip = get_ipython()\nip.ast_node_interactivity = 'all'",
        "import sys\nsys.setrecursionlimit(4321)",
        "import sklearn\nsklearn.set_config(display='text', assume_finite=True)",
    )
    for _ in range(2):
        run_all(kernel, cells)
        state = (
            "print(ip.ast_node_interactivity, sys.getrecursionlimit(), sklearn.get_config()['assume_finite'])"
        )
        assert kernel.run(state).text == "all 4321 True\n"
        restarted(kernel)


PROXY = """class Proxy:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
class Slotted(Proxy):
    __slots__ = ("extra",)
class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"{text} ({code})")
        self.code = code
data = [1]
proxy, slotted = Proxy(data), Slotted(data)
slotted.extra = data
errors = []
try:
    try: data[5]
    except IndexError as inner: raise Refused(3, "no") from inner
except Refused as error: errors.append(error)"""


def test_proxies_and_exceptions_with_arguments_of_their_own_come_back(kernel):
    cells = PROXY, "proxy.append(2)\nerrors.append(OSError(2, 'gone', 'file'))"
    for _ in range(2):
        assert all("⚠" not in told for told in run_all(kernel, cells))
        state = "[data, proxy.inner is data is slotted.inner is slotted.extra, errors, errors[0].code]"
        assert kernel.run(state).result["text/plain"] == (
            "[[1, 2], True, [__main__.Refused('no (3)'), FileNotFoundError(2, 'gone')], 3]"
        )
        cause = "repr(errors[0].__cause__), errors[1].filename"
        assert kernel.run(cause).result["text/plain"] == "(\"IndexError('list index out of range')\", 'file')"
        restarted(kernel)


def test_a_progress_bar_comes_back_and_a_widget_says_why_not(kernel):
    cells = (
        "from tqdm import tqdm\nbar = tqdm(total=3, bar_format='{n}')\nbar.update()",
        "bar.update()\nbar.close()",
        "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nkept = 1",
    )
    for _ in range(2):
        *bars, widget = run_all(kernel, cells)
        assert all("⚠" not in told for told in bars)
        assert "IntSlider cannot be saved (TypeError: part of a widget's state lives in" in widget
        assert kernel.run("bar.n, kept").result["text/plain"] == "(2, 1)"
        restarted(kernel)


SHELL_CELLS = (
    "%precision 3\nimport numpy as np\nnp.set_printoptions(precision=2)",
    (
        "from IPython.core.magic import Magics, line_magic, magics_class\n"
        "from IPython.core.magic import register_cell_magic, register_line_magic\n"
        "log = []\n@register_line_magic\ndef note(line): log.append(line)\n"
        "@register_cell_magic\ndef upper(line, cell): print(line + cell.upper())\ndel upper\n"
        "@magics_class\nclass Greetings(Magics):\n"
        "    @line_magic\n    def greet(self, line): return 'hello ' + line\n"
        "get_ipython().register_magics(Greetings)"
    ),
    "import sys; sys.path.insert(0, '')\n%load_ext own_extension\nfrom_extension = 8",
    "%note durable\nshouted = [_ for _ in 'ab']\nfor _ in range(3): pass",
)
SHELL_STATE = (
    "print(np.array([1.23456])); print(get_ipython().display_formatter.format(2.71828)[0]['text/plain'])",
    "%note ordinary\nprint(log)",
    "get_ipython().run_cell_magic('upper', 'a', 'b')",
    "print(get_ipython().run_line_magic('greet', 'you'), get_ipython().run_line_magic('own', 'x'))",
    "print(from_extension, _)",
)


def test_magics_extensions_numbers_and_the_underscore_come_back(kernel):
    (kernel.cwd / "own_extension.py").write_text(
        "def load_ipython_extension(shell):\n    shell.push({'from_extension': 7})\n"
        "    shell.register_magic_function(lambda line: 'own ' + line, 'line', 'own')\n"
    )
    for _ in range(2):
        assert all("⚠" not in told for told in run_all(kernel, SHELL_CELLS))
        assert [kernel.run(cell).text for cell in SHELL_STATE] == [
            "[1.23]\n2.718\n",
            "['durable', 'ordinary']\n",
            "aB\n",
            "hello you own x\n",
            "8 2\n",
        ]
        restarted(kernel)
