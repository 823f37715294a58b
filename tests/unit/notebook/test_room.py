"""A database that has nearly filled its disk says so, once."""

from durable_nb.notebook.room import Room


def test_what_nearly_fills_its_disk_is_said_once(small_disk):
    file = small_disk / "runs.db"
    file.write_bytes(bytes(500_000))
    room = Room(str(file), None)
    assert room.notice(0) == ""
    (small_disk / "runs.db.blobs").mkdir()
    (small_disk / "runs.db.blobs" / "ab").write_bytes(bytes(500_000))
    told = room.notice(500_000)
    assert told.startswith("runs.db and its files have 1 MB; ")
    assert told.endswith(f"of the disk are free. To make room: durable-nb forget {file} --run ID")
    assert room.notice(10_000) == ""


def test_a_database_that_is_no_file_has_room():
    assert Room("redis://localhost:6379/0", 1).notice(100) == ""
