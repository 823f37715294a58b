"""What the pickler of plain data writes is loaded as what a `Saver` writes, or it writes nothing."""

import pytest

from durable_nb.codec.pickling import Saver
from durable_nb.notebook.namespace.pickling import PlainSaver, Stream

SHARED = "a text"
PLAIN = [
    *(1, 2**70, -1.5, True, None, "text", b"bytes", "", "\ud800", float("inf"), -0.0),
    *(
        [],
        [1, "a"],
        (),
        (1, (2, [3])),
        {1, "b"},
        frozenset({2}),
        {"k": [SHARED, SHARED]},
        {(1, 2): {3: None}},
    ),
]
OTHER = [
    *(1j, range(3), slice(1), object, len, [range(2)], {"k": {1j}}, float("nan"), [[float("nan")]]),
    *(bytearray(b"x"), [*range(101)], {n: n for n in range(60)}, type("L", (list,), {})()),
]


def loaded(data, namespace):
    return Stream(data, (), namespace).load()


def looks(value):
    """The value, and the types of what it holds."""
    if isinstance(value, dict):
        return type(value), [(looks(key), looks(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [looks(each) for each in value]
    return type(value), repr(value)


@pytest.mark.parametrize("value", PLAIN)
def test_it_is_loaded_as_what_a_saver_writes(value):
    namespace = {"__name__": "__main__"}
    plain = PlainSaver(namespace, {})
    for number in range(3):
        data = plain.save({f"n{number}": value})
        ours = loaded(data, namespace)
        theirs = loaded(Saver(namespace).save({f"n{number}": value})[0], namespace)
        assert looks(ours) == looks(theirs) == looks({f"n{number}": value})


def test_a_list_in_a_list_twice_is_one_list():
    inner = [1]
    data = PlainSaver({}, {}).save({"outer": [inner, inner, (inner,)]})
    [one, other, (third,)] = loaded(data, {})["outer"]
    assert one is other is third


@pytest.mark.parametrize("value", OTHER)
def test_what_takes_more_is_left_to_a_saver(value):
    assert PlainSaver({}, {}).save({"name": value}) is None


def test_several_names_a_text_with_a_name_and_a_list_in_itself_are_left_to_a_saver():
    itself = []
    itself.append(itself)
    saver = PlainSaver({}, {id(SHARED): "text"})
    assert saver.save({"one": 1, "two": 2}) is None
    assert saver.save({"held": [SHARED]}) is None
    assert saver.save({"itself": itself}) is None
    assert saver.save({"text": SHARED}) is not None
