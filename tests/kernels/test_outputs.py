"""What a cell displayed is recorded and comes back the same: in its own kernel, and in a new one."""

import json
import os
import subprocess
import sys

import pytest

from helpers import pythonpath
from helpers.kernel import Kernel

SHOWN = {
    "order": (
        "import sys\nfrom IPython.display import display, Markdown\n"
        "print('one')\nprint('two', file=sys.stderr)\nprint('three')\ndisplay(Markdown('*four*'))\n"
        "print('five')\n'six'"
    ),
    "figure": (
        "import matplotlib.pyplot as plt\nprint('before')\nplt.plot([3, 1, 2])\nplt.title('drawn');\n"
        "print('after the call')"
    ),
    "two-figures": (
        "import matplotlib.pyplot as plt\nplt.figure(); plt.plot([1, 2]); plt.show()\nprint('between')\n"
        "fig, ax = plt.subplots(figsize=(2, 1)); ax.bar([1], [2])\nfig"
    ),
    "frame": "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': list('xy')})",
    "updates": (
        "from IPython.display import display\nhandle = display('first', display_id=True)\nprint('between')\n"
        "for n in range(5):\n    handle.update({'n': n})\nprint('end')"
    ),
    "same-id-twice": (
        "from IPython.display import display\nh = display('a', display_id='twice')\n"
        "display('b', display_id='twice')\nh.update('c')"
    ),
    "cleared": (
        "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('here')\n"
        "clear_output(wait=True)\nprint('really here')"
    ),
    "clear-at-the-end": ("from IPython.display import clear_output\nprint('stays')\nclear_output(wait=True)"),
    "progress": (
        "import sys, time\nfor n in range(101):\n    print(f'\\r{n:3}%|{\"#\" * (n // 10):10}|', end='',"
        " file=sys.stderr)\n    time.sleep(0.001)\nprint(file=sys.stderr)"
    ),
    "countdown": "for n in range(120, 0, -1):\n    print(f'\\r{n} left', end='')\nprint('\\rdone')",
    "coloured-progress": "for n in range(9):\n    print(f'\\r\\x1b[31m{n}\\x1b[0m of 9', end='', flush=True)",
    "cursor-up": "print('\\router 0'); print('\\rinner 1\\x1b[A\\router 1'); print('\\b\\bend')",
    "shell": "!echo out; echo err >&2; echo end",
    "nested-shell": "%%bash\nfor i in 1 2 3; do echo $i; done",
    "file-descriptor": (
        "import subprocess, os\nprint('before')\nsubprocess.run(['echo', 'from a child'])\n"
        "os.system('echo from another')"
    ),
    "threads": (
        "import threading\nthread = threading.Thread(target=print, args=('from a thread',))\n"
        "thread.start(); thread.join()"
    ),
    "tasks": (
        "import asyncio\nasync def say(text):\n    await asyncio.sleep(0.01)\n    print(text)\n"
        "await asyncio.gather(say('a'), say('b'))"
    ),
    "rich": (
        "from IPython.display import *\ndisplay(HTML('<b>h</b>'), Latex('$x$'), JSON({'a': [1, None]}),"
        " SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n"
        "display({'text/plain': 'p', 'x/y': 'z'}, raw=True, metadata={'x/y': {'k': 1}})"
    ),
    "long": "for n in range(20_000):\n    print(n)",
    "nothing": "x = 5",
    "none": "print('only')\nNone",
    "unicode": "print('naïve ✓ 日本')\n'é'",
}


def recorded(kernel, name):
    return json.loads((kernel.cwd / f"{name}.json").read_text())


def sent(cell):
    """A cell's messages in the form of a recording."""
    messages = [{"type": one["msg_type"], "content": dict(one["content"])} for one in cell.messages]
    for one in messages:
        one["content"].pop("execution_count", None)
    return messages


def without_count(outputs):
    for one in outputs:
        one["content"].pop("execution_count", None)
    return outputs


@pytest.fixture(scope="module")
def fresh(probed, tmp_path_factory):
    """A second kernel beside the one that records, in the same directory."""
    kernel = Kernel(probed.cwd, tmp_path_factory.mktemp("fresh"), **pythonpath())
    kernel.run("%load_ext helpers.probe")
    kernel.run("%matplotlib inline")
    probed.run("%matplotlib inline")
    yield kernel
    kernel.shutdown()


@pytest.mark.parametrize("name", SHOWN)
def test_a_replay_shows_what_the_cell_showed(probed, fresh, name):
    live = probed.run(f"%%probe {name}\n{SHOWN[name]}")
    assert live.status == "ok", live.error
    shown = without_count(recorded(probed, name))
    for kernel in (probed, fresh):
        again = kernel.run(f"%again {name}")
        assert again.status == "ok", again.error
        assert sent(again) == shown
        assert again.visible == live.visible
        counts = [one["execution_count"] for one in again.outputs if "execution_count" in one]
        assert counts in ([], [again.execution_count])


@pytest.mark.parametrize("name", ["order", "frame", "figure", "shell", "rich"])
def test_recording_does_not_change_what_the_cell_shows(probed, name):
    native = probed.run(SHOWN[name])
    live = probed.run(f"%%probe {name}\n{SHOWN[name]}")
    texts = [[one.get("text", one.get("data")) for one in cell.outputs] for cell in (native, live)]
    if name == "figure":  # it stands where the body ended, not after the magic
        texts = [sorted(map(str, one)) for one in texts]
    assert texts[0] == texts[1]


def test_recordings_are_small(probed):
    assert recorded_texts(probed, SHOWN["progress"]) == ["100%|##########|\n"]
    assert recorded_texts(probed, SHOWN["countdown"]) == ["100 left\r10 left\r1 left\rdone\n"]
    assert len(recorded_texts(probed, SHOWN["long"])) == 1
    assert recorded_texts(probed, SHOWN["cursor-up"]) == ["\router 0\n\rinner 1\x1b[A\router 1\n\b\bend\n"]
    probed.run(f"%%probe small\n{SHOWN['updates']}")
    assert [one["type"] for one in recorded(probed, "small")] == ["display_data", "stream"]


def recorded_texts(kernel, code):
    kernel.run(f"%%probe small\n{code}")
    return [one["content"]["text"] for one in recorded(kernel, "small")]


def test_children_that_write_to_the_file_descriptor_are_recorded_whole(probed):
    code = "import subprocess\nfor n in range({0}):\n    subprocess.run(['echo', str(n)])"
    for count in (1, 2, 3, 30):
        texts = recorded_texts(probed, code.format(count))
        assert texts == ["".join(f"{n}\n" for n in range(count))]


def test_what_an_earlier_cells_child_wrote_is_not_recorded(probed):
    for _ in range(5):
        probed.run("import os; os.write(1, b'early')")
        assert recorded_texts(probed, "print('own')") == ["own\n"]


def test_what_is_written_to_the_file_descriptor_at_the_very_end_is_recorded(probed):
    for n in range(20):
        assert recorded_texts(probed, f"import os; _ = os.write(1, b'last {n}')") == [f"last {n}"]


def test_what_a_thread_prints_after_the_cell_is_recorded_where_it_is_shown(probed):
    late = "import threading\nlate = threading.Timer(0.3, print, ['late'])\nlate.start()\nprint('in time')"
    assert recorded_texts(probed, late) == ["in time\n"]
    shown = probed.run("%%probe next\nlate.join(); print('own')")
    assert "".join(one["content"]["text"] for one in recorded(probed, "next")) == shown.text


def test_a_widget_leaves_what_needs_no_kernel(probed, fresh):
    widget = "{'text/plain': 'IntSlider()', 'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}}"
    live = probed.run(f"%%probe widget\ndisplay({widget}, raw=True)")
    assert "application/vnd.jupyter.widget-view+json" in live.outputs[0]["data"]
    assert fresh.run("%again widget").outputs[0]["data"] == {"text/plain": "IntSlider()"}


def test_a_display_is_recorded_as_it_was_when_shown(probed):
    code = (
        "from IPython.display import JSON, display\nlive = {'a': 1}\n"
        "display(JSON(live), metadata=live)\nlive['a'] = 2"
    )
    probed.run(f"%%probe live\n{code}")
    [shown] = recorded(probed, "live")
    assert shown["content"]["data"]["application/json"] == {"a": 1}
    assert shown["content"]["metadata"]["a"] == 1


def test_an_update_of_another_cells_display_is_replayed_as_one(probed, fresh):
    for kernel in (probed, fresh):
        kernel.run("h = display('old', display_id='elsewhere')")
    probed.run("%%probe elsewhere\nh.update('newer')\nprint('x')\nh.update('newest')")
    kinds = [one["type"] for one in recorded(probed, "elsewhere")]
    assert kinds == ["update_display_data", "stream"]
    first = fresh.run("%again elsewhere").messages[0]
    assert first["content"]["transient"]["display_id"] == "elsewhere"
    assert first["content"]["data"]["text/plain"] == "'newest'"


def test_results_are_set_without_running_the_users_repr(probed, fresh):
    for kernel in (probed, fresh):
        kernel.run(
            "import sys, types\n"
            "sys.modules['shown'] = module = types.ModuleType('shown')\n"
            "exec('''class Loud:\n    count = 0\n    def __repr__(self):\n"
            "        Loud.count += 1\n        return 'loud'\n''', vars(module))\n"
            "from shown import Loud"
        )
    probed.run("%%probe loud\nLoud()")
    assert probed.run("Loud.count").result["text/plain"] == "1"
    fresh.run("'before'")
    replayed = fresh.run("%again loud")
    assert replayed.result["text/plain"] == "loud"
    count = replayed.execution_count
    check = (
        f"print(type(_).__name__, type(Out[{count}]).__name__, Out[{count}] is _{count} is _, __, Loud.count)"
    )
    assert fresh.run(check).text == "Loud Loud True before 0\n"


def test_a_value_that_displays_itself_is_a_result_too(probed, fresh):
    code = (
        "from fractions import Fraction\n"
        "get_ipython().display_formatter.ipython_display_formatter.for_type(\n"
        "    Fraction, lambda value: print('a fraction'))\nFraction(1, 2)"
    )
    probed.run(f"%%probe itself\n{code}")
    replayed = fresh.run("%again itself")
    assert (replayed.text, replayed.result) == ("a fraction\n", None)
    assert fresh.run("print(_, Out[max(Out)])").text == "1/2 1/2\n"


def test_the_users_own_underscore_stays(fresh, probed):
    probed.run("%%probe under\n7")
    fresh.run("_ = 'mine'")
    fresh.run("%again under")
    assert fresh.run("print(_)").text == "mine\n"
    fresh.run("del _")


def test_history_hooks_and_gettext_find_what_they_expect(fresh, probed):
    probed.run("%%probe expected\n'a result'")
    count = fresh.run("%again expected").execution_count
    shell = "get_ipython()"
    assert fresh.run(f"print({shell}.last_execution_result.result)").text == "a result\n"
    assert fresh.run(f"print({shell}.history_manager.output_hist_reprs[{count}])").text == "'a result'\n"
    fresh.run("import builtins; builtins._ = 'gettext'")
    fresh.run("%again expected")
    assert fresh.run("print(_)\ndel builtins._").text == "gettext\n"


def test_what_is_ours_or_paused_or_another_cells_is_not_recorded(probed):
    probed.run(
        "import asyncio\nfrom durable_nb.notebook.display.recorder import Recorder\n"
        "recorder = Recorder.of(get_ipython())\n"
        "async def tick():\n    while True:\n        print('tick', flush=True)\n"
        "        await asyncio.sleep(0.01)\n"
        "ticking = asyncio.get_running_loop().create_task(tick())\nawait asyncio.sleep(0.02)"
    )
    probed.run(
        "%%probe own\nfrom IPython.display import display\ndisplay('ours', metadata={'durable_nb': {}})\n"
        "print('a')\nwith recorder.paused():\n    print('paused')\n    display('paused')\n"
        "await asyncio.sleep(0.1)\nprint('b')"
    )
    probed.run("ticking.cancel()")
    texts = [one["content"]["text"] for one in recorded(probed, "own")]
    assert texts == ["a\nb\n"]


def test_recordings_nest(probed):
    cell = probed.run(
        "from durable_nb.notebook.display.recorder import Recorder\nrecorder = Recorder.of(get_ipython())\n"
        "with recorder.recording() as outer:\n    print(1)\n"
        "    with recorder.recording() as inner:\n        print(2)\n"
        "    try:\n        with recorder.recording() as failed:\n            print(3); 1 / 0\n"
        "    except ZeroDivisionError:\n        pass\n"
        "[[one['content']['text'] for one in r.outputs] for r in (outer, inner, failed)]"
    )
    assert cell.result["text/plain"] == r"[['1\n2\n3\n'], ['2\n'], ['3\n']]"
    assert cell.text == "1\n2\n3\n"
    assert probed.run("Recorder.of(get_ipython()) is recorder").result["text/plain"] == "True"


TERMINAL = """\
%load_ext helpers.probe
%%probe shown
import sys
print('printed')
print('warned', file=sys.stderr)
'a' + 'b'


%again shown
print('then', _, Out[3])
%%probe broken
1 / 0


%%probe awaited
import asyncio
await asyncio.sleep(0.01, 'slept')


"""


def test_a_terminal_replays_text(tmp_path):
    env = {**os.environ, **pythonpath(), "IPYTHONDIR": str(tmp_path), "TERM": "dumb"}
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    done = subprocess.run(
        command, input=TERMINAL, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("printed\n") == 2, done
    assert done.stderr.count("warned\n") == 2
    assert "Out[2]: 'ab'" in done.stdout
    assert "Out[3]: 'ab'" in done.stdout
    assert "then ab ab" in done.stdout
    assert "'slept'" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert "body.py" not in done.stdout
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert [(one["type"], one["content"].get("text")) for one in shown] == [
        ("stream", "printed\n"),
        ("stream", "warned\n"),
        ("execute_result", None),
    ]


ENDS = (
    "%load_ext durable_nb\n%durable_workflow ends --db runs.db --cells all",
    "from tqdm import tqdm\nimport sys",
    "bar = tqdm(total=6, bar_format='{n}/{total}', file=sys.stdout)",
    "bar.update(2)",
    "bar.close()\nbar.n",
    "class Loud:\n    def __del__(self):\n        print('the end of', self.name)",
    "loud = Loud()\nloud.name = 'one'",
    "loud.name = 'two'",
    "loud = None\nprint('gone')",
)


def test_what_ends_as_a_cell_is_replayed_prints_nothing_more(kernel):
    first = [kernel.run(cell) for cell in ENDS]
    assert first[-1].text == "the end of two\ngone\n"
    kernel.sigkill()
    kernel.restart()
    second = [kernel.run(cell) for cell in ENDS]
    assert [cell.facts["action"] for cell in second[2:]] == ["replayed"] * len(ENDS[2:])
    assert [cell.visible for cell in second[1:]] == [cell.visible for cell in first[1:]]
