"""What a file is on record, which files are the user's, and which of them values mention."""

import dataclasses
import os
import sys
import sysconfig
from pathlib import Path

import pytest

from durable_nb.fingerprint.files import FileState, describe, digest_of, is_same, is_users, state_of
from durable_nb.fingerprint.mentions import looks_like_path, mentioned_files

RECORDED = FileState(1_234_567, 1_000_000_000, "ab")


@pytest.mark.parametrize(
    ("recorded", "now", "digest", "same"),
    [
        (RECORDED, RECORDED, None, True),
        (RECORDED, RECORDED._replace(mtime=2), "ab", True),
        (RECORDED, RECORDED._replace(mtime=2), "cd", False),
        (RECORDED, RECORDED._replace(size=1, mtime=2), "ab", True),  # a module without its comments
        (RECORDED._replace(digest=None), RECORDED._replace(mtime=2), "ab", False),
        (RECORDED, RECORDED._replace(mtime=2), None, False),
        (RECORDED, None, None, False),
        (None, RECORDED, "ab", False),
        (None, None, None, True),
    ],
)
def test_a_file_is_the_same_if_its_time_is_or_its_content(recorded, now, digest, same):
    assert is_same(recorded, now, lambda: digest) is same


def test_a_file_whose_time_is_equal_is_not_read():
    assert is_same(RECORDED, RECORDED._replace(digest=None), lambda: pytest.fail("it was read"))


@pytest.mark.parametrize(
    ("recorded", "now", "expected"),
    [
        (FileState(3, 0), None, "data.csv is gone"),
        (None, FileState(3, 0), "data.csv is new"),
        (
            FileState(1, 0),
            FileState(999, 0),
            "data.csv has changed since (1 byte, 1 Jan 1970 {}; now 999 bytes)",
        ),
        (
            FileState(12_345, 0),
            FileState(12_345, 60 * 10**9),
            "(12.3 kB, 1 Jan 1970 {}; now 12.3 kB, 1 Jan 1970",
        ),
        (FileState(1_234_567, 0), FileState(123_456_789, 0), "(1.2 MB, 1 Jan 1970 {}; now 123 MB)"),
        (FileState(3, 0, "a"), FileState(3, 0, "b"), "(3 bytes, 1 Jan 1970 {}; now other content)"),
        (FileState(5 * 10**15, 0), FileState(1, 0), "(5000 TB, "),
        (FileState(3, 10**30), FileState(4, 0), "(3 bytes, at an unknown time; now 4 bytes)"),
    ],
)
def test_how_a_file_differs_is_said_with_size_and_time(monkeypatch, recorded, now, expected):
    when = __import__("time").strftime("%H:%M", __import__("time").localtime(0))
    assert expected.format(when) in describe("data.csv", recorded, now)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/cpuinfo",
        "/dev/null",
        "/etc/hosts",
        os.__file__,
        pytest.__file__,
        f"{sysconfig.get_paths()['purelib']}/x/data.csv",
        f"{sys.prefix}/share/fonts/a.ttf",
        str(Path("~/.cache/matplotlib/fontlist.json").expanduser()),
        "/project/__pycache__/a.pyc",
        "/project/.venv/lib/python3.11/site-packages/a.py",
        "/project/.git/HEAD",
        "/project/.mypy_cache/3.11/a.json",
        "/project/cachedir/joblib/f/0a/output.pkl",
    ],
)
def test_a_file_of_python_a_library_a_cache_or_the_system_is_not_the_users(path):
    assert not is_users(path)


@pytest.mark.parametrize(
    "path",
    ["/project/data.csv", "/project/my_cache/a.csv", "/home/x/data.csv", "/tmp/data.csv", "/processed/a.csv"],
)
def test_other_files_are_the_users(path):
    assert is_users(path)


def test_the_files_of_a_project_whose_folder_is_an_environment_are_the_users():
    assert is_users(f"{sys.prefix}/data.csv")


def test_a_digest_is_of_the_content_of_a_small_file(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(b"a")
    first = digest_of(str(file))
    file.write_bytes(b"b")
    assert first != digest_of(str(file)) is not None
    monkeypatch.setattr("durable_nb.settings.FILE_DIGEST", 0)
    assert digest_of(str(file)) is None
    assert digest_of(str(tmp_path / "missing")) is digest_of(str(tmp_path)) is None


@pytest.mark.parametrize("name", [".env", ".env.local", "api_key.txt", "password", "secrets.json"])
def test_of_a_file_that_may_hold_secrets_there_is_no_digest(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert digest_of(str(tmp_path / name)) is None


def test_a_digest_of_a_module_ignores_comments_and_other_encodings_are_taken_as_bytes(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("x = 1")
    first = digest_of(str(file))
    file.write_text("x = 1  # one")
    assert digest_of(str(file)) == first
    file.write_bytes(b"x = '\xff'")
    assert len(digest_of(str(file))) == len(first)


def test_only_regular_files_have_a_state(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert state_of(str(tmp_path)) is state_of(str(tmp_path / "fifo")) is state_of("a\0b") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.csv", True),
        ("data/x", True),
        ("x", False),
        ("", False),
        ("a.b\nc", False),
        ("s3://b/a.csv", False),
    ],
)
def test_a_text_looks_like_a_path_if_it_has_a_folder_or_a_suffix(text, expected):
    assert looks_like_path(text) is expected


@dataclasses.dataclass
class Config:
    source: Path
    n: int = 3


LOADED = "loaded.csv"


def load():
    def inner():
        return LOADED, "literal.csv"

    return inner


load.__module__ = "__main__"


class Rude:
    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, set()),
        (Path("a.csv"), {"a.csv"}),
        (["a.csv", {"k": ("b.csv", {Path("c")})}], {"a.csv", "b.csv", "c"}),
        (Config(Path("d.csv")), {"d.csv"}),
        (load, {"loaded.csv", "literal.csv"}),
        (os.path.join, set()),
        (os, set()),
    ],
)
def test_paths_are_found_in_values_and_in_the_users_functions(value, expected):
    assert mentioned_files([value]) == expected


def test_an_object_that_raises_on_use_is_not_used():
    assert mentioned_files([Rude(), "a.csv"]) == {"a.csv"}


def test_a_circle_of_values_ends():
    circle = ["a.csv"]
    circle.append(circle)
    assert mentioned_files([circle]) == {"a.csv"}


def test_large_values_are_not_walked_to_their_end():
    assert mentioned_files([["a.csv"] * 10**6, list(map(str, range(10**5)))]) <= {"a.csv"}


def test_modules_of_the_users_and_those_that_they_import_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mod_inner.py").write_text("import os\ndef f(): pass\n")
    (tmp_path / "mod_outer.py").write_text("from mod_inner import f\nimport mod_outer as me\n")
    import mod_outer

    both = {str(tmp_path / "mod_inner.py"), str(tmp_path / "mod_outer.py")}
    assert mentioned_files([mod_outer]) == both
    assert mentioned_files([mod_outer], [mod_outer]) == {str(tmp_path / "mod_inner.py")}
