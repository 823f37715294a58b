"""Fingerprints: equal for equal things in every process, different for different ones, None where unsure."""

from __future__ import annotations

import enum
import functools
import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
import typing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb import fingerprint
from durable_nb.settings import SHOWN_ARGUMENT

HIDDEN = "\u2039hidden\u203a"


class CallMode(enum.Enum):
    RED = 1
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: typing.Any
    y: int = 0


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    password: str = "p"


class Pair(typing.NamedTuple):
    left: int
    right: int


class User(pydantic.BaseModel):
    name: str
    token: str = "t"


class Unknown:
    def method(self):
        return 1


DISTINCT = [
    None,
    True,
    False,
    0,
    1,
    1.0,
    -1,
    "1",
    b"1",
    "",
    b"",
    "None",
    10**5000,
    10**5000 + 1,
    0.5,
    float("inf"),
    float("nan"),
    "\ud800",
    "\ud83d\ude00",
    "😀",
    "a" * 1000,
    "a" * 1001,
    b"a" * 1000,
    b"a" * 1001,
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    {1},
    frozenset({1}),
    bytearray(b"1"),
    (1, 2),
    (2, 1),
    [1, [2]],
    [[1], 2],
    [1, 2, 10**5000],
    [[]],
    [[], []],
    ("a,b",),
    ("a", "b"),
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {1: "a"},
    {"a": {"b": 1}},
    1j,
    1 + 1j,
    ...,
    range(3),
    range(1, 3),
    slice(3),
    slice(1, 3),
    Decimal(1),
    Decimal("1.0"),
    Decimal("NaN"),
    Decimal("Infinity"),
    Fraction(1, 2),
    UUID(int=1),
    date(2024, 1, 1),
    datetime(2024, 1, 1),  # noqa: DTZ001
    datetime(2024, 1, 1, fold=1),  # noqa: DTZ001
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    time(1),
    timedelta(1),
    UTC,
    PurePosixPath("a"),
    PureWindowsPath("a"),
    Path("a"),
    CallMode.RED,
    CallMode.BLUE,
    Access.READ,
    Access.READ | Access.WRITE,
    Point(1),
    Point(1, 1),
    Point(1.0),
    Point([1]),
    Slotted(1),
    Pair(1, 2),
    User(name="a"),
    User(name="b"),
    CallMode,
    Point,
    dict,
    len,
    [].append,
    [1].append,
    os.path.join,
    textwrap.dedent,
    functools.partial(len),
    functools.partial(int, base=2),
    Point(1).__eq__,
    np.arange(3),
    np.arange(3.0),
    np.arange(3).reshape(3, 1),
    np.array(3),
    np.int64(3),
    np.float64(3),
    np.array(["a"], object),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array(["2024-01-01"], "M8[D]"),
    np.zeros(0),
    np.bool_(True),
    pd.Series([1, 2]),
    pd.Series([1, 2], name="n"),
    pd.Series([1.0, 2.0]),
    pd.Series(["a", None]),
    pd.Series(["a"], dtype="category"),
    pd.DataFrame({"a": [1]}),
    pd.DataFrame({"b": [1]}),
    pd.DataFrame({"a": [1]}, index=[5]),
    pd.DataFrame({"a": ["x"]}),
    pd.DataFrame({"t": pd.to_datetime(["2024-01-01"], utc=True)}),
    pd.Index([1, 2]),
    pd.MultiIndex.from_tuples([(1, "a")]),
    pd.Timestamp("2024-01-01"),
    pd.NaT,
    pd.NA,
]


def test_every_two_different_values_have_different_fingerprints():
    found = {}
    for value in DISTINCT:
        mark = fingerprint.value(value)
        assert mark is not None, value
        assert mark not in found, (value, found[mark])
        found[mark] = value


def test_a_fingerprint_is_32_hex_digits():
    assert all(len(fingerprint.value(value)) == 32 for value in DISTINCT)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(plain, plain)
def test_plain_values_have_equal_fingerprints_only_if_written_alike(a, b):
    assert (fingerprint.value(a) == fingerprint.value(b)) == (unordered(a) == unordered(b))


def unordered(value):
    if type(value) is dict:
        return f"{{{sorted((ascii(key), unordered(item)) for key, item in value.items())}}}"
    if type(value) in (list, tuple):
        return f"{type(value)}{[unordered(item) for item in value]}"
    return ascii(value)


@given(st.dictionaries(st.text() | st.integers(), plain), st.randoms())
def test_equal_dicts_and_sets_have_equal_fingerprints_in_any_order(found, rng):
    items = list(found.items())
    rng.shuffle(items)
    assert fingerprint.value(dict(items)) == fingerprint.value(found)
    assert fingerprint.value({key for key, _ in items}) == fingerprint.value(set(found))


def test_equal_values_that_are_stored_differently_are_equal():
    array = np.arange(12).reshape(3, 4)
    assert fingerprint.value(np.asfortranarray(array)) == fingerprint.value(array)
    assert fingerprint.value(np.arange(24).reshape(3, 8)[:, ::2]) == fingerprint.value(
        np.arange(0, 24, 2).reshape(3, 4)
    )
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert fingerprint.value(frame.copy()) == fingerprint.value(frame)
    shared = [1]
    assert fingerprint.value([shared, shared]) == fingerprint.value([[1], [1]])


def test_a_mapped_array_equals_the_array(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert fingerprint.value(mapped) == fingerprint.value(np.arange(3))


def test_what_cannot_be_fingerprinted_is_none():
    cycle: list = []
    cycle.append(cycle)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (
        Unknown(),
        Unknown().method,
        [threading.Lock()],
        cycle,
        deep,
        {"a": {1: Point(object())}},
        iter(()),
    ):
        assert fingerprint.value(value) is None


def test_a_value_that_shares_its_parts_many_times_is_written_once():
    value: list = []
    for _ in range(200):
        value = [value, value]
    assert fingerprint.value(value) is not None


def test_closures_with_other_values_around_them_are_other_functions():
    def made(n):
        return lambda x: x + n

    assert fingerprint.value(made(1)) == fingerprint.value(made(1))
    assert fingerprint.value(made(1)) != fingerprint.value(made(2))
    one, two = [lambda x, n=n: x for n in (1, 2)]
    assert fingerprint.value(one) != fingerprint.value(two)


def test_a_class_that_is_not_found_by_name_is_none():
    class Local:
        pass

    assert fingerprint.value(Local) is None


PROCESS = """
    import enum, sys
    from dataclasses import dataclass
    from pathlib import PurePosixPath
    from decimal import Decimal
    from durable_nb import fingerprint
    @dataclass(frozen=True)
    class Point:
        x: int
    class Hue(enum.Enum):
        RED = "r"
    values = [{"a", "b", "c", 1, None}, {"x": {Point(1), Point(2), Hue.RED}}, frozenset({("a", 1), "b"}),
              "text", (1, "b"), PurePosixPath("a"), Decimal("1.5"), Point, len, {b"k": [1.5, {"q", "r"}]}]
    print([fingerprint.value(value) for value in values])
    print(fingerprint.source("x = {1, 2}  # c"), fingerprint.shown({"s": set("abc")}))
"""


def test_fingerprints_are_equal_in_every_process_whatever_the_hash_seed():
    outputs = set()
    for seed in ("0", "1", "2", "random"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROCESS)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert "None" not in outputs.pop()


def test_a_fingerprint_stays_what_it_was():
    assert fingerprint.value((1, "a")) == fingerprint.value((1, "a"))
    assert fingerprint.value({"a": [1, 2.5, None]}) == "5607b386f37de155c441e4eed7a9c599"
    assert fingerprint.source("x = 1") == "a0f2da287bf1fcfe6874f87db696cf76"


def test_fingerprinting_loads_no_library():
    code = f"""
        import sys, types
        package = types.ModuleType("durable_nb")
        package.__path__ = {[str(Path(sys.modules["durable_nb"].__path__[0]))]!r}
        sys.modules["durable_nb"] = package
        from durable_nb import fingerprint
        fingerprint.value([1, object()]), fingerprint.shown({{"a": [object()]}})
        assert not {{"numpy", "pandas", "pydantic", "IPython"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# Code


def load(text, tmp_path, name="f"):
    file = tmp_path / f"module_{next(COUNTER)}.py"
    file.write_text(textwrap.dedent(text))
    space = {"functools": functools, "typing": typing}
    exec(compile(file.read_text(), str(file), "exec"), space)
    return space[name]


COUNTER = itertools.count()

BASE = """
    def f(a, b=1):
        return a + b
"""
SAME = {
    "comments and formatting": """
        # before
        def f(a,
              b = 1):  # why

            return (a +
                    b)
    """,
    "a docstring": '''
        def f(a, b=1):
            """Say so."""
            return a + b
    ''',
    "type hints": """
        def f(a: int, b: "int" = 1) -> int:
            return a + b
    """,
    "decorators": """
        def passed(function):
            @functools.wraps(function)
            def wrapper(*args): return function(*args)
            return wrapper
        @passed
        @passed
        def f(a, b=1):
            return a + b
    """,
}
OTHER = {
    "another name": "def g(a, b=1):\n    return a + b\nf = g",
    "another default": "def f(a, b=2):\n    return a + b",
    "another body": "def f(a, b=1):\n    return a - b",
    "another argument": "def f(a, c=1):\n    return a + c",
    "async": "async def f(a, b=1):\n    return a + b",
    "a float for an int": "def f(a, b=1.0):\n    return a + b",
    "keyword only": "def f(a, *, b=1):\n    return a + b",
}


@pytest.mark.parametrize("what", SAME)
def test_what_is_not_behaviour_does_not_change_a_functions_fingerprint(what, tmp_path):
    assert (
        fingerprint.function(load(SAME[what], tmp_path))
        == fingerprint.function(load(BASE, tmp_path))
        is not None
    )


@pytest.mark.parametrize("what", OTHER)
def test_what_is_behaviour_changes_a_functions_fingerprint(what, tmp_path):
    assert fingerprint.function(load(OTHER[what], tmp_path)) not in (
        None,
        fingerprint.function(load(BASE, tmp_path)),
    )


def test_a_hinted_assignment_is_an_assignment_in_a_function_and_a_field_in_a_class(tmp_path):
    def of(text):
        return fingerprint.function(load(text, tmp_path))

    assert of("def f():\n    x: int = 1\n    y: int") == of("def f():\n    x = 1")
    assert of("def f():\n    class A:\n        x: int = 1") != of("def f():\n    class A:\n        x = 1")
    assert of("def f():\n    class A:\n        x: int = 1") != of(
        "def f():\n    class A:\n        x: str = 1"
    )


def test_two_lambdas_on_one_line_are_told_apart(tmp_path):
    first, second = load("f = (lambda x: x + 1, lambda x: x + 2)", tmp_path)
    same = load("f = [1,\n     lambda x:\n    x + 1]", tmp_path)[1]
    assert fingerprint.function(first) != fingerprint.function(second)
    assert fingerprint.function(first) == fingerprint.function(same) is not None


def test_functions_of_one_name_in_one_file_are_told_apart(tmp_path):
    one, two = load("def g(n):\n    return 1\none = g\ndef g(n):\n    return 2\nf = one, g", tmp_path)
    assert fingerprint.function(one) != fingerprint.function(two)


def test_methods_static_methods_and_bound_ones_have_their_functions_fingerprint(tmp_path):
    kind = load(
        """
        class f:
            def m(self): return 1
            @classmethod
            def c(cls): return 2
            @staticmethod
            def s(): return 3
        """,
        tmp_path,
    )
    assert fingerprint.function(kind().m) == fingerprint.function(kind.m) is not None
    assert fingerprint.function(vars(kind)["c"]) == fingerprint.function(kind.c) is not None
    assert fingerprint.function(vars(kind)["s"]) == fingerprint.function(kind.s) is not None


def test_without_source_a_function_has_no_fingerprint():
    space: dict = {}
    exec("def f(): return 1", space)
    for fn in (space["f"], len, int, functools.partial(len), 5):
        assert fingerprint.function(fn) is None


def test_functions_of_notebook_cells_have_fingerprints(tmp_path):
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        from durable_nb import fingerprint
        shell = InteractiveShell.instance()
        def mark(cell, expression="f"):
            shell.run_cell(cell).raise_error()
            return fingerprint.function(shell.user_ns[expression])
        one = mark("def f(a):\\n    return a")
        assert one is not None
        assert one == mark("%time x = 1\\n!true\\ndef f(a: int):  # c\\n    return a")
        assert one != mark("def f(a):\\n    return -a")
        assert mark("f = lambda a: a") is not None
        import inspect
        shell.run_cell("class K:\\n    def m(self):\\n        return 1\\nf = K().m").raise_error()
        assert fingerprint.function(shell.user_ns["f"]) is not None
    """
    env = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_cells_source_counts_as_syntax_and_its_decorators_count():
    same = fingerprint.source("x = 1\ny = f(x)")
    assert fingerprint.source("x=1  # one\n\ny = f( x )") == same
    assert fingerprint.source("x = 2\ny = f(x)") != same
    assert fingerprint.source("@a\ndef f(): pass") != fingerprint.source("def f(): pass")
    assert fingerprint.source('"shown"') != fingerprint.source('"other"')


def test_a_source_that_does_not_parse_counts_as_text():
    assert fingerprint.source("%%html\n<b>") == fingerprint.source("%%html\n<b>")
    assert fingerprint.source("%%html\n<b>") != fingerprint.source("%%html\n<i>")
    assert fingerprint.source("\0") is not None
    assert fingerprint.source("+".join(["x"] * 100_000)) is not None


# For people


class Loud:
    def __repr__(self):
        raise ValueError("no")


def test_arguments_are_shown_by_their_bounded_reprs():
    texts = fingerprint.shown(
        {"n": 3, "text": "a" * 10_000, "many": list(range(10**6)), "nested": [[1] * 10**6] * 10**6}
    )
    assert texts["n"] == "3"
    assert all(len(text) <= SHOWN_ARGUMENT for text in texts.values())
    assert fingerprint.shown({"p": Point([1, 2])}) == {"p": "Point(x=[1, 2], y=0)"}


def test_a_failing_repr_is_said():
    assert fingerprint.shown({"a": Loud(), "b": [Loud()]}) == {
        "a": "<Loud: repr failed>",
        "b": "[<Loud: repr failed>]",
    }


def test_addresses_are_left_out_for_they_differ_in_each_process():
    assert " at 0x" not in fingerprint.shown({"a": object()})["a"]


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "PASSWD",
        "secret",
        "client_secret",
        "clientSecret",
        "token",
        "access_token",
        "authToken",
        "api_key",
        "apikey",
        "API-KEY",
        "openaiApiKey",
        "auth",
        "http_auth",
        "Authorization",
        "credentials",
        "private_key",
        "session_key",
        "sessionKey",
        "tokens",
    ],
)
def test_values_under_secret_looking_names_are_hidden_at_any_depth(name):
    assert fingerprint.shown({name: "s3cr3t"}) == {name: HIDDEN}
    assert "s3cr3t" not in str(fingerprint.shown({"config": {"a": [{name: "s3cr3t"}]}}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("author", "x"), ("tokenizer", "x"), ("max_tokens", 5), ("key", "x"), ("keyboard", "x"), ("n", 1)],
)
def test_names_that_only_resemble_secrets_are_shown(name, value):
    assert fingerprint.shown({name: value}) == {name: repr(value)}


def test_secrets_in_records_and_urls_are_hidden():
    texts = fingerprint.shown(
        {"s": Slotted(1, "s3cr3t"), "u": User(name="a", token="s3cr3t"), "url": "redis://me:s3cr3t@host/0"}
    )
    assert "s3cr3t" not in str(texts)
    assert texts["s"] == f"Slotted(x=1, password={HIDDEN})"


def test_sets_are_shown_in_the_order_of_their_texts():
    assert fingerprint.shown({"s": {"c", "a", "b"}}) == {"s": "{'a', 'b', 'c'}"}


def test_a_difference_says_what_changed_what_came_and_what_went():
    old, new = {"n": "3", "path": "'a'", "same": "1"}, {"n": "4", "same": "1", "limit": "5"}
    assert fingerprint.difference(old, new) == "n: 3 → 4; added: limit=5; removed: path"
    assert fingerprint.difference(old, old) == ""


def test_a_difference_is_bounded_and_shows_the_place_that_differs():
    text = fingerprint.difference({"a": "x" * 180 + "OLD"}, {"a": "x" * 180 + "NEW"})
    assert "OLD" in text
    assert "NEW" in text
    assert len(text) < 3 * SHOWN_ARGUMENT


def test_random_state_is_untouched_by_fingerprints():
    random.seed(1)
    before = random.getstate()
    fingerprint.value([1, {2}])
    assert random.getstate() == before
