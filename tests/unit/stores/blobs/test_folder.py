"""Blobs: content-addressed files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sys
import textwrap
import threading

import pytest

from durable_nb.errors import StepNotRestored, StepNotSaved, StoreUnavailable
from durable_nb.stores.blobs import disk
from durable_nb.stores.blobs.folder import BlobFolder, MemoryBlobs

DATA = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path):
    return BlobFolder(tmp_path / "a.db.blobs")


@pytest.fixture(params=["folder", "memory"])
def blobs(request, folder):
    return folder if request.param == "folder" else MemoryBlobs()


def files(folder):
    return sorted(path for path in folder.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        [DATA[:1000], memoryview(DATA)[1000:2000], bytearray(DATA[2000:])],
        [DATA, b""],
    ],
    ids=["bytes", "bytearray", "memoryview", "list", "empty part"],
)
def test_bytes_come_back_however_they_are_given(blobs, data):
    assert blobs.put(data) == DIGEST
    assert blobs.get(DIGEST) == DATA
    assert blobs.exists(DIGEST)


def test_a_generator_is_as_good_as_a_list(blobs):
    assert blobs.put(DATA[start : start + 7919] for start in range(0, len(DATA), 7919)) == DIGEST
    assert blobs.get(DIGEST) == DATA


@pytest.mark.parametrize("data", [b"", [], [b""]])
def test_nothing_is_a_value_too(blobs, data):
    digest = blobs.put(data)
    assert digest == hashlib.sha256().hexdigest()
    assert blobs.get(digest) == b""


def test_nothing_is_a_value_in_another_process_too(folder):
    digest = folder.put(b"")
    another = BlobFolder(folder.folder)
    assert another.put(b"") == digest
    assert bytes(another.view(digest, 0, another.stamp(digest))) == b""


def test_wide_items_are_counted_in_bytes(folder):
    array = memoryview(DATA).cast("I")
    assert folder.put(array) == folder.put([array]) == DIGEST
    assert folder.put(array) == DIGEST
    assert folder.get(DIGEST) == DATA


def test_what_is_hashed_while_it_is_written_is_hashed_whole(folder):
    data = random.Random(2).randbytes(3_000_000)
    digest = hashlib.sha256(data).hexdigest()
    assert folder.put(data) == folder.put([data[:7], memoryview(data)[7:]]) == digest
    assert folder.get(digest) == data


def test_a_large_value_is_written_even_as_python_ends(folder):
    program = f"""
        import atexit, concurrent.futures.thread
        from pathlib import Path
        from durable_nb.stores.blobs.folder import BlobFolder
        atexit.register(lambda: print(BlobFolder(Path({str(folder.folder)!r})).put(b"x" * 3_000_000)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.strip() == hashlib.sha256(b"x" * 3_000_000).hexdigest(), done.stderr
    assert folder.exists(done.stdout.strip())


def test_changing_the_buffer_later_changes_nothing(blobs):
    data = bytearray(DATA)
    digest = blobs.put(data)
    data[0] ^= 1
    assert blobs.get(digest) == DATA


def test_bytes_that_change_while_they_are_written_are_no_blob(folder, monkeypatch):
    data = bytearray(DATA * 10)
    write = disk.write_hashed

    def changed(parts, file):
        done = write(parts, file)
        data[5] ^= 1
        return done

    with monkeypatch.context() as patched:
        patched.setattr(disk, "write_hashed", changed)
        with pytest.raises(StepNotSaved, match=r"value of 3,000,000 bytes .* saved\. Do not change"):
            folder.put(data)
    assert folder.get(folder.put(data)) == data


def test_files_are_named_by_content_and_the_users_alone(folder):
    before = os.umask(0)
    try:
        folder.put(DATA)
    finally:
        os.umask(before)
    path = folder.path(DIGEST)
    assert files(folder) == [path]
    assert path == folder.folder / DIGEST[:2] / DIGEST
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("data", [DATA, [DATA[:5], DATA[5:]]], ids=["one", "parts"])
def test_what_is_there_is_not_written_again(folder, data):
    folder.put(DATA)
    before = folder.path(DIGEST).stat()
    assert folder.put(data) == DIGEST
    after = folder.path(DIGEST).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    "damage",
    [b"", DATA[:-1], DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA + b"x"],
    ids=["emptied", "cut", "one bit", "longer"],
)
def test_damage_is_named_and_a_second_run_repairs_it(folder, damage):
    folder.put(DATA)
    folder.path(DIGEST).write_bytes(damage)
    with pytest.raises(StepNotRestored, match="damaged") as caught:
        folder.get(DIGEST)
    assert DIGEST in str(caught.value)
    assert "run the step again: " in str(caught.value)
    assert folder.put(DATA) == DIGEST
    assert folder.get(DIGEST) == DATA


def test_a_truncated_file_is_replaced_even_unread(folder):
    folder.put(DATA)
    folder.path(DIGEST).write_bytes(DATA[:10])
    folder.put(DATA)
    assert folder.get(DIGEST) == DATA


def test_what_is_missing_is_named(blobs):
    digest = "0" * 64
    assert not blobs.exists(digest)
    with pytest.raises(StepNotRestored, match="missing") as caught:
        blobs.get(digest)
    assert digest in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("digest", ["", "../../../etc/passwd", DIGEST.upper(), DIGEST + "/x", DIGEST + "\n"])
def test_a_digest_names_no_file_outside_the_folder(folder, digest):
    for call in (folder.get, folder.exists, folder.path):
        with pytest.raises(StepNotRestored, match="no SHA-256"):
            call(digest)


def test_nothing_is_created_by_looking(folder):
    assert not folder.exists(DIGEST)
    assert not folder.folder.exists()


def test_a_source_that_fails_leaves_nothing_behind(folder):
    def parts():
        yield DATA
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        folder.put(parts())
    assert files(folder) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    folder = BlobFolder(tmp_path / "file" / "blobs")
    for call in (lambda: folder.put(DATA), lambda: folder.put([DATA]), lambda: folder.get(DIGEST)):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert str(folder.folder) in str(caught.value)
        assert caught.value.remedy


def test_threads_put_the_same_and_others(folder):
    values = [bytes([number]) * 100_000 for number in range(4)]
    digests = [hashlib.sha256(value).hexdigest() for value in values]
    barrier, found = threading.Barrier(8), []

    def work():
        barrier.wait()
        found.append([folder.put(value) for value in values])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [digests] * 8
    assert files(folder) == sorted(map(folder.path, digests))
    assert [folder.get(digest) for digest in digests] == values


# Files that are none


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="NOT TESTED: named pipes are POSIX's")
def test_a_named_pipe_is_no_blob_and_is_not_waited_for(folder):
    folder.put(DATA)
    folder.path(DIGEST).unlink()
    os.mkfifo(folder.path(DIGEST))
    for read in (folder.get, folder.verify, lambda digest: folder.view(digest, len(DATA), "")):
        with pytest.raises(StepNotRestored, match="no regular file"):
            read(DIGEST)
    os.mkfifo(folder.folder / ".writing-pipe")
    folder.sweep()


def test_an_immense_file_with_holes_is_an_error_of_ours(folder):
    folder.put(DATA)
    os.truncate(folder.path(DIGEST), 1 << 43)  # 8 TiB: more than any machine could load
    with pytest.raises(StepNotRestored, match="too large for memory: 8,796,093,022,208 bytes"):
        folder.get(DIGEST)
    with pytest.raises(StepNotRestored, match="have changed"):
        folder.view(DIGEST, len(DATA), "")


def test_a_mapped_blob_is_never_written_in_place(folder):
    folder.put(DATA)
    view = BlobFolder(folder.folder).view(DIGEST, len(DATA), "")
    folder.path(DIGEST).touch()
    BlobFolder(folder.folder).put(DATA)  # another process that saves the same value
    folder.path(DIGEST).replace(folder.folder / "damaged by another program")
    with pytest.raises(StepNotRestored, match="missing"):
        folder.get(DIGEST)
    folder.put(DATA)
    assert bytes(view) == DATA
