"""Parse the lines of magics: options, durations, backoffs, values."""

from __future__ import annotations

import argparse
import functools
import io
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from IPython.core.error import UsageError

from durable_nb import settings
from durable_nb.engine.resolve import ANSWERS
from durable_nb.notebook.cell import CellOptions
from durable_nb.notebook.display import badge
from durable_nb.notebook.every_cell import CELLS
from durable_nb.notebook.made_again import LIVE
from durable_nb.notebook.namespace.unnamed import is_unnamed
from durable_nb.workflow import backoff
from durable_nb.workflow.retry import Policy

__all__ = [
    "LineParser",
    "fork_parser",
    "parse_resolve",
    "parse_signal",
    "parse_step",
    "plan_parser",
    "reset_parser",
    "runs_parser",
    "status_parser",
    "unmarked_options",
    "workflow_parser",
]

POLICIES = ("rerun", "keep", "ask", "error")
UNITS = {"s": 1, "m": 60, "h": 3600}
BACKOFFS: dict[str, Callable[..., backoff.BackoffStrategy]] = {
    "exponential": backoff.exponential,
    "linear": backoff.linear,
    "constant": backoff.constant,
}


LINE_WIDTH = 1000


def _one_line(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=LINE_WIDTH)


class LineParser(argparse.ArgumentParser):
    """Parses the line of a magic; reports errors in one line, and rejects repeated options."""

    def __init__(self, magic: str) -> None:
        super().__init__(prog=magic, add_help=False, allow_abbrev=False, formatter_class=_one_line)

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError with a message and the usage."""
        raise UsageError(f"{self.prog}: {message}. {self.usage_line()}")

    def usage_line(self) -> str:
        """Return the usage: positional arguments first, then the options."""
        placed = [action for action in self._actions if not action.option_strings]
        options = [action for action in self._actions if action.option_strings]
        return " ".join(filter(None, (f"usage: {self.prog}", self._spelled(placed), self._spelled(options))))

    def _spelled(self, actions: list[argparse.Action]) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(None, actions, (), prefix="")
        return formatter.format_help().strip().removeprefix(self.prog).strip()

    def parse_line(self, line: str) -> argparse.Namespace:
        """Split a line as a shell would, and parse it.

        Raises:
            UsageError: The line is invalid, or an option is given more than once.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            self.error(str(error))
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        for flag in sorted({flag for flag in flags if flags.count(flag) > 1}):
            self.error(f"{flag} is given more than once")
        return self.parse_args(words)

    def first_words(self, line: str, count: int) -> tuple[list[str], str]:
        """Return the first words of a line and the unparsed rest, which may contain quotes and braces.

        Args:
            line: The line.
            count: The number of words.

        Raises:
            UsageError: A quotation in the first words is not closed.
        """
        typed = io.StringIO(line)
        words = shlex.shlex(typed, posix=True)
        words.whitespace_split, words.commenters = True, ""
        try:
            first = [word for _ in range(count) if (word := words.get_token()) is not None]
        except ValueError as error:
            self.error(str(error))
        return first, typed.read().strip()


def workflow_parser() -> LineParser:
    """Return the parser for the line of ``%durable_workflow``."""
    parser = LineParser("%durable_workflow")
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID")
    parser.add_argument("--db", metavar="URL")
    parser.add_argument("--name", metavar="NAME")
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--done", action="store_true")
    parser.add_argument("--badge", choices=badge.BADGES)
    parser.add_argument("--cells", choices=CELLS)
    return parser


@functools.cache  # making it takes 2 ms, and each cell needs it
def step_parser() -> LineParser:
    parser = LineParser("%%durable_step")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--retries", type=_count, default=0, metavar="N")
    parser.add_argument("--backoff", type=parse_backoff, metavar="NAME:SECONDS[:SECONDS]")
    parser.add_argument("--timeout", type=parse_seconds, metavar="SECONDS")
    parser.add_argument("--on-edit", choices=POLICIES, default=settings.CELL_ON_EDIT)
    parser.add_argument("--on-drift", choices=POLICIES, default=settings.CELL_ON_DRIFT)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--live", choices=LIVE, default="keep")
    parser.add_argument("--exclude", type=_names, default=(), metavar="NAME[,NAME]")
    return parser


def runs_parser() -> LineParser:
    """Return the parser for the line of ``%durable_runs``."""
    parser = LineParser("%durable_runs")
    parser.add_argument("--db", metavar="URL")
    return parser


def status_parser() -> LineParser:
    """Return the parser for the line of ``%durable_status``."""
    parser = LineParser("%durable_status")
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID")
    parser.add_argument("--db", metavar="URL")
    return parser


def reset_parser() -> LineParser:
    """Return the parser for the line of ``%durable_reset``."""
    parser = LineParser("%durable_reset")
    parser.add_argument("step", metavar="STEP")
    parser.add_argument("--downstream", action="store_true")
    return parser


def fork_parser() -> LineParser:
    """Return the parser for the line of ``%durable_fork``."""
    parser = LineParser("%durable_fork")
    parser.add_argument("new_run", metavar="NEW_RUN")
    parser.add_argument("--from", dest="step", metavar="STEP")
    return parser


def plan_parser() -> LineParser:
    """Return the parser for the line of ``%durable_plan``."""
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
    """Parse ``NAME VALUE [--run ID]``; the value is not split into words, since JSON contains quotes."""
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
    """Parse ``STEP ANSWER [EXPRESSION]``; the expression is not split into words."""
    parser = _resolve_parser()
    words, rest = parser.first_words(line, 2)
    options = parser.parse_args(words)
    options.value = rest or None
    return options


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected 0, 1, 2, …")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(name.isidentifier() or is_unnamed(name) for name in names):
        raise argparse.ArgumentTypeError(f"invalid names {text!r}: expected e.g. token or token,password")
    return names


def parse_seconds(text: str) -> float:
    """Return the seconds of a duration on a magic's line, with an optional unit: s, m or h.

    Raises:
        argparse.ArgumentTypeError: The duration is invalid, or not positive.

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
        raise argparse.ArgumentTypeError(f"invalid duration {text!r}: expected e.g. 30s, 1.5m or 2h")
    return seconds


def parse_backoff(text: str) -> backoff.BackoffStrategy:
    """Return the backoff strategy named on a magic's line.

    Raises:
        argparse.ArgumentTypeError: The name or its numbers are invalid.

    Example:
        >>> parse_backoff("exponential:2:60")(0)
        2.0
    """
    name, *numbers = text.split(":")
    try:
        return BACKOFFS[name](*map(float, numbers))
    except (KeyError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"invalid backoff {text!r}: expected e.g. exponential:2:60, linear:2:3 or constant:5"
        ) from None


def parse_step(line: str) -> CellOptions:
    """Parse the options on the first line of a durable cell, after the magic."""
    parsed = step_parser().parse_line(line)
    policy = Policy(parsed.retries, parsed.backoff or backoff.exponential(), timeout=parsed.timeout)
    return CellOptions(
        parsed.name,
        policy,
        parsed.on_edit,
        parsed.once,
        parsed.on_drift,
        live=parsed.live,
        exclude=parsed.exclude,
    )


def unmarked_options(step_id: str, *, again: bool) -> CellOptions:
    """Return the options of a cell without a magic.

    Args:
        step_id: The id of its step.
        again: Whether this pass has executed the cell before.
    """
    return replace(parse_step(shlex.quote(step_id)), marked=False, again=again, live="rerun")
