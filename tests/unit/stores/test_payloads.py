"""Payloads between the codec and a store: parts of their own, mapped, shared, and lost one by one."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest

from durable_nb import Workflow, settings
from durable_nb.codec import decode, encode
from durable_nb.errors import StepNotRestored, StoreUnavailable, UntrustedCheckpoint
from durable_nb.stores.blobs.folder import BlobFolder, MemoryBlobs
from durable_nb.stores.payloads import fetch, is_at_hand, keep

LARGE = 100_000  # numbers of eight bytes: more than a row takes


class Home:
    location, identity = "here.db", "here"

    def __init__(self, blobs):
        self.blobs = blobs


@pytest.fixture
def folder(tmp_path):
    return BlobFolder(tmp_path / "here.db.blobs")


@pytest.fixture(params=["folder", "memory", "none"])
def home(request, folder):
    return Home({"folder": folder, "memory": MemoryBlobs(), "none": None}[request.param])


def kept(home, value):
    return asyncio.run(keep(home, encode(value), "r", "s"))


def back(home, payload):
    return decode(asyncio.run(fetch(home, payload, "r", "s")))


def through(home, value):
    return back(home, kept(home, value))


def blob_files(folder):
    return {path for path in folder.folder.rglob("*") if path.is_file()}


STRUCTURED = np.zeros(LARGE, dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", "S5")])
STRUCTURED["a"] = np.arange(LARGE)
ARRAYS = {
    "floats": np.linspace(0, 1, LARGE),
    "C order": np.arange(2.0 * LARGE).reshape(2, LARGE),
    "Fortran order": np.asfortranarray(np.arange(2.0 * LARGE).reshape(2, LARGE)),
    "transposed": np.arange(6.0 * LARGE).reshape(2, 3, LARGE).transpose(1, 0, 2),
    "strided": np.arange(4.0 * LARGE)[::2],
    "backwards": np.arange(LARGE)[::-1],
    "datetimes": np.arange(LARGE).astype("M8[s]"),
    "durations": np.arange(LARGE).astype("m8[ns]"),
    "big-endian": np.arange(LARGE).astype(">i4"),
    "booleans": np.arange(LARGE) % 3 == 0,
    "complex": np.arange(LARGE) * (1 + 2j),
    "long doubles": np.arange(LARGE).astype(np.longdouble),
    "text": np.arange(LARGE).astype("U7"),
    "structured": STRUCTURED,
    "objects": np.array([1, "a", None] * 2000, dtype=object),
    "masked": np.ma.masked_array(np.arange(LARGE), np.arange(LARGE) % 2 == 0),
    "small": np.arange(3),
    "empty": np.empty((0, 3)),
    "zero-dimensional": np.array(7),
}
if hasattr(np.dtypes, "StringDType"):
    ARRAYS["strings"] = np.array(["ä" * 30, "b"] * 3000, dtype=np.dtypes.StringDType())


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_any_kind_comes_back_exactly(home, name):
    array = ARRAYS[name]
    again = through(home, {"it": array, 1: (1,)})["it"]
    assert type(again) is type(array)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    if array.flags.forc:
        assert again.flags.f_contiguous == array.flags.f_contiguous
    assert again.tobytes() == array.tobytes() or again.tolist() == array.tolist()
    if array.size and name != "zero-dimensional":
        again[:1] = again[-1:]  # it may be written to
        assert through(home, array).tobytes() == array.tobytes() or again.dtype.hasobject


def test_one_array_in_two_places_stays_one(home):
    array = np.arange(LARGE)
    one, other = through(home, [array, array])
    assert one is other


def test_a_row_stays_small(folder):
    payload = kept(Home(folder), {"big": np.arange(LARGE), "small": np.arange(1000), 1: "x"})
    assert payload.blob is None
    assert len(payload.data) < 20_000
    assert len(blob_files(folder)) == 1


def test_what_was_restored_can_be_kept_again(home):
    fetched = asyncio.run(fetch(home, kept(home, np.arange(LARGE)), "r", "s"))
    again = asyncio.run(keep(home, fetched, "r", "other"))
    assert (decode(asyncio.run(fetch(home, again, "r", "other"))) == np.arange(LARGE)).all()


def test_json_needs_no_fetching(home):
    assert is_at_hand(kept(home, {"a": [1, 2]}))
    assert not is_at_hand(kept(home, object))


# Frames


def frame():
    numbers = np.random.default_rng(1)
    made = pd.DataFrame({f"c{n}": numbers.random(LARGE) for n in range(4)})
    made["when"] = pd.date_range("2020", periods=LARGE, freq="s")
    made["n"] = np.arange(LARGE)
    made["m"] = np.arange(LARGE)
    made["kind"] = pd.Categorical(["a", "b"] * (LARGE // 2))
    made["nullable"] = pd.array([1, None] * (LARGE // 2), dtype="Int64")
    made["text"] = ["ä", "b"] * (LARGE // 2)
    return made.copy()  # consolidated


def test_a_frame_comes_back_equal_and_normal(home):
    made = frame()
    made.insert(0, "c1", 7.0, allow_duplicates=True)
    made = made.set_index("when").copy()
    made.attrs["source"] = "a sensor"
    made.flags.allows_duplicate_labels = True
    again = through(home, {"it": made})["it"]
    pd.testing.assert_frame_equal(again, made, check_exact=True, check_freq=True, check_flags=True)
    assert again.attrs == made.attrs
    assert list(again.columns) == list(made.columns)
    again["new"] = again["n"] + 1
    again.iloc[0, 0] = -1.0
    assert again["new"].iloc[-1] == LARGE
    assert made.iloc[0, 0] == 7.0


def test_one_changed_column_writes_that_column_alone(folder):
    made, home = frame(), Home(folder)
    kept(home, {"it": made})
    before = blob_files(folder)
    made["c2"] = made["c2"] + 1
    payload = kept(home, {"it": made})
    new = [path.stat().st_size for path in blob_files(folder) - before]
    assert new == [8 * LARGE] or sum(new) < 8 * LARGE + made["text"].memory_usage(deep=True)
    assert sum(size == 8 * LARGE for size in new) == 1
    pd.testing.assert_frame_equal(back(home, payload)["it"], made)


def test_a_frame_of_many_columns_does_not_come_back_in_pieces(folder, recwarn):
    made = pd.DataFrame({f"c{n}": np.full(40_000, n, float) for n in range(150)})
    again = through(Home(folder), {"it": made})["it"]
    again["new"] = 1
    pd.testing.assert_frame_equal(again.drop(columns="new"), made)
    assert not [one for one in recwarn if issubclass(one.category, pd.errors.PerformanceWarning)]


# Mapping


def only_blob(folder):
    (path,) = blob_files(folder)
    return path


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, memoryview) and isinstance(array.obj, mmap.mmap)


def test_a_restored_array_is_the_file_itself_and_leaves_it_alone(folder):
    payload = kept(Home(folder), np.arange(LARGE))
    before = only_blob(folder).read_bytes()
    again = back(Home(folder), payload)
    assert is_mapped(again)
    again[:] = 0
    assert only_blob(folder).read_bytes() == before
    only_blob(folder).unlink()
    assert again.sum() == 0  # what is mapped outlives its name


@pytest.mark.parametrize("as_if_new", [True, False], ids=["another process", "the same process"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        None,
    ],
    ids=["cut", "emptied", "longer", "one bit", "deleted"],
)
def test_a_damaged_part_is_named_before_it_is_touched(folder, damage, as_if_new):
    home = Home(folder)
    payload = kept(home, np.arange(LARGE))
    path = only_blob(folder)
    status = path.stat()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time of writing can be forged
    home = Home(BlobFolder(folder.folder)) if as_if_new else home
    with pytest.raises(StepNotRestored, match=path.name):
        back(home, payload)
    assert kept(home, np.arange(LARGE)).data  # running the step again puts a good one in its place
    assert (back(home, payload) == np.arange(LARGE)).all()


def test_a_file_brought_back_from_a_copy_is_compared_once(folder, monkeypatch):
    payload = kept(Home(folder), np.arange(LARGE))
    path = only_blob(folder)
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    compared = []
    digest = BlobFolder.__init__.__globals__["hashlib"].file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda *args: compared.append(args) or digest(*args))
    home = Home(BlobFolder(folder.folder))
    for _ in range(3):
        assert (back(home, payload) == np.arange(LARGE)).all()
    assert len(compared) == 1


def test_a_pickle_that_is_a_part_is_compared_at_each_reading(folder):
    home = Home(folder)
    payload = kept(home, {1: ["some text"] * 5, 2: list(map(str, range(LARGE)))})
    path = only_blob(folder)
    back(home, payload)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StepNotRestored, match="damaged"):
        back(home, payload)


def test_what_was_put_is_not_hashed_or_written_twice(folder, monkeypatch):
    home, array = Home(folder), np.arange(LARGE)
    kept(home, array)
    monkeypatch.setattr(BlobFolder, "_write", None)
    kept(home, array.copy())


def test_equal_parts_are_written_once_though_they_come_at_the_same_time(folder, monkeypatch):
    written, write = [], BlobFolder._write

    def counted(self, parts):
        written.append(parts)
        time.sleep(0.05)  # the others come meanwhile
        return write(self, parts)

    monkeypatch.setattr(BlobFolder, "_write", counted)
    frame = pd.DataFrame({f"c{n}": np.zeros(LARGE) for n in range(5)})
    pd.testing.assert_frame_equal(through(Home(folder), frame), frame)
    assert len(written) == 1
    assert len(blob_files(folder)) == 1


def test_no_part_is_read_any_more_once_one_has_failed():
    class Slow(MemoryBlobs):
        reading = 0

        def put(self, data):
            if memoryview(data)[0] == 0:
                raise StoreUnavailable("full", remedy="")
            self.reading += 1
            time.sleep(0.1)
            self.reading -= 1
            return super().put(data)

    blobs = Slow()
    with pytest.raises(StoreUnavailable, match="full"):
        kept(Home(blobs), [np.full(LARGE, n) for n in range(5)])
    assert blobs.reading == 0


def test_memory_that_changed_is_another_value(folder):
    home, array = Home(folder), np.arange(LARGE)
    first = kept(home, array)
    array[0] = 5
    second = kept(home, array)
    assert [back(home, payload)[0] for payload in (first, second)] == [0, 5]


# Half-written blobs


def leftover(folder, name, age):
    folder.folder.mkdir(exist_ok=True)
    path = folder.folder / f".writing-{name}"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_half_written_blobs_of_the_dead_go_when_a_store_opens(folder, tmp_path):
    dead = leftover(folder, "dead", settings.NEWBORN + 1)
    newborn = leftover(folder, "newborn", 0)
    living = leftover(folder, "living", settings.NEWBORN + 1)
    ancient = leftover(folder, "ancient", settings.ABANDONED + 1)
    with living.open("rb") as one, ancient.open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(other, fcntl.LOCK_EX)
        with Workflow("w", db=tmp_path / "here.db") as wf:
            wf.workflow(lambda: 1).run("r")
        assert [path.exists() for path in (dead, newborn, living, ancient)] == [False, True, True, False]


def test_a_killed_writer_leaves_what_can_be_collected(folder):
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from durable_nb.stores.blobs.folder import BlobFolder
        def pieces():
            yield b"x" * 2_000_000
            os.kill(os.getpid(), signal.SIGKILL)
        BlobFolder(Path({str(folder.folder)!r})).put(pieces())
        """
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode < 0
    (left,) = blob_files(folder)
    folder.sweep()
    assert left.exists()  # too young to be judged
    os.utime(left, (time.time() - settings.NEWBORN - 1,) * 2)
    folder.sweep()
    assert not left.exists()


# Tasks


def test_a_task_that_returns_a_frame_replays_after_a_restart(again, db):
    made = frame()

    def run():
        wf = again()
        task = wf.task(name="load")(lambda: made)
        return wf.workflow(task).run("r")

    run()
    again_made = run()
    assert again_made is not made
    pd.testing.assert_frame_equal(again_made, made)


def test_saving_an_array_needs_no_second_one_in_memory(folder):
    program = textwrap.dedent(
        f"""
        import asyncio, resource
        from pathlib import Path
        import numpy as np
        from durable_nb.stores.blobs.folder import BlobFolder
        from durable_nb.codec import encode
        from durable_nb.stores.payloads import keep, fetch
        class Home:
            location, identity, blobs = "here.db", "here", BlobFolder(Path({str(folder.folder)!r}))
        warm = encode(np.ones(10_000)); asyncio.run(keep(Home, warm, "r", "s"))
        array = np.ones(200_000_000 // 8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        payload = asyncio.run(keep(Home, encode(array), "r", "s"))
        asyncio.run(fetch(Home, payload, "r", "s"))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert grown < 60_000


# Tensors


@pytest.fixture
def torch():
    try:
        import torch
    except ImportError:
        pytest.skip("NOT TESTED: torch is not installed (it is large); pip install torch")
    return torch


def test_tensors_come_back_with_what_they_share(home, torch):
    base = torch.arange(float(LARGE)).reshape(2, -1)
    view, turned = base[1], base.t()
    learned = torch.nn.Parameter(torch.ones(3))
    learned.grad = torch.full((3,), 2.0)
    value = {1: base, 2: view, 3: turned, 4: learned, 5: torch.empty(0), 6: base.to(torch.bfloat16)}
    again = through(home, value)
    for key, tensor in value.items():
        assert type(again[key]) is type(tensor)
        assert (again[key].dtype, again[key].stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(again[key], tensor)
        assert again[key].requires_grad == tensor.requires_grad
    assert torch.equal(again[4].grad, learned.grad)
    again[1][1, 0] = -5
    assert again[2][0] == again[3][0, 1] == -5


def test_a_model_and_its_optimizer_stay_together(home, torch):
    model = torch.nn.Linear(700, 500)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(700)).sum().backward()
    optimizer.step()
    again, its = through(home, (model, optimizer))
    assert its.param_groups[0]["params"][0] is again.weight
    for one, other in ((model, optimizer), (again, its)):
        one(torch.ones(700)).sum().backward()
        other.step()
    assert torch.equal(again.weight, model.weight)


def test_a_foreign_payload_is_not_read(home):
    payload = kept(home, np.arange(LARGE))
    with pytest.raises(UntrustedCheckpoint):
        asyncio.run(fetch(home, payload, "r", "another step"))
