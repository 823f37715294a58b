"""The codec: what comes back equals what went in, in type too, or an error says what and where."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import dataclasses
import enum
import math
import pickle
import sqlite3
import string
import struct
import subprocess
import sys
import textwrap
import threading
import types
import typing
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_nb.codec import (
    RUNS_CODE,
    decode,
    decode_failure,
    encode,
    encode_failure,
    failure_text,
)
from durable_nb.codec.bundle import Reference, pack, unpack
from durable_nb.errors import RunHeld, StepNotRestored, StepNotSaved
from durable_nb.records import Payload


class CallMode(enum.Enum):
    RED = 1
    BLUE = "b"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: typing.Any = None


@dataclass(frozen=True, slots=True)
class Frozen:
    a: typing.Any
    b: tuple = ()


@dataclass
class Counted:
    n: int
    twice: int = field(init=False)
    secret: dataclasses.InitVar[int] = 0

    def __post_init__(self, secret):
        self.twice = 2 * self.n
        self.calls = getattr(self, "calls", 0) + 1


@dataclass
class Custom:
    n: int

    def __reduce__(self):
        return Custom, (self.n,)


@dataclass
class DictData(dict):
    n: int = 0


class Pair(typing.NamedTuple):
    left: typing.Any
    right: typing.Any = 0


class Loose(collections.namedtuple("Loose", "a")):  # a namedtuple whose instances have a __dict__
    pass


class User(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    age: int = 3
    inner: Pair | None = None
    _note: str = pydantic.PrivateAttr("n")


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Plain:
    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return type(other) is Plain and other.n == self.n

    __hash__ = None


class FixedZone(tzinfo):
    def utcoffset(self, dt):
        return timedelta(hours=5)

    def dst(self, dt):
        return timedelta(0)

    def __eq__(self, other):
        return type(other) is FixedZone

    __hash__ = None


class BadReduce:
    def __reduce__(self):
        raise LookupError("no")


class BadRepr:
    def __repr__(self):
        raise LookupError("no")

    def __reduce__(self):
        raise LookupError("no")


class Interrupts:
    def __reduce__(self):
        raise KeyboardInterrupt


def back(value):
    return decode(encode(value))


def held_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock


def bits(number):
    return struct.pack(">d", number)


def parts(value):
    """What a value is made of, in order, for those that == does not compare exactly."""
    match value:
        case float():
            return bits(value)
        case complex():
            return [value.real, value.imag]
        case dict():
            return list(value.items())
        case set() | frozenset():
            return sorted(map(repr, value))
        case Decimal():
            return repr(value.as_tuple())
        case slice():
            return [value.start, value.stop, value.step]
        case datetime() | time():
            return [repr(value), value.fold]
    return (
        [getattr(value, f.name) for f in dataclasses.fields(value)]
        if dataclasses.is_dataclass(value)
        else value
    )


def same(a, b):
    """Equal and of one type, recursively, order and float bits included."""
    if type(a) is not type(b):
        return False
    a, b = parts(a), parts(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


any_text = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["$", "$tuple", "$dict", "\ud83d\ude00"]
)
zones = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=-3, seconds=7)),
        timezone(timedelta(0), "UTC"),
        ZoneInfo("Europe/Berlin"),
    ]
)
keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary(max_size=8)
    | st.dates()
    | st.uuids()
)
leaves = (
    keys
    | st.floats()
    | st.complex_numbers()
    | st.integers(min_value=10**700, max_value=10**710)
    | st.builds(lambda m, z, f: m.replace(tzinfo=z, fold=f), st.datetimes(), zones, st.sampled_from([0, 1]))
    | st.builds(lambda t, f: t.replace(fold=f), st.times(), st.sampled_from([0, 1]))
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.sampled_from(
        [..., UTC, CallMode.RED, CallMode.BLUE, Level.LOW, Access.READ | Access.WRITE, Access(0)]
    )
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3))
    | st.builds(bytearray, st.binary(max_size=8))
    | st.builds(PurePosixPath, st.sampled_from(["", "/", "a/b", "../x", "\udc80"]))
    | st.builds(PureWindowsPath, st.sampled_from(["", "c:\\a", "c:a", "\\\\host\\share\\x"]))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(any_text, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        | st.builds(slice, inner, inner)
        | st.builds(Point, st.integers(), inner)
        | st.builds(Frozen, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=600, deadline=None)
@given(values)
def test_any_value_comes_back_equal_and_of_the_same_type_all_the_way_down(value):
    assert same(back(value), value)


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_of_these_values_is_readable_json_and_valid_utf8(value):
    payload = encode(value)
    assert payload.format in ("json", "objects")
    payload.data.decode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["json", "objects", "bytes", "failure", "nonsense"]))
def test_damaged_bytes_give_a_value_or_our_error_and_nothing_else(data, format):
    read = decode_failure if format == "failure" else decode
    with contextlib.suppress(StepNotRestored):
        read(Payload(format, data))


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_a_payload_cut_short_gives_a_value_or_our_error(value, data):
    payload = encode(value)
    cut = data.draw(st.integers(0, len(payload.data)))
    with contextlib.suppress(StepNotRestored):
        decode(Payload(payload.format, payload.data[:cut]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        (True, b"true"),
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        ("ü", '"ü"'.encode()),
        ({"a": [1, {"b": None}]}, b'{"a":[1,{"b":null}]}'),
        ((1, 2), b'{"$tuple":[1,2]}'),
        ({1: 2}, b'{"$dict":[[1,2]]}'),
        (b"hi", b'{"$bytes":"aGk="}'),
        (math.nan, b'{"$float":"nan"}'),
        (date(2024, 1, 2), b'{"$date":"2024-01-02"}'),
        (Decimal("1.50"), b'{"$decimal":"1.50"}'),
    ],
)
def test_the_json_is_plain_where_json_is_exact_and_tagged_elsewhere(value, text):
    assert encode(value) == Payload("json", text)


def test_a_dict_that_looks_like_a_tag_is_not_taken_for_one():
    for value in ({"$tuple": [1]}, {"$dict": []}, {"$nonsense": 1}, {"$": {"$int": "0x1"}}, {"a": "$tuple"}):
        assert same(back(value), value)


def test_lone_surrogates_come_back_and_a_pair_of_them_stays_a_pair():
    for value in ("\ud800", "\ud83d\ude00", ["\udc80\\u1234\n"], {"\ud800": 1}):
        assert same(back(value), value)


def test_an_int_of_more_than_4300_digits_comes_back():
    assert back([10**5000, -(10**5000)]) == [10**5000, -(10**5000)]


def test_a_long_int_written_without_a_limit_is_read_under_the_limit():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        payload = encode([10**5000])
    finally:
        sys.set_int_max_str_digits(limit)
    assert decode(payload) == [10**5000]


def test_nan_keeps_its_sign_and_payload():
    for pattern in ("7ff8000000000000", "fff8000000000000", "7ff8000000000123"):
        value = struct.unpack(">d", bytes.fromhex(pattern))[0]
        assert bits(back([value])[0]).hex() == pattern


def test_the_order_of_dict_keys_is_kept():
    assert list(back({"z": 1, "a": (), "m": 2})) == ["z", "a", "m"]
    assert list(back({3: 1, "a": 2, 1: 3})) == [3, "a", 1]


def test_one_mutable_object_in_two_places_comes_back_as_one_object():
    for shared in ([1], {"a": 1}, {1}, bytearray(b"a"), Point(1)):
        first, second = back([shared, shared])
        assert first is second
        assert first == shared


def test_equal_but_distinct_objects_come_back_distinct():
    first, second = back([[1], [1]])
    assert first is not second


def test_a_cycle_comes_back_as_a_cycle():
    value: list = [1]
    value.append(value)
    restored = back(value)
    assert restored[1] is restored


def test_a_branching_cycle_is_found_at_once():
    value: list = []
    value += [value, value, {"a": value}]
    assert encode(value).format == "pickle"


def test_a_tuple_in_a_cycle_comes_back():
    inner: list = []
    value = (inner,)
    inner.append(value)
    restored = back(value)
    assert restored[0][0] is restored


def test_subclasses_of_builtin_types_keep_their_class():
    class_of = [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1], maxlen=2),
    ]
    for value in class_of:
        assert back(value) == value
        assert type(back(value)) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        CallMode.RED,
        Access.READ | Access.WRITE,
        Level.LOW,
        Point(1, [Point(2)]),
        Frozen({"k": CallMode.BLUE}, (1,)),
        Pair(1, (2,)),
        User(name="a", age=4, other=[1], inner=Pair(1, 2)),
        User(name="a"),
        Numbers([1, 2]),
        [User(name="b")],
        {CallMode.RED: 1, Frozen(1): 2},
    ],
    ids=repr,
)
def test_values_of_found_classes_come_back_as_objects_named_in_json(value):
    payload = encode(value)
    assert payload.format == "objects"
    restored = decode(payload)
    assert restored == value
    assert type(restored) is type(value)


def test_an_enum_member_comes_back_as_the_very_member():
    assert back([CallMode.RED])[0] is CallMode.RED
    assert back(Access.READ | Access.WRITE) is Access.READ | Access.WRITE


def test_a_dataclass_comes_back_without_running_init_and_with_attributes_beyond_its_fields():
    value = Counted(3, 9)
    value.twice, value.extra = 100, (1,)
    restored = back(value)
    assert vars(restored) == vars(value) == {"n": 3, "twice": 100, "calls": 1, "extra": (1,)}


class Attributed(dict):
    __slots__ = ("__dict__", "slot")


@pytest.mark.parametrize("value", [types.SimpleNamespace(), ValueError("no"), Attributed(key=1)], ids=repr)
def test_the_dict_of_an_objects_attributes_is_the_objects_again_also_inside_itself(value):
    vars(value).update(x=1, own=vars(value))
    for first, second in (back([value, vars(value)]), reversed(back([vars(value), value]))):
        assert vars(first) is second is second["own"]
        assert first.x == 1
        assert type(first) is type(value)


def test_that_holds_for_exceptions_too_where_another_library_has_registered_their_class(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, ValueError, lambda error: error.__reduce_ex__(5))
    value = ValueError("no")
    value.own = vars(value)
    first, second = back([value, vars(value)])
    assert vars(first) is second is second["own"]


def test_the_dict_of_a_module_is_that_of_the_module():
    assert back(vars(string)) is vars(string)
    names, spec = back([vars(math), math.__spec__])
    assert names is vars(math)
    assert spec == math.__spec__


def test_a_dataclass_with_an_unset_field_comes_back_with_it_unset():
    value = object.__new__(Frozen)
    object.__setattr__(value, "a", 1)
    restored = back(value)
    assert restored.a == 1
    assert not hasattr(restored, "b")


def test_a_model_keeps_which_fields_were_set_its_extras_and_its_private_attributes():
    value = User(name="a", other=1)
    value._note = "changed"
    restored = back(value)
    assert restored.model_fields_set == {"name", "other"}
    assert restored.model_extra == {"other": 1}
    assert restored._note == "changed"


def test_a_model_is_not_validated_again():
    value = User.model_construct(name=5)
    assert back(value).name == 5


def test_classes_that_do_their_own_pickling_are_pickled():
    for value in (Custom(1), DictData(2), Plain(3)):
        assert encode(value).format == "pickle"
        assert back(value) == value


def test_a_namedtuple_with_attributes_of_its_own_is_pickled():
    value = Loose(1)
    value.more = 2
    assert back(value).more == 2
    assert type(back(value)) is Loose


def test_a_class_that_is_not_found_by_its_name_is_saved_by_value():
    @dataclass
    class Local:
        n: int

    payload = encode(Local(1))
    assert payload.format == "pickle"
    assert decode(payload).n == 1


def test_time_zones_that_have_no_name_of_their_own_are_pickled():
    moment = datetime(2024, 1, 1, tzinfo=FixedZone())
    assert encode(moment).format == "pickle"
    assert back(moment) == moment
    uncached = datetime(2024, 1, 1, tzinfo=ZoneInfo.no_cache("Europe/Berlin"))
    assert encode(uncached).format == "pickle"


def test_zones_keep_name_and_identity():
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    restored = back(moment)
    assert restored.fold == 1
    assert restored.tzinfo is moment.tzinfo
    assert back(timezone.utc) is UTC  # noqa: UP017
    assert repr(back(timezone(timedelta(hours=1), "CET"))) == repr(timezone(timedelta(hours=1), "CET"))


def test_a_uuid_keeps_what_it_says_about_its_safety():
    value = uuid.uuid1()
    assert back(value).is_safe is value.is_safe
    assert back(uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe)).is_safe is uuid.SafeUUID.safe


def test_a_path_comes_back_as_the_same_kind_of_path():
    assert type(back(Path("a/b"))) is type(Path("a/b"))


def test_long_bytes_are_kept_as_they_are():
    value = bytes(range(256)) * 100
    payload = encode(value)
    assert payload.format == "bytes"
    assert payload.data is value
    assert back(value) == value


def test_long_bytes_inside_something_are_pickled():
    assert encode({"a": b"x" * 100_000}).format == "pickle"


def test_formats_that_run_code_are_named():
    assert {"objects", "pickle", "failure", "buffers", "cell", "changed"} == RUNS_CODE


def test_the_format_json_never_looks_up_a_class():
    payload = encode(CallMode.RED)
    with pytest.raises(StepNotRestored, match="enum"):
        decode(Payload("json", payload.data))


def test_memoryviews_come_back_as_memoryviews():
    for view in (memoryview(b"abc"), memoryview(bytearray(b"abc"))):
        restored = back([view])[0]
        assert restored == view
        assert type(restored) is memoryview
        assert restored.readonly is view.readonly


def test_a_lambda_and_a_closure_come_back():
    n = 3
    assert back(lambda x: x + n)(4) == 7


@pytest.mark.parametrize("depth", [99, 150, 400])
def test_what_nests_deeply_comes_back_even_when_read_further_down_the_stack(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    payload = encode(value)

    def deeper(levels):
        return deeper(levels - 1) if levels else decode(payload)

    assert deeper(400) == value


def test_what_nests_too_deeply_is_named_so():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(StepNotSaved, match="nested too deeply"):
        encode(value)


def test_an_error_names_the_culprit_and_where_it_is():
    con = sqlite3.connect(":memory:")
    with pytest.raises(
        StepNotSaved,
        match=r"cannot save the result \(dict\): it contains sqlite3.Connection at \['con'\], which "
        r"cannot be saved \(TypeError: cannot pickle 'sqlite3.Connection' object\)",
    ) as info:
        encode({"n": 1, "con": con})
    assert info.value.remedy
    assert info.value.__cause__ is not None
    with pytest.raises(StepNotSaved, match=r"\(sqlite3.Connection\): sqlite3.Connection cannot be saved \("):
        encode(con)
    where = r"_thread.lock at \[1\]\.y\['a'\]\[0\], which cannot be saved \(TypeError: the lock is held\)"
    with pytest.raises(StepNotSaved, match=where):
        encode([1, Point(1, {"a": (held_lock(),)})])
    con.close()


def test_a_culprit_that_is_out_of_sight_is_named_by_type():
    lock = held_lock()
    with pytest.raises(StepNotSaved, match=r"\(list\): it contains _thread.lock, which cannot be saved"):
        encode([lambda: lock])


def test_generators_files_and_held_locks_are_refused(tmp_path):
    with (tmp_path / "f").open("w+") as file:
        for value in ((n for n in ()), file, file.buffer, held_lock()):
            with pytest.raises(StepNotSaved):
                encode([value])


def test_an_error_in_the_users_reduce_becomes_ours_with_its_cause():
    for value in (BadReduce(), {"k": BadRepr()}):
        with pytest.raises(StepNotSaved) as info:
            encode(value)
        assert isinstance(info.value.__cause__, LookupError)


def test_an_interrupt_while_encoding_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        encode([Interrupts()])
    with pytest.raises(KeyboardInterrupt):
        encode_failure(ValueError(Interrupts()))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Payload("later", b""), "later"),
        (Payload("objects", b'{"$enum":["no_such_module:A","B"]}'), "no_such_module"),
        (Payload("objects", b'{"$enum":["enum:NoSuch","B"]}'), "NoSuch"),
        (Payload("objects", b'{"$object":["enum:Enum",{}]}'), "'enum:Enum' no longer has"),
        (Payload("objects", b'{"$later":1}'), "later"),
        (Payload("json", b'{"$tuple":5}'), "cannot decode"),
        (Payload("json", b"[1"), "cannot decode"),
        (Payload("json", b"1 2"), "cannot decode"),
        (Payload("json", b"\xff"), "cannot decode"),
        (Payload("json", b""), "cannot decode"),
        (Payload("pickle", b"\x80\x05."), "cannot decode"),
        (Payload("pickle", b"cno_such_module\nA\n."), "no_such_module"),
        (Payload("pickle", b"cenum\nNoSuch\n."), "NoSuch"),
    ],
)
def test_what_cannot_be_read_back_is_our_error_with_a_remedy(payload, words):
    with pytest.raises(StepNotRestored, match=words) as info:
        decode(payload)
    assert info.value.remedy
    assert info.value.run_id is None


def test_an_enum_member_that_is_gone_is_named():
    payload = encode(CallMode.RED)
    with pytest.raises(StepNotRestored, match="GREEN"):
        decode(Payload("objects", payload.data.replace(b"RED", b"GREEN")))


def test_arrays_that_overlap_share_their_memory_again_and_others_are_stored_alone():
    np = pytest.importorskip("numpy")
    base = np.arange(100_000.0)
    whole, part = back([base, base[5:9]])
    whole[6] = -1
    assert part[1] == -1
    payload = encode([base[:600], base[700:1300]])
    assert [len(each) for each in payload.parts] == [4800, 4800]


def test_frames_over_the_same_memory_stay_independent():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2]})
    first, second, column = back([frame, frame[:], frame["a"]])
    first.loc[0, "a"] = 9
    assert list(second["a"]) == list(column) == [1, 2]


def test_closures_of_a_task_share_their_variables_again():
    def counter():
        n = 0

        def up():
            nonlocal n
            n += 1

        return up, lambda: n

    up, get = back(counter())
    up()
    assert get() == 1


def test_importing_the_codec_loads_no_heavy_library():
    heavy = "IPython, numpy, pydantic, pandas, cloudpickle, zoneinfo"
    code = f"""
        import sys, types
        package = types.ModuleType("durable_nb")
        package.__path__ = {[str(Path(sys.modules["durable_nb"].__path__[0]))]!r}
        sys.modules["durable_nb"] = package
        import durable_nb.codec
        durable_nb.codec.decode(durable_nb.codec.encode((1, 2)))
        assert not [name for name in "{heavy}".split(", ") if name in sys.modules]
    """
    run(code)


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MAIN = """
    import sys, pickle, enum, functools
    from dataclasses import dataclass
    from pathlib import Path
    from durable_nb.codec import encode, decode, encode_failure, decode_failure
    @dataclass
    class Point:
        x: int
    class Thing:
        def __init__(self, n): self.n = n
        def me(self): return Thing
    class Hue(enum.Enum):
        RED = 1
    class Trouble(Exception):
        def __init__(self, code, *, hint):
            super().__init__(f"code {code}")
            self.code, self.hint = code, hint
    def helper(n): return n + 1
    file = Path(sys.argv[1])
"""
SAVE = """
    things = {"p": Point(1), "t": [Thing(2)], "h": Hue.RED, "f": helper, "c": Thing}
    payloads = [encode(value) for value in things.values()] + [encode_failure(Trouble(5, hint="h"))]
    file.write_bytes(pickle.dumps([(p.format, p.data) for p in payloads]))
"""
LOAD = """
    from durable_nb.records import Payload
    point, thing, hue, function, kind, failure = [Payload(*pair) for pair in pickle.loads(file.read_bytes())]
"""


def test_classes_and_functions_of_a_notebook_are_the_live_ones_after_a_restart(tmp_path):
    run(MAIN + SAVE, tmp_path / "saved")
    check = """
    assert point.format == hue.format == "objects" and thing.format == "pickle"
    assert isinstance(decode(point), Point) and decode(point) == Point(1)
    assert isinstance(decode(thing)[0], Thing) and decode(thing)[0].n == 2
    assert decode(hue) is Hue.RED and decode(function) is helper and decode(kind) is Thing
    try:
        raise decode_failure(failure)
    except Trouble as error:
        assert (error.code, error.hint, error.args) == (5, "h", ("code 5",))
    """
    run(MAIN + LOAD + check, tmp_path / "saved")


def test_pickled_classes_and_functions_that_are_not_there_are_rebuilt_by_value(tmp_path):
    run(MAIN + SAVE, tmp_path / "saved")
    check = """
    import __main__
    del Point, Thing, Hue, Trouble, helper
    restored = decode(thing)[0]
    assert type(restored).__name__ == "Thing" and restored.n == 2 and restored.me() is type(restored)
    assert decode(function)(1) == 2 and decode(kind)(7).n == 7
    error = decode_failure(failure)
    assert type(error).__name__ == "Trouble" and error.args == ("code 5",) and error.hint == "h"
    try:
        decode(point)
    except Exception as error:
        assert type(error).__name__ == "StepNotRestored"
        assert "'Point'" in str(error) and "Run the cell that defines it" in str(error)
    else:
        raise AssertionError("a class that is not defined yet")
    """
    run(MAIN + LOAD + check, tmp_path / "saved")


# Failures


class TwoArguments(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint


class NoSuper(Exception):
    def __init__(self, a, b):
        self.a, self.b = a, b


class OwnNew(Exception):
    def __new__(cls, only):
        return super().__new__(cls, only, "more")

    def __init__(self, only):
        self.only = only


class Holds(Exception):
    def __init__(self, thing):
        super().__init__("holds")
        self.thing = thing


class BadStr(Exception):
    def __str__(self):
        raise LookupError("no")


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no", 3),
        KeyError("x"),
        OSError(2, "gone", "file.txt"),
        FileNotFoundError(2, "gone", "a", None, "b"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SystemExit(3),
        StopIteration(7),
        ImportError("m", name="n", path="p"),
        SyntaxError("bad", ("f", 1, 2, "x", 1, 3)),
        KeyboardInterrupt(),
        TwoArguments(5, hint="h"),
        NoSuper(1, b=2),
        OwnNew(1),
        RunHeld("held", run_id="r", remedy="wait"),
        ExceptionGroup("g", [ValueError(1), TwoArguments(6, hint="i")]),
        subprocess.CalledProcessError(3, ["x"], "out", "err"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_comes_back_with_its_class_args_and_attributes(exc):
    restored = decode_failure(encode_failure(exc))
    assert type(restored) is type(exc)
    assert repr(restored.args) == repr(exc.args)
    assert repr(vars(restored)) == repr(vars(exc))
    assert str(restored) == str(exc)
    for name in (
        "errno",
        "filename",
        "filename2",
        "code",
        "value",
        "name",
        "path",
        "object",
        "start",
        "lineno",
    ):
        assert getattr(restored, name, None) == getattr(exc, name, None)


def test_notes_causes_and_the_traceback_are_kept():
    try:
        try:
            raise TwoArguments(1, hint="h")
        except TwoArguments as error:
            error.add_note("first")
            raise ValueError("outer") from error
    except ValueError as error:
        error.add_note("second")
        payload = encode_failure(error)
    restored = decode_failure(payload)
    assert restored.__notes__ == ["second"]
    assert type(restored.__cause__) is TwoArguments
    assert restored.__cause__.__notes__ == ["first"]
    assert restored.__cause__.hint == "h"
    assert restored.__suppress_context__ is True
    assert "raise ValueError" in failure_text(payload)


def test_a_cause_that_cannot_be_pickled_does_not_cost_the_exception():
    exc = ValueError("outer")
    exc.__cause__ = Holds(held_lock())
    restored = decode_failure(encode_failure(exc))
    assert type(restored) is ValueError
    assert isinstance(restored.__cause__, Holds)


def test_an_exception_inside_a_result_keeps_its_cause():
    exc = ValueError("outer")
    exc.__cause__ = KeyError("inner")
    restored = back([exc])[0]
    assert isinstance(restored.__cause__, KeyError)


def test_an_exception_whose_str_raises_or_whose_causes_go_in_a_circle_is_still_recorded():
    assert type(decode_failure(encode_failure(BadStr("a")))) is BadStr
    circle = ValueError("a")
    circle.__cause__ = KeyError("b")
    circle.__cause__.__cause__ = circle
    restored = decode_failure(encode_failure(circle))
    assert type(restored.__cause__.__cause__) is ValueError


def test_a_failure_that_is_damaged_is_our_error():
    for data in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(StepNotRestored):
            decode_failure(Payload("failure", data))


# Bundles


REFERENCES = st.builds(Reference, st.text("0123456789abcdef"), st.integers(0), st.text())


def packed_of(head, parts):
    return b"".join(pack(head, parts))


@given(st.binary(), st.lists(st.binary() | REFERENCES))
def test_a_bundle_gives_back_its_head_and_parts(head, parts):
    found, views = unpack(packed_of(head, parts))
    assert found == head
    assert [view if isinstance(view, Reference) else bytes(view) for view in views] == parts


@given(st.lists(st.binary(max_size=9) | REFERENCES, max_size=4), st.data())
def test_a_bundle_cut_short_or_with_something_behind_it_is_refused(parts, data):
    packed = packed_of(b"head", parts)
    cut = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:cut], packed + b"x", b"x" + packed):
        with pytest.raises(StepNotRestored):
            unpack(wrong)


def test_a_bundle_of_another_version_is_refused_by_name():
    packed = bytearray(packed_of(b"", []))
    packed[4] = 9
    with pytest.raises(StepNotRestored, match="version 9"):
        unpack(packed)


def test_foreign_data_is_no_bundle():
    for data in (b"", b"{}", pickle.dumps(1), b"\x93dnb\x02" + b"\xff" * 12, b"\x93dnb\x02" + b"\xff" * 40):
        with pytest.raises(StepNotRestored):
            unpack(data)


@pytest.mark.parametrize("table", [b"{", b"{}x", b"[-1]", b"[1.0]", b"[[1]]", b"[true]", b"[" * 9999, b"7"])
def test_a_bundle_with_a_table_of_nonsense_is_refused(table):
    with pytest.raises(StepNotRestored):
        unpack(struct.pack(">4sBQQ", b"\x93dnb", 2, len(table), 0) + table)


class Larger:
    def __setstate__(self, state):
        raise MemoryError


def test_a_result_for_which_there_is_no_memory_is_not_called_damaged():
    larger = Larger()
    larger.lines = ["a"]
    with pytest.raises(StepNotRestored, match="there is not enough memory to restore the saved result"):
        decode(encode(larger))
