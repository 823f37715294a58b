"""Blobs elsewhere: put, verified on read, and a run on Redis that keeps its large values there."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from durable_nb import RedisStore, Workflow
from durable_nb.errors import InvalidOption, StepNotRestored, StoreUnavailable
from durable_nb.stores.blobs.folder import BlobFolder
from durable_nb.stores.blobs.remote import RemoteBlobs, blobs_at


@pytest.fixture(params=["memory", "file"])
def blobs(request, tmp_path):
    return RemoteBlobs(f"{request.param}://{tmp_path}/blobs")


def test_bytes_come_back(blobs):
    digest = blobs.put(b"large" * 1000)
    assert digest == hashlib.sha256(b"large" * 1000).hexdigest()
    assert blobs.put([b"large", memoryview(b"large" * 999)]) == digest
    assert blobs.get(digest) == b"large" * 1000
    assert blobs.exists(digest)
    view = blobs.view(digest, 5000, blobs.stamp(digest))
    view[0] = 0
    assert bytes(view[1:]) == b"large"[1:] + b"large" * 999


def test_what_is_missing_or_damaged_is_said(blobs):
    with pytest.raises(StepNotRestored, match="missing"):
        blobs.get("0" * 64)
    assert not blobs.exists("0" * 64)
    digest = blobs.put(b"large")
    for damaged in (b"smaller", b"other"):  # of the same size, too
        blobs._files.pipe_file(blobs._name(digest), damaged)
        with pytest.raises(StepNotRestored, match=r"damaged.*resolve"):
            blobs.get(digest)
        assert blobs._files.cat_file(f"{blobs._name(digest)}.damaged") == damaged
        assert blobs.put(b"large") == digest
        assert blobs.get(digest) == b"large"


def test_what_is_no_digest_names_nothing(blobs):
    """A database of somebody else's leads to no other file."""
    blobs.put(b"large")
    for use in (blobs.get, blobs.exists):
        with pytest.raises(StepNotRestored, match="no SHA-256"):
            use("../outside")


class Hasty(LocalFileSystem):
    """Connects with all the options it is given, as SFTP does, and remembers what it has seen, as S3 does."""

    def __init__(self, *, port=22):
        super().__init__(port=port)
        self._seen = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("hasty://"))

    def info(self, path, **options):
        return self._seen.setdefault(path, super().info(path, **options))

    def exists(self, path, **options):
        return path in self._seen or super().exists(path, **options)

    def invalidate_cache(self, path=None):
        self._seen.clear()
        super().invalidate_cache(path)


def test_what_another_machine_has_deleted_is_not_taken_for_there(tmp_path):
    fsspec.register_implementation("hasty", Hasty, clobber=True)
    blobs = RemoteBlobs(f"hasty://{tmp_path}/blobs")
    digest = blobs.put(b"large")
    assert blobs.put(b"large") == digest
    (tmp_path / "blobs" / digest[:2] / digest).unlink()
    assert not blobs.exists(digest)
    assert blobs.put(b"large") == digest
    assert blobs.get(digest) == b"large"


def test_writers_at_one_time_write_one_blob(blobs):
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(blobs.put, [b"large" * 1000] * 40))
    assert blobs.get(*set(digests)) == b"large" * 1000


def test_a_place_out_of_reach_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="could not be written"):
        RemoteBlobs(f"file://{tmp_path}/file/blobs").put(b"large")


def test_a_folder_has_our_own_writer(tmp_path):
    for place in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        blobs = blobs_at(place)
        assert isinstance(blobs, BlobFolder)
        assert blobs.folder == tmp_path
    assert blobs_at(blobs) is blobs


def test_a_url_that_nobody_knows():
    with pytest.raises(InvalidOption, match="nowhere://x"):
        blobs_at("nowhere://x")


def test_large_values_of_a_run_on_redis_go_there(redis_server):
    store = RedisStore(redis_server.url, blobs="memory://large-values")
    bodies = []
    with Workflow("shop", db=store) as wf:

        @wf.task
        async def load(size):
            bodies.append(size)
            return b"x" * size

        @wf.workflow
        async def main():
            return [len(await load(size)) for size in (10, 80_000_000)]

        for _ in range(2):
            assert asyncio.run(main.run("r")) == [10, 80_000_000]
    assert bodies == [10, 80_000_000]
    assert redis_server.client.memory_usage("durable:{run/r}") < 10_000
