"""A value that a task returns and the same value that a durable cell binds are kept by the same rules.

Run as a script this file is the driver: ``save DIR`` makes every value in a `__main__` that defines the
classes and functions below, and keeps it both ways; ``restore DIR`` loads both in another process.
"""

from __future__ import annotations

import array
import asyncio
import collections
import concurrent.futures
import contextvars
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import io
import json
import logging
import os
import pickle
import queue
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import types
import typing
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest

from durable_nb import codec
from durable_nb.errors import DurableError, StepNotSaved
from durable_nb.notebook.namespace import snapshot
from durable_nb.notebook.namespace.restore import restore_names
from durable_nb.notebook.namespace.save import save_names
from durable_nb.notebook.namespace.saved import SavedNames
from durable_nb.records import Payload
from helpers import pythonpath

# What `__main__` defines.


class Plain:
    def __init__(self, n=1):
        self.n = n

    def method(self):
        return self.n

    class Inner:
        def __init__(self):
            self.of = "inner"


class Slotted:
    __slots__ = ("a", "b")


class Proxy:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Meta(type):
    MADE: typing.ClassVar = []

    def __new__(cls, name, bases, attributes):
        made = super().__new__(cls, name, bases, attributes)
        cls.MADE.append(name)
        return made


class Hue(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: typing.Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: typing.Any


class Pair(typing.NamedTuple):
    left: typing.Any
    right: typing.Any = 0


class User(pydantic.BaseModel):
    name: str
    point: typing.Any = None


class Trouble(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint


class Text(str):
    pass


class Unit(np.ndarray):
    def __array_finalize__(self, other):
        self.unit = getattr(other, "unit", None)


class Raises:
    def __reduce__(self):
        raise LookupError("no way")


UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")


def helper(n):
    return n + 1


@functools.lru_cache(maxsize=7)
def remembered(n):
    return n * 2


def counter():
    n = 0

    def up():
        nonlocal n
        n += 1
        return n

    def get():
        return n

    return up, get


def recursive():
    def walk(n):
        return walk(n - 1) + 1 if n else 0

    return walk


def local_class():
    class Local(metaclass=Meta):
        def who(self):
            return "local"

    return Local


def generated():
    return type("Generated", (Plain,), {"__module__": "__main__", "__qualname__": "Generated"})(4)


def held_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock


def cycle():
    found: list = [{}]
    found[0]["me"] = found
    return found


def cycle_of_objects():
    one, other = Plain(), Plain()
    one.n, other.n = other, one
    return one


def nested(depth):
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def with_cause():
    error = ValueError("outer", 3)
    error.__cause__ = Trouble(5, hint="h")
    error.add_note("noted")
    return error


def model_made_here():
    return pydantic.create_model("Made", n=(int, ...))(n=3)


def done(future):
    future.set_result([1])
    return future


def views():
    base = np.arange(5000.0)
    return {"base": base, "part": base[5:9], "every": base[::2], "back": base[::-1]}


def views_without_owner():
    base = np.arange(60.0).reshape(6, 10)
    return base[:, 1:4], base[2]


def frames():
    frame = pd.DataFrame({"a": [1.0, 2], "b": ["x", None], "t": pd.to_datetime(["2020", "2021"])})
    return frame, frame[:], frame["a"]


def weakly():
    thing = Plain(5)
    return (
        thing,
        weakref.ref(thing),
        weakref.WeakValueDictionary(a=thing),
        weakref.WeakKeyDictionary({thing: 1}),
    )


def dead():
    ref = weakref.ref(Plain())
    gc.collect()
    return ref


def read_only(array):
    array.flags.writeable = False
    return array


def drawn(generator):
    generator.random()
    return generator


def part(whole):
    return memoryview(whole)[2:5]


def shared_part():
    whole = bytearray(b"abcdef")
    return whole, memoryview(whole)[2:4]


def finished_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process


def running_process():
    return subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def unawaited():
    async def body():
        pass

    made = body()
    made.close()
    return made


def mapped():
    path = Path(os.environ["SCRATCH"]) / "mapped"
    if not path.exists():
        path.write_bytes(bytes(range(64)))
    return np.memmap(path, "u1", "r+")


# How the values look: the same after they were kept.


def look(value):
    """Return what a value is, as text; objects that occur twice are numbered in the order of their visit."""
    return _look(value, {})


def _look(value, seen):
    if type(value) in (int, str, bool, float, type(None), bytes):
        return repr(value)
    if id(value) in seen:
        return f"#{seen[id(value)][0]}"
    seen[id(value)] = len(seen), value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind}({_inside(value, seen)})"


def _inside(value, seen):
    def all_of(*parts):
        return ", ".join(_look(part, seen) for part in parts)

    for kinds, parts in LOOKS:
        if isinstance(value, kinds):
            return all_of(*parts(value), *_shared(value, seen), *_attributes(value))
    return all_of(*_attributes(value)) or repr(value).partition(" at 0x")[0]


def _shared(value, seen):
    if not isinstance(value, np.ndarray):
        return []
    others = [
        (at, other) for at, other in seen.values() if isinstance(other, np.ndarray) and other is not value
    ]
    return [at for at, other in others if np.shares_memory(other, value)]


def _attributes(value):
    if isinstance(value, WITHOUT_ATTRIBUTES):
        return []
    slots = [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    return [*slots, *(part for item in sorted(getattr(value, "__dict__", {}).items()) for part in item)]


def _array_parts(value):
    layout = value.dtype.str, str(value.dtype), value.shape, value.flags.writeable, value.flags.fnc
    data = np.ma.getdata(value).view(np.ndarray)
    return [*layout, data.tolist(), np.ma.getmaskarray(value).tolist() if np.ma.isMA(value) else None]


def _function_parts(function):
    names = function.__qualname__, function.__module__, function.__doc__
    return [*names, function.__defaults__, list(function.__closure__ or ())]


WITHOUT_ATTRIBUTES = (
    *(type, types.ModuleType, types.FunctionType, typing.TypeVar, logging.Logger, np.memmap),
    pd.core.base.PandasObject,
)

LOOKS = (
    (np.memmap, lambda v: [*_array_parts(v), str(v.filename), v.mode]),
    (np.ndarray, _array_parts),
    (pd.DataFrame | pd.Series, lambda v: [v.to_csv(), str(v.dtypes)]),
    (pd.Index, lambda v: [list(map(str, v)), str(v.dtype), v.name]),
    (dict | collections.ChainMap, lambda v: [part for item in v.items() for part in item]),
    (types.MappingProxyType, lambda v: [dict(v)]),
    (weakref.WeakValueDictionary | weakref.WeakKeyDictionary, lambda v: [dict(v)]),
    (list | tuple | collections.deque | array.array, lambda v: [*list(v), getattr(v, "maxlen", None)]),
    (set | frozenset, lambda v: sorted(v, key=repr)),
    (bytearray, lambda v: [bytes(v)]),
    (memoryview, lambda v: [v.tobytes(), v.format, v.readonly]),
    (weakref.ref, lambda v: [v()]),
    (BaseException, lambda v: [v.args, str(v), v.__cause__]),
    (types.FunctionType, _function_parts),
    (types.CellType, lambda v: [v.cell_contents]),
    (types.MethodType, lambda v: [v.__func__, v.__self__]),
    (functools.partial, lambda v: [v.func, v.args, v.keywords]),
    (random.Random, lambda v: ["of the process" if v is random._inst else v.getstate()]),
    (np.random.Generator, lambda v: [str(v.bit_generator.state)]),
    (np.random.RandomState, lambda v: [str(v.get_state())]),
    (io.StringIO | io.BytesIO, lambda v: [v.getvalue(), v.tell()]),
    (queue.Queue, lambda v: [list(v.queue), v.maxsize]),
    (asyncio.Queue, lambda v: [v.qsize(), v.maxsize]),
    (threading.Event | asyncio.Event, lambda v: [v.is_set()]),
    (asyncio.Semaphore | threading.Semaphore, lambda v: [v._value]),
    (logging.Logger, lambda v: [v.name]),
    (concurrent.futures.Future, lambda v: [v.result()]),
    (subprocess.Popen, lambda v: [v.returncode]),
    (typing.TypeVar, lambda v: [v.__name__, v.__bound__, v.__constraints__]),
    (type, lambda v: [v.__qualname__, v.__module__, [base.__qualname__ for base in v.__mro__]]),
)
"""What is looked at, by class: objects of these, and their attributes; of all others the attributes alone."""

DTYPES = "? i1 u2 i4 >i4 u8 f2 f4 f8 >f8 g c8 c16 S3 U4 M8[D] m8[s] V4 O"
COLUMNS = "int64 float32 bool object str category datetime64[ns] Int64 boolean string"


def of_dtype(dtype, *, large):
    count = 12_000 if large else 12
    if dtype == "O":
        return np.array([*range(count - 1), None], dtype=object).reshape(3, -1)
    return np.arange(count).astype("S3" if dtype == "V4" else "i8").astype(dtype).reshape(3, -1)


ARRAYS = {
    **{
        f"array of {dtype}, {'large' if large else 'small'}": functools.partial(of_dtype, dtype, large=large)
        for dtype in DTYPES.split()
        for large in (False, True)
    },
    "array in Fortran order": lambda: np.asfortranarray(np.ones((30, 40))),
    "array with gaps": lambda: np.ones((200, 200))[::2, ::3],
    "array reversed": lambda: np.arange(9.0)[::-1],
    "array of no dimension": lambda: np.array(3.5),
    "array without items": lambda: np.empty((0, 3)),
    "array that is read-only": lambda: read_only(np.arange(3.0)),
    "large array that is read-only": lambda: read_only(np.arange(300_000.0)),
    "structured array": lambda: np.zeros(3, [("a", "i4"), ("b", "U3"), ("c", "f8", 2)]),
    "records": lambda: np.zeros(3, [("a", "i4")]).view(np.recarray),
    "masked array": lambda: np.ma.array(np.arange(5.0), mask=[0, 1, 0, 0, 1], fill_value=9),
    "array of a subclass": lambda: np.arange(4.0).view(Unit),
    "scalar of NumPy": lambda: [np.float32(1.5), np.str_("a"), np.datetime64("2020")],
    "views of one array": views,
    "views without their owner": views_without_owner,
    "views that do not overlap": lambda: list(np.arange(20.0).reshape(4, 5)),
    "views of an array of objects": lambda: (lambda a: [a, a[1:]])(np.array([[1], "x", None], dtype=object)),
    "mapped array": mapped,
}

FRAMES = {
    **{
        f"column of {dtype}": functools.partial(pd.Series, [1, 0], dtype=dtype, name="n")
        for dtype in COLUMNS.split()
    },
    "frames over the same memory": frames,
    "frame with levels": lambda: pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")])
    ),
    "frame of a thousand columns": lambda: pd.DataFrame(np.ones((3, 1000))),
    "index": lambda: pd.date_range("2020", periods=3, tz="UTC"),
}

BUILTIN = {
    "memoryview of bytes": lambda: memoryview(b"abcdef"),
    "memoryview of a bytearray": lambda: (lambda whole: [whole, memoryview(whole)])(bytearray(b"abcdef")),
    "memoryview that is read-only": lambda: memoryview(bytearray(b"abc")).toreadonly(),
    "memoryview of numbers": lambda: memoryview(array.array("i", [1, 2, 3])),
    "memoryview of part of bytes": lambda: part(b"abcdef"),
    "memoryview of part of a bytearray": lambda: part(bytearray(b"abcdef")),
    "memoryview of a part beside the whole": shared_part,
    "memoryview of nothing": lambda: memoryview(bytearray(b"abc"))[3:],
    "memoryview in another layout": lambda: memoryview(bytearray(b"abcdef"))[::2],
    "memoryview of another format": lambda: memoryview(bytearray(8)).cast("i"),
    "bytearray": lambda: bytearray(b"abc"),
    "deque": lambda: collections.deque([1, [2]], maxlen=4),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "Counter": lambda: collections.Counter("aab"),
    "OrderedDict": lambda: collections.OrderedDict(b=1, a=2),
    "ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    "keys of a dict": lambda: {"a": 1, "b": 2}.keys(),
    "mappingproxy": lambda: types.MappingProxyType({"a": 1}),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=[1]),
    "cycle": cycle,
    "cycle of objects": cycle_of_objects,
    "one object twice": lambda: (lambda one: [one, {"a": one}])([1]),
    "iterator of a list": lambda: (lambda it: (next(it), it)[1])(iter([1, 2, 3])),
    "pattern": lambda: re.compile("a+", re.IGNORECASE),
    "context of decimals": lambda: decimal.Context(prec=7),
    "moment": lambda: datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "module": lambda: [json, os.path],
    "str of a subclass": lambda: Text("a"),
    "StringIO": lambda: (lambda file: (file.read(2), file)[1])(io.StringIO("text")),
    "BytesIO": lambda: io.BytesIO(b"bytes"),
    "not implemented": lambda: [NotImplemented, ...],
    "type of None": lambda: [type(None), int, dict[str, int], typing.Optional[int]],  # noqa: UP045
}

CODE = {
    "lambda": lambda: lambda n: n * 2,
    "function": lambda: helper,
    "closures over one cell": counter,
    "closure over itself": recursive,
    "partial": lambda: functools.partial(helper, 3),
    "partial of a lambda": lambda: functools.partial(lambda a, b: a + b, 1, b=2),
    "cached function": lambda: remembered,
    "cached lambda": lambda: functools.lru_cache(3)(lambda n: n),
    "bound method": lambda: Plain(7).method,
    "method of a class": lambda: Plain.method,
    "method of a built-in": lambda: [1, 2].append,
    "class": lambda: Plain,
    "class in a class": lambda: Plain.Inner,
    "object of a class in a class": Plain.Inner,
    "object of a local class": lambda: local_class()(),
    "object of a generated class": generated,
    "object": lambda: Plain([1]),
    "object with slots": lambda: (lambda one: (setattr(one, "a", [1]), one)[1])(Slotted()),
    "proxy": lambda: Proxy({"a": 1}),
    "enum": lambda: [Hue.RED, Access.READ | Access.WRITE],
    "dataclass": lambda: Point(1, Frozen([Hue.RED])),
    "namedtuple": lambda: Pair([1]),
    "model": lambda: User(name="a", point=Point(1)),
    "model of a generated class": model_made_here,
    "NewType": lambda: UserId,
    "TypeVar": lambda: T,
    "exception": lambda: Trouble(3, hint="h"),
    "exception with a cause": with_cause,
    "group of exceptions": lambda: ExceptionGroup("several", [ValueError(1), Trouble(6, hint="i")]),
}

PROCESS = {
    "lock": threading.Lock,
    "lock that is held": held_lock,
    "lock of asyncio": asyncio.Lock,
    "event": lambda: (lambda event: (event.set(), event)[1])(threading.Event()),
    "semaphore": lambda: threading.Semaphore(3),
    "semaphore of asyncio": lambda: asyncio.Semaphore(3),
    "condition": threading.Condition,
    "queue": lambda: (lambda found: (found.put([1]), found)[1])(queue.Queue(5)),
    "queue of asyncio": lambda: asyncio.Queue(5),
    "environment": lambda: os.environ,
    "stream": lambda: [sys.__stderr__],
    "logger": lambda: logging.getLogger("a.b"),
    "random numbers": lambda: drawn(random.Random(1)),
    "random numbers of the process": lambda: [random._inst],
    "random numbers of NumPy": lambda: drawn(np.random.default_rng(3)),
    "random numbers of NumPy, old": lambda: np.random.RandomState(3),
    "weak references": weakly,
    "weak reference that is dead": dead,
    "weak reference with a callback": lambda: (Plain, weakref.ref(Plain, print)),
    "weak set": lambda: (lambda thing: [thing, weakref.WeakSet([thing])])(Plain()),
    "text file": lambda: open(os.devnull),  # noqa: PTH123, SIM115
    "binary file": lambda: open(os.devnull, "rb"),  # noqa: PTH123, SIM115
    "raw file": lambda: open(os.devnull, "rb", buffering=0),  # noqa: PTH123, SIM115
    "temporary file": tempfile.NamedTemporaryFile,
    "socket": socket.socket,
    "generator": lambda: (n for n in range(3)),
    "coroutine": unawaited,
    "connection": lambda: {"n": 1, "con": sqlite3.connect(":memory:")},
    "connection in an object": lambda: Plain([1, {"deep": (sqlite3.connect(":memory:"),)}]),
    "match": lambda: re.match("a", "a"),
    "context variable": lambda: contextvars.ContextVar("name"),
    "pool of threads": lambda: concurrent.futures.ThreadPoolExecutor(1),
    "local of a thread": threading.local,
    "future with a result": lambda: done(concurrent.futures.Future()),
    "future without a result": concurrent.futures.Future,
    "process that ended": finished_process,
    "process that runs": running_process,
    "frame of the stack": sys._getframe,
    "what raises": Raises,
    "what raises, in a dict": lambda: {"a": [Raises()]},
    "what is nested too deeply": lambda: nested(50_000),
    "what is internal": lambda: [codec.encode],
}

ZOO = {**ARRAYS, **FRAMES, **BUILTIN, **CODE, **PROCESS}

REFUSED = {
    *("memoryview in another layout", "memoryview of another format"),
    *("lock that is held", "weak reference with a callback", "text file", "binary file", "raw file"),
    *("temporary file", "socket", "generator", "coroutine", "connection", "connection in an object", "match"),
    *("context variable", "pool of threads", "local of a thread", "future without a result"),
    *("process that runs", "frame of the stack", "what raises", "what raises, in a dict"),
    *("what is nested too deeply", "what is internal"),
}


# The driver.


def kept_as_task(value):
    try:
        payload = codec.encode(value)
    except StepNotSaved as error:
        return error.what.partition("): ")[2]
    return payload.format, bytes(payload.data), [bytes(part) for part in payload.parts]


def kept_as_cell(before, namespace):
    saved = save_names(namespace, before.changes(namespace))
    if saved.unsaved:
        return saved.unsaved["value"]
    return saved.header(), [bytes(part) for part in saved.parts]


def save(directory):
    namespace, found = vars(sys.modules["__main__"]), {}
    before = snapshot.snapshot_names(namespace, ("value", *HIDDEN))
    before = dataclasses.replace(before, hidden=HIDDEN)
    for name, make in ZOO.items():
        value = make()
        seen = None if name in REFUSED else look(value)
        namespace["value"] = value
        found[name] = seen, kept_as_task(value), kept_as_cell(before, namespace)
        del namespace["value"]
    (directory / "saved").write_bytes(pickle.dumps(found))


def restore(directory):
    namespace, found = vars(sys.modules["__main__"]), {}
    for name, (seen, task, cell) in pickle.loads((directory / "saved").read_bytes()).items():
        if isinstance(task, str) or isinstance(cell, str):
            found[name] = seen, task, cell
            continue
        found[name] = seen, looked(of_task, task), looked(of_cell, cell, namespace)
    (directory / "restored.json").write_text(json.dumps(found, default=str))


def looked(load, *arguments):
    try:
        return look(load(*arguments))
    except DurableError as error:
        return f"not restored: {error}"


def of_task(kept):
    *row, parts = kept
    return codec.decode(Payload(*row, parts=parts))


def of_cell(kept, namespace):
    restored = restore_names(namespace, SavedNames.from_parts(*kept))
    assert not restored.failed, restored.failed
    return namespace.pop("value")


HIDDEN = ("ZOO", "ARRAYS", "FRAMES", "BUILTIN", "CODE", "PROCESS", "LOOKS", "HIDDEN", "driven")


if __name__ == "__main__":
    {"save": save, "restore": restore}[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # what is open stays open


# The tests.


@pytest.fixture(scope="session")
def driven(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo")
    for phase in ("save", "restore"):
        env = {**os.environ, **pythonpath(), "SCRATCH": str(directory), "PYTHONHASHSEED": "0"}
        subprocess.run([sys.executable, __file__, phase, str(directory)], env=env, check=True, timeout=100)
    return json.loads((directory / "restored.json").read_text())


@pytest.mark.parametrize("name", sorted(ZOO.keys() - REFUSED))
def test_a_task_and_a_cell_restore_the_same_value(driven, name):
    seen, task, cell = driven[name]
    assert task == seen
    assert cell == seen


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_task_and_a_cell_refuse_a_value_with_the_same_words(driven, name):
    _, task, cell = driven[name]
    assert "cannot be saved" in task or "to be saved" in task
    assert task == cell
