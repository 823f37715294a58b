"""``durable-nb trust DB``: sign what somebody else has made, so that it may be loaded here."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from durable_nb.cli.database import asked, existing
from durable_nb.stores.sqlite.trust import Untrusted, find_untrusted, trust
from durable_nb.stores.urls import is_redis

__all__ = ["add_arguments", "run"]

Find = Callable[[], list[Untrusted]]
Sign = Callable[[Sequence[Untrusted]], int]

NOT_TRUSTED = 1
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("db", metavar="DB", help="the database: a path or a URL")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Show what no key of the user's has signed, ask, and sign it.

    Raises:
        StoreError: It is no database of ours, or cannot be written.
    """
    find, sign = _on_server(options.db) if is_redis(options.db) else _in_file(Path(options.db))
    untrusted = find()
    if not untrusted:
        print(f"{options.db}: every checkpoint that runs code is signed by a key of yours")  # noqa: T201
        return 0
    _show(options.db, untrusted)
    if not options.yes and not _agreed():
        print("nothing was signed")  # noqa: T201
        return NOT_TRUSTED
    signed = sign(untrusted)
    print(f"signed {signed} of {len(untrusted)}")  # noqa: T201
    return 0 if signed == len(untrusted) else NOT_TRUSTED


def _in_file(path: Path) -> tuple[Find, Sign]:
    return partial(find_untrusted, path), partial(trust, path)


def _on_server(url: str) -> tuple[Find, Sign]:
    from durable_nb.stores.redis import RedisJournal  # only now: redis is an extra

    journal = existing(url)
    assert isinstance(journal, RedisJournal)
    return lambda: asked(journal.trust_signer.find()), lambda found: asked(journal.trust_signer.sign(found))


def _show(db: str, untrusted: list[Untrusted]) -> None:
    lines = [f"  run {one.run_id!r}, {_what(one)} ({one.payload.format})" for one in untrusted[:SHOWN]]
    if len(untrusted) > SHOWN:
        runs = Counter(one.run_id for one in untrusted)
        lines.append(f"  … {len(untrusted)} in all, in {len(runs)} runs")
    message = "These checkpoints run code when they are loaded, and none of your keys has signed them:"
    print("\n".join((f"{db}: {message}", *lines)))  # noqa: T201


def _what(one: Untrusted) -> str:
    return f"step {one.step!r}" if one.name else "what it returned"


def _agreed() -> bool:
    try:
        answer = input("Whoever made them can do on this machine what you can. Sign them? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")
