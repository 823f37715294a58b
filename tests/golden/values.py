"""The values that tasks return in the golden runs, each with the function that makes it."""

import array
import collections
import dataclasses
import enum
import functools
import io
import math
import random
import re
import struct
import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pydantic

import durable_nb
from durable_nb import errors


class Paint(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: typing.Any = None


@dataclass(frozen=True, slots=True)
class Frozen:
    a: typing.Any
    b: tuple = ()


class Pair(typing.NamedTuple):
    left: typing.Any
    right: typing.Any = 0


class User(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    age: int = 3
    inner: Pair | None = None
    _note: str = pydantic.PrivateAttr("n")


class Shop:
    """A class with slots, one of them empty."""

    __slots__ = ("__weakref__", "empty", "name", "orders")

    def __init__(self, name):
        self.name, self.orders = name, [1]


class Basket(dict):
    """A container with attributes of its own."""


class Refused(Exception):
    """An exception whose ``__init__`` takes other arguments than its ``args``."""

    def __init__(self, code, *, hint):
        super().__init__(f"{code}: {hint}")
        self.code = code


class Labelled(np.ndarray):
    """An array of a class of its own."""


def double(x):
    return 2 * x


def make_counter(start):
    def count():
        nonlocal start
        start += 1
        return start

    return count


def make_walk():
    def walk(n):
        return [n, *walk(n - 1)] if n else []

    return walk


def make_local():
    class Local:
        __slots__ = ("x",)
        unit = "kg"

        def __init__(self, x):
            self.x = x

        def doubled(self):
            return 2 * self.x, self.unit

    return Local


def shared():
    inner = [1]
    return [inner, inner, {"a": inner}]


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def depth(value):
    levels = 0
    while value:
        (value,) = value
        levels += 1
    return levels


def cycle():
    value = [1]
    value.append(value)
    return value


def generator():
    value = np.random.default_rng(3)
    value.random()
    return value


def large_frame():
    columns = {f"c{n}": np.arange(3000.0) * n for n in range(4)}
    return pd.DataFrame({**columns, "n": np.arange(3000), "b": np.arange(3000) % 3 == 0})


def seeded():
    value = random.Random(3)
    value.random()
    return value


@dataclass
class Kind:
    """A kind of value.

    Attributes:
        make: Makes the value, the same one each time.
        look: Takes the value, gives what is compared of it: nothing else about it can be.
        by_value: Whether its checkpoint holds bytecode, which one minor version of Python alone executes.
        library: The library whose classes it is made of, if any.
    """

    make: Callable[[], typing.Any]
    look: Callable[[typing.Any], typing.Any] = lambda value: value
    by_value: bool = False
    library: str = ""


def numpy(make, look=lambda value: value):
    return Kind(make, look, library="numpy")


def pandas(make, look=lambda value: value):
    return Kind(make, look, library="pandas")


PLAIN = {
    "none": lambda: [None, True, False],
    "text": lambda: ["", "ü", "\U0001f600", "a\x00b", '"$x'],
    "numbers": lambda: [0, -1, 1.5, -0.0, 1e300],
    "tuple": lambda: (1, (2, ()), [3]),
    "set": lambda: {1, "a", (2,)},
    "frozenset": lambda: frozenset({1, frozenset()}),
    "bytes": lambda: [b"", b"\x00\xff"],
    "bytearray": lambda: bytearray(b"\x00\xff"),
    "complex": lambda: [1 + 2j, complex(-0.0, math.inf)],
    "datetime naive": lambda: datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    "datetime utc": lambda: datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "datetime zone": lambda: datetime(2026, 7, 2, 3, 4, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime fold": lambda: datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime naive fold": lambda: datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001
    "datetime offset": lambda: datetime(
        2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, seconds=7, microseconds=9), "odd")
    ),
    "time": lambda: [time(1, 2, 3, 4), time(1, 2, fold=1), time(1, tzinfo=UTC)],
    "date": lambda: date(2026, 1, 2),
    "timedelta": lambda: [timedelta(days=-1, microseconds=1), timedelta.max],
    "timezone": lambda: [UTC, timezone(timedelta(hours=2)), timezone(timedelta(0), "zero")],
    "decimal": lambda: [Decimal("1.50"), Decimal("-0"), Decimal("1E+9"), Decimal("sNaN12"), Decimal("Inf")],
    "fraction": lambda: Fraction(-2, 3),
    "uuid": lambda: [
        uuid.UUID(int=7),
        uuid.UUID(int=8, is_safe=uuid.SafeUUID.safe),
    ],
    "range": lambda: [range(3), range(9, 0, -2)],
    "slice": lambda: [slice(1), slice("a", None, (1,))],
    "ellipsis": lambda: [..., Ellipsis],
    "paths": lambda: [
        PurePosixPath("/a/../b"),
        PureWindowsPath("c:\\a b"),
        Path("x/y"),
        PurePosixPath("."),
        PurePosixPath("\udc80"),
    ],
    "nan and inf": lambda: [
        math.nan,
        -math.nan,
        math.inf,
        -math.inf,
        struct.unpack(">d", bytes.fromhex("7ff8000000000abc"))[0],
    ],
    "huge ints": lambda: [2**64, -(10**3000), 10**5000],
    "lone surrogates": lambda: ["\ud800", "\ud83d\ude00", {"\udc80": "\\ud800"}],
    "int keys": lambda: {1: "a", "1": "b", None: 0, 1.5: 1, (2, 3): [4], False: 5},
    "dollar keys": lambda: [{"$tuple": [1]}, {"$": 1}, {"$dict": []}, {"a": "$tuple"}],
    "enum": lambda: [Paint.RED, Paint.BLUE, Level.LOW, durable_nb.RunStatus.DONE],
    "flag": lambda: [Access.READ, Access.READ | Access.WRITE, Access(0)],
    "dataclass": lambda: Point(1, [Point(2), Frozen((3,), (4,))]),
    "namedtuple": lambda: Pair((1,), Pair(None)),
    "pydantic model": lambda: User(name="Ann", inner=Pair(1), extra=[1]),
}
"""What exact JSON says."""

PICKLED = {
    "zoneinfo": Kind(lambda: ZoneInfo("Europe/Berlin")),
    "long bytes": Kind(lambda: bytes(range(256)) * 20),
    "longer bytes": Kind(lambda: bytes(range(256)) * 64),
    "long bytes inside": Kind(lambda: [bytes(70_000)]),
    "shared": Kind(shared, lambda value: (value, value[0] is value[1] is value[2]["a"])),
    "cycle": Kind(cycle, lambda value: (value[0], value[1] is value, len(value))),
    "nested deeply": Kind(lambda: nested(130), depth),
    "function": Kind(lambda: [double, make_walk, math.sqrt]),
    "class": Kind(lambda: [Shop, Paint, dict, durable_nb.Workflow]),
    "closure": Kind(
        lambda: make_counter(2), lambda value: (value.__name__, value.__closure__[0].cell_contents), True
    ),
    "recursive closure": Kind(make_walk, lambda value: value(3), True),
    "lambda": Kind(lambda: lambda x, y=2, *, z=3: (x, y, z), lambda value: value(1), True),
    "local class": Kind(
        make_local, lambda value: (value.__qualname__, value.__slots__, value(2).doubled()), True
    ),
    "instance of a local class": Kind(
        lambda: make_local()(4), lambda value: (type(value).__name__, value.doubled()), True
    ),
    "instance with slots": Kind(
        lambda: Shop("a"), lambda value: (type(value), value.name, value.orders, hasattr(value, "empty"))
    ),
    "dict with attributes": Kind(
        lambda: [b := Basket(a=1), setattr(b, "owner", "Ann")][0], lambda value: (dict(value), vars(value))
    ),
    "partial": Kind(
        lambda: functools.partial(double, 4), lambda value: (value.func, value.args, value.keywords, value())
    ),
    "bound methods": Kind(lambda: [[1, 2].__len__, "".join], lambda value: (value[0](), value[1]("ab"))),
    "counter": Kind(lambda: collections.Counter("abca")),
    "ordered dict": Kind(lambda: collections.OrderedDict(b=1, a=2)),
    "default dict": Kind(lambda: collections.defaultdict(list, a=[1]), lambda value: (value, value["new"])),
    "deque": Kind(lambda: collections.deque([1, 2, 3], maxlen=2), lambda value: (list(value), value.maxlen)),
    "chain map": Kind(lambda: collections.ChainMap({"a": 1}, {"b": 2}), lambda value: value.maps),
    "simple namespace": Kind(lambda: types.SimpleNamespace(a=1)),
    "array": Kind(lambda: array.array("d", [1.5, -0.0])),
    "pattern": Kind(lambda: re.compile("a+", re.IGNORECASE)),
    "memoryview": Kind(
        lambda: [memoryview(b"ab"), memoryview(bytearray(b"cd"))],
        lambda value: [(bytes(each), each.readonly) for each in value],
    ),
    "text in memory": Kind(lambda: io.StringIO("a\nb"), lambda value: (value.getvalue(), value.tell())),
    "random": Kind(seeded, lambda value: value.random()),
    "backoff": Kind(
        lambda: [durable_nb.exponential(3), durable_nb.linear(1, 2), durable_nb.constant(4)],
        lambda value: [each(n) for each in value for n in range(3)],
    ),
    "exception": Kind(lambda: Refused(3, hint="h"), lambda value: (type(value), value.args, value.code)),
    "our error": Kind(
        lambda: errors.RunHeld("held", run_id="r", remedy=("wait: ", errors.TakeOver())),
        lambda value: (type(value), value.what, value.run_id, value.remedy),
    ),
    "numpy small": numpy(lambda: np.arange(3, dtype="i2")),
    "numpy plain": numpy(lambda: np.arange(1500.0)),
    "numpy in a blob": numpy(lambda: {"a": np.arange(5000.0), "n": 1}),
    "numpy F order": numpy(lambda: np.asfortranarray(np.arange(1200.0).reshape(30, 40))),
    "numpy strided": numpy(lambda: np.arange(4000)[::2], np.ascontiguousarray),
    "numpy masked": numpy(
        lambda: np.ma.masked_greater(np.arange(900.0), 800),
        lambda value: (type(value), value.data, value.mask, value.fill_value),
    ),
    "numpy structured": numpy(
        lambda: np.array([(1, (1.0, 2.0), b"ab")] * 200, dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", "S5")])
    ),
    "numpy of objects": numpy(lambda: np.array([1, "a", None, (2,)], dtype=object)),
    "numpy of dates": numpy(lambda: np.array(["2026-01-02", "NaT"], dtype="M8[D]")),
    "numpy of text": numpy(lambda: np.array(["ab", "ü"] * 700)),
    "numpy big endian": numpy(lambda: np.arange(1500, dtype=">i4")),
    "numpy empty": numpy(lambda: np.zeros((0, 3))),
    "numpy scalar": numpy(lambda: [np.float32(1.5), np.bool_(True), np.datetime64("2026-01-02")]),
    "numpy dtype": numpy(lambda: [np.dtype("i4"), np.dtype([("a", "f8")])]),
    "numpy subclass": numpy(
        lambda: np.arange(3000.0).view(Labelled), lambda value: (type(value), np.asarray(value))
    ),
    "numpy generator": numpy(generator, lambda value: value.random()),
    "pandas frame": pandas(
        lambda: pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": pd.Series(["x", None], dtype=object)})
    ),
    "pandas frame in blobs": pandas(large_frame),
    "pandas series": pandas(lambda: pd.Series([1, 2, 3], index=[3, 4, 5], name="n")),
    "pandas index": pandas(lambda: pd.Index([3, 1, 2], name="i")),
    "pandas multi index": pandas(lambda: pd.MultiIndex.from_product([[1, 2], [3, 4]], names=["a", None])),
    "pandas categories": pandas(
        lambda: pd.Series(pd.Categorical([2, 1, 2], categories=[2, 1, 0], ordered=True))
    ),
    "pandas time zone": pandas(
        lambda: pd.Series([1, 2], index=pd.date_range("2026-03-29", periods=2, freq="h", tz="Europe/Berlin"))
    ),
    "pandas nullable": pandas(lambda: pd.DataFrame(
            {"i": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}
        )),
    "pandas text": pandas(lambda: pd.Series(["a", None], dtype=pd.StringDtype("python"))),
    "pandas scalars": pandas(
        lambda: [
            pd.Timestamp("2026-01-02", tz="UTC"), pd.Timedelta("1h"), pd.Period("2026-01", "M"),
            pd.Interval(0, 1),
        ]
    ),
    "pandas missing": pandas(lambda: [pd.NA, pd.NaT], lambda value: [value[0] is pd.NA, value[1] is pd.NaT]),
}  # fmt: skip
"""What pickle says."""

VALUES = {**{name: Kind(make) for name, make in PLAIN.items()}, **PICKLED}


def parts(value):  # noqa: C901 - one kind after the other
    """What a value is made of, in order, where == alone does not compare it exactly."""
    match value:
        case float():
            return struct.pack(">d", value)
        case complex():
            return [value.real, value.imag]
        case collections.Counter() | collections.defaultdict() | dict():
            return list(value.items())
        case set() | frozenset():
            return sorted(map(repr, value))
        case Decimal():
            return repr(value.as_tuple())
        case slice():
            return [value.start, value.stop, value.step]
        case datetime() | time():
            return [repr(value), value.fold, value.tzinfo]
        case uuid.UUID():
            return [value.int, value.is_safe]
        case pydantic.BaseModel():
            return [
                value.__dict__,
                value.__pydantic_extra__,
                value.__pydantic_private__,
                value.model_fields_set,
            ]
        case np.ndarray():
            order = value.flags.f_contiguous, value.flags.writeable
            items = value.tolist() if value.dtype.hasobject else value.tobytes()
            return [str(value.dtype), value.shape, *order, items]
        case np.generic():
            return [str(value.dtype), value.tobytes()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, each.name) for each in dataclasses.fields(value)]
    return value


def same(a, b):
    """Whether values are equal and of one type, recursively: order, float bits and dtypes included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, pd.DataFrame | pd.Series | pd.Index):
        kind = "frame" if isinstance(a, pd.DataFrame) else "series" if isinstance(a, pd.Series) else "index"
        getattr(pd.testing, f"assert_{kind}_equal")(a, b, check_exact=True)
        return True
    a, b = parts(a), parts(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
