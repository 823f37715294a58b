"""The journals of this process: one per database, with the objects that use it."""

from __future__ import annotations

import os
import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.errors import InvalidOption
from durable_nb.errors.redaction import redacted_message
from durable_nb.stores.base import Journal
from durable_nb.stores.urls import is_redis
from durable_nb.stores.values.base import Store

if TYPE_CHECKING:
    from durable_nb.stores.redis import RedisJournal
    from durable_nb.stores.sqlite.journal import SqliteJournal

__all__ = ["StoreLike", "anchored", "hold", "let_go", "open_journal"]

StoreLike: TypeAlias = "str | os.PathLike[str] | Journal | Store"
"""The type of ``db`` arguments: a path, a URL, or a store."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_REMEDY = (
    f"Give a path such as {settings.DB!r}, 'sqlite:///{settings.DB}', {settings.REDIS_URL!r}, or a Journal."
)

_journals: dict[Path | str, SqliteJournal | RedisJournal] = {}
_adapters: weakref.WeakValueDictionary[int, Journal] = weakref.WeakValueDictionary()
_holders: weakref.WeakKeyDictionary[Journal, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
_guard = threading.RLock()
_inherited: list[Journal] = []
"""Journals of the process that this one was forked from, which SQLite does not allow to be closed here."""


def _forget() -> None:
    global _guard
    _guard = threading.RLock()
    _inherited.extend(_journals.values())
    _journals.clear()


in_forked_child(_forget)


def open_journal(db: StoreLike) -> Journal:
    """Return this process's journal for a database; nothing is opened or created before its ``setup``.

    Args:
        db: A path (``~`` is the home folder), ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
            ``redis://host:6379/0``, ``rediss://…`` for TLS, a Store, or a Journal (returned as it is).

    Returns:
        One object per file or URL, until it is closed or its file is deleted; then a new one.

    Raises:
        InvalidOption: ``db`` is neither a path, nor a URL of a known store, nor a store.

    Example:
        >>> open_journal("durable.db") is open_journal("sqlite:///durable.db")
        True
    """
    if isinstance(db, Journal):
        return db
    if isinstance(db, Store):
        return _journal_of(db)
    place = _resolved(db)
    with _guard:
        journal = _journals.get(place)
        if journal is None or journal.closed:
            journal = _journals[place] = _new_journal(place)
        return journal


def anchored(db: StoreLike) -> StoreLike:
    """Return a database with its path made absolute, so that a later ``os.chdir`` does not change it.

    Args:
        db: The database, as ``open_journal`` takes it.

    Raises:
        InvalidOption: ``db`` is neither a path, nor a URL of a known store, nor a store.

    Example:
        >>> anchored("sqlite:////srv/runs.db") == Path("/srv/runs.db")
        True
    """
    try:
        Path.cwd()
    except FileNotFoundError:  # it was deleted: the first use says so, not the import of this package
        return db
    return db if isinstance(db, Journal | Store) else _resolved(db)


def _new_journal(place: Path | str) -> SqliteJournal | RedisJournal:
    if isinstance(place, str):
        from durable_nb.stores.redis import RedisJournal

        return RedisJournal(place)
    from durable_nb.stores.sqlite.journal import SqliteJournal  # imported late, since it imports aiosqlite

    return SqliteJournal(place)


def hold(db: StoreLike, holder: object) -> Journal:
    """Return the journal for a database, and note that ``holder`` uses it.

    A user of a journal must not close it while others use it; see ``let_go``.

    Args:
        db: The database, as ``open_journal`` takes it.
        holder: The object that uses the journal; it is referred to weakly.
    """
    with _guard:
        journal = open_journal(db)
        _holders.setdefault(journal, weakref.WeakSet()).add(holder)
        return journal


def let_go(journal: Journal, holder: object) -> bool:
    """Note that ``holder`` no longer uses a journal; return True if it can be closed, as no holder is left.

    Args:
        journal: The journal.
        holder: The object that ``hold`` was called with.
    """
    with _guard:
        holders = _holders.get(journal, weakref.WeakSet())
        holders.discard(holder)
        if holders:
            return False
        for place in [place for place, known in _journals.items() if known is journal]:
            del _journals[place]  # open_journal must not return it while it is being closed
        return True


def _journal_of(store: Store) -> Journal:
    """Return the journal of a store of this package; an adapter for a store of the user."""
    from durable_nb.stores.values.adapter import StoreJournal

    journal = getattr(store, "journal", None)
    if isinstance(journal, Journal):
        return journal
    with _guard:
        adapter = _adapters.get(id(store))  # an adapter keeps its store alive, so that the id is not reused
        if adapter is None:
            adapter = _adapters[id(store)] = StoreJournal(store)
        return adapter


def _resolved(db: object) -> Path | str:
    """Return the resolved path in ``db``, or the URL of a Redis server."""
    if is_redis(db):
        return str(db)
    name = _path_text(db)
    try:
        return Path(name).expanduser().resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidOption(f"invalid db={name!r}: not a path ({error})", remedy=_REMEDY) from error


def _path_text(db: object) -> str:
    """Return the path in ``db``, which may be a URL."""
    if not isinstance(db, str | os.PathLike):
        raise InvalidOption(f"invalid db={db!r}: expected a path, not {type(db).__name__}", remedy=_REMEDY)
    name = os.fsdecode(db)
    if url := _URL.fullmatch(name):
        name = _path_of_url(url["scheme"].lower(), url["rest"], name)
    if not name.strip():
        raise InvalidOption(f"invalid db={os.fsdecode(db)!r}: it contains no path", remedy=_REMEDY)
    if name == ":memory:":
        raise InvalidOption(
            "invalid db=':memory:': such a database is lost with the process",
            remedy="To keep runs in memory on purpose: db=InMemoryStore(), from durable_nb.",
        )
    return name


def _path_of_url(scheme: str, rest: str, url: str) -> str:
    if scheme != "sqlite":
        raise InvalidOption(
            f"invalid db={redacted_message(url)!r}: there is no store for {scheme}:// URLs", remedy=_REMEDY
        )
    if rest and not rest.startswith("/"):
        raise InvalidOption(
            f"invalid db={url!r}: a slash is missing",
            remedy=f"Write 'sqlite:///{rest}' for a relative path, and four slashes before an absolute one.",
        )
    return rest[1:]
