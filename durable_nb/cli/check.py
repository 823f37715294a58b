"""``durable-nb check DB`` and ``durable-nb backup DB FILE``: look after the files of a database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from durable_nb.cli.terminal import show
from durable_nb.errors import InvalidOption
from durable_nb.stores.sqlite import backup, inspection
from durable_nb.stores.urls import is_redis

__all__ = ["backup_arguments", "check_arguments", "run_backup", "run_check"]

PROBLEMS: Final = 1
"""The exit code if something is missing or damaged."""


def check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb check``."""
    parser.add_argument("db", metavar="DB", help="the database: the path of a file")
    parser.add_argument("--fix", action="store_true", help="delete files that no run needs")
    parser.add_argument(
        "--accept", action="store_true", help="go on with the files as they are, although commits are missing"
    )


def run_check(options: argparse.Namespace) -> int:
    """Print what is missing, damaged or left over in a database, and what a resume would do.

    Raises:
        StoreError: The file is not a database of durable_nb, or is in use.
    """
    path = _path(options.db)
    if options.accept:
        show(*inspection.accept(path))
    report = inspection.inspect(path)
    show(*report.problems, *report.runs)
    for leftover in report.leftovers:
        show(f"left over: {leftover}")
    if options.fix:
        show(f"deleted {inspection.remove_leftovers(report):,} files")
    if not report.problems:
        show(f"{path}: nothing is missing or damaged")
    return PROBLEMS if report.problems else 0


def backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb backup``."""
    parser.add_argument("db", metavar="DB", help="the database: the path of a file, which may be in use")
    parser.add_argument("file", metavar="FILE", help="the copy; large values are copied to FILE.blobs")


def run_backup(options: argparse.Namespace) -> int:
    """Copy a database, which may be in use.

    Raises:
        StoreError: The database cannot be read, or the copy not written.
    """
    copy = Path(options.file)
    blobs = backup.back_up(_path(options.db), copy)
    show(f"{copy}: copied" + (f", with {blobs:,} large values in {copy}.blobs" if blobs else ""))
    return 0


def _path(db: str) -> Path:
    if is_redis(db):
        raise InvalidOption(f"invalid DB {db!r}: expected the path of a file, not a server")
    return Path(db.removeprefix("sqlite:///")).expanduser()
