"""Runs in a SQLite file."""

from durable_nb.stores.sqlite.journal import SqliteJournal

__all__ = ["SqliteJournal"]
