"""The mutable containers that values hold, and the names that share them."""

import pytest

from durable_nb.notebook.namespace.sharing import Sharing, containers

INNER, BUFFER = {"a": 1}, bytearray(b"ab")
CYCLE = [1]
CYCLE.append({"again": CYCLE})
VALUES = {
    "flat": [1, "a", None, 2.5],
    "dicts": [{"a": 1}, {"b": [1, 2]}],
    "the same twice": [INNER, INNER, (INNER,)],
    "keys and values": {(1, frozenset({2})): {3}},
    "cycle": CYCLE,
    "buffer": [BUFFER, 1],
    "empty": [[], {}, ()],
}


def visited(value, found):
    """The containers in a value, one by one."""
    if isinstance(value, (dict, list, set, tuple, frozenset, bytearray)) and id(value) not in found:
        found[id(value)] = value
        for part in () if isinstance(value, bytearray) else value:
            visited(part, found)
            visited(value[part] if isinstance(value, dict) else None, found)
    return found


@pytest.mark.parametrize("name", VALUES)
def test_all_containers_are_found_each_once(name):
    assert containers(VALUES[name]).keys() == visited(VALUES[name], {}).keys()


def test_a_container_apart_is_not_visited():
    namespace = {"other": [1]}
    value = [namespace, [2]]
    assert containers(value, namespace).keys() == {id(value), id(value[1])}


def test_names_that_share_a_container_are_one_group():
    sharing = Sharing(())
    for name, value in {
        "a": [INNER, 1],
        "b": [2, [3]],
        "c": {"x": (INNER,)},
        "d": [BUFFER, 1],
        "e": [BUFFER],
    }.items():
        sharing.add_plain(name, value, set())
    assert sharing.groups("abcde", frozenset()) == [["a", "c"], ["b"], ["d", "e"]]
    assert sharing.bound_to("c", frozenset()) == {"a", "c"}
    assert sharing.bound_to("x", frozenset()) == {"x"}


def test_an_immutable_object_counts_if_another_name_has_it():
    shared = (1, 2)
    sharing = Sharing(())
    sharing.add_plain("a", [shared, 1], {id(shared)})
    sharing.add_plain("b", [[shared]], {id(shared)})
    sharing.add_plain("c", [[shared]], set())
    assert sharing.groups("abc", frozenset()) == [["a", "b"], ["c"]]
