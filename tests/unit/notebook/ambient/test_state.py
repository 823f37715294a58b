"""Ambient state and what belongs to the process, without a kernel: what is saved, and what is put back."""

import copyreg
import io
import logging
import sys
import threading
import types
import warnings

import pytest
from pandas.errors import PerformanceWarning

from durable_nb.codec.pickling import Saver
from durable_nb.notebook.ambient import state
from durable_nb.notebook.namespace.pickling import Stream


@pytest.fixture
def module(monkeypatch):
    """A function that makes a module which can be imported."""

    def make(name, **attributes):
        made = types.ModuleType(name)
        vars(made).update(attributes)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


def copied(value):
    return Stream(Saver({}, {}).save(value)[0], (), {}).load()


def test_what_can_be_imported_is_not_looked_for_under_the_name_it_has_here():
    with warnings.catch_warnings():
        before = state.snapshot_state()
        warnings.simplefilter("ignore", PerformanceWarning)
        expected = warnings.filters[0]
        saved = before.changes({"Slow": PerformanceWarning})
    with warnings.catch_warnings():
        assert not state.restore_state({}, saved, before_names=False)
        assert warnings.filters[0] == expected


def test_what_cannot_be_set_again_takes_nothing_else_along(module):
    user_ns = {"gone": module("gone", level=1), "there": module("there", level=1)}
    before = state.snapshot_state()
    user_ns["gone"].level = user_ns["there"].level = 7
    saved = before.changes(user_ns, [("gone", "level"), ("there", "level")])
    del sys.modules["gone"]
    user_ns["there"].level = 1
    (why,) = state.restore_state({}, saved, before_names=False).values()
    assert "gone.level (ModuleNotFoundError: No module named 'gone')" in why
    assert user_ns["there"].level == 7


def test_a_path_that_was_set_is_added_to_as_one_that_was_changed_in_place(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/then"])
    before = state.snapshot_state()
    sys.path = [*sys.path, "/mine"]
    saved = before.changes({"sys": sys}, [("sys", "path")])
    sys.path = ["/now"]
    for before_names in (True, False):
        assert not state.restore_state({}, saved, before_names=before_names)
    assert sys.path == ["/now", "/mine"]


def test_what_was_put_in_the_place_of_a_stream_is_no_stream_of_the_process(monkeypatch):
    before = state.snapshot_state()
    mine = io.StringIO("mine")
    monkeypatch.setattr(sys, "stdout", mine)
    saved = before.changes({"sys": sys}, [("sys", "stdout")])
    assert copied([mine])[0].getvalue() == "mine"
    monkeypatch.setattr(sys, "stdout", open)
    assert not state.restore_state({}, saved, before_names=False)
    assert sys.stdout.getvalue() == "mine"


def test_a_file_in_the_place_of_a_stream_is_named(monkeypatch, tmp_path):
    before = state.snapshot_state()
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        saved = before.changes({"sys": sys}, [("sys", "stdout")])
    assert "an open file" in saved.unsaved["sys.stdout"]


def test_a_handler_that_was_there_before_stays_what_it_is(monkeypatch):
    log = logging.getLogger("test_ambient")
    odd, mine = logging.Handler(), logging.StreamHandler(io.StringIO())
    odd.own = threading.local()
    monkeypatch.setattr(log, "handlers", [odd])
    before = state.snapshot_state()
    log.addHandler(mine)
    saved = before.changes({})
    assert saved.unsaved == {}
    log.handlers.remove(mine)
    for _ in range(2):
        assert not state.restore_state({}, saved, before_names=False)
        there, restored = log.handlers
        assert there is odd
        assert type(restored) is logging.StreamHandler


def test_handlers_that_were_taken_away_are_gone_again(monkeypatch):
    log = logging.getLogger("test_ambient")
    monkeypatch.setattr(log, "handlers", [logging.Handler(), logging.StreamHandler(io.StringIO())])
    first = log.handlers[0]
    before = state.snapshot_state()
    log.removeHandler(first)
    saved = before.changes({})
    log.handlers.insert(0, first)
    for _ in range(2):
        assert not state.restore_state({}, saved, before_names=False)
        assert [type(one) for one in log.handlers] == [logging.StreamHandler]


def test_a_handler_that_made_its_file_goes_on_in_it(tmp_path):
    handler = logging.FileHandler(tmp_path / "log", mode="x")
    handler.emit(logging.makeLogRecord({"msg": "first"}))
    again = copied(handler)
    again.emit(logging.makeLogRecord({"msg": "second"}))
    handler.close()
    again.close()
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


class Registered:
    """Passes everything on, and copyreg knows how to pickle it."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(vars(self)["inner"], name)


def registered(inner):
    """Make one, as copyreg was told."""
    made = Registered(inner)
    made.again = True
    return made


def test_what_copyreg_says_of_a_proxy_counts(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda one: (registered, (one.inner,)))
    assert vars(copied(Registered([1]))) == {"inner": [1], "again": True}
