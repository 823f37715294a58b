"""A test-only IPython extension: ``%%probe NAME`` runs and records a cell, ``%again NAME`` replays it."""

import functools
import json
import pickle

from durable_nb.notebook import body, outputs


async def probe(shell, line, cell):
    with outputs.Recorder.of(shell).recording() as recording, body.interruptible():
        await body.execute(shell, cell)
    with open(f"{line}.json", "w") as file:
        json.dump(recording.outputs, file)
    if recording.result is not outputs.NO_RESULT:
        with open(f"{line}.pickle", "wb") as file:
            pickle.dump(recording.result, file)


def again(shell, line):
    with open(f"{line}.json") as file:
        shown = json.load(file)
    try:
        with open(f"{line}.pickle", "rb") as file:
            result = pickle.load(file)
    except FileNotFoundError:
        result = outputs.NO_RESULT
    outputs.replay(shell, shown, result=result)


def load_ipython_extension(shell):
    shell.register_magic_function(functools.partial(probe, shell), "cell", "probe")
    shell.register_magic_function(functools.partial(again, shell), "line", "again")
    for _twice in range(2):
        shell.input_transformers_post.append(body.awaited_magic("probe"))
