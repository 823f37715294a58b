"""What a checkpoint may name of this package: the stored format, which never changes."""

import asyncio
import collections
import decimal
import functools
import logging
import os
import pickle
import random
import sys
import threading
import weakref

import numpy as np
import pandas as pd
import pytest

import durable_nb
from durable_nb import _stored, codec, errors
from durable_nb.errors import StepNotRestored, StepNotSaved
from helpers.named import everything_named, ours

# What version 0.1.0 writes. A name may be added to this list, never taken out of it.
PINNED = {
    *("live", "namespace", "function", "part", "update"),
    *("code", "cell", "fill_cell", "cached", "make_class", "live_or_made", "settle_unless_live"),
    *("set_attributes", "set_state", "dead_ref"),
    *("made_exception", "settle_exception"),
    *("stream", "process_object"),
    *("array", "array_view", "memory_map", "set_array_state", "new"),
    *("torch_storage", "torch_tensor", "set_grad"),
    "stand_in",
    *("built", "fill", "share_dict", "type_alias"),
}


class Shop:
    __slots__ = ("name", "orders")

    def __init__(self, name):
        self.name, self.orders = name, []


class ProxyTo:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Labelled(np.ndarray):
    pass


class Refused(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"{code}: {hint}")
        self.code = code


def defined_here(a, b=2):
    def inner():
        return a, b

    return inner


@functools.lru_cache
def remembered(x):
    return x


def closed_over_itself():
    def walk(n):
        return walk(n - 1) if n else 0

    return walk


BASE = np.arange(20000.0)
ZOO = {
    "function": defined_here,
    "closure": defined_here(1),
    "recursive closure": closed_over_itself(),
    "lambda": lambda x: x + 1,
    "class": Shop,
    "instance": Shop("a"),
    "proxy": ProxyTo({}),
    "cached": remembered,
    "partial": functools.partial(defined_here, 1),
    "array": BASE,
    "views": [BASE, BASE[5:10], BASE[::2]],
    "labelled array": BASE[:100].view(Labelled),
    "frame": pd.DataFrame({"a": range(40000), "b": 1.5, "c": "x"}),
    "series": pd.Series([1, 2, 3], name="n"),
    "exception": Refused(3, hint="h"),
    "our exception": errors.RunHeld("held", run_id="r", remedy="wait"),
    "lock": threading.Lock(),
    "event": asyncio.Event(),
    "environment": os.environ,
    "stream": _stored.STREAMS["stderr"],
    "random": random._inst,
    "logger": logging.getLogger("a.b"),
    "dead reference": weakref.ref(ProxyTo(1)),
    "counter": collections.Counter("abca"),
    "context": decimal.Context(prec=7),
    "backoff": durable_nb.exponential(base=3, jitter=0.5),
    "public class": durable_nb.Workflow,
    "public function": durable_nb.linear,
    "status": durable_nb.RunStatus.DONE,
    "lazy public class": durable_nb.SQLiteStore,
    "namespace": None,
}


def as_cell(value):
    from durable_nb.codec.pickling import Saver

    namespace = dict(globals())
    return Saver(namespace, {}).save({"x": namespace if value is None else value})[0]


def is_allowed(module, name):
    return (
        (module == "durable_nb._stored" and name in PINNED)
        or (module == "durable_nb.errors")
        or (module in _stored.PUBLIC and name in sys.modules[module].__all__)
    )


def test_the_stored_names_only_grow():
    assert set(_stored.STORED) >= PINNED
    assert all(callable(getattr(_stored, name)) for name in _stored.STORED)


@pytest.mark.parametrize("kind", ZOO)
def test_a_cell_names_nothing_of_ours_but_the_stored_format(kind):
    found = ours(as_cell(ZOO[kind]))
    assert all(is_allowed(*each) for each in found), found


@pytest.mark.parametrize(
    "kind", sorted(ZOO.keys() - {"lock", "event", "stream", "namespace", "dead reference"})
)
def test_a_task_names_nothing_of_ours_but_the_stored_format(kind):
    payload = codec.encode(ZOO[kind])
    if payload.format in ("json", "objects"):
        assert b"durable_nb." not in payload.data.replace(b"durable_nb.stores:", b"")
    else:
        found = ours(payload.data)
        assert all(is_allowed(*each) for each in found), found


def test_the_scan_sees_what_is_named():
    assert ("durable_nb._stored", "array") in ours(as_cell(BASE))
    assert ("durable_nb._stored", "namespace") in ours(as_cell(1))


def test_bytecode_is_saved_with_the_version_that_executes_it():
    for stream in (codec.encode(defined_here(1)).data, as_cell(defined_here(1))):
        assert ("durable_nb._stored", "code") in ours(stream)
        assert not any(name == "CodeType" for _, name in everything_named(stream))


def test_bytecode_of_another_python_is_refused_and_says_which():
    with pytest.raises(
        StepNotRestored, match=r"it holds bytecode of Python 3\.99, which Python 3\.\d+ does not"
    ):
        _stored.code((3, 99), *range(18))


@pytest.mark.parametrize(
    "value", [durable_nb.exponential(3), durable_nb.linear(1, 2), durable_nb.constant(4)]
)
def test_a_backoff_comes_back_with_its_waits(value):
    again = codec.decode(codec.encode(value))
    assert [again(n) for n in range(4)] == [value(n) for n in range(4)]


def test_what_is_internal_cannot_be_saved():
    with pytest.raises(StepNotSaved, match="_Gone is internal to durable_nb"):
        codec.encode(_stored._Gone)
    with pytest.raises(pickle.PicklingError, match="internal to durable_nb"):
        as_cell(codec.encode)


@pytest.mark.parametrize("named", [codec.encode, _stored.check_name], ids=["module", "no stored name"])
def test_a_checkpoint_of_a_development_version_is_refused_clearly(named):
    from durable_nb.notebook.namespace.pickling import Stream

    stream = pickle.dumps(named)
    for read in (
        lambda: codec.decode(durable_nb.records.Payload("pickle", stream)),
        lambda: Stream(stream, (), {}),
    ):
        with pytest.raises(StepNotRestored, match="a development version of durable_nb") as caught:
            read()
        assert "Run the step again: " in str(caught.value)


NOT_DEFINED = {"BackoffStrategy", "__version__", "durable_step", "durable_workflow"}  # an alias, methods


@pytest.mark.parametrize("name", sorted({*durable_nb.__all__} - NOT_DEFINED))
def test_public_names_say_that_they_are_public(name):
    assert getattr(durable_nb, name).__module__ in (*_stored.PUBLIC, "durable_nb.errors")
