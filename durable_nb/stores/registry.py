"""One journal per process and place: opened, held and let go."""

from __future__ import annotations

import os
import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from durable_nb import settings
from durable_nb.errors import InvalidOption
from durable_nb.stores.base import Journal
from durable_nb.stores.urls import is_redis, without_password
from durable_nb.stores.values.base import Store

if TYPE_CHECKING:
    from durable_nb.stores.redis import RedisJournal
    from durable_nb.stores.sqlite.journal import SqliteJournal

__all__ = ["StoreLike", "hold", "let_go", "open_journal"]

StoreLike: TypeAlias = "str | os.PathLike[str] | Journal | Store"
"""What names where runs are kept: a path, a URL, or a store."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_REMEDY = (
    f"Give a path such as {settings.DB!r}, 'sqlite:///{settings.DB}', {settings.REDIS_URL!r}, or a Journal."
)

_journals: dict[Path | str, SqliteJournal | RedisJournal] = {}
_adapted: weakref.WeakValueDictionary[int, Journal] = weakref.WeakValueDictionary()
_holders: weakref.WeakKeyDictionary[Journal, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
_guard = threading.RLock()


def open_journal(db: StoreLike) -> Journal:
    """The process's journal for a place; nothing is opened or created before its ``setup``.

    Args:
        db: A path (``~`` is the home folder), ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a
            Journal, which is handed through, or a Store; ``redis://host:6379/0``, ``rediss://…`` for TLS.

    Returns:
        The same object for the same file or URL, until it is closed or its file is deleted; then a new one.

    Raises:
        InvalidOption: It names no place that we know.

    Example:
        >>> open_journal("durable.db") is open_journal("sqlite:///durable.db")
        True
    """
    if isinstance(db, Journal):
        return db
    if isinstance(db, Store):
        return _behind(db)
    place = _place(db)
    with _guard:
        journal = _journals.get(place)
        if journal is None or journal.closed:
            journal = _journals[place] = _made(place)
        return journal


def _made(place: Path | str) -> SqliteJournal | RedisJournal:
    if isinstance(place, str):
        from durable_nb.stores.redis import RedisJournal

        return RedisJournal(place)
    from durable_nb.stores.sqlite.journal import SqliteJournal  # only now: it brings aiosqlite

    return SqliteJournal(place)


def hold(db: StoreLike, holder: object) -> Journal:
    """The journal for a place, and note who uses it: one of several must not close it for the others."""
    with _guard:
        journal = open_journal(db)
        _holders.setdefault(journal, weakref.WeakSet()).add(holder)
        return journal


def let_go(journal: Journal, holder: object) -> bool:
    """Note that somebody uses a journal no more; True if nobody is left, who would mind its being closed."""
    with _guard:
        holders = _holders.get(journal, weakref.WeakSet())
        holders.discard(holder)
        if holders:
            return False
        for place in [place for place, known in _journals.items() if known is journal]:
            del _journals[place]  # whoever comes before it is closed gets another one
        return True


def _behind(store: Store) -> Journal:
    """The journal behind a store of ours; one made to speak to a store of the user's."""
    from durable_nb.stores.values.adapter import StoreJournal

    journal = getattr(store, "journal", None)
    if isinstance(journal, Journal):
        return journal
    with _guard:
        adapted = _adapted.get(id(store))  # it keeps its store alive, so that no other one has its id
        if adapted is None:
            adapted = _adapted[id(store)] = StoreJournal(store)
        return adapted


def _place(db: object) -> Path | str:
    """The resolved path in ``db``, or the URL of a Redis server."""
    if is_redis(db):
        return str(db)
    name = _named(db)
    try:
        return Path(name).expanduser().resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidOption(f"db={name!r} is no path ({error})", remedy=_REMEDY) from error


def _named(db: object) -> str:
    """The path in ``db``."""
    if not isinstance(db, str | os.PathLike):
        raise InvalidOption(f"db={db!r} is a {type(db).__name__}, not a path", remedy=_REMEDY)
    name = os.fsdecode(db)
    if url := _URL.fullmatch(name):
        name = _of_url(url["scheme"].lower(), url["rest"], name)
    if not name.strip():
        raise InvalidOption(f"db={os.fsdecode(db)!r} names no file", remedy=_REMEDY)
    if name == ":memory:":
        raise InvalidOption(
            "db=':memory:' would be gone with the process",
            remedy="If that is wanted: db=durable_nb.stores.memory.MemoryJournal().",
        )
    return name


def _of_url(scheme: str, rest: str, url: str) -> str:
    if scheme != "sqlite":
        raise InvalidOption(
            f"{scheme}:// is no store that we know (db={without_password(url)!r})", remedy=_REMEDY
        )
    if rest and not rest.startswith("/"):
        raise InvalidOption(
            f"db={url!r} lacks a slash",
            remedy=f"Three for a relative path: 'sqlite:///{rest}'; four for an absolute one.",
        )
    return rest[1:]
