"""Copy a database that may be in use: rows and blobs, as one database of its own."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from durable_nb.errors import StoreUnavailable
from durable_nb.stores.blobs import disk
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.inspection import blob_folder, read_only, referenced_blobs
from durable_nb.stores.sqlite.mark import PUT_WHOLE
from durable_nb.stores.sqlite.opening import check_path

__all__ = ["back_up"]


def back_up(path: Path, copy: Path) -> int:
    """Copy a database to a new file, and its blobs to the folder ``<copy>.blobs``.

    The copy holds all that was committed at one moment; a process that uses the database is not disturbed.

    Args:
        path: The database.
        copy: The new file.

    Returns:
        The number of blobs.

    Raises:
        StoreUnavailable: The copy exists already, or cannot be written.
        StepNotRestored: A blob is missing or damaged.
        StoreError: The database cannot be read.
    """
    path, copy = path.resolve(), copy.resolve()
    check_path(path)
    check_path(copy)
    unfinished = copy.with_name(f".{copy.name}.writing")
    for each in (copy, blob_folder(copy).folder):
        if each.exists():
            raise StoreUnavailable(f"{str(each)!r} exists already", remedy="Choose another file.")
    try:
        _copy_rows(path, unfinished)
        count = _copy_blobs(path, unfinished, copy)
        os.rename(unfinished, copy)  # noqa: PTH104 - last: a copy is there when it is whole
        disk.sync_folder(copy.parent)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _copy_rows(path: Path, copy: Path) -> None:
    os.close(os.open(copy, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    with closing(read_only(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = delete").fetchone()  # all of it in one file
        with target:
            target.execute(PUT_WHOLE)
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_blobs(path: Path, rows: Path, copy: Path) -> int:
    # After the rows: a blob is written before the row that names it, and is not deleted while it is named.
    source, target = blob_folder(path), blob_folder(copy)
    with closing(read_only(rows)) as reader:
        digests = referenced_blobs(path, reader)
    for digest in digests:
        target.put(source.get(digest))
    return len(digests)
