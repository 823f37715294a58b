"""Which kinds of objects are loaded once for a trial, and which are known to come back."""

import collections
import dataclasses
import enum

import numpy as np
import pandas as pd
import pytest

from durable_nb.notebook.namespace.trial import Trial


class Plain:
    pass


@dataclasses.dataclass
class Record:
    number: int = 1


class Color(enum.Enum):
    RED = 1


class Reduced:
    def __reduce__(self):
        return Reduced, ()


class Restored:
    def __setstate__(self, state):
        vars(self).update(state)


class Derived(Restored):
    pass


for each in (Plain, Record, Color, Reduced, Restored, Derived):
    each.__module__ = "__main__"
    for name in ("__reduce__", "__setstate__"):
        if name in vars(each):
            vars(each)[name].__module__ = "__main__"


SAFE = {
    "array": np.arange(3),
    "numbers": np.dtype("int64"),
    "structure": np.dtype([("a", "i4")]),
    "frame": pd.DataFrame({"a": [1]}),
    "function": lambda: 1,
    "code": (lambda: 1).__code__,
    "method of C": "x".upper,
    "function of Cython": pd._libs.internals._unpickle_block,
    "instance": Plain(),
    "dataclass": Record(),
    "enum": Color.RED,
    "counter": collections.Counter(),
}
UNKNOWN = {
    "reduced": Reduced(),
    "with a state": Restored(),
    "derived": Derived(),
    "another package's": pytest.approx(1),
    "of a row": next(pd.DataFrame({"a": [1]}).itertuples()),
}


@pytest.mark.parametrize("name", SAFE)
def test_what_needs_no_trial(name):
    assert Trial().unknown([type(SAFE[name])]) == []


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_tried(name):
    kind = type(UNKNOWN[name])
    assert Trial().unknown([kind]) == [kind]
