"""The comparison of the files that a step used with what its record says of them."""

import json
import os

import pytest

from durable_nb import settings
from durable_nb.engine.files import FilesUsed, Writers, changes, files_of, unrecorded, with_files
from durable_nb.engine.opened import Recording
from durable_nb.fingerprint.files import digest_of, state_of
from durable_nb.records import Step, StepKind, StepStatus


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def step(name="s", seq=1, *, read=(), wrote=(), deleted=(), appended=(), more=0):
    def states(names):
        return {os.path.abspath(each): state_of(each)._replace(digest=digest_of(each)) for each in names}

    gone = {os.path.abspath(each): None for each in deleted}
    used = FilesUsed(states(read), {**states(wrote), **gone}, states(appended))
    made = Step("r", name, StepKind.TASK, StepStatus.DONE, recorded_seq=seq)
    return with_files(made, os.getcwd(), used, more)


def write(name, text):
    with open(name, "w") as file:
        file.write(text)


def none():
    return pytest.fail("looked for other steps")


def test_the_record_of_the_files_is_a_section_of_the_lineage(folder):
    write("a.csv", "a")
    found = step(read=["a.csv"], more=2)
    section = json.loads(found.lineage)["files"]
    assert section["cwd"] == str(folder)
    assert list(section["read"]) == ["a.csv"]
    assert (section["wrote"], section["appended"], section["more"], unrecorded(found)) == ({}, {}, 2, 2)
    assert files_of(found).read == {str(folder / "a.csv"): tuple(section["read"]["a.csv"])}


def test_a_step_without_files_has_no_lineage_and_a_lineage_stays_as_it_is():
    assert step().lineage is None
    cell = step()._replace(lineage='{"as": "s", "names": {"files": []}}')
    assert with_files(cell, "/", FilesUsed({}, {}, {}), 0) is cell


def test_the_files_of_an_earlier_attempt_leave_the_record():
    write("a.csv", "a")
    before = step(read=["a.csv"])
    assert with_files(before, "/", FilesUsed({}, {}, {}), 0).lineage is None


def test_what_is_unchanged_needs_no_other_steps():
    write("a.csv", "a")
    write("b.csv", "b")
    found = step(read=["a.csv"], wrote=["b.csv"])
    os.utime("a.csv", (0, 0))
    write("b.csv", "edited by the user")
    assert changes(found, none) == []


def test_a_changed_input_and_an_output_that_is_gone_are_named():
    write("a.csv", "a")
    write("b.csv", "b")
    found = step(read=["a.csv"], wrote=["b.csv"])
    write("a.csv", "aa")
    os.remove("b.csv")
    first, second = changes(found, Writers)
    assert first.startswith("a.csv has changed since (1 byte, ")
    assert second == "b.csv is gone"


def test_an_input_that_is_gone_has_changed():
    write("a.csv", "a")
    found = step(read=["a.csv"])
    os.remove("a.csv")
    assert changes(found, Writers) == ["a.csv is gone"]


def test_a_later_step_that_rewrote_a_file_accounts_for_the_change_and_an_earlier_one_does_not():
    write("a.csv", "a")
    reader = step("reader", 5, read=["a.csv"])
    write("a.csv", "aa")
    later, earlier = step("later", 6, wrote=["a.csv"]), step("earlier", 4, wrote=["a.csv"])
    assert changes(reader, lambda: Writers([reader, later])) == []
    assert len(changes(reader, lambda: Writers([reader, earlier]))) == 1
    write("a.csv", "by the user")
    assert len(changes(reader, lambda: Writers([reader, later]))) == 1


def test_the_last_of_several_writers_counts_in_whatever_order_they_are_found():
    write("a.csv", "a")
    reader = step("reader", 1, read=["a.csv"])
    write("a.csv", "aa")
    second = step("second", 2, wrote=["a.csv"])
    write("a.csv", "aaa")
    third = step("third", 3, wrote=["a.csv"])
    assert changes(reader, lambda: Writers([third, second])) == []
    write("a.csv", "aa")
    assert len(changes(reader, lambda: Writers([third, second]))) == 1


def test_a_later_step_that_deleted_a_file_or_its_folder_accounts_for_its_loss(folder):
    os.mkdir("d")
    write("d/a.csv", "a")
    found = step("one", 1, wrote=["d/a.csv"])
    os.remove("d/a.csv")
    assert changes(found, lambda: Writers([step("two", 2, deleted=["d/a.csv"])])) == []
    assert changes(found, lambda: Writers([step("two", 2, deleted=["d"])])) == []
    assert changes(found, lambda: Writers([step("two", 2, deleted=["e"])])) == ["d/a.csv is gone"]


def test_a_file_that_was_appended_to_alone_is_no_output_that_is_missed_but_accounts_for_its_change(folder):
    write("log", "a")
    reader = step("reader", 1, read=["log"])
    write("log", "ab")
    later = step("later", 2, appended=["log"])
    assert changes(reader, lambda: Writers([reader, later])) == []
    os.remove("log")
    assert changes(later, Writers) == []


def test_a_recording_tells_what_was_appended_from_what_was_written(folder):
    recording = Recording(None)
    for name in ("log", "both"):
        recording.note(name, appends=True)
        write(name, "a")
    recording.note("both", writes=True)
    read, wrote, appended = used(recording)
    assert (set(read), set(wrote), set(appended)) == (set(), {str(folder / "both")}, {str(folder / "log")})


def test_files_are_looked_for_in_the_working_directory_of_now_first(folder, monkeypatch):
    write("a.csv", "a")
    found = step(read=["a.csv"])
    os.mkdir("copy")
    monkeypatch.chdir("copy")
    assert changes(found, Writers) == []
    write("a.csv", "edited")
    assert len(changes(found, Writers)) == 1


def used(recording):
    return files_of(recording.record_on(step()))


def test_a_recording_tells_what_was_read_from_what_was_written(folder):
    write("in", "a")
    write("both", "a")
    write("out", "a")
    recording = Recording(str(folder / "runs.db"))
    for name in ("in", "both", "missing", "runs.db-wal"):
        recording.note(name, reads=True)
    for name in ("both", "out", "made", "temporary"):
        recording.note(name, writes=True)
    recording.note("out", reads=True)
    write("made", "a")
    read, wrote, _ = used(recording)
    assert set(read) == {str(folder / name) for name in ("in", "both")}
    assert set(wrote) == {str(folder / name) for name in ("both", "out", "made")}


def test_a_file_that_another_process_changed_after_it_was_read_is_on_record_as_it_was():
    write("a.csv", "a")
    recording = Recording(None)
    recording.note("a.csv", reads=True)
    write("a.csv", "aa")
    assert len(changes(recording.record_on(step()), Writers)) == 1


def test_a_mentioned_file_is_an_input_if_it_stays_as_it_is_and_an_output_if_not(folder):
    write("in.pq", "a")
    write("out.pq", "a")
    recording = Recording(None)
    for name in ("in.pq", "out.pq", "made.pq", "not.a.file"):
        recording.note(name)
    write("out.pq", "rewritten")
    write("made.pq", "a")
    read, wrote, _ = used(recording)
    assert set(read) == {str(folder / "in.pq")}
    assert set(wrote) == {str(folder / "out.pq"), str(folder / "made.pq")}


def test_the_number_of_files_on_record_is_bounded_and_further_ones_are_counted(monkeypatch):
    monkeypatch.setattr(settings, "FILES_ON_RECORD", 2)
    recording = Recording(None)
    for name in ("a", "b", "c", "d", "d", "a"):
        write(name, "x")
        recording.note(name, reads=True)
    found = recording.record_on(step())
    assert (len(files_of(found).read), unrecorded(found)) == (2, 2)


def test_the_bytes_that_are_digested_are_bounded(monkeypatch):
    monkeypatch.setattr(settings, "FILES_DIGESTED", 3)
    recording = Recording(None)
    for name in ("a", "b"):
        write(name, "xx")
        recording.note(name, reads=True)
    first, second = used(recording).read.values()
    assert first.digest
    assert second.digest is None


def test_the_files_of_a_step_inside_are_those_of_the_step_around_it():
    write("a.csv", "a")
    write("b.csv", "b")
    outer = Recording(None)
    inner = Recording(None, outer)
    inner.note("a.csv", reads=True)
    outer.merge(inner)
    replayed = step("inner", read=["b.csv"])
    write("b.csv", "changed since")
    outer.include(replayed)
    found = outer.record_on(step())
    assert [os.path.basename(path) for path in files_of(found).read] == ["a.csv", "b.csv"]
    assert [one.partition(" ")[0] for one in changes(found, Writers)] == ["b.csv"]


def test_a_path_that_a_step_has_made_is_an_input_if_the_file_is_older_than_the_step(folder):
    write("in.pq", "a")
    os.utime("in.pq", (0, 0))
    recording = Recording(None)
    write("out.pq", "a")
    for name in ("in.pq", "out.pq", "missing.pq"):
        recording.note_afterwards(name)
    read, wrote, _ = used(recording)
    assert (set(read), set(wrote)) == ({str(folder / "in.pq")}, {str(folder / "out.pq")})
