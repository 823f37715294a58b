"""``durable-nb forget DB --run ID``: take a run, a step or their values out of a database for good."""

from __future__ import annotations

import argparse
from pathlib import Path

from durable_nb.cli.commands import open_existing, run_on_loop
from durable_nb.cli.terminal import confirmed, show
from durable_nb.engine.naming import check_run_id
from durable_nb.stores import Journal
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.sqlite.forget import Target, forget
from durable_nb.stores.urls import is_redis

__all__ = ["forget_arguments", "run_forget"]

NOTHING_FORGOTTEN = 1
"""The exit code if the user said no."""


def forget_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb forget``."""
    parser.add_argument("db", metavar="DB", help="the database: a path or a URL")
    parser.add_argument("--run", dest="run_id", metavar="ID", required=True, help="the run")
    parser.add_argument("--step", metavar="ID", help="this step of it alone, with the steps inside it")
    parser.add_argument(
        "--value", action="store_true", help="remove the values alone: no step runs again for it"
    )
    parser.add_argument("--yes", action="store_true", help="forget without asking")


def run_forget(options: argparse.Namespace) -> int:
    """Ask, and take a run, a step or their values out of a database for good.

    Raises:
        InvalidOption: The values alone are to be removed from a server.
        RunHeld: Another living process has the run open.
        RunError: The database has no such run.
        StepError: The run has no such step.
        StoreError: The database cannot be written.
    """
    target = Target(check_run_id(options.run_id), options.step, options.value)
    journal = open_existing(options.db)
    run_on_loop(journal.check_owner(target.run_id))
    if not options.yes and not confirmed(f"{_effect(target)} Forget it for good? [y/N] "):
        show("nothing was forgotten")
        return NOTHING_FORGOTTEN
    show(*(_on_server(journal, target) if is_redis(options.db) else _in_file(journal, target)))
    return 0


def _in_file(journal: Journal, target: Target) -> list[str]:
    run_on_loop(journal.close())
    return forget(Path(journal.location), target)


def _on_server(journal: Journal, target: Target) -> list[str]:
    from durable_nb.stores.redis import RedisJournal  # imported late: redis is an extra
    from durable_nb.stores.redis.forget import Forgetter

    assert isinstance(journal, RedisJournal)
    signer = journal.trust_signer
    forgetter = Forgetter(signer.keys, signer.connection, CheckedRows(journal.identity), journal.location)
    run = None if target.step_id is None else run_on_loop(journal.get_run(target.run_id))
    return run_on_loop(forgetter.forget(target, run))


def _effect(target: Target) -> str:
    what = f"run {target.run_id!r}" if target.step_id is None else f"step {target.step_id!r}"
    if target.value_only:
        return f"What {what} returned is removed; a replay of it will be an error, until it is reset."
    return f"All of {what} is removed; it runs again when it is called."
