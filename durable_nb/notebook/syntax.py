"""What stands on a magic's line: options, lengths of time, backoffs, values."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Callable

from durable_nb import backoff, settings
from durable_nb.attempts import Policy
from durable_nb.engine.resolve import ANSWERS
from durable_nb.notebook import view
from durable_nb.notebook.cell import CellOptions
from durable_nb.notebook.lines import LineParser

__all__ = [
    "fork_parser",
    "parse_resolve",
    "parse_signal",
    "parse_step",
    "plan_parser",
    "reset_parser",
    "runs_parser",
    "status_parser",
    "workflow_parser",
]

POLICIES = ("rerun", "keep", "ask", "error")
UNITS = {"s": 1, "m": 60, "h": 3600}
BACKOFFS: dict[str, Callable[..., backoff.BackoffStrategy]] = {
    "exponential": backoff.exponential,
    "linear": backoff.linear,
    "constant": backoff.constant,
}


def workflow_parser() -> LineParser:
    """The line of ``%durable_workflow``."""
    parser = LineParser("%durable_workflow")
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID")
    parser.add_argument("--db", metavar="URL")
    parser.add_argument("--name", metavar="NAME")
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--done", action="store_true")
    parser.add_argument("--badge", choices=view.BADGES)
    return parser


def step_parser() -> LineParser:
    parser = LineParser("%%durable_step")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--retries", type=_count, default=0, metavar="N")
    parser.add_argument("--backoff", type=parse_backoff, metavar="NAME:SECONDS[:SECONDS]")
    parser.add_argument("--timeout", type=parse_seconds, metavar="SECONDS")
    parser.add_argument("--on-edit", choices=POLICIES, default=settings.CELL_ON_EDIT)
    parser.add_argument("--on-drift", choices=POLICIES, default=settings.CELL_ON_DRIFT)
    parser.add_argument("--once", action="store_true")
    return parser


def runs_parser() -> LineParser:
    """The line of ``%durable_runs``."""
    parser = LineParser("%durable_runs")
    parser.add_argument("--db", metavar="URL")
    return parser


def status_parser() -> LineParser:
    """The line of ``%durable_status``."""
    parser = LineParser("%durable_status")
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID")
    parser.add_argument("--db", metavar="URL")
    return parser


def reset_parser() -> LineParser:
    """The line of ``%durable_reset``."""
    parser = LineParser("%durable_reset")
    parser.add_argument("step", metavar="STEP")
    parser.add_argument("--downstream", action="store_true")
    return parser


def fork_parser() -> LineParser:
    """The line of ``%durable_fork``."""
    parser = LineParser("%durable_fork")
    parser.add_argument("new_run", metavar="NEW_RUN")
    parser.add_argument("--from", dest="step", metavar="STEP")
    return parser


def plan_parser() -> LineParser:
    """The line of ``%durable_plan``."""
    parser = LineParser("%durable_plan")
    parser.add_argument("notebook", nargs="?", metavar="NOTEBOOK")
    return parser


def _resolve_parser() -> LineParser:
    parser = LineParser("%durable_resolve")
    parser.add_argument("step", metavar="STEP")
    parser.add_argument("answer", choices=ANSWERS)
    parser.add_argument("value", nargs="?", metavar="EXPRESSION")
    return parser


_RUN_OPTION = re.compile(r"\s--run[= ]\s*(?P<run>\"[^\"]*\"|'[^']*'|\S+)\s*$")


def parse_signal(line: str) -> argparse.Namespace:
    """A name, and the rest of the line as it is, for JSON has its own quotes; ``--run`` stands at its end."""
    parser = LineParser("%durable_signal")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("value", metavar="VALUE")
    parser.add_argument("--run", metavar="ID")
    run = _RUN_OPTION.search(line)
    name, value = parser.first_words(line[: run.start()] if run else line, 1)
    quoted = len(value) > 1 and value[0] == value[-1] == "'"
    value = value[1:-1] if quoted else value
    options = parser.parse_args(["--", *name, *filter(None, (value,))])
    options.run = shlex.split(run["run"])[0] if run else None
    return options


def parse_resolve(line: str) -> argparse.Namespace:
    """Two words, and the rest of the line as it is: quotes and braces are the expression's own."""
    parser = _resolve_parser()
    words, rest = parser.first_words(line, 2)
    options = parser.parse_args(words)
    options.value = rest or None
    return options


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of attempts; write 0, 1, 2 …")
    return int(text)


def parse_seconds(text: str) -> float:
    """A length of time as it is written on a magic's line.

    Example:
        >>> parse_seconds("30"), parse_seconds("1.5m")
        (30.0, 90.0)
    """
    unit = text[-1:] if text[-1:] in UNITS else "s"
    try:
        seconds = float(text.removesuffix(unit)) * UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write 30s, 1.5m or 2h")
    return seconds


def parse_backoff(text: str) -> backoff.BackoffStrategy:
    """A backoff as it is written on a magic's line.

    Example:
        >>> parse_backoff("exponential:2:60")(0)
        2.0
    """
    name, *numbers = text.split(":")
    try:
        return BACKOFFS[name](*map(float, numbers))
    except (KeyError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no backoff; write exponential:2:60, linear:2:3 or constant:5"
        ) from None


def parse_step(line: str) -> CellOptions:
    """Read what stands on the first line of a durable cell, after the magic."""
    parsed = step_parser().parse_line(line)
    policy = Policy(parsed.retries, parsed.backoff or backoff.exponential(), timeout=parsed.timeout)
    return CellOptions(parsed.name, policy, parsed.on_edit, parsed.once, parsed.on_drift)
