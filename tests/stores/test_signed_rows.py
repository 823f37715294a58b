"""A signature holds for its run and step, in its database alone."""

import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from durable_nb import Workflow, codec
from durable_nb.cli import main as command
from durable_nb.codec import signing
from durable_nb.errors import UntrustedCheckpoint
from durable_nb.records import Payload
from helpers.unfinished import leave_unfinished

SIGNED = "payload_format, payload_data, payload_blob, payload_signature, checksum"


def sums(db, total):
    """Run a workflow whose step returns a counter, which is a pickle, in a database."""
    with Workflow("sums", db=db) as wf:

        @wf.task
        def add():
            return Counter(n=total)

        @wf.workflow
        def flow():
            return add()

        return flow.run("r")


def taken_from(source, target):
    """Put the step of one database in the place of the same step in another, whose run goes on."""
    with Workflow("sums", db=target) as wf:
        leave_unfinished(wf)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS other", (str(source),))
        values = SIGNED.replace("checksum", "NULL")
        connection.execute(f"UPDATE steps SET ({SIGNED}) = (SELECT {values} FROM other.steps)")


def test_a_checkpoint_of_another_database_is_not_loaded(tmp_path):
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    assert (sums(here, 1), sums(there, 2)) == (Counter(n=1), Counter(n=2))
    taken_from(there, here)
    with pytest.raises(UntrustedCheckpoint, match=r"run 'r', step 'add'.*none of your keys has signed it"):
        sums(here, 1)


def test_it_is_loaded_once_the_user_has_signed_it(tmp_path):
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    sums(here, 1), sums(there, 2)
    taken_from(there, here)
    assert command(["trust", "--yes", str(here)]) == 0
    assert sums(here, 1) == Counter(n=2)


def test_a_copy_of_a_database_is_loaded(tmp_path):
    here, copy = tmp_path / "here.db", tmp_path / "copy.db"
    sums(here, 1)
    assert command(["backup", str(here), str(copy)]) == 0
    assert sums(copy, 2) == Counter(n=1)


def test_a_signature_from_before_it_covered_the_database_is_valid():
    old = signing.sign(Payload("pickle", codec.encode(Counter(n=1)).data), "r", "s")
    assert signing.is_trusted(old, "r", "s", database="here")
    new = signing.sign(old, "r", "s", database="here")
    assert signing.is_trusted(new, "r", "s", database="here")
    assert not signing.is_trusted(new, "r", "s", database="there")
    assert not signing.is_trusted(new, "r", "s")
    assert not signing.is_trusted(new, "s", "s", database="here")
