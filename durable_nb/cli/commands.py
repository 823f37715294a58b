"""The commands ``runs``, ``status``, ``signals``, ``signal``, ``send`` and ``plan``.

Each command is a pair of functions, ``<command>_arguments(parser)`` and ``run_<command>(options)``, which
returns the exit code.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from durable_nb import settings
from durable_nb.cli import as_json
from durable_nb.cli.terminal import show, show_error
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine import status
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.engine.resolve import recorded_run
from durable_nb.errors import InvalidOption
from durable_nb.records import RunStatus, SignalRequest
from durable_nb.signals import delivery, mailbox, typed
from durable_nb.stores import Journal, open_journal
from durable_nb.stores.base import ENDED
from durable_nb.stores.host import this_process

__all__ = [
    "db_argument",
    "located",
    "open_existing",
    "plan_arguments",
    "run_on_loop",
    "run_plan",
    "run_runs",
    "run_send",
    "run_signal",
    "run_signals",
    "run_status",
    "runs_arguments",
    "send_arguments",
    "signal_arguments",
    "signals_arguments",
    "status_arguments",
]

ALREADY_DELIVERED: Final = 3
"""The exit code of ``durable-nb signal`` if the signal was delivered before."""

T = TypeVar("T")


def runs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb runs``."""
    db_argument(parser)
    _json_argument(parser)


def db_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the database."""
    parser.add_argument(
        "--db", metavar="URL", default=settings.DB, help=f"a path or redis://…, by default {settings.DB}"
    )


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print lines of JSON")


def run_runs(options: argparse.Namespace) -> int:
    """Print the runs of a database.

    Raises:
        StoreError: The database does not exist, or cannot be read.
    """
    journal = open_existing(options.db)
    if options.json:
        show(*(as_json.of_run(*each) for each in run_on_loop(status.list_runs(journal))))
    else:
        show(run_on_loop(status.all_runs(journal)))
    return 0


def status_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb status``."""
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID", help="the run's id; default: the only run")
    db_argument(parser)
    _json_argument(parser)


def run_status(options: argparse.Namespace) -> int:
    """Print the status of one run and of its steps.

    Raises:
        RunNotFound: The database has no run of that id.
        InvalidOption: No run is named, and there are several.
        StoreError: The database does not exist, or cannot be read.
    """
    journal = open_existing(options.db)
    found = run_on_loop(status.one_run(journal, options.run_id or _only_run(journal)))
    show(*(as_json.of_status(found) if options.json else [found]))
    return 0


def _only_run(journal: Journal) -> str:
    run_ids = [run.run_id for run, _ in run_on_loop(status.list_runs(journal))]
    if len(run_ids) != 1:
        raise InvalidOption(
            f"{journal.location!r} has {len(run_ids)} runs: expected RUN_ID",
            remedy=f"Name one of them: durable-nb status RUN_ID --db {journal.address}",
        )
    return run_ids[0]


def signals_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb signals``."""
    db_argument(parser)
    _json_argument(parser)


def run_signals(options: argparse.Namespace) -> int:
    """Print the signals that unfinished runs wait for, the oldest request first.

    Raises:
        StoreError: The database does not exist, or cannot be read.
    """
    journal = open_existing(options.db)
    states = {run.run_id: run.status for run, _ in run_on_loop(status.list_runs(journal))}
    requests = [
        request
        for request in run_on_loop(journal.open_signals())
        if states.get(request.run_id, RunStatus.DONE) not in ENDED
    ]
    for request in requests:
        state = states[request.run_id]
        described = as_json.of_request(request, state) if options.json else None
        show(described or _describe(request, state, journal.address))
    if not requests and not options.json:
        show("no run waits for a signal")
    return 0


def signal_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb signal``."""
    _value_arguments(parser, "name", "the signal's name")


def _value_arguments(parser: argparse.ArgumentParser, place: str, help_text: str) -> None:
    parser.add_argument("run_id", metavar="RUN_ID", help="the run's id")
    parser.add_argument(place, metavar=place.upper(), help=help_text)
    parser.add_argument("value", metavar="VALUE", help="the value: JSON, or otherwise text")
    db_argument(parser)


def run_signal(options: argparse.Namespace) -> int:
    """Deliver a signal; return 0, or 3 if the signal was delivered before.

    Raises:
        SignalInvalid: The call that waits for the signal does not accept the value.
        StoreError: The database does not exist, or cannot be written.
    """
    name = check_name(options.name, "a signal", InvalidOption)
    journal = open_existing(options.db)
    value = typed.read_value(options.value)
    signal = delivery.make_signal(check_run_id(options.run_id), name, value, this_process())
    earlier = run_on_loop(delivery.deliver(journal, signal, value))
    show(delivery.describe_delivery(signal, earlier))
    if earlier is None and run_on_loop(journal.get_run(signal.run_id)) is None:
        message = f"run {signal.run_id!r} does not exist yet: the signal is stored until it asks for it"
        show_error(message)
    return 0 if earlier is None else ALREADY_DELIVERED


def send_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb send``."""
    _value_arguments(parser, "topic", "the topic under which the run receives it")


def run_send(options: argparse.Namespace) -> int:
    """Send a message.

    Raises:
        StoreError: The database does not exist, cannot be written, or keeps no messages.
    """
    topic = check_name(options.topic, "a topic", InvalidOption)
    journal, run_id = open_existing(options.db), check_run_id(options.run_id)
    value = typed.read_value(options.value)
    message = mailbox.make_message(run_id, topic, value, uuid.uuid4().hex, this_process())
    run_on_loop(mailbox.send_message(journal, message))
    show(f"message sent to run {run_id!r} under {topic!r}")
    if run_on_loop(journal.get_run(run_id)) is None:
        show_error(f"run {run_id!r} does not exist yet: the message is kept until it receives it")
    return 0


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb plan``."""
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="the notebook's file")
    parser.add_argument("--run-id", metavar="RUN_ID", help="the run's id; default: the run that it opens")
    parser.add_argument(
        "--cells", choices=("marked", "all"), help="which cells are durable; default: as in the run"
    )
    parser.add_argument(
        "--db", type=located, metavar="URL", help="a path or redis://…; default: the one that it opens"
    )


def run_plan(options: argparse.Namespace) -> int:
    """Print for each durable cell whether it would be replayed or executed, and why; execute none.

    Raises:
        RunNotFound: The database has no run of that id.
        StoreError: The database does not exist, or cannot be read.
        InvalidOption: The file is not a notebook.
    """
    # Imported late: the other commands do not need IPython.
    from IPython.core.inputtransformer2 import TransformerManager

    from durable_nb.notebook.every_cell import UnmarkedSteps
    from durable_nb.notebook.headless.job import Job, opened_by, run_of
    from durable_nb.notebook.headless.runner import read_notebook
    from durable_nb.notebook.magic_options import parse_step
    from durable_nb.notebook.plan import plan, spell_plan

    own = None if options.run_id else opened_by(read_notebook(options.notebook))
    db = options.db or (located(settings.DB) if options.run_id else None)
    run_id, db = run_of(Job(options.notebook, run_id=options.run_id, db=db), own)
    recorded = run_blocking(recorded_run(open_existing(db), run_id, SYNC, writing=False))
    transform = TransformerManager().transform_cell  # type: ignore[no-untyped-call]
    cells = options.cells or ("all" if UnmarkedSteps(recorded.run.history.values()).recorded else "marked")
    planned = plan(
        recorded.run, options.notebook, parse=parse_step, transform=transform, every_cell=cells == "all"
    )
    show(spell_plan(planned))
    return 0


def located(db: str) -> str:
    """Return a database as an absolute path, or its URL."""
    return db if "://" in db else str(Path(db).absolute())


def open_existing(db: str) -> Journal:
    """Open the journal of a database, which must exist.

    Args:
        db: The database: a path or a URL.

    Raises:
        StoreUnavailable: The database does not exist.
    """
    journal = open_journal(db)
    run_on_loop(status.set_up(journal))
    return journal


def run_on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a journal on the loop thread, and return its result."""
    return run_blocking(SYNC.store(work))


def _describe(request: SignalRequest, state: RunStatus, address: str | None) -> str:
    since = delivery.format_time(request.asked_at)
    lines = [f"run {request.run_id!r} ({state}) waits for signal {request.name!r} since {since}"]
    lines += filter(None, (request.prompt, request.refused and f"rejected: {request.refused}"))
    lines += filter(None, (_accepted(request),))
    return "\n    ".join(map(status.one_line, [*lines, delivery.answer_command(request, address)]))


def _accepted(request: SignalRequest) -> str | None:
    if request.choices:
        return f"accepts: {typed.hint(request)}"
    if (arguments := typed.editable_arguments(request)) is not None:
        edited = json.dumps({"approved": True, "arguments": arguments})
        return f"accepts: true | false | TEXT (the reason to reject) | {edited}, or other arguments"
    return request.schema and f"schema: {request.schema}"
