"""Each bit of a row's bytes, flipped in the file: named, or harmless; never another value."""

import random
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from durable_nb import Workflow
from durable_nb.codec import signing
from durable_nb.errors import DurableError, StoreUnreadable
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.sqlite import inspection, schema
from durable_nb.stores.sqlite.connection import decoded
from helpers.unfinished import leave_unfinished

RUN = "flipped-run"
RESULT = [{"price": 12.5}, "text", Counter(n=3), [1, 2]]
READS = {
    "runs": f"SELECT {schema.RUN} FROM runs WHERE run_id = '{RUN}'",
    "steps": f"SELECT {schema.STEP} FROM steps WHERE run_id = '{RUN}' ORDER BY recorded, step_id",
    "signals": f"SELECT {schema.SIGNAL} FROM signals WHERE run_id = '{RUN}'",
}


def execute(db, ran):
    """Execute a run whose steps return JSON and a pickle, one more in each scope, and a signal."""
    with Workflow("flipped", db=db) as wf:

        @wf.task
        def keep(value):
            ran.append(value)
            return value

        @wf.workflow(id=RUN)
        def flow():
            return [*map(keep, RESULT[:3]), wf.sync.signal("go")]

        wf.sync.complete(RUN, "go", RESULT[3])
        return flow()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The path of a database that holds a run whose steps have all finished, and its bytes."""
    path = tmp_path_factory.mktemp("flipped") / "a.db"
    assert execute(path, []) == RESULT
    with Workflow("flipped", db=path) as wf:
        leave_unfinished(wf, RUN)
    return path, path.read_bytes()


def opened(data):
    """The database in some bytes, in memory: not in the mode with a log, which needs files."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data[:18] + b"\x01\x01" + data[20:])
    connection.text_factory = decoded
    return closing(connection)


def positions(data):
    """The offsets of the bytes of rows; each table has one page."""
    with opened(data) as connection:
        pages = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name IN ('runs', 'steps', 'signals')"
        )
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        return [at for (page,) in pages for at in rows_of(data, (page - 1) * size, size)]


def rows_of(data, start, size):
    """The offsets of the rows in a page: they are at its end."""
    assert data[start] in (0x0A, 0x0D)  # a leaf
    content = int.from_bytes(data[start + 5 : start + 7], "big") or size
    return range(start + content, start + size)


def read(data):
    """What the records of the run say, by table, and which of them are named as damaged."""
    with opened(data) as connection:
        checked = CheckedRows(schema.database_id(connection))
        read = {"runs": checked.run, "steps": lambda row: checked.steps([row])[0], "signals": checked.signal}
        values, damaged = [], []
        for table, sql in READS.items():
            for row in connection.execute(sql).fetchall():
                try:
                    values.append(read[table](row))
                except StoreUnreadable as error:
                    damaged.append((error.run_id, error.step))
    assert all(run_id for run_id, _ in damaged)  # as its row says: it may be what is damaged
    return values, damaged, checked.database


def comparable(record, database):
    """A record without what no checksum covers; its payload must still be one that is loaded."""
    for field in ("payload", "result"):
        payload = getattr(record, field, None)
        if payload is not None and payload.signature is not None:
            step = {"step_id": ""} | record._asdict()
            if not signing.is_trusted(payload, RUN, step["step_id"], database=database):
                return None  # it is refused when it is loaded
            record = record._replace(**{field: payload._replace(signature=None)})
    if hasattr(record, "passes"):
        record = record._replace(epoch=0, passes=0, crashes=0, python=None, owner=None)
    return record


def outcome(data, right, at, bit):
    """What a flipped bit leads to: ``error``, ``named``, ``harmless``, or ``missing``."""
    flipped = bytearray(data)
    flipped[at] ^= 1 << bit
    try:
        values, damaged, database = read(bytes(flipped))
    except sqlite3.Error:
        return "error"
    for each in values:
        found = comparable(each, database)
        assert found is None or found in right, (at, bit, each)
    if damaged:
        return "named"
    return "harmless" if len(values) == len(right) else "missing"


def outcomes(data, bits):
    values, _, database = read(data)
    right = [comparable(each, database) for each in values]
    assert len(right) == 6
    assert None not in right
    return {(at, bit): outcome(data, right, at, bit) for at, bit in bits}


def all_bits(data):
    return [(at, bit) for at in positions(data) for bit in range(8)]


def test_a_bit_in_a_row_is_named_or_harmless(filled):
    bits = random.Random(4).sample(all_bits(filled[1]), 1500)
    found = Counter(outcomes(filled[1], bits).values())
    assert found["named"] > 1000, found


@pytest.mark.long
@pytest.mark.timeout(900)
def test_each_bit_in_each_row_is_named_or_harmless(filled):
    found = Counter(outcomes(filled[1], all_bits(filled[1])).values())
    assert found["named"] > 0.7 * found.total(), found


def missing_rows(data, count):
    """Bits that hide a row, since they are part of its run's id."""
    bits = random.Random(5).sample(all_bits(data), 3000)
    missing = [place for place, found in outcomes(data, bits).items() if found == "missing"]
    assert len(missing) > count
    return missing[:count]


def test_a_row_that_is_missing_for_a_flipped_bit_is_found_by_check(filled, tmp_path):
    path, data = tmp_path / "b.db", filled[1]
    for at, bit in missing_rows(data, 20):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        path.write_bytes(flipped)
        assert inspection.inspect(path).problems, (at, bit)


def test_a_resume_after_a_flipped_bit_returns_what_it_did_or_says_what_is_damaged(filled, tmp_path):
    path, data, ended = tmp_path / "c.db", filled[1], Counter()
    # A run id that is no longer in its place in the order of the table hides the rows beside it too.
    names = [at for at in positions(data) if data[at : at + len(RUN)] == RUN.encode()]
    found = [*random.Random(6).sample(all_bits(data), 25), *((at, bit) for at in names for bit in (0, 4, 5))]
    for at, bit in found:
        flipped, ran = bytearray(data), []
        flipped[at] ^= 1 << bit
        path.write_bytes(flipped)
        said = ""
        try:
            assert execute(path, ran) == RESULT
        except DurableError as error:
            said = str(error)
        assert RUN in said or "database" in said or str(path) in said or not said, said
        assert ran == [], (at, bit)
        ended["damaged" in said] += 1
        for each in tmp_path.glob("c.db*"):
            each.unlink()
    assert ended[True] > 10, ended
