"""``durable-nb trust DB``: sign checkpoints that another user made, so that they can be loaded."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from durable_nb.cli.commands import open_existing, run_on_loop
from durable_nb.cli.terminal import confirmed, show
from durable_nb.engine.status import one_line
from durable_nb.stores.sqlite.trust import Untrusted, find_untrusted, trust
from durable_nb.stores.urls import is_redis

__all__ = ["run_trust", "trust_arguments"]

Find = Callable[[], list[Untrusted]]
Sign = Callable[[Sequence[Untrusted]], int]

NOT_TRUSTED = 1
"""The exit code if checkpoints remain unsigned."""

MAX_LINES = 20
_QUESTION = "Once signed, they can run any code with your permissions. Sign them? [y/N] "


def trust_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb trust``."""
    parser.add_argument("db", metavar="DB", help="the database: a path or a URL")
    parser.add_argument("--yes", action="store_true", help="sign without asking")


def run_trust(options: argparse.Namespace) -> int:
    """Show the checkpoints that none of the user's keys has signed, ask, and sign them.

    Raises:
        StoreError: The file is not a database of durable_nb, or cannot be written.
    """
    find, sign = _on_server(options.db) if is_redis(options.db) else _in_file(Path(options.db))
    untrusted = find()
    if not untrusted:
        show(f"{options.db}: every checkpoint that runs code is signed with one of your keys")
        return 0
    _show(options.db, untrusted)
    if not options.yes and not confirmed(_QUESTION):
        show("nothing was signed")
        return NOT_TRUSTED
    signed = sign(untrusted)
    show(f"signed {signed} of {len(untrusted)}")
    return 0 if signed == len(untrusted) else NOT_TRUSTED


def _in_file(path: Path) -> tuple[Find, Sign]:
    return partial(find_untrusted, path), partial(trust, path)


def _on_server(url: str) -> tuple[Find, Sign]:
    from durable_nb.stores.redis import RedisJournal  # imported late: redis is an extra

    journal = open_existing(url)
    assert isinstance(journal, RedisJournal)
    return (
        lambda: run_on_loop(journal.trust_signer.find()),
        lambda found: run_on_loop(journal.trust_signer.sign(found)),
    )


def _show(db: str, untrusted: list[Untrusted]) -> None:
    lines = [f"  run {one.run_id!r}, {_owner(one)} ({one.payload.format})" for one in untrusted[:MAX_LINES]]
    if len(untrusted) > MAX_LINES:
        runs = Counter(one.run_id for one in untrusted)
        lines.append(f"  … {len(untrusted)} in all, in {len(runs)} runs")
    message = "loading these checkpoints runs code, and none of your keys has signed them:"
    show(f"{db}: {message}", *map(one_line, lines))


def _owner(one: Untrusted) -> str:
    owners = {"runs": "the run's result", "given": "the run's arguments"}
    return owners.get(one.table, f"step {one.step!r}")
