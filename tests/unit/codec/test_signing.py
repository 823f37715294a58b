"""Checkpoints that would run code are loaded only if a key of the user's has signed them."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from durable_nb import Workflow
from durable_nb.cli import main
from durable_nb.codec import signing
from durable_nb.errors import DurableNotice, StoreUnavailable, UntrustedCheckpoint
from durable_nb.records import Payload
from helpers.unfinished import leave_unfinished


@pytest.fixture
def own_key(tmp_path, monkeypatch):
    """No team's secret, and a folder of our own for the user's key."""
    monkeypatch.delenv(signing.VARIABLE)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setattr(signing, "_keys", {})
    return tmp_path / "jupyter" / "durable_nb" / "secret"


class Hostile:
    """Makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def three_steps(wf):
    @wf.task
    def before():
        return 1

    @wf.task
    def middle():
        return bytearray

    @wf.task
    def after():
        return [2]

    @wf.workflow
    def three():
        return before(), middle(), after()

    return three


MIDDLE = "SELECT payload_format, payload_data, payload_signature FROM steps WHERE step_id = 'middle'"

AFTER = "WHERE step_id = 'after'"


def change(db, sql, *values):
    """Change rows, and leave no trace in their checksums: these find damage, and no malice."""
    with closing(sqlite3.connect(db)) as connection, connection:
        assert connection.execute(sql, values).rowcount
        connection.execute("UPDATE steps SET checksum = NULL")
        connection.execute("UPDATE signals SET checksum = NULL")


def bodies_run(db, run_id):
    with closing(sqlite3.connect(db)) as connection:
        return dict(connection.execute("SELECT step_id, attempt FROM steps WHERE run_id = ?", (run_id,)))


def test_a_hostile_pickle_in_a_foreign_database_is_named_and_not_run(again, db, tmp_path):
    three_steps(again()).run("r")
    trap = tmp_path / "trap"
    change(db, "UPDATE steps SET payload_data = ? WHERE step_id = 'middle'", pickle.dumps(Hostile(trap)))
    wf = leave_unfinished(again())
    with pytest.raises(UntrustedCheckpoint) as caught:
        three_steps(wf).run("r")
    assert (caught.value.run_id, caught.value.step) == ("r", "middle")
    assert f"durable-nb trust {db}" in str(caught.value)
    assert not trap.exists()
    assert set(bodies_run(db, "r").values()) == {1}  # refused, and not run again instead


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE steps SET payload_signature = NULL WHERE step_id = 'middle'",
        "UPDATE steps SET payload_signature = x'00' WHERE step_id = 'middle'",
        "UPDATE steps SET payload_format = 'failure' WHERE step_id = 'middle'",
        "UPDATE steps SET payload_data = CAST(payload_data || x'00' AS BLOB) WHERE step_id = 'middle'",
        f"UPDATE steps SET (payload_format, payload_data, payload_signature) = ({MIDDLE}) {AFTER}",
    ],
    ids=["unsigned", "another key's", "another format", "other bytes", "another step's"],
)
def test_what_the_signature_covers(again, db, sql):
    three_steps(again()).run("r")
    change(db, sql)
    with pytest.raises(UntrustedCheckpoint):
        three_steps(leave_unfinished(again())).run("r")


def test_a_failure_is_signed_too(again, db):
    def run(wf):
        @wf.task(retries=0)
        def fail():
            raise ValueError("no")

        after = wf.task(name="after")(lambda: 1)

        @wf.workflow
        def both():
            try:
                fail()
            except ValueError:
                return after()

        return both.run("r")

    assert run(again()) == run(leave_unfinished(again())) == 1
    change(db, "UPDATE steps SET payload_signature = NULL WHERE step_id = 'fail'")
    with pytest.raises(UntrustedCheckpoint, match="'fail'"):
        run(leave_unfinished(again()))


def test_a_run_that_was_set_aside_keeps_its_signatures(again):
    three_steps(again()).run("r")
    three_steps(again()).run("r", fresh=True)
    assert three_steps(again()).run("r~1") == (1, bytearray, [2])


def test_an_unsigned_signal_that_would_run_code_is_refused(again, db, tmp_path):
    trap = tmp_path / "trap"

    def wait():
        wf = again()
        return wf.workflow(lambda: wf.sync.signal("go")).run("r")

    again().sync.complete("r", "go", {"x": bytearray})
    change(db, "UPDATE signals SET payload_data = ?", pickle.dumps(Hostile(trap)))
    with pytest.raises(UntrustedCheckpoint, match="'signal:go'"):
        wait()
    assert not trap.exists()
    assert main(["trust", str(db), "--yes"]) == 0
    assert wait() is None  # what os.mkdir gives
    assert trap.exists()


# The key


def test_the_users_key_is_made_once_and_is_the_users_alone(own_key, again):
    three_steps(again()).run("r")
    key = own_key.read_bytes()
    assert len(key) == 32
    assert stat.S_IMODE(own_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_key.parent.stat().st_mode) == 0o700
    signing._keys.clear()
    assert three_steps(again()).run("r") == (1, bytearray, [2])
    assert own_key.read_bytes() == key
    assert [path.name for path in own_key.parent.iterdir()] == ["secret"]


def test_processes_that_begin_together_make_one_key(own_key):
    program = "from durable_nb.codec import signing; print(signing._trusted_keys()[0].hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    assert {process.communicate()[0].strip() for process in started} == {own_key.read_bytes().hex()}


def test_a_teams_secret_goes_with_the_users_own_key(own_key, again, monkeypatch):
    three_steps(again()).run("own")
    monkeypatch.setenv(signing.VARIABLE, "of the team")
    assert three_steps(again()).run("own") == (1, bytearray, [2])
    three_steps(again()).run("team")
    own_key.unlink()
    signing._keys.clear()
    assert three_steps(again()).run("team") == (1, bytearray, [2])
    with pytest.raises(UntrustedCheckpoint):
        three_steps(again()).run("own")
    monkeypatch.setenv(signing.VARIABLE, "of another team")
    with pytest.raises(UntrustedCheckpoint):
        three_steps(again()).run("team")


@pytest.mark.parametrize("broken", ["a file in its way", "too short"])
def test_without_a_key_the_work_is_kept_and_it_is_said(own_key, again, broken):
    if broken == "too short":
        own_key.parent.mkdir(parents=True)
        own_key.write_bytes(b"short")
    else:
        own_key.parents[1].write_bytes(b"")
    with pytest.warns(DurableNotice, match="'middle': saved without a signature.*secret"):
        three_steps(again()).run("r")
    with pytest.raises(UntrustedCheckpoint):
        three_steps(again()).run("r")
    with pytest.raises(StoreUnavailable, match="no key to sign with"):
        signing.sign(Payload("pickle", b""), "r", "s")


UNSAFE = {
    "others may write it": lambda key: key.chmod(0o666),
    "others may read it": lambda key: key.chmod(0o644),
    "its group may read it": lambda key: key.chmod(0o640),
}


def linked(key, target="elsewhere"):
    key.rename(key.with_name("elsewhere"))
    key.symlink_to(target)


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: modes are POSIX's")
@pytest.mark.parametrize("how", UNSAFE)
def test_a_key_that_others_can_use_is_refused(own_key, how):
    signing.sign(Payload("pickle", b""), "r", "s")
    UNSAFE[how](own_key)
    signing._keys.clear()
    with pytest.raises(StoreUnavailable, match=r"mode is 0\d+, so that other users.*chmod 600"):
        signing.sign(Payload("pickle", b""), "r", "s")


def refusal(key):
    """The message with which a key is refused."""
    signing._keys.clear()
    with pytest.raises(StoreUnavailable, match="no key to sign with") as refused:
        signing.sign(Payload("pickle", b""), "r", "s")
    return str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: links are POSIX's")
@pytest.mark.parametrize("target", ["elsewhere", "nowhere", "secret", "."])
def test_a_link_is_no_key_until_the_file_is_there_itself(own_key, target):
    first = signing.sign(Payload("pickle", b""), "r", "s")
    linked(own_key, target)
    refused = refusal(own_key)
    assert "it is a symbolic link, expected a regular file" in refused
    if target == "elsewhere":
        typed = refused.partition("there: ")[2].partition(", or set")[0]
        subprocess.run(typed, shell=True, check=True)
        assert signing.sign(Payload("pickle", b""), "r", "s") == first


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="NOT TESTED: only root gives files away")
def test_a_key_of_another_user_is_refused(own_key):
    first = signing.sign(Payload("pickle", b""), "r", "s")
    os.chown(own_key, 65534, -1)
    assert "it belongs to the user 65534, expected 0" in refusal(own_key)
    os.chown(own_key, 0, -1)
    os.chown(own_key.parent, 65534, -1)
    assert f"its folder {str(own_key.parent)!r} belongs to the user 65534" in refusal(own_key)
    os.chown(own_key.parent, 0, -1)
    assert signing.sign(Payload("pickle", b""), "r", "s") == first


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: modes are POSIX's")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_in_which_others_can_replace_the_key_is_refused(own_key, mode):
    first = signing.sign(Payload("pickle", b""), "r", "s")
    own_key.parent.chmod(mode)
    refused = refusal(own_key)
    assert f"the mode of its folder is {mode:04o}" in refused
    subprocess.run(refused.partition("alone: ")[2].partition(", or set")[0], shell=True, check=True)
    assert signing.sign(Payload("pickle", b""), "r", "s") == first


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="NOT TESTED: named pipes are POSIX's")
def test_a_named_pipe_is_no_key_and_is_not_waited_for(own_key):
    own_key.parent.mkdir(parents=True)
    os.mkfifo(own_key, 0o600)
    with pytest.raises(StoreUnavailable, match="expected a regular file"):
        signing.sign(Payload("pickle", b""), "r", "s")


# durable-nb trust


@pytest.fixture
def foreign(again, db, monkeypatch):
    """A database that somebody else has made."""
    three_steps(again()).run("r")
    again().close()
    monkeypatch.setenv(signing.VARIABLE, "of somebody else")
    return db


def test_trust_shows_asks_and_signs(foreign, again, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert main(["trust", str(foreign)]) == 1
    with pytest.raises(UntrustedCheckpoint):
        three_steps(again()).run("r")
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert main(["trust", str(foreign)]) == 0
    told = capsys.readouterr().out
    assert "run 'r', step 'middle' (pickle)" in told
    assert "before" not in told  # plain JSON runs nothing
    assert three_steps(again()).run("r") == (1, bytearray, [2])
    assert main(["trust", str(foreign)]) == 0
    assert "every checkpoint" in capsys.readouterr().out


def test_trust_without_anybody_to_ask_signs_nothing(foreign, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: (_ for _ in ()).throw(EOFError))
    assert main(["trust", str(foreign)]) == 1
    assert "nothing was signed" in capsys.readouterr().out


def test_trust_needs_a_database_and_a_key(tmp_path, foreign, own_key, capsys):
    assert main(["trust", str(tmp_path / "none.db")]) == 1
    own_key.parents[1].write_bytes(b"")
    assert main(["trust", str(foreign), "--yes"]) == 1
    assert "Make its folder writable" in capsys.readouterr().err


def test_what_is_not_ours_is_left_alone(tmp_path, capsys):
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE steps (a)")
    assert main(["trust", str(other), "--yes"]) == 1
    assert "another application" in capsys.readouterr().err


def test_signing_is_asked_only_of_what_runs_code(again, monkeypatch):
    monkeypatch.setattr(signing, "_trusted_keys", None)
    with Workflow("w", db=again().db) as wf:
        wf.workflow(wf.task(name="plain")(lambda: {"a": (1, 2)})).run("plain")
        assert wf.workflow(wf.task(name="plain")(lambda: None)).run("plain") == {"a": (1, 2)}
