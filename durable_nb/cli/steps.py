"""The commands ``show``, ``reset``, ``resolve`` and ``fork``."""

from __future__ import annotations

import argparse

from durable_nb.cli.commands import db_argument, open_existing, run_on_loop
from durable_nb.cli.terminal import show
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.engine.caller import Caller
from durable_nb.engine.fork import fork
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.resolve import ANSWERS, find_step, recorded_run, resolve_step
from durable_nb.errors import DurableError, error_context
from durable_nb.records import Payload, Step
from durable_nb.signals import typed
from durable_nb.stores import Journal
from durable_nb.stores.payloads import fetch

__all__ = [
    "fork_arguments",
    "reset_arguments",
    "resolve_arguments",
    "run_fork",
    "run_reset",
    "run_resolve",
    "run_show",
    "show_arguments",
]


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb show``."""
    _step_arguments(parser)
    db_argument(parser)


def run_show(options: argparse.Namespace) -> int:
    """Print a step: its arguments, its result or error, and what a cell showed.

    Raises:
        RunNotFound: The database has no run of that id.
        StepNotFound: The run has no such step.
        StoreError: The database does not exist, or cannot be read.
    """
    from durable_nb.notebook.step_text import step_text  # imported late: it needs IPython

    journal, run_id = open_existing(options.db), check_run_id(options.run_id)
    caller = _caller(journal, run_id, writing=False)
    step = run_blocking(find_step(caller, options.step))
    show(step_text(step, _payload(journal, step)))
    return 0


def _payload(journal: Journal, step: Step) -> Payload | DurableError | None:
    """Return the result of a step with its bytes, or why it cannot be read: then the rest is shown."""
    try:
        with error_context(run_id=step.run_id, step=step.step_id):
            return step.payload and run_on_loop(fetch(journal, step.payload, step.run_id, step.step_id))
    except DurableError as error:
        return error


def reset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb reset``."""
    _step_arguments(parser)
    db_argument(parser)


def run_reset(options: argparse.Namespace) -> int:
    """Have a step run again when its run is resumed; its result is kept until then.

    Raises:
        RunNotFound: The database has no run of that id.
        RunHeld: Another living process has the run open.
        StepNotFound: The run has no such step.
        StoreError: The database does not exist, or cannot be written.
    """
    _resolve(options, "rerun")
    show(f"run {options.run_id!r}: step {options.step!r} runs again when the run is resumed")
    return 0


def resolve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb resolve``."""
    _step_arguments(parser)
    parser.add_argument("answer", choices=ANSWERS, help="what became of the step")
    parser.add_argument(
        "value", nargs="?", metavar="VALUE", help="with `value`, what it returned: JSON or text"
    )
    db_argument(parser)


def run_resolve(options: argparse.Namespace) -> int:
    """Answer what became of a step that was started but never finished, or that failed.

    Raises:
        InvalidOption: A value was given with another answer than ``value``.
        RunNotFound: The database has no run of that id.
        RunHeld: Another living process has the run open.
        StepNotFound: The run has no such step.
        StepError: The step is done, running, or waiting for a signal.
        StoreError: The database does not exist, or cannot be written.
    """
    value = None if options.value is None else typed.read_value(options.value)
    _resolve(options, options.answer, value)
    show(f"run {options.run_id!r}: step {options.step!r} is answered: {options.answer}")
    return 0


def fork_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``durable-nb fork``."""
    parser.add_argument("run_id", metavar="RUN_ID", help="the run, which is not changed")
    parser.add_argument("new_id", metavar="NEW_ID", help="the id of the new run")
    parser.add_argument("--before", metavar="STEP", help="the new run continues from there; default: the end")
    db_argument(parser)


def run_fork(options: argparse.Namespace) -> int:
    """Copy the history of a run to a new run.

    Raises:
        RunNotFound: The database has no run of that id.
        StepNotFound: The run has no step ``--before``.
        StoreError: The new run exists, or the database cannot be written.
    """
    run_id, new_id = check_run_id(options.run_id), check_run_id(options.new_id)
    count = run_on_loop(fork(open_existing(options.db), run_id, new_id, options.before))
    show(f"steps copied from run {run_id!r} to run {new_id!r}: {count}")
    return 0


def _step_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_id", metavar="RUN_ID", help="the run's id")
    parser.add_argument("step", metavar="STEP", help="the step's id, as `durable-nb status` shows it")


def _resolve(options: argparse.Namespace, answer: str, value: object = None) -> None:
    caller = _caller(open_existing(options.db), check_run_id(options.run_id))
    run_blocking(resolve_step(caller, options.step, answer, value))


def _caller(journal: Journal, run_id: str, *, writing: bool = True) -> Caller:
    return run_blocking(recorded_run(journal, run_id, SYNC, writing=writing))
