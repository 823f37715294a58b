"""A test-only IPython extension: ``%%probe NAME`` runs and records a cell, ``%again NAME`` replays it."""

import functools
import json
import pickle
from pathlib import Path

from durable_nb.notebook.display import recorder
from durable_nb.notebook.namespace.restore import NO_RESULT
from durable_nb.notebook.shell import execute


async def probe(shell, line, cell):
    with recorder.Recorder.of(shell).recording() as recording, execute.interruptible():
        await execute.execute(shell, cell)
    save(line, recording)


def save(name, recording):
    Path(f"{name}.json").write_text(json.dumps(recording.outputs))
    if recording.result is not NO_RESULT:
        Path(f"{name}.pickle").write_bytes(pickle.dumps(recording.result))


def again(shell, line):
    shown = json.loads(Path(f"{line}.json").read_text())
    pickled = Path(f"{line}.pickle")
    result = pickle.loads(pickled.read_bytes()) if pickled.exists() else NO_RESULT
    recorder.replay(shell, shown, result=result)


def load_ipython_extension(shell):
    shell.register_magic_function(functools.partial(probe, shell), "cell", "probe")
    shell.register_magic_function(functools.partial(again, shell), "line", "again")
    for _twice in range(2):
        shell.input_transformers_post.append(execute.awaited_magic("probe"))
