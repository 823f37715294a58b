"""``durable-nb signal``: answer a run from a terminal."""

from __future__ import annotations

import argparse
import sys

from durable_nb.cli import runs
from durable_nb.cli.database import asked, existing
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.errors import InvalidOption
from durable_nb.signals import delivery, typed
from durable_nb.stores.host import this_process

__all__ = ["add_arguments", "run"]

TOO_LATE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("run_id", metavar="RUN_ID", help="the run's id")
    parser.add_argument("name", metavar="NAME", help="the signal's name")
    parser.add_argument("value", metavar="VALUE", help="the value: JSON, or else text")
    runs.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Deliver; 0 if this was the first value, 3 if there was one already."""
    name = check_name(options.name, "a signal", InvalidOption)
    journal = existing(options.db)
    value = typed.read_value(options.value)
    signal = delivery.make_signal(check_run_id(options.run_id), name, value, this_process())
    earlier = asked(delivery.deliver(journal, signal, value))
    print(delivery.describe_delivery(signal, earlier))  # noqa: T201 - a command's answer
    if earlier is None and asked(journal.get_run(signal.run_id)) is None:
        message = f"durable-nb: there is no run {signal.run_id!r} yet; the value is kept for it"
        print(message, file=sys.stderr)  # noqa: T201
    return 0 if earlier is None else TOO_LATE
